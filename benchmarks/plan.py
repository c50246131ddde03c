"""The input and the result of every part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.report import median, spread

T = TypeVar("T")


class Plan(NamedTuple):
    """How a part is measured: `runs` times, with data directories made under `base`.

    If a part starts its own Redis, it starts `server`, or by default the newest that is found.

    `small` asks for small counts and short durations, only good for a trial; `say` prints progress.
    """

    runs: int
    base: Path | None
    small: bool
    say: Callable[[str], None]
    server: Path | None = None

    def choose(self, full: T, small: T) -> T:
        """A count or a duration, by the scale."""
        return small if self.small else full

    def alternate(self, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Measure every side once, one after another, and repeat that `runs` times; return all by side."""
        found: dict[str, list[T]] = {side: [] for side in sides}
        for run in range(self.runs):
            for side, measure in sides.items():
                self.say(f"{side}: run {run + 1} of {self.runs}")
                found[side].append(measure())
        return found


class Target(NamedTuple):
    """The wanted value of a figure, the measured one, and whether that is good enough."""

    what: str
    wanted: str
    found: str
    met: bool


class Result(NamedTuple):
    """A part's tables and notes, and its figures' targets."""

    text: str
    targets: Sequence[Target] = ()


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Each value of `these` divided by the one of `those` from the same run."""
    return [this / that for this, that in zip(these, those, strict=True)]


def at_least(what: str, least: float, values: Sequence[float], form: str = ".2f", unit: str = "") -> Target:
    """The median of `values` must not be less."""
    return Target(what, f"at least {least:{form}}{unit}", spread(values, form), median(values) >= least)


def at_most(what: str, most: float, values: Sequence[float], form: str = ".2f", unit: str = "") -> Target:
    """The median of `values` must not be more."""
    return Target(what, f"at most {most:{form}}{unit}", spread(values, form), median(values) <= most)
