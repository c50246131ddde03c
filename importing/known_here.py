"""Looks up rows of customers.db, in the open transaction or snapshot."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import date

from tally.events import Id
from tally.importing import known
from tally.importing.known import Content, KnownRow
from tally.store import likeness
from tally.store.database import Database
from tally.store.likeness import Row
from tally.store.parts import Table

_TABLES: tuple[Table, ...] = ("invoice", "credit")


class KnownHere:
    """Looks up rows by index. A name is found with either form of its accents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """See Known; but of names that differ in case, only those that differ in A to Z."""
        either = {form for name in names for form in (name, unicodedata.normalize("NFD", name))}
        found: defaultdict[str, list[int]] = defaultdict(list)
        for name, id in likeness.customers_named(self._database, account_id, either):
            found[known.normal(name)].append(id)
        return dict(found)

    def referenced(self, account_id: Id, references: Collection[str]) -> list[KnownRow]:
        """See Known."""
        return [
            row
            for table in _TABLES
            for row in _rows(table, likeness.referenced(self._database, table, account_id, references))
        ]

    def like(self, account_id: Id, wanted: Collection[Content]) -> list[KnownRow]:
        """See Known. The customers tell the account."""
        days = [day for _, day, _ in wanted]
        customers, first, last = {customer for customer, _, _ in wanted}, min(days), max(days)
        return [
            row
            for table in _TABLES
            for row in _rows(table, likeness.of_customers(self._database, table, customers, first, last))
            if (row.customer_id, row.date, row.cents) in wanted
        ]


def _rows(table: Table, rows: Iterable[Row]) -> Iterable[KnownRow]:
    for id, customer_id, day, cents, reference in rows:
        signed = -cents if table == "credit" else cents
        yield KnownRow(id, customer_id, date.fromisoformat(day), signed, reference or "")
