"""The time that some work took: on the clock, and of the processor, which excludes other programs."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.plan import ratios
from benchmarks.report import spread, table


class Spent(NamedTuple):
    """Seconds on the clock, and processor seconds of the process that did the work."""

    seconds: float
    cpu: float

    @classmethod
    def since(cls, start: "Spent") -> "Spent":
        """The time since `start`, which `now` returned."""
        return cls(time.perf_counter() - start.seconds, time.process_time() - start.cpu)

    @classmethod
    def now(cls) -> "Spent":
        """The clocks' present values."""
        return cls(time.perf_counter(), time.process_time())


class Pace(NamedTuple):
    """The speed of some events: how many a second, and the processor time of each in µs.

    `redis` is the time of Redis beside that.
    """

    rate: float
    cpu: float
    redis: float

    @classmethod
    def of(cls, count: int, spent: Spent, redis_seconds: float = 0) -> "Pace":
        """The pace of `count` events."""
        return cls(count / spent.seconds, spent.cpu / count * 1e6, redis_seconds / count * 1e6)


def rates(paces: Sequence[Pace]) -> list[float]:
    """Events a second."""
    return [pace.rate for pace in paces]


def beside(what: str, paces: Mapping[str, Sequence[Pace]], ours: str) -> str:
    """A table of every side, and how many times as fast `ours` is; by the clock and by the processor."""
    rows = [
        [
            what,
            "events/s, median (min..max)",
            f"{ours} by this",
            "µs of processor for each",
            "this by ours",
            "of Redis",
        ]
    ]
    for side, found in paces.items():
        cpu, own = [pace.cpu for pace in found], [pace.cpu for pace in paces[ours]]
        rows.append(
            [
                side,
                spread(rates(found), ",.0f"),
                spread(ratios(rates(paces[ours]), rates(found)), ".2f"),
                spread(cpu, ".1f"),
                spread(ratios(cpu, own), ".2f"),
                spread([pace.redis for pace in found], ".1f"),
            ]
        )
    return table(rows)
