"""Finds events that a database lacks and won't be handed any more, and asks their source for them.

A source's events are numbered without gaps, and Redis knows how far each source has got. So a database knows
which events it lacks. Most of these are on their way. But once its group was handed everything up to where
the stream ended, and has none of it pending, an event that is still missing does not come by itself. Somebody
took it off the stream, or skipped it, or the database was put back from a copy.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import structlog
from redis.exceptions import OutOfMemoryError

from tally.events import EventId
from tally.store import inbox
from tally.store import ranges as numbers
from tally.store.asks import Asks
from tally.store.database import Database
from tally.store.dead_letters import DeadLetters
from tally.store.inbox import Inbox
from tally.store.ranges import Range
from tally.store.stream import EventStream

MOST_RANGES = 1000  # in one ask; the rest is asked for after the answer

LOST_SECONDS = 2.0  # how soon it looks again for a lost letter that it asked for
LETTERS_SECONDS = 30.0  # how often letters are checked while nothing else is missing: all are read
APPLIED_SECONDS = 30.0  # how often Redis is asked and told how far groups have applied, in case it forgot

_log = structlog.get_logger()


class _Position(NamedTuple):
    """How far each source had got, and the dead events. All are at or before the stream's entry `newest`."""

    published: dict[str, int]
    dead: set[EventId]
    newest: bytes


class Missing:
    """Looks for events that a database's group will not be handed any more, and asks for them.

    `concerns` tells whether a source's events are wanted. One consumer of the group does this.
    """

    def __init__(
        self,
        database: Database,
        stream: EventStream,
        concerns: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._stream = stream
        self._client = stream.client
        self._group = database.source
        self._concerns = concerns
        self._inbox = Inbox(database)
        self._asks = Asks(stream)
        self._letters = DeadLetters(stream)
        self._noted: _Position | None = None
        self._told: dict[str, int] = {}
        self._clock = clock
        self._next_letters = self._next_applied = self._next_told = clock()

    def begin_again(self) -> None:
        """Redis may have lost data: forget what was noted of it, and tell it everything again."""
        self._noted = None
        self._next_told = self._clock()

    def look(self) -> None:
        """Look once for missing events. A later call checks whether they still are, and asks for them.

        Raises RedisError or StoreError.
        """
        self._tell_applied()
        if self._noted is None:
            published = self._wanted()
            dead = self._inbox.aside(inbox.DEAD)
            if any(self._inbox.missing(*each) for each in published.items()) or self._letters_are_due(dead):
                newest = self._stream.newest()  # read last: it holds all of these
                self._noted = _Position(published, dead, newest or b"0-0")
        elif self._is_past(self._noted.newest):
            noted, self._noted = self._noted, None
            self._ask(noted.published, noted.dead)

    def _tell_applied(self) -> None:
        """Note beside the stream how far this database got: a source that is further back was put back.

        Now and then all of it: Redis may have lost some without breaking the connection.
        """
        if self._clock() >= self._next_told:
            self._next_told = self._clock() + APPLIED_SECONDS
            self._told = {}
        reached = self._inbox.reached()
        with suppress(OutOfMemoryError):  # a full Redis is told later: reading goes on, so that it is trimmed
            self._stream.note_applied(self._group, dict(reached.items() - self._told.items()))
            self._told = reached

    def _letters_are_due(self, dead: set[EventId]) -> bool:
        """Whether it is time to check that the letters of events noted as dead still exist."""
        if self._clock() < self._next_letters:
            return False
        self._next_letters = self._clock() + LETTERS_SECONDS
        return bool(dead)

    def _wanted(self) -> dict[str, int]:
        if self._clock() >= self._next_applied:
            self._next_applied = self._clock() + APPLIED_SECONDS
            every = self._stream.known_by_source()
        else:
            every = self._stream.published_by_source()
        return {source: last for source, last in every.items() if self._concerns(source)}

    def _is_past(self, id: bytes) -> bool:
        """Whether the group was handed all up to that entry, which may be gone, and has settled it all."""
        group = self._stream.groups().get(self._group)
        if group is None:
            self._noted = None  # the stream was deleted: what it held comes again by itself
            return False
        if self._client.xrange(self._stream.key, b"(" + group["last-delivered-id"], id, count=1):
            return False
        return not self._client.xpending_range(self._stream.key, self._group, "-", id, 1)

    def _ask(self, published: dict[str, int], dead: set[EventId]) -> None:
        if self._asks.unsettled(self._group):
            return  # an answer is on its way
        # A letter is written after it is noted, and acknowledges its entry: those of `dead` are there by now.
        known = self._inbox.aside(inbox.DEAD) & dead
        mine = (each.entry.event_name for each in self._letters.each() if each.group == self._group)
        letters = {name for name in mine if isinstance(name, EventId)}
        asked = dict(zip(published, self._asks.of_all([*published]), strict=True))
        if self._asks.unsettled(self._group):
            return  # a letter, or an answer, may be on its way
        gone = self._asks.gone(self._group)
        lost = known - letters
        if lost:
            self._next_letters = self._clock() + LOST_SECONDS
        forgotten = [
            name
            for name in lost
            if name.source not in published  # nobody could be asked
            or numbers.both([Range(name.sequence, name.sequence)], gone.get(name.source, []))
        ]
        self._note(letters, forgotten)
        for source, last in published.items():
            lacking = self._inbox.missing(source, last)
            lacking += [Range(each.sequence, each.sequence) for each in lost if each.source == source]
            wanted = numbers.without(lacking, gone.get(source, []))[:MOST_RANGES]
            if wanted and source in self._asks.given_up():
                self._asks.note_gone(source, self._group, wanted)
            elif numbers.without(wanted, asked[source].get(self._group, [])):  # else the answer will do
                count, first = numbers.count(wanted), wanted[0].first
                _log.warning("events_missing", group=self._group, source=source, count=count, first=first)
                self._asks.ask(source, self._group, wanted)

    def _note(self, letters: set[EventId], forgotten: list[EventId]) -> None:
        """Note letters that the database doesn't know: they are older than its copy, or than this release.

        The `forgotten` events are missing again: their letters were lost, and nobody has them any more.
        """
        unknown = [name for name in letters if self._inbox.is_missing(name)]
        if unknown or forgotten:
            with self._database.transaction():
                self._inbox.put_aside(unknown, inbox.DEAD)
                self._inbox.take_back(forgotten)
