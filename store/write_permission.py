"""Whether a service's database may be written to, noted in memory that all its processes share.

Its relay knows: it asks Redis who has the node's number. The others look before they write.
"""

import mmap
import time
from collections.abc import Callable
from enum import IntEnum

from tally.store.errors import NotInPlace, NotPrimary, NotRenewed, StoreUnavailable


class Refusal(IntEnum):
    """Why nothing may be written."""

    NONE = 0
    REPLACED = 1  # another is at work in its place
    STANDBY = 2  # it follows the primary


def boot_clock() -> float:
    """Seconds since the machine started, including sleep, unlike `time.monotonic` on Linux."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class WritePermission:
    """The permission of one database. Make it before its processes are forked. No call blocks.

    With `failover_seconds`, the permission ends so long after the last renewal of its lease. By then, a
    standby may be the primary.
    """

    def __init__(self, failover_seconds: float = 0, clock: Callable[[], float] = boot_clock) -> None:
        page = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._renewed, self._flags, self._url = page[:8].cast("d"), page[8:10], page[10:]
        self._failover_seconds = failover_seconds
        self.clock = clock

    def confirm(self) -> None:
        """Note that it holds the newest events of its name, and so may be written to under that name.

        That stays so when its relay is replaced: the others go on writing meanwhile. See `doubt`.
        """
        self._flags[0] = True

    def doubt(self) -> None:
        """Note that it may lack events of its name: another database may have written some."""
        self._flags[0] = False

    def is_confirmed(self) -> bool:
        """Whether `confirm` was noted, and neither `doubt` nor a refusal since."""
        return bool(self._flags[0])

    def refuse(self, why: Refusal, url: str = "") -> None:
        """Note why nothing may be written, or NONE to allow it; `url` is the primary's address.

        Another may write under its name meanwhile. So it is in doubt afterwards.
        """
        told = url.encode()[: len(self._url) - 1]
        self._url[: len(told) + 1] = told + b"\0"
        self._flags[1] = why
        if why:
            self.doubt()

    def renew(self, asked_at: float) -> None:
        """Note that the lease was renewed, by a request begun at `asked_at` (by `clock`)."""
        self._renewed[0] = asked_at

    def refusal(self, node: int, may_lapse: bool = False) -> StoreUnavailable | None:
        """Why nothing may be written now to that node's database; None if writing is allowed.

        With `may_lapse` it is allowed also where the lease has run out: for what answers no request.
        """
        if self._flags[1] == Refusal.STANDBY:
            return NotPrimary(node, bytes(self._url).partition(b"\0")[0].decode(errors="ignore"))
        if self._flags[1]:
            return NotInPlace()
        has_lapsed = not may_lapse and 0 < self._failover_seconds < self.clock() - self._renewed[0]
        return NotRenewed() if has_lapsed else None
