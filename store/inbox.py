"""The inbox: notes which events a database has applied.

It is written in the transaction that applies them, and so makes every effect happen once. Sequences are kept
as ranges: a source whose events have all come takes one row.
"""

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol, TypeVar

from tally.events import EVENT_ID_FIELD, SEQUENCE_DIGITS, EventId
from tally.store.database import Database, listed
from tally.store.database import numbers as array_of
from tally.store.ranges import Range, merge, without
from tally.store.stream import LONGEST_NAME, Age, Entry

T = TypeVar("T")


class Delivered(Protocol):
    """Something that came by an entry."""

    @property
    def entry(self) -> Entry:
        """The entry."""


D = TypeVar("D", bound=Delivered)

# Known events that had no effect; `why` is one of the constants below.
ASIDE = """
CREATE TABLE inbox_aside (
    source TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (source, sequence)
) STRICT, WITHOUT ROWID;
"""

SCHEMA = f"""
CREATE TABLE inbox_range (
    source TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (source, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE inbox_name (
    name TEXT PRIMARY KEY,
    entry_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_name_by_age ON inbox_name (entry_ms);
{ASIDE}"""

DEAD = "dead"  # a dead letter, while it is one
DISCARDED = "discarded"  # a discarded dead letter
UNKNOWN = "unknown"  # its type is unknown to this release
NOWHERE = "nowhere"  # its source was put back and lacks it too; if it comes after all, it counts

_AGE = "age"  # in meta

_EVERY_SEQUENCE = 10**18 - 1  # no EventId has a higher one

EventName = EventId | str
"""Ours have source and sequence; others have their own name, or their entry's stream id and content."""


