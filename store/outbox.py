"""The outbox: events that are committed together with the change they tell of.

A row's sequence is contiguous within its database: it is given inside the one write transaction,
and rolled back with it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tally.events import Event, encode
from tally.store.database import Database
from tally.store.ranges import Range

SCHEMA = """
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    payload BLOB NOT NULL,
    trace_parent TEXT
) STRICT;

-- How far publication had got at some times, to know which rows were published how long ago.
CREATE TABLE publication (
    at INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT;
"""


class OutboxRow(NamedTuple):
    """An event as it is to appear on the stream."""

    sequence: int
    type: str
    payload: bytes
    trace_parent: str | None


class Outbox:
    """The events that a database has to tell, in the order of their commits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def source(self) -> str:
        """The source that these events are published as."""
        return self._database.source

    def is_renamed(self) -> bool:
        """Whether the database was given another identity, and so these events another source."""
        return self._database.is_renamed()

    def add(self, events: Iterable[Event], trace_parent: str | None = None) -> None:
        """Append events inside the transaction that is open, which must be the one of their change."""
        self._database.insert(
            "outbox (type, payload, trace_parent)",
            [(type(event).__name__, encode(event), trace_parent) for event in events],
        )

    def after(self, sequence: int, limit: int) -> list[OutboxRow]:
        """Up to `limit` events that follow `sequence`, in order."""
        rows = self._database.rows(
            "SELECT sequence, type, payload, trace_parent FROM outbox"
            " WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (sequence, limit),
        )
        return list(map(OutboxRow._make, rows))

    def of(self, wanted: Iterable[Range]) -> list[OutboxRow]:
        """The events with these sequences that the outbox still holds, in order."""
        sql = (
            "SELECT sequence, type, payload, trace_parent FROM outbox"
            " WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
        )
        return [OutboxRow(*row) for each in wanted for row in self._database.rows(sql, each)]

    def payload(self, sequence: int) -> bytes | None:
        """The payload of one event, or None when the outbox doesn't hold it."""
        payload: bytes | None = self._database.value(
            "SELECT payload FROM outbox WHERE sequence = ?", (sequence,)
        )
        return payload

    def last(self) -> int:
        """The sequence of the newest event there ever was; 0 before the first."""
        return self._database.value("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'") or 0

    def first(self) -> int:
        """The sequence of the oldest event that is still kept, or the one the next event will get."""
        oldest: int | None = self._database.value("SELECT min(sequence) FROM outbox")
        return self.last() + 1 if oldest is None else oldest

    def published(self) -> int:
        """The last sequence that Redis was seen to hold."""
        return self._database.meta("published") or 0

    def mark_published(self, sequence: int) -> None:
        """Remember how far Redis has got. Not durable: after a crash, Redis itself is asked.

        Where Redis has lost events, they count as published when they are published again, and not before.
        """
        with self._database.relaxed(), self._database.transaction():
            self._database.execute("DELETE FROM publication WHERE sequence > ?", (sequence,))
            self._database.set_meta("published", sequence)

    def restore(self, rows: Sequence[OutboxRow]) -> None:
        """Take back events that are newer than the newest one, in the transaction that is open.

        The numbers after them are then given to new events as if nothing had been lost.
        """
        self._database.insert("outbox (sequence, type, payload, trace_parent)", rows)

    def begin_anew(self, after: int) -> None:
        """What follows `after` becomes 1, 2, ... of the new source that the database is about to get.

        What lies up to `after` is forgotten, nothing counts as published. In the transaction that is open.
        """
        last = self.last()
        self._database.execute("DELETE FROM outbox WHERE sequence <= ?", (after,))
        # By way of negative numbers: in whatever order, no two rows ever have the same.
        self._database.execute("UPDATE outbox SET sequence = ? - sequence", (after,))
        self._database.execute("UPDATE outbox SET sequence = -sequence")
        self._database.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (last - after,))
        self._database.execute("DELETE FROM publication")
        self._database.set_meta("published", 0)

    def note_publication(self, at: int, every: int) -> None:
        """Note how far publication has got at `at`, unless that was noted within `every` (seconds)."""
        latest = self._database.value("SELECT max(at) FROM publication")
        if latest is None or at >= latest + every or at < latest:
            self._database.execute("INSERT OR REPLACE INTO publication VALUES (?, ?)", (at, self.published()))

    def prune(self, published_before: int, limit: int) -> int:
        """Forget up to `limit` events that were published before that time (seconds); answer how many.

        The last event is kept: by its payload the relay knows that this is the outbox Redis knows.
        """
        upto: int | None = self._database.value(
            "SELECT max(sequence) FROM publication WHERE at <= ?", (published_before,)
        )
        if upto is None:
            return 0
        upto = min(upto, self.published(), self.last() - 1, self.first() + limit - 1)
        self._database.execute("DELETE FROM outbox WHERE sequence <= ?", (upto,))
        pruned = self._database.changes()
        self._database.execute(
            "DELETE FROM publication WHERE sequence <= ? AND at < (SELECT max(at) FROM publication)", (upto,)
        )
        return pruned

    def depth(self) -> int:
        """How many events wait to be published."""
        return max(0, self.last() - self.published())
