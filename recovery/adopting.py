"""Taking over what another system has recorded, with its ids and dates.

That system's own events are on the stream, and accounts.db counts them. So customers and invoices are
recorded without telling anybody: told again, they would count twice. Two kinds of rows are told, because the
stream can't have told them: accounts, and invoices with a negative amount. Nobody here can read a negative
invoice, so it becomes a credit.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from tally.events import AccountCreated, CustomerCreated, InvoiceCreated, rfc3339
from tally.recovery.standing import note_told_before
from tally.recovery.taking_back import Store
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.database import Database, numbers
from tally.store.errors import StoreError
from tally.store.ids import SPAN, node_of, raise_ids
from tally.store.outbox import OutboxRow, OwnEvent
from tally.store.read_model import ADOPTED
from tally.store.records import NewCredit

AT_ONCE = 10_000  # rows that are compared and recorded together

_COLUMNS = {
    "account": ("name", "description", "owned_by", "created_date"),
    "customer": ("account_id", "name", "created_date"),
    "invoice": ("customer_id", "purchase_price_cents", "purchase_date", "created_date"),
}
"""The columns that a creation sets in each table, besides the id. The event's fields have the same names."""

Created = TypeVar("Created", bound=AccountCreated | CustomerCreated | InvoiceCreated)


class CannotAdopt(StoreError):
    """A row can't be taken over; the message says which, and why."""


class Adopted(NamedTuple):
    """How many rows were taken over, and how many had been before."""

    new: int = 0
    known: int = 0

    def plus(self, rows: Sequence[Any], new: Sequence[Any]) -> "Adopted":
        """With these rows, of which some were `new`."""
        return Adopted(self.new + len(new), self.known + len(rows) - len(new))


def adopt_accounts(store: Accounts, created: Iterable[AccountCreated]) -> Adopted:
    """Open accounts with their ids, and publish them: all of them, or none when it raises CannotAdopt.

    May be repeated.
    """
    adopted = Adopted()
    with store.database.transaction():
        for events in _parts(store.database, "account", created):
            new = _record(store, "account", events)
            store.outbox.add(new)
            adopted = adopted.plus(events, new)
        note_told_before(store.database)
    return adopted


def adopt_customers(store: Customers, created: Iterable[CustomerCreated]) -> Adopted:
    """Record customers, in the open transaction. May be repeated.

    Raises CannotAdopt: then the transaction must not be committed.
    """
    adopted = Adopted()
    for events in _parts(store.database, "customer", created):
        new = _record(store, "customer", events)
        adopted = adopted.plus(events, new)
    return adopted


def adopt_invoices(store: Customers, created: Iterable[InvoiceCreated]) -> tuple[Adopted, Adopted]:
    """Like `adopt_customers`; negative invoices become credits. Answers the counts of both."""
    invoices, credits = Adopted(), Adopted()
    for events in _parts(store.database, "invoice", created):
        _insist_on_customers(store.database, events)
        good = [each for each in events if each.purchase_price_cents >= 0]
        new = _record(store, "invoice", good)
        invoices = invoices.plus(good, new)
        negative = [each for each in events if each.purchase_price_cents < 0]
        credits = credits.plus(negative, _credit(store, negative))
        _reach(store.database, "invoice", negative)
    return invoices, credits


def _record(store: Store, table: str, events: Sequence[Created]) -> list[Created]:
    """Record the events whose rows are not there yet, and answer them."""
    new, untold = _new(store.database, table, events), OutboxRow(0, "", b"", None)
    store.make_again([OwnEvent(untold, event) for event in new])
    _reach(store.database, table, new)
    if new and table in ADOPTED:
        highest: int = store.database.meta(ADOPTED[table]) or 0
        store.database.set_meta(ADOPTED[table], max(highest, *(event.id for event in new)))
    return new


def _credit(store: Customers, negative: Sequence[InvoiceCreated]) -> list[NewCredit]:
    credits = {
        f"invoice {each.id}": NewCredit(
            each.customer_id, each.purchase_date, -each.purchase_price_cents, reference=f"invoice {each.id}"
        )
        for each in negative
    }
    rows = store.database.rows(
        "SELECT reference, customer_id, credited_cents, credit_date FROM credit"
        " WHERE reference IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode([*credits]).decode(),),
    )
    held = {reference: rest for reference, *rest in rows}
    new = []
    for reference, each in credits.items():
        wanted = [each.customer_id, each.credited_cents, str(each.credit_date)]
        if reference not in held:
            new.append(each)
        elif held[reference] != wanted:
            raise CannotAdopt(f"There is another credit with the reference {reference!r} already")
    if new:
        store.credits.create(new)
        note_told_before(store.database)
    return new


def _insist_on_customers(database: Database, events: Sequence[InvoiceCreated]) -> None:
    known = _held(database, "customer", {each.customer_id for each in events})
    for each in events:
        if each.customer_id not in known:
            raise CannotAdopt(f"The invoice {each.id} is of customer {each.customer_id}, who isn't there")


def _parts(database: Database, table: str, events: Iterable[Created]) -> Iterator[list[Created]]:
    """The events by parts. Refuses ids of another node's range: it may give them to other rows one day."""
    left = iter(events)
    while part := [*islice(left, AT_ONCE)]:
        for event in part:
            if node_of(event.id) != database.node:
                raise CannotAdopt(
                    f"The {table} {event.id} can't keep its id: node {database.node} has those from "
                    f"{database.node * SPAN + 1} to {(database.node + 1) * SPAN}"
                )
        yield part


def _held(database: Database, table: str, ids: Collection[int]) -> dict[int, tuple[Any, ...]]:
    """The table's rows that have these ids: the columns behind the id."""
    sql = f"SELECT id, {', '.join(_COLUMNS[table])} FROM {table} WHERE id IN carray(?)"  # noqa: S608
    return {id: tuple(rest) for id, *rest in database.rows(sql, (numbers(sorted(ids)),))}


def _new(database: Database, table: str, events: Sequence[Created]) -> list[Created]:
    """The events whose rows are not there yet. Raises CannotAdopt where another row has the id of one."""
    held, new = _held(database, table, [event.id for event in events]), []
    for event in events:
        row = tuple(_stored(getattr(event, column)) for column in _COLUMNS[table])
        if event.id not in held:
            new.append(event)
            held[event.id] = row
        elif held[event.id] != row:
            raise CannotAdopt(f"There is another {table} {event.id} already")
    return new


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    return str(value) if isinstance(value, date) else value


def _reach(database: Database, table: str, events: Sequence[Any]) -> None:
    if events:
        raise_ids(database, table, max(event.id for event in events))