class Inbox:
    """The applied events. Use it only inside the transaction that applies them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, named: Mapping[EventName, T], entry_ms: int) -> list[T]:
        """Note events as applied, by name; answer the values of those that had not been.

        `entry_ms` is the time in the newest of their entries' stream ids.
        """
        numbered: defaultdict[str, dict[int, T]] = defaultdict(dict)
        others: dict[str, T] = {}
        for name, each in named.items():
            if isinstance(name, EventId):
                numbered[name.source][name.sequence] = each
            else:
                others[name] = each
        return self._take(numbered, others, entry_ms)

    def take_delivered(self, delivered: Iterable[D], entry_ms: int) -> list[D]:
        """Like `take`, by the names of their entries. If two have the same, the later one counts."""
        return self._take(*_by_number(delivered), entry_ms)

    def _take(self, numbered: dict[str, dict[int, T]], others: dict[str, T], entry_ms: int) -> list[T]:
        fresh = [each for name, each in others.items() if self._take_name(name, entry_ms)]
        for source, by_number in numbered.items():
            known = self._take_sequences(source, by_number.keys())
            fresh += (
                [each for n, each in by_number.items() if n not in known] if known else by_number.values()
            )
        return fresh

    def put_aside(self, names: Iterable[EventName], why: str) -> None:
        """Note that these had no effect, and are not missing; `why` is DEAD or the like.

        They can still be taken later. Events without a number can't be missing.
        """
        rows = [(each.source, each.sequence, why) for each in names if isinstance(each, EventId)]
        self._database.executemany("INSERT OR REPLACE INTO inbox_aside VALUES (?, ?, ?)", rows)

    def take_back(self, names: Iterable[EventId]) -> None:
        """Note that these are missing after all."""
        rows = [(name.source, name.sequence) for name in names]
        self._database.executemany("DELETE FROM inbox_aside WHERE source = ? AND sequence = ?", rows)

    def aside(self, why: str) -> set[EventId]:
        """The events that were put aside for that reason."""
        rows = self._database.rows("SELECT source, sequence FROM inbox_aside WHERE why = ?", (why,))
        return {EventId(*row) for row in rows}

    def first_aside(self, why: str, source: str, first: int, last: int) -> int | None:
        """The lowest of these sequences that was put aside for that reason."""
        where = "source = ? AND sequence BETWEEN ? AND ? AND why = ?"
        sql = f"SELECT min(sequence) FROM inbox_aside WHERE {where}"
        lowest: int | None = self._database.value(sql, (source, first, last, why))
        return lowest

    def missing(self, source: str, last: int) -> list[Range]:
        """The sequences of `source` up to `last` that were neither applied nor put aside, ascending."""
        known = self._database.rows(
            "SELECT first, last FROM inbox_range WHERE source = ?1"
            " UNION ALL SELECT sequence, sequence FROM inbox_aside WHERE source = ?1",
            (source,),
        )
        return without([Range(1, last)], [Range(*row) for row in known]) if last > 0 else []

    def has_applied(self, name: EventName) -> bool:
        """Whether this event was applied."""
        if isinstance(name, EventId):
            near = self._ranges(name.source, name.sequence, name.sequence)
            return any(each.first <= name.sequence <= each.last for each in near)
        # An earlier release noted an entry without an EventId by its id alone, and so ignored its content.
        bare = name if name.startswith("EventId:") else name.partition(" ")[0]
        sql = "SELECT 1 FROM inbox_name WHERE name IN (?, ?)"
        return self._database.value(sql, (name, bare)) is not None

    def is_settled(self, name: EventName) -> bool:
        """Whether this event was applied, or discarded by a person."""
        if isinstance(name, EventId) and self.first_aside(
            DISCARDED, name.source, name.sequence, name.sequence
        ):
            return True
        return self.has_applied(name)

    def is_missing(self, name: EventId) -> bool:
        """Whether this event was neither applied nor put aside."""
        return any(each.last == name.sequence for each in self.missing(name.source, name.sequence)[-1:])

    def note(self, source: str, ranges: Iterable[Range]) -> None:
        """Note these events of `source` as applied."""
        noted = merge([*ranges, *self.ranges().get(source, [])])
        self._database.execute("DELETE FROM inbox_range WHERE source = ?", (source,))
        self._database.insert("inbox_range", [(source, *each) for each in noted])

    def prune(self, first_ms: int, limit: int, needed: Collection[str] = ()) -> int:
        """Forget up to `limit` names of entries older than `first_ms`; answer how many.

        `first_ms` must be so long ago that these can't come again. Names `needed` for a dead letter are kept.
        """
        self._database.execute(
            "DELETE FROM inbox_name WHERE name IN (SELECT name FROM inbox_name"
            " WHERE entry_ms < ? AND name NOT IN (SELECT value FROM json_each(?)) LIMIT ?)",
            (first_ms, listed(needed), limit),
        )
        return self._database.changes()

    def fill(self, source: str, last: int) -> None:
        """Note every event of `source` up to `last` as applied."""
        if last > 0:
            self.note(source, [Range(1, last)])

    def age(self) -> Age:
        """The age of the database; 0 on no branch if it has never taken anything."""
        return Age.parse(str(self._database.meta(_AGE))) or Age()

    def grow(self) -> Age:
        """Count the open transaction."""
        branch, transactions = self.age()
        return self._set_age(Age(branch if transactions else secrets.token_hex(4), transactions + 1))

    def branch_off(self) -> Age:
        """Begin another branch, in the open transaction."""
        return self._set_age(Age(secrets.token_hex(4), self.age().transactions + 1))

    def _set_age(self, age: Age) -> Age:
        self._database.set_meta(_AGE, f"{age.branch} {age.transactions}")
        return age

    def reached(self) -> dict[str, int]:
        """The highest applied sequence of each source, without sources that were sealed."""
        rows = self._database.rows("SELECT source, max(last) FROM inbox_range GROUP BY source")
        return {source: last for source, last in rows if last < _EVERY_SEQUENCE}

    def ranges(self) -> dict[str, list[Range]]:
        """The sequences that have been applied, by source, ascending."""
        found: defaultdict[str, list[Range]] = defaultdict(list)
        for source, *each in self._database.rows("SELECT source, first, last FROM inbox_range ORDER BY 1, 2"):
            found[source].append(Range(*each))
        return found

    def _take_name(self, name: str, entry_ms: int) -> bool:
        """Note the name, and the time of its newest entry; answer whether the name was new."""
        is_new = not self.has_applied(name)
        self._database.execute(
            "INSERT INTO inbox_name VALUES (?, ?) ON CONFLICT DO UPDATE"
            " SET entry_ms = excluded.entry_ms WHERE entry_ms < excluded.entry_ms",
            (name, entry_ms),
        )
        return is_new

    def _take_sequences(self, source: str, numbers: Collection[int]) -> set[int]:
        """Note the numbers; answer those that were noted before."""
        low, high = min(numbers), max(numbers)
        held = self._ranges(source, low - 1, high + 1)
        covering = [r for r in held if r.first <= high and r.last >= low]
        known = {n for n in numbers if any(r.first <= n <= r.last for r in covering)} if covering else set()
        if len(known) < len(numbers):
            taken = [Range(low, high)] if high - low < len(numbers) else [Range(n, n) for n in numbers]
            self._database.executemany(
                "DELETE FROM inbox_range WHERE source = ? AND first = ?", [(source, r.first) for r in held]
            )
            self._database.insert("inbox_range", [(source, *r) for r in merge([*held, *taken])])
        self._database.execute(
            "DELETE FROM inbox_aside WHERE source = ? AND sequence BETWEEN ? AND ? AND sequence IN carray(?)",
            (source, low, high, array_of(sorted(numbers))),
        )
        return known

    def _ranges(self, source: str, low: int, high: int) -> list[Range]:
        """The ranges that contain or touch a number from `low` to `high`."""
        rows = self._database.rows(
            "SELECT first, last FROM inbox_range WHERE source = ?1 AND first <= ?3 AND last >= ?2"
            " AND first >= coalesce("
            "  (SELECT max(first) FROM inbox_range WHERE source = ?1 AND first <= ?2), 0)"
            " ORDER BY first",
            (source, low, high),
        )
        return list(map(Range._make, rows))


def _by_number(delivered: Iterable[D]) -> tuple[dict[str, dict[int, D]], dict[str, D]]:
    """Deliveries by source and number, and the others by name.

    The same as by their entries' `event_name`, which would cost each of many events 1 µs more of some 14.
    """
    numbered: dict[str, dict[int, D]] = {}
    of_source: dict[bytes, dict[int, D]] = {}
    others: dict[str, D] = {}
    for each in delivered:
        given = each.entry.fields.get(EVENT_ID_FIELD, b"")
        source, _, digits = given.rpartition(b":")
        into = of_source.get(source)
        if into is not None and digits.isdigit() and digits >= b"1" and len(digits) <= SEQUENCE_DIGITS:
            into[int(digits)] = each
        elif isinstance(name := each.entry.event_name, EventId):
            into = numbered.setdefault(name.source, {})
            into[name.sequence] = each
            if len(source) < LONGEST_NAME - SEQUENCE_DIGITS:
                of_source[source] = into
        else:
            others[name] = each
    return numbered, others
