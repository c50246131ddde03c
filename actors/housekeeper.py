"""Housekeeping: deletes data that was kept for long enough, a little at a time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from tally.recovery.standing import stands_of
from tally.store.database import Database
from tally.store.dead_letters import DeadLetters
from tally.store.groups import Groups, behind
from tally.store.idempotency import IdempotencyKeys
from tally.store.inbox import Inbox
from tally.store.membership import RENEW_SECONDS
from tally.store.outbox import Outbox
from tally.store.shared_revocations import CLOCKS_DIFFER_SECONDS
from tally.store.stream import Age, EventStream, entry_ms

EVERY_SECONDS = 60.0
SHRINK_SECONDS = 5.0
_AT_ONCE = 1000  # rows in one transaction: other writers wait for it

_log = structlog.get_logger()


@dataclass(eq=False)
class Housekeeper:
    """Trims the stream, and prunes one database: its outbox, inbox, idempotency keys and log.

    `readers` is called before each trimming. It gives all groups that must read the stream, even those not
    made yet, and the age of each one's database. After a database was put back from a copy, its group has
    acknowledged more than it holds: nothing is trimmed until its consumers have set the group back. `renew`
    is called every `renew_seconds` with the time, and raises what `step` does.
    """

    database: Database
    stream: EventStream
    retention: timedelta
    readers: Callable[[], Mapping[str, Age]] = dict
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    renew: Callable[[int], None] = lambda _now: None
    renew_seconds: float = RENEW_SECONDS

    def __post_init__(self) -> None:
        self._retention = int(self.retention.total_seconds())
        self._groups = Groups(self.stream)
        self._keys = IdempotencyKeys(self.database, self.now)
        self._inbox = Inbox(self.database)
        self._letters = DeadLetters(self.stream)
        self._outbox = Outbox(self.database)
        self._next = self._next_shrinking = self._next_renewal = self.clock()
        self._overtaken: dict[str, int] = {}
        self._awaited: list[str] = []

    def step(self) -> bool:
        """Do a part of the work that is due, and answer whether more is due. Cheap when nothing is.

        Raises RedisError or StoreUnavailable. May be repeated.
        """
        if self.clock() >= self._next_shrinking:
            self._next_shrinking = self.clock() + SHRINK_SECONDS
            self.database.shrink_log()
        if self.clock() >= self._next_renewal:
            self._next_renewal = self.clock() + self.renew_seconds
            self.renew(int(self.now()))
        if self.clock() < self._next:
            return False
        self._trim()
        first_ms, now = self.stream.first_ms(), int(self.now())
        newest = self.stream.newest()  # has an id that no clock makes lower: published rows are not older
        at = max(now, entry_ms(newest) // 1000 + 1 if newest else 0)
        if not self._is_whole():
            self._next = self.clock() + SHRINK_SECONDS  # the relay is about to publish it again
            return False
        needed = self._letters.names(self.database.source)
        kept_ms = (now - self._retention) * 1000  # a Redis that fell back once may do so again
        gone = first_ms // 1000 - CLOCKS_DIFFER_SECONDS  # events published before are off the stream
        with self.database.transaction():
            self._outbox.note_publication(at, every=max(1, self._retention // 100))
            pruned = max(
                self._outbox.prune(min(now - self._retention, gone), _AT_ONCE),
                self._inbox.prune(min(first_ms, kept_ms), _AT_ONCE, needed),
                self._keys.prune(_AT_ONCE),
            )
        if pruned == _AT_ONCE:
            return True
        self._next = self.clock() + EVERY_SECONDS
        return False

    def _is_whole(self) -> bool:
        """Whether Redis still has all published events that are kept here. If not, they are needed again.

        Ask it after reading what is on the stream: a loss before that reading is then noticed here.
        """
        stands = stands_of(self.database, self.stream)
        return all(published.last >= outbox.newest_published() for outbox, published in stands)

    def _trim(self) -> None:
        noted = self.stream.ages()  # read before the databases' ages, which grow meanwhile
        readers = self.readers()
        awaited = behind(noted, readers)
        if awaited != self._awaited:
            self._awaited = awaited
            _log.info("trimming_waits", groups=awaited)
        if awaited:
            return
        if removed := self.stream.trim(self._retention * 1000, readers, self.database.node):
            _log.info("stream_trimmed", removed=removed)
        if (overtaken := self._groups.overtaken()) != self._overtaken:
            self._overtaken = overtaken
            _log.warning("groups_overtaken", missed=overtaken)
