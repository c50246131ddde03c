"""Two databases have published under one name: one of them goes on under another.

A database that asks Redis before it writes is safe from this. It happens when a machine is copied while it
runs, and in files that an earlier release wrote. The stream's events stay as they are. Events that only this
database has are published again under a new name. The rows that they created get new numbers, because on the
stream the old numbers mean other rows.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from tally import events
from tally.events import EVENT_TYPES, Event, encode, now
from tally.recovery.taking_back import Store, agrees, event_of, own_event, take_back
from tally.store import notes, updates
from tally.store.cause import Cause
from tally.store.copying import rewrite
from tally.store.database import Database, listed
from tally.store.idempotency import made, made_many
from tally.store.ids import give
from tally.store.incarnations import begin, begin_for
from tally.store.outbox import Outbox, OutboxRow
from tally.store.stream import EventStream

PARTED = "parted"  # in meta: names whose events were published again, and weren't looked through yet

TABLES = {kind: re.sub("Created|Updated|Deleted", "", name).lower() for name, kind in EVENT_TYPES.items()}
"""The table of the row that an event tells of: `invoice`, for InvoiceUpdated."""
CREATIONS, UPDATES, DELETIONS = (
    tuple(kind for kind in TABLES if kind.__name__.endswith(done))
    for done in ("Created", "Updated", "Deleted")
)
UNDOES: dict[type[Event], Callable[[Any], Event]] = {
    events.CustomerCreated: lambda event: events.CustomerDeleted(event.id, event.account_id, now()),
    events.InvoiceCreated: lambda event: events.InvoiceDeleted(
        event.id, event.customer_id, event.purchase_price_cents, now(), event.purchase_date
    ),
    events.CreditCreated: lambda event: events.CreditDeleted(
        event.id, event.customer_id, event.credited_cents, now(), event.credit_date
    ),
    events.AccountCreated: lambda event: events.AccountDeleted(event.id, now(), cascade=False),
}
"""By the type of a creation: the event that undoes it."""
_RENUMBER = {
    "customer": [
        "UPDATE customer SET id = ? WHERE id = ?",
        "UPDATE invoice SET customer_id = ? WHERE customer_id = ?",
        "UPDATE credit SET customer_id = ? WHERE customer_id = ?",
        "UPDATE history SET row_id = ? WHERE row_id = ? AND kind = 'customer'",
        "UPDATE updated SET id = ? WHERE id = ? AND kind = 'customer'",
    ],
    "invoice": [
        "UPDATE invoice SET id = ? WHERE id = ?",
        "UPDATE credit SET invoice_id = ? WHERE invoice_id = ?",
        "UPDATE history SET row_id = ? WHERE row_id = ? AND kind = 'invoice'",
    ],
    "credit": ["UPDATE credit SET id = ? WHERE id = ?"],
    "account": [
        "UPDATE account SET id = ? WHERE id = ?",
        "UPDATE updated SET id = ? WHERE id = ? AND kind = 'account'",
        "UPDATE history SET row_id = ? WHERE row_id = ? AND kind = 'account'",
        "INSERT INTO account_total (account_id) SELECT ?1 WHERE ?2 ON CONFLICT DO NOTHING",
    ],
}

Numbers = dict[str, dict[int, int]]
"""For each table the new number of each old one. Customers stay in the account of the old number."""

_log = structlog.get_logger()


def part_ways(store: Store, stream: EventStream, outbox: Outbox) -> None:
    """Publish events that only this database has under another name, and take the stream's events back.

    Events recorded from then on get a third name, because a copy of this database, with the same events to
    tell, uses the second name too. Can be interrupted, and must then be done again. Raises RedisError or
    StoreUnavailable.
    """
    database, source = store.database, outbox.source
    agreed, theirs = _compared(outbox, stream)
    gone = {row_of(event) for event in theirs if type(event) in DELETIONS}
    newest = {row_of(event): event for event in theirs if type(event) in UPDATES}
    with database.transaction():
        last, ours = Outbox(database).last(), outbox.after(agreed, -1)
        if ours:
            begin_for(database, last, f"{source}:{ours[0].sequence} ".encode() + ours[0].payload)
        elif outbox.is_written_to:
            begin(database, last)
        outbox.withdraw(agreed)
        numbers = _renumber(database, ours)
        again, told = Outbox(database), 0
        for row in ours:
            event: Any = renumbered(event_of(row), numbers)
            if type(event) not in CREATIONS and row_of(event) in gone:
                continue
            if before := newest.get(row_of(event)):
                event = made_after(before, event)
            if before and type(event) in UPDATES:
                newest[row_of(event)] = event
                _keep(database, event)
            again.add([event], Cause(row.trace_parent, by=row.by))
            told += 1
        _answer_with(database, numbers)
        if count := sum(map(len, numbers.values())):
            _note(database, source, numbers, count)
        if ours:
            database.set_meta(PARTED, f"{database.meta(PARTED) or ''} {again.source}")
            begin(database, again.last())
    take_back(store, stream, outbox)
    _log.warning("parted_ways", source=source, after=agreed, told_again=told, renumbered=count)


def _compared(outbox: Outbox, stream: EventStream) -> tuple[int, list[Any]]:
    """How far database and stream agree, and the stream's events after that.

    Where the stream no longer has the entries, they agree up to what this database has published. They don't
    agree in the stream's last event if that is known to be another.
    """
    agreed, theirs, seen = outbox.published(), [], 0
    differs = False
    for own in filter(None, map(own_event, stream.entries_of(outbox.source))):
        row = own.row
        if row.sequence <= seen:
            continue
        seen = row.sequence
        if not differs and not _is_same(outbox, row):
            differs, agreed = True, min(agreed, row.sequence - 1)
        if differs:
            theirs.append(own.event)
        else:
            agreed = max(agreed, row.sequence)
    if not agrees(outbox, newest := stream.published(outbox.source)):
        agreed = min(agreed, newest.last - 1)
    return max(agreed, outbox.first() - 1), theirs


def _is_same(outbox: Outbox, row: OutboxRow) -> bool:
    """Whether the event can be the one that the outbox has or had under that number."""
    return row.sequence <= outbox.last() and outbox.payload(row.sequence) in (row.payload, None)


def row_of(event: Any) -> tuple[str, int]:
    """Which row of which table an event tells of."""
    return TABLES[type(event)], event.id


def made_after(before: Any, event: Any) -> Any:
    """A change made again on top of another change of the same row: amounts add up, and the newer counts."""
    if isinstance(event, events.InvoiceDeleted):
        last = {"last_price_cents": before.purchase_price_cents, "last_date": before.purchase_date}
        return msgspec.structs.replace(event, **last)
    if type(event) not in UPDATES:
        return event
    changed: dict[str, Any] = {"revision": before.revision + 1}
    if isinstance(event, events.InvoiceUpdated):
        changed["previous_price_cents"] = before.purchase_price_cents
        changed["previous_date"] = before.purchase_date
    return msgspec.structs.replace(event, **changed)


def _keep(database: Database, event: Any) -> None:
    """Make an update win over updates that will be taken back. Its row has its values already."""
    table, id = row_of(event)
    database.execute(f"UPDATE {table} SET revision = ? WHERE id = ?", (event.revision, id))  # noqa: S608
    if table != "invoice":
        updates.is_newest(database, table, id, event.revision, encode(event))  # type: ignore[arg-type]


def _renumber(database: Database, rows: Iterable[OutboxRow]) -> Numbers:
    """Give the rows that these events created new numbers, which nobody had."""
    created: defaultdict[str, list[int]] = defaultdict(list)
    for event in map(event_of, rows):
        if type(event) in CREATIONS:
            created[TABLES[type(event)]].append(event.id)
    numbers: Numbers = {}
    for table, ids in created.items():
        fresh: list[int] = []
        for start in range(0, len(ids), 1000):
            fresh += give(database, table, len(ids[start : start + 1000]))
        numbers[table] = dict(zip(ids, fresh, strict=True))
        pairs = [(new, old) for old, new in numbers[table].items()]
        for sql in _RENUMBER[table]:
            database.executemany(sql, pairs)
    return numbers


def renumbered(event: Any, numbers: Mapping[str, Mapping[int, int]]) -> Event:
    """The event with the new numbers of its row, customer and invoice."""
    changed = {"id": numbers.get(TABLES[type(event)], {}).get(event.id, event.id)}
    if hasattr(event, "customer_id"):
        customers = numbers.get("customer", {})
        changed["customer_id"] = customers.get(event.customer_id, event.customer_id)
    if isinstance(event, events.CreditCreated) and event.invoice_id is not None:
        changed["invoice_id"] = numbers.get("invoice", {}).get(event.invoice_id, event.invoice_id)
    told: Event = msgspec.structs.replace(event, **changed)
    return told


def _answer_with(database: Database, numbers: Mapping[str, Mapping[int, int]]) -> None:
    """Have repeated requests answered with the new numbers."""
    told = {
        f"/{table}s/{old}": made(f"/{table}s", new)
        for table, renumbered in numbers.items()
        for old, new in renumbered.items()
    }
    # Reads the table once: it may have a million keys, and has no index of locations.
    sql = "SELECT key, location FROM idempotency WHERE location IN (SELECT value FROM json_each(?))"
    answers = [(told[location], key) for key, location in database.rows(sql, (listed(told),))]
    database.executemany(
        "UPDATE idempotency SET location = ?, body = ? WHERE key = ?",
        [(answer.location, answer.body, key) for answer, key in answers],
    )
    for key, body in database.rows("SELECT key, body FROM idempotency WHERE location IS NULL"):
        answered = _many(bytes(body), numbers)
        if answered != body:
            database.execute("UPDATE idempotency SET body = ? WHERE key = ?", (answered, key))


def _many(body: bytes, numbers: Mapping[str, Mapping[int, int]]) -> bytes:
    """The answer to a batch, with new numbers from the table that has all of its numbers."""
    ids = [int(id) for id in re.findall(rb'"(\d+)"', body)]
    for renumbered in numbers.values():
        if ids and all(id in renumbered for id in ids):
            return made_many(renumbered[id] for id in ids).body
    return body


def _note(database: Database, source: str, numbers: Mapping[str, Mapping[int, int]], count: int) -> None:
    """Write which number became which to a file beside the database, and note how many, for status."""
    names = (source, Outbox(database).source)
    file = database.directory / f"renumbered-{'-'.join(each.partition('@')[2] for each in names)}.csv"
    rows = [(table, old, new) for table, renumbered in numbers.items() for old, new in renumbered.items()]
    rewrite(file, lambda _: as_csv([("what", "old id", "new id"), *rows]))
    notes.note(
        database,
        f"{count:,} rows that this database had recorded as {source} beside another have other numbers now: "
        f"{file} tells which; what clients were told before holds no longer",
    )


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """The rows as they are in a CSV file."""
    content = io.StringIO(newline="")
    csv.writer(content).writerows(rows)
    return content.getvalue().encode()
