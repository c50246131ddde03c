"""Housekeeping: deletes data that was kept for long enough, a little at a time."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog

from tally.recovery.standing import stands_of
from tally.store.database import Database
from tally.store.dead_letters import DeadLetters
from tally.store.groups import Groups
from tally.store.idempotency import IdempotencyKeys
from tally.store.inbox import Inbox
from tally.store.membership import RENEW_SECONDS
from tally.store.outbox import Outbox
from tally.store.shared_revocations import CLOCKS_DIFFER_SECONDS
from tally.store.stream import Age, EventStream

EVERY_SECONDS = 60.0
SHRINK_SECONDS = 5.0
_AT_ONCE = 1000  # rows in one transaction: other writers wait for it

_log = structlog.get_logger()


class Housekeeper:
    """Trims the stream, and prunes one database: its outbox, inbox, idempotency keys and log.

    `readers` is called before each trimming. It gives all groups that must read the stream, even those not
    made yet, and the age of each one's database. After a database was put back from a copy, its group has
    acknowledged more than it holds: nothing is trimmed until its consumers have set the group back. `renew`
    is called every `renew_seconds` with the time, and raises what `step` does.
    """

    def __init__(
        self,
        database: Database,
        stream: EventStream,
        retention: timedelta,
        readers: Callable[[], Mapping[str, Age]] = dict,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        renew: Callable[[int], None] = lambda _now: None,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._database = database
        self._stream = stream
        self._retention = int(retention.total_seconds())
        self._readers = readers
        self._groups = Groups(stream)
        self._keys = IdempotencyKeys(database, now)
        self._inbox = Inbox(database)
        self._letters = DeadLetters(stream)
        self._outbox = Outbox(database)
        self._clock = clock
        self._now = now
        self._renew = renew
        self._renew_seconds = renew_seconds
        self._next = self._next_shrinking = self._next_renewal = clock()
        self._overtaken: dict[str, int] = {}
        self._awaited: list[str] = []

    def step(self) -> bool:
        """Do a part of the work that is due, and answer whether more is due. Cheap when nothing is.

        Raises RedisError or StoreUnavailable. May be repeated.
        """
        if self._clock() >= self._next_shrinking:
            self._next_shrinking = self._clock() + SHRINK_SECONDS
            self._database.shrink_log()
        if self._clock() >= self._next_renewal:
            self._next_renewal = self._clock() + self._renew_seconds
            self._renew(int(self._now()))
        if self._clock() < self._next:
            return False
        self._trim()
        first_ms, now = self._stream.first_ms(), int(self._now())
        if not self._is_whole():
            self._next = self._clock() + SHRINK_SECONDS  # the relay is about to publish it again
            return False
        needed = self._letters.names(self._database.source)
        kept_ms = (now - self._retention) * 1000  # a Redis that fell back once may do so again
        gone = first_ms // 1000 - CLOCKS_DIFFER_SECONDS  # events published before are off the stream
        with self._database.transaction():
            self._outbox.note_publication(now, every=max(1, self._retention // 100))
            pruned = max(
                self._outbox.prune(min(now - self._retention, gone), _AT_ONCE),
                self._inbox.prune(min(first_ms, kept_ms), _AT_ONCE, needed),
                self._keys.prune(_AT_ONCE),
            )
        if pruned == _AT_ONCE:
            return True
        self._next = self._clock() + EVERY_SECONDS
        return False

    def _is_whole(self) -> bool:
        """Whether Redis still has all published events that are kept here. If not, they are needed again.

        Ask it after reading what is on the stream: a loss before that reading is then noticed here.
        """
        stands = stands_of(self._database, self._stream)
        return all(published.last >= outbox.newest_published() for outbox, published in stands)

    def _trim(self) -> None:
        noted = self._stream.ages()  # read before the databases' ages, which grow meanwhile
        readers = self._readers()
        behind = [group for group, age in readers.items() if not age.includes(noted.get(group, Age()))]
        if behind != self._awaited:
            self._awaited = behind
            _log.info("trimming_waits", groups=behind)
        if behind:
            return
        if removed := self._stream.trim(self._retention * 1000, readers, self._database.node):
            _log.info("stream_trimmed", removed=removed)
        if (overtaken := self._groups.overtaken()) != self._overtaken:
            self._overtaken = overtaken
            _log.warning("groups_overtaken", missed=overtaken)
