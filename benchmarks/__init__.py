"""Measurements, run by hand: what Tally does on this machine, beside its limits and its peers."""
