"""A standby's relay: it publishes nothing, and follows the primary until it is promoted."""

import time
from collections.abc import Callable, Mapping

import structlog

from tally.actors.actor import Actor
from tally.actors.housekeeper import Housekeeper
from tally.recovery.following import Follower
from tally.store.stream import RedisError
from tally.store.write_permission import boot_clock

BLOCK_MS = 100  # how long it waits for the next entry
LOOK_SECONDS = 0.5  # how often it checks whether it was promoted, and whether the primary is alive

_log = structlog.get_logger()


class Watch:
    """Tells when a primary was silent for so long that a standby must take its place.

    It counts from the last renewal of the primary's leases that was seen here, by this machine's clock. It
    starts again when Redis was replaced or couldn't be reached: the primary may have had the same trouble.
    """

    def __init__(self, failover_seconds: float, clock: Callable[[], float] = boot_clock) -> None:
        self._seconds = failover_seconds
        self._clock = clock
        self._seen: tuple[Mapping[str, str], str] | None = None
        self._since = clock()

    def sees(self, leases: Mapping[str, str], redis: str) -> bool:
        """Whether all leases of the databases with that number have lapsed, as told by that Redis."""
        if (leases, redis) != self._seen:
            self._seen, self._since = (leases, redis), self._clock()
        return self._seconds > 0 and self._clock() - self._since >= self._seconds

    def sees_nothing(self) -> None:
        """Start again: Redis did not answer."""
        self._seen = None


def run(
    actor: Actor,
    follower: Follower,
    housekeeper: Housekeeper,
    is_promoted: Callable[[], bool],
    look: Callable[[], None],
    lost: Callable[[], None],
) -> None:
    """Follow until the actor must stop, or it `is_promoted`.

    `look` is called every LOOK_SECONDS while Redis answers, `lost` when it doesn't. The actor is ready once
    it has taken in everything on the stream.
    """
    next_look = 0.0
    promoted = False

    def step() -> str | None:
        nonlocal next_look, promoted
        try:
            taken = follower.step(BLOCK_MS)
            housekeeper.step()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                look()
                if not taken:
                    follower.look()
                promoted = is_promoted()
        except RedisError:
            lost()
            raise
        return None

    actor.attempt(follower.catch_up)
    actor.ready()
    actor.repeat(step, until=lambda: promoted)
