"""Settles what two databases of a node recorded without knowing of each other, once all of it is here.

That is the part of an old primary's events that nobody else knew. Its database settles them itself, if it is
promoted again before it has handed them over; else the new primary does.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tally.events import (
    CreditCreated,
    CreditDeleted,
    CustomerDeleted,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
)
from tally.recovery.competing import drop, make_later, reconcile, repeated
from tally.recovery.conflicts import Conflict, conflicts_of, keep
from tally.recovery.diverged import PARTED, UPDATES
from tally.recovery.taking_back import Store, event_of
from tally.store.database import Database
from tally.store.incarnations import ROOM
from tally.store.outbox import CUSTOMER_ID, Outbox, OwnEvent, outboxes, rows_with

UNTOLD = "untold"  # in meta: own events that nobody knew when the database became a standby's
HANDED = "handed"  # in meta: events that were handed over, and have not all come


def unsettled(database: Database, key: str) -> dict[str, int]:
    """The names with events to be settled, each with the last number before these."""
    return msgspec.json.decode(database.meta(key) or "{}", type=dict[str, int])


def note_unsettled(database: Database, key: str, before: Mapping[str, int]) -> None:
    """Note the numbers after which events are to be settled. In the open transaction."""
    own = outboxes(database).items()
    left = {source: before[source] for source, each in own if each.last() > before.get(source, each.last())}
    database.set_meta(key, msgspec.json.encode(left).decode())


def settle_own(store: Store) -> bool:
    """Settle the database's own events that nobody knew; answer whether there were any.

    In a transaction of its own. Do it before they are published. A database that parted ways with another of
    its name has made its changes again, on top of the other's. Of these only the conflicts are told.
    """
    database = store.database
    if parted := str(database.meta(PARTED) or ""):
        with database.transaction():
            for source in parted.split():
                rows = outboxes(database)[source].after(0, -1)
                own = [OwnEvent(row, event_of(row)) for row in rows]
                keep(database, conflicts_of(database, own), "what this database had recorded beside another")
            database.set_meta(PARTED, "")
    if not unsettled(store.database, UNTOLD):
        return False
    with store.database.transaction():
        settle(store, UNTOLD)
    return True


def settle(store: Store, key: str) -> None:
    """Settle those events. They are applied here, and so are the others'. In the open transaction."""
    database = store.database
    before = unsettled(database, key)
    for source, outbox in outboxes(database).items():
        if source in before:
            rows = outbox.after(before[source], -1)
            _settle(store, outbox, [OwnEvent(row, event_of(row)) for row in rows])
    note_unsettled(database, key, {})


def _settle(store: Store, outbox: Outbox, own: Sequence[OwnEvent]) -> None:
    database = store.database
    reconcile(store, own)
    make_later(store, [each.event for each in own if type(each.event) in UPDATES])
    twice = repeated(database, outbox, own)
    in_use = drop(store, twice)
    found = [Conflict(each, "its request came twice, and it is in use: so both stay") for each in in_use]
    found += _lost_with(database, [each.event for each in twice if isinstance(each.event, InvoiceCreated)])
    found += _of_deleted_customers(database, outbox, own)
    what = "what a standby had accepted while it was the primary"
    keep(database, [*found, *conflicts_of(database, own)], what)


def _lost_with(database: Database, invoices: Sequence[InvoiceCreated]) -> list[Conflict]:
    """Changes and credits of invoices that a repeated request had recorded once more, and that are gone."""
    ids = {each.id for each in invoices}
    if not ids:
        return []
    customers = {int(each.customer_id) for each in invoices}
    rows = rows_with(database, CUSTOMER_ID, customers, "type IN ('InvoiceUpdated', 'CreditCreated')")
    found = []
    for own in (OwnEvent(row, event_of(row)) for row in rows):
        match own.event:
            case InvoiceUpdated(id=id) | CreditCreated(invoice_id=id) if id in ids:
                found.append(
                    Conflict(own, f"the request of the invoice {id} came twice; its other answer counts")
                )
    return found


def _of_deleted_customers(database: Database, outbox: Outbox, own: Iterable[OwnEvent]) -> list[Conflict]:
    """Invoices and credits that others recorded meanwhile for customers that these events delete."""
    deleted = {int(each.event.id) for each in own if isinstance(each.event, CustomerDeleted)}
    if not deleted:
        return []
    where = f"sequence >= {outbox.row(ROOM)} AND (type LIKE 'Invoice%' OR type LIKE 'Credit%')"
    rows = rows_with(database, CUSTOMER_ID, deleted, where)
    every = [OwnEvent(row, event_of(row)) for row in rows]
    gone = {each.event.id for each in every if isinstance(each.event, InvoiceDeleted | CreditDeleted)}
    return [
        Conflict(each, f"its customer {each.event.customer_id} was deleted meanwhile, so it counts nowhere")
        for each in every
        if isinstance(each.event, InvoiceCreated | CreditCreated) and each.event.id not in gone
    ]
