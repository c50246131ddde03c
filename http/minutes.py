"""The numbers of events that a service recorded and applied in each minute of the last hour.

Its HTTP processes note both counts at each full minute, in shared memory. The first one writes, and all of
them would write the same. A restarted process goes on with it. It starts empty with Tally.
"""

import mmap
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

MINUTES = 60
SECONDS = 60

_PLACES = 64  # more than are shown, so that none of these is overwritten
_NUMBERS = 3  # for each place: the minute, and the two counts


class Counts(NamedTuple):
    """How many events a service has recorded, and how many it has applied, since some start."""

    recorded: int
    applied: int


class Minute(Struct, frozen=True):
    """A minute that begins `at` that time, in seconds since 1970; counts are None if unknown."""

    at: int
    recorded: int | None
    applied: int | None


class Minutes:
    """The counts of the last hour. Make it before the processes that share it are forked."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._numbers = memoryview(mmap.mmap(-1, _PLACES * _NUMBERS * 8)).cast("q")
        self._clock = clock

    def note(self, counts: Counts) -> float:
        """Note the counts, unless a sibling did in this minute; answer the seconds until the next minute."""
        now = self._clock()
        minute = int(now // SECONDS)
        if self._noted(minute) is None:
            place = minute % _PLACES * _NUMBERS
            self._numbers[place + 1], self._numbers[place + 2] = counts
            self._numbers[place] = minute  # written last: now the place is valid
        return SECONDS - now % SECONDS

    def told(self, counts: Counts) -> list[Minute]:
        """The last hour's minutes, from the first known one; the last one is still going on.

        `counts` are the present ones.
        """
        last = int(self._clock() // SECONDS)
        noted = {each: found for each in range(last - MINUTES + 1, last + 1) if (found := self._noted(each))}
        ends = {**noted, last + 1: counts}
        return [
            _minute(each, noted.get(each), ends.get(each + 1))
            for each in range(min(noted, default=last), last + 1)
        ]

    def _noted(self, minute: int) -> Counts | None:
        place = minute % _PLACES * _NUMBERS
        if self._numbers[place] != minute:
            return None
        return Counts(self._numbers[place + 1], self._numbers[place + 2])


def _minute(minute: int, begin: Counts | None, end: Counts | None) -> Minute:
    if begin is None or end is None:
        return Minute(minute * SECONDS, None, None)
    more = (max(0, after - before) for before, after in zip(begin, end, strict=True))
    return Minute(minute * SECONDS, *more)
