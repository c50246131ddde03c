"""The relay: one for each database, it publishes the outbox in order, each event once."""

import time

import structlog

from tally.actors.actor import PASSING, Actor
from tally.actors.doorbell import Doorbell
from tally.actors.housekeeper import Housekeeper
from tally.actors.metrics import RelayMetrics
from tally.store.outbox import Outbox
from tally.store.stream import EventStream, fingerprint

BATCH = 500
HEAL_SECONDS = 30.0
LOOK_SECONDS = 1.0  # while idle: whether Redis still has what it was given

_log = structlog.get_logger()


class Relay:
    """Moves committed events from an outbox to the stream."""

    def __init__(self, outbox: Outbox, stream: EventStream, metrics: RelayMetrics | None = None) -> None:
        self._outbox = outbox
        self._stream = stream
        self._metrics = metrics or RelayMetrics()
        self._last: int | None = None  # the last sequence that Redis holds; None: ask
        self._marked = outbox.published()
        self.refusal: str | None = None  # why nothing is published any more

    def step(self) -> bool:
        """Publish one batch; answer whether there may be more.

        Raises RedisError or StoreUnavailable. May be repeated after either: what was published
        before is not published again.
        """
        last, self._last = self._last, None  # unknown again until this step has succeeded
        if last is None:
            last = self._ask()
        if self.refusal:
            return False
        rows = self._outbox.after(last, BATCH)
        if rows:
            self._metrics.before_publish()
            self._last = self._stream.publish(self._outbox.source, self._outbox.first() - 1, rows).last
            self._metrics.after_publish(rows, self._last)
        else:
            self._last = last
        self._mark(self._last)
        return bool(rows)

    def look_again(self) -> None:
        """Ask Redis anew what it holds at the next step."""
        self._last = None

    def _ask(self) -> int:
        """What Redis holds now; sets `refusal` when that can't have come from this outbox."""
        published = self._stream.published(self._outbox.source)
        own = self._outbox.payload(published.last)
        known = published.fingerprint is None or (
            own is not None and fingerprint(own) == published.fingerprint
        )
        self.refusal = None if known else self._refusal(published.last)
        if known and published.last < self._marked:
            _log.warning(
                "redis_lost_events", source=self._outbox.source, had=self._marked, has=published.last
            )
        return published.last

    def _refusal(self, last: int) -> str:
        return (
            f"the stream holds {last} events of {self._outbox.source} that this database "
            f"(at {self._outbox.last()}) does not know: it was restored from an older copy. Nothing more "
            "is published from it; the remedy is `rebuild`"
        )

    def _mark(self, last: int) -> None:
        if last != self._marked:
            self._outbox.mark_published(last)
            self._metrics.advanced(last - self._marked)
            self._marked = last


def run(actor: Actor, relay: Relay, doorbell: Doorbell, housekeeper: Housekeeper, heals: bool) -> None:
    """Publish whenever the doorbell rings, and look every second; at the end, drain the outbox.

    The actor is ready once it knows that the database is the one the stream has seen; where that
    `heals`, because the consumers put back what is missing, it waits for it HEAL_SECONDS at most.
    """
    heal_by = time.monotonic() + HEAL_SECONDS

    def step() -> str | None:
        doorbell.silence()
        published = relay.step()
        if not (relay.refusal and heals and time.monotonic() < heal_by):
            actor.ready()
        tidying = housekeeper.step()
        if not published and not tidying:
            actor.wait(LOOK_SECONDS, doorbell)
            if not doorbell.is_rung():
                relay.look_again()
        return relay.refusal

    try:
        relay.step()
    except PASSING as error:
        actor.trouble(str(error))
        actor.ready()  # nobody can tell now; what is written is published when Redis is back
    actor.repeat(step)
    try:
        while relay.step():
            actor.beat()
    except PASSING as error:
        _log.warning("outbox_not_drained", reason=str(error))
