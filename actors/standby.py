"""How a standby watches its primary."""

from collections.abc import Callable, Mapping

from tally.store.write_permission import boot_clock


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
