"""What a service has recorded and applied in each minute of the last hour.

Its HTTP processes note both counts at each full minute, in memory that they share: whoever is first writes,
and all of them would write the same. One that is started again goes on with it. It begins anew with Tally.
"""

import mmap
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

MINUTES = 60
SECONDS = 60

_PLACES = 64  # more than are told of: what is told of is not written over
_NUMBERS = 3  # of each: the minute, and the two counts


class Counts(NamedTuple):
    """How many events a service has recorded, and how many it has applied, since some beginning."""

    recorded: int
    applied: int


class Minute(Struct, frozen=True):
    """A minute that begins `at` that time, in seconds since 1970; None where nobody has looked then."""

    at: int
    recorded: int | None
    applied: int | None


class Minutes:
    """The counts of the last hour. To be made before the processes that share it are forked."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._numbers = memoryview(mmap.mmap(-1, _PLACES * _NUMBERS * 8)).cast("q")
        self._clock = clock

    def note(self, counts: Counts) -> float:
        """Note the counts, unless somebody has in this minute; answer the seconds until the next one."""
        now = self._clock()
        minute = int(now // SECONDS)
        if self._noted(minute) is None:
            place = minute % _PLACES * _NUMBERS
            self._numbers[place + 1], self._numbers[place + 2] = counts
            self._numbers[place] = minute  # last: it counts from here on
        return SECONDS - now % SECONDS

    def told(self, counts: Counts) -> list[Minute]:
        """The last hour's minutes, from the first that is known on; the last one goes on still.

        `counts` are those of now.
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
