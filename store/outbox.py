"""The outbox: events that are committed together with their change.

Sequences are contiguous within a database: a sequence is given inside the write transaction, and rolled back
with it.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple, replace

from tally.events import BY_FIELD, REQUEST_KEY_FIELD, TRACE_PARENT_FIELD, Event, EventRange, Id, encode
from tally.store import ranges
from tally.store.cause import UNKNOWN, Cause, RequestKey
from tally.store.database import Database, listed
from tally.store.ids import give, raise_sequence
from tally.store.incarnations import ROOM, Incarnation, begin, earlier_sources, end_at, incarnations, is_begun
from tally.store.lacking import LACKING
from tally.store.ranges import Range

FURTHER = (TRACE_PARENT_FIELD, REQUEST_KEY_FIELD, BY_FIELD)  # the optional fields of an entry
MOST_TOGETHER = 10_000  # events published in one piece: Redis does nothing else meanwhile

T = TypeVar("T")

SCHEMA = """
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    payload BLOB NOT NULL,
    trace_parent TEXT,
    request_key TEXT,
    by_user TEXT,
    more INTEGER
) STRICT; -- `more`: how many of the rows behind it belong to the same request; NULL for none

-- How far publication had got at some times, to know which rows were published how long ago.
CREATE TABLE publication (
    at INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT;
"""

# 0.1.0 lacks these columns.
ADDED = """
ALTER TABLE outbox ADD COLUMN request_key TEXT;
ALTER TABLE outbox ADD COLUMN by_user TEXT;
ALTER TABLE outbox ADD COLUMN more INTEGER;
"""


class OutboxRow(Struct, frozen=True, gc=False):
    """An event as it will appear on the stream."""

    sequence: int
    type: str
    payload: bytes
    trace_parent: str | None = None
    request_key: str | None = None
    by: str | None = None

    @property
    def key(self) -> RequestKey | None:
        """The request with an Idempotency-Key that it belongs to, if any."""
        return RequestKey.parse(self.request_key) if self.request_key else None

    def further(self) -> dict[bytes, str]:
        """The optional fields of its entry."""
        values = self.trace_parent, self.request_key, self.by
        return {name: value for name, value in zip(FURTHER, values, strict=True) if value}


class OwnEvent(Struct, frozen=True, gc=False):
    """A database's own event, and its present or former outbox row."""

    row: OutboxRow
    event: Any


REQUEST = "request_key IS NOT NULL AND substr(request_key, 1, instr(request_key, ':') - 1)"
"""SQL for the `request` of a row's key."""
ID, CUSTOMER_ID = (
    f"CAST(json_extract(CAST(payload AS TEXT), '$.{field}') AS INTEGER)" for field in ("id", "customer_id")
)
"""SQL for a number in a row's event."""


def rows_with(
    database: Database, what: str, wanted: Iterable[str | int], where: str = "TRUE"
) -> list[OutboxRow]:
    """The rows of all names, in order, that have one of the `wanted` values as `what`, such as ID.

    `where` is another condition. Their `sequence` counts the rows of all names. Reads the whole outbox,
    unless `where` limits the sequence.
    """
    rows = database.rows(
        "SELECT sequence, type, payload, trace_parent, request_key, by_user FROM outbox"
        f" WHERE {where} AND {what} IN (SELECT value FROM json_each(?)) ORDER BY sequence",
        (listed(wanted),),
    )
    return list(starmap(OutboxRow, rows))


class Outbox:
    """The events of a database under one of its names, in the order of their commits.

    By default under the name that was current when this was made. Numbers are those of the events: see
    incarnations.
    """

    def __init__(self, database: Database, incarnation: Incarnation | None = None) -> None:
        self.database = database
        self._incarnation = incarnation or incarnations(database)[-1]
        self._base = self._incarnation.base
        self._added = 0
        self._last_row = 0  # of the added events
        self._current: tuple[int, Incarnation] | None = None  # with the transaction that looked it up

    @property
    def source(self) -> str:
        """The source name of these events."""
        return self._incarnation.source

    @property
    def is_first(self) -> bool:
        """Whether the database had no name before this one."""
        return self._base == 0

    @property
    def is_written_to(self) -> bool:
        """Whether new events get this name. False once the database has begun another."""
        return self._incarnation.last is None and incarnations(self.database)[-1] == self._incarnation

    def add(self, events: Sequence[Event], cause: Cause = UNKNOWN) -> None:
        """Append the events of a request, in the open transaction of their change.

        They get the database's current name. If it can't know that it holds that name's newest events, it
        begins a new name; without events, it doesn't.
        """
        if not events:
            return
        self._begin_if_in_doubt()
        together = len(events) <= MOST_TOGETHER
        trace, request, by = cause
        key = request and f"{request}{len(events)}"
        rows = [
            (type(event).__name__, encode(event), trace, key, by, (together and more) or None)
            for more, event in zip(range(len(events) - 1, -1, -1), events, strict=True)
        ]
        self.database.insert("outbox (type, payload, trace_parent, request_key, by_user, more)", rows)
        self._added += len(events)
        self._last_row = self.database.last_row_id()

    def telling(self, change: Callable[[], T]) -> tuple[T, EventRange | None]:
        """The answer of `change`, and the events that it added, in the open transaction.

        If it added none, because nothing changed, the newest event, if any.
        """
        before = self._added
        answer = change()
        if added := self._added - before:
            now = self.database.transactions  # it is looked up once in each transaction
            if self._current is None or self._current[0] != now:
                self._current = now, incarnations(self.database)[-1]
            current = self._current[1]
            last = self._last_row - current.base
            return answer, EventRange(current.source, last - added + 1, last)
        newest = Outbox(self.database)
        last = newest.last()
        return answer, EventRange(newest.source, last, last) if last else None

    def _begin_if_in_doubt(self) -> None:
        """Begin a new name if the last one is in doubt. In the transaction, before numbers are given.

        Raises NotInPlace, NotPrimary or NotRenewed if nothing may be published from here.
        """
        if refusal := self.database.refusal():
            raise refusal
        if not self.database.is_newest() and not is_begun(self.database):
            begin(self.database, Outbox(self.database).last())
            self._current = None

    def give(self, table: str, count: int) -> list[Id]:
        """The ids of so many new rows. The write lock keeps others from getting the same."""
        self._begin_if_in_doubt()
        return give(self.database, table, count)

    def after(self, sequence: int, limit: int) -> list[OutboxRow]:
        """Up to `limit` events that follow `sequence`, in order."""
        return self._rows(Range(sequence + 1, ROOM), limit)

    def batch(self, sequence: int, limit: int) -> list[OutboxRow]:
        """Like `after`, but more if that would cut a request: its events stay together."""
        rows = self.after(sequence, limit)
        if len(rows) == limit:
            last = rows[-1].sequence
            more = self.database.value("SELECT more FROM outbox WHERE sequence = ?", (self.row(last),))
            rows += self.after(last, more) if more else []
        return rows

    def of(self, wanted: Iterable[Range], limit: int = -1) -> list[OutboxRow]:
        """The events with these sequences that the outbox still holds, in order; up to `limit` of them."""
        rows: list[OutboxRow] = []
        for each in wanted:
            if len(rows) == limit:
                break
            rows += self._rows(each, limit - len(rows) if limit > 0 else limit)
        return rows

    def _rows(self, wanted: Range, limit: int) -> list[OutboxRow]:
        rows = self.database.rows(
            "SELECT sequence - ?3, type, payload, trace_parent, request_key, by_user FROM outbox"
            " WHERE sequence BETWEEN ?1 AND ?2 ORDER BY sequence LIMIT ?4",
            (self._base + wanted.first, self._base + wanted.last, self._base, limit),
        )
        return list(starmap(OutboxRow, rows))

    def payload(self, sequence: int) -> bytes | None:
        """The payload of one event, or None when the outbox doesn't hold it."""
        return next((row.payload for row in self.of([Range(sequence, sequence)])), None)

    def row(self, sequence: int) -> int:
        """The event's row in the table, which has the events of all names in the order of their commits."""
        return self._base + sequence

    def last(self) -> int:
        """The sequence of the newest event ever; 0 before the first."""
        if self._incarnation.last is not None:
            return self._incarnation.last
        row: int = self.database.value("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'") or 0
        if row >= self._base + ROOM:  # it has ended since this was made
            return outboxes(self.database)[self.source].last()
        return max(row - self._base, 0)

    def first(self) -> int:
        """The sequence of the oldest kept event, or the one that the next event will get."""
        sql = "SELECT min(sequence) FROM outbox WHERE sequence > ? AND sequence < ?"
        oldest: int | None = self.database.value(sql, (self._base, self._base + ROOM))
        return self.last() + 1 if oldest is None else oldest - self._base

    def published(self) -> int:
        """The last sequence that Redis was seen to hold; -1 if it lacks events of the previous name."""
        return min(max((self.database.meta("published") or 0) - self._base, -1), self.last())

    def newest_published(self) -> int:
        """The sequence of the newest kept event that Redis was seen to hold; 0 without one."""
        sql = "SELECT max(sequence) FROM outbox WHERE sequence > ? AND sequence <= ?"
        newest: int | None = self.database.value(sql, (self._base, self._base + max(self.published(), 0)))
        return 0 if newest is None else newest - self._base

    def mark_published(self, sequence: int) -> None:
        """Remember how far Redis has got. Not durable: after a crash, Redis itself is asked.

        Events that Redis has lost count as published only once they are published again.
        """
        row = self._base + sequence
        with self.database.relaxed(), self.database.transaction():
            self.database.execute("DELETE FROM publication WHERE sequence > ?", (row,))
            self.database.set_meta("published", row)

    def restore(self, rows: Sequence[OutboxRow]) -> None:
        """Take back events that are newer than the newest one, in the open transaction.

        New events then get the numbers after them, as if nothing had been lost.
        """
        own = list(map(astuple, rows))
        if self._base:
            own = [(self._base + sequence, *rest) for sequence, *rest in own]
        self.database.insert("outbox (sequence, type, payload, trace_parent, request_key, by_user)", own)
        self.reach(rows[-1].sequence)

    def reach(self, last: int) -> None:
        """Never give the numbers up to `last` again. In the open transaction."""
        if self.is_written_to:
            raise_sequence(self.database, "outbox", self._base + last)
        else:
            self._end_at(max(last, outboxes(self.database)[self.source].last()))

    def withdraw(self, after: int) -> None:
        """Remove the events that follow `after`. In the open transaction.

        They will be published under another name: this one must have ended.
        """
        self.database.execute(
            "DELETE FROM outbox WHERE sequence > ? AND sequence < ?", (self._base + after, self._base + ROOM)
        )
        self._end_at(after)

    def _end_at(self, last: int) -> None:
        end_at(self.database, self.source, last)
        self._incarnation = replace(self._incarnation, last=last)

    def note_publication(self, at: int, every: int) -> None:
        """Note how far publication has got at `at`, unless that was noted within `every` (seconds)."""
        latest = self.database.value("SELECT max(at) FROM publication")
        if latest is None or at >= latest + every or at < latest:
            row = self.database.meta("published") or 0
            self.database.execute("INSERT OR REPLACE INTO publication VALUES (?, ?)", (at, row))

    def prune(self, published_before: int, limit: int) -> int:
        """Forget up to `limit` events that were published before that time (seconds); answer how many.

        The last event is kept: its payload shows the relay that Redis knows this outbox.
        """
        [(upto, first, last)] = self.database.rows(
            "SELECT (SELECT max(sequence) FROM publication WHERE at <= ?),"
            " (SELECT min(sequence) FROM outbox), (SELECT max(sequence) FROM outbox)",  # each is one lookup
            (published_before,),
        )
        if upto is None or first is None:
            return 0
        upto = min(upto, self.database.meta("published") or 0, last - 1, first + limit - 1)
        self.database.execute("DELETE FROM outbox WHERE sequence <= ?", (upto,))
        pruned = self.database.changes()
        self.database.execute(
            "DELETE FROM publication WHERE sequence <= ? AND at < (SELECT max(at) FROM publication)", (upto,)
        )
        return pruned

    def depth(self) -> int:
        """How many events wait to be published, under any name."""
        return sum(each._waiting() for each in outboxes(self.database).values())

    def _waiting(self) -> int:
        """How many of this name wait. Lost events are not counted: they can't be published any more."""
        first, last = max(self.published(), 0) + 1, self.last()
        lacking = ranges.both(LACKING.of(self.database).get(self.source, []), [Range(first, last)])
        return last - first + 1 - ranges.count(lacking)


def outboxes(database: Database) -> dict[str, Outbox]:
    """The outbox of each name that the database ever had, by name, the oldest first."""
    return {each.source: Outbox(database, each) for each in incarnations(database)}


def last_row(database: Database) -> int:
    """The row of the newest event, under any name; 0 before the first."""
    return int(database.value("SELECT max(sequence) FROM outbox") or 0)


def recorded(database: Database) -> int:
    """How many events there ever were, under any name."""
    return sum(each.last() for each in outboxes(database).values())


def known_of(database: Database) -> dict[str, int]:
    """Every name that a database had, and the sequence up to which it has that name's events."""
    return earlier_sources(database) | {each.source: each.last() for each in outboxes(database).values()}
