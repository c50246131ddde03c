"""Tally: customers, invoices and account revenue, as two services over one Redis stream."""
