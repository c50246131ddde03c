"""Compares a file's purchases with customers.db, and records them there: all or nothing."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import date

from msgspec import UNSET

from tally.events import Id
from tally.importing.comparing import Comparison, Identity
from tally.importing.known import Content, KnownRow, normal
from tally.importing.purchase_file import PurchaseFile
from tally.importing.tables import Reading
from tally.store import likeness
from tally.store.cause import Cause, short_hash
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.import_note import Kind
from tally.store.likeness import Row
from tally.store.parts import Table
from tally.store.records import NewCredit, NewCustomer, NewInvoice

_TABLES: tuple[Table, ...] = ("invoice", "credit")


def compare(store: Customers, file: PurchaseFile, reading: Reading, account_id: Id) -> Comparison:
    """Compare a file's rows for one account with the store, in a snapshot, or in the transaction to record.

    A row is recognised by its own reference if the file has references, else by customer, date and amount.
    """
    identity = Identity(overlapping=reading.id is None)
    there = KnownHere(store.database)
    compared = Comparison(file, reading, there, lambda _: account_id, identity, known_ids=[])
    compared.compare_customers()
    compared.compare_purchases()
    return compared


def record(
    store: Customers, compared: Comparison, require_account: bool, owner: str | None, cause: Cause
) -> None:
    """Record new rows that are not bad, in the open transaction in which they were compared."""
    buyers = sorted(compared.new_buyers())
    names = compared.file.purchases.buyers
    new = [NewCustomer(names[place].name, Id(compared.accounts[place] or 0)) for place in buyers]
    if new:
        made = store.create_customers(new, require_account, _part(cause, "customers"))
        for place, id in zip(buyers, made, strict=True):
            compared.ids[place] = id
    invoices, credits = _new(compared)
    if invoices:
        store.create_invoices(invoices, _part(cause, "invoices"))
    if credits:
        store.credits.create(credits, _part(cause, "credits"), owner)


def _new(compared: Comparison) -> tuple[list[NewInvoice], list[NewCredit]]:
    invoices, credits = list[NewInvoice](), list[NewCredit]()
    for place, each in enumerate(compared.file.purchases):
        if not compared.is_new(place):
            continue
        customer = Id(compared.ids[each.buyer] or 0)
        reference = UNSET if each.reference is None else each.reference
        if each.cents < 0:
            credits.append(NewCredit(customer, each.date, -each.cents, reference=reference))
        else:
            invoices.append(NewInvoice(customer, each.date, each.cents, reference))
    return invoices, credits


def _part(cause: Cause, kind: Kind) -> Cause:
    """The cause of one part. For the stream's readers, a part is a batch of its own: all or nothing.

    If a machine is lost, some parts may be lost with it. So no part says that the whole was done: a file that
    is sent again is compared again, and only the missing rows are recorded.
    """
    if cause.request_key is None:
        return cause
    request, _, content = cause.request_key.partition(":")
    return cause._replace(request_key=f"{short_hash(f'{request} {kind}'.encode())}:{content}batch-")


class KnownHere:
    """Looks up rows by index. A name is found with either form of its accents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """See Known; but of names that differ in case, only those that differ in A to Z."""
        either = {form for name in names for form in (name, unicodedata.normalize("NFD", name))}
        found: defaultdict[str, list[int]] = defaultdict(list)
        for name, id in likeness.customers_named(self._database, account_id, either):
            found[normal(name)].append(id)
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
