"""What every part is told, and what it answers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.report import median, spread

T = TypeVar("T")


class Plan(NamedTuple):
    """How a part is to be measured: `runs` times, with data directories made under `base`.

    Where a part starts a Redis of its own, it starts `server`, or the newest that is found.

    `small` asks for counts and durations that are only good for trying it; `say` takes progress.
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
        """Measure every side once, one after another, and that `runs` times; answer all by side."""
        found: dict[str, list[T]] = {side: [] for side in sides}
        for run in range(self.runs):
            for side, measure in sides.items():
                self.say(f"{side}: run {run + 1} of {self.runs}")
                found[side].append(measure())
        return found


class Target(NamedTuple):
    """What is wanted of a figure, what was found, and whether that will do."""

    what: str
    wanted: str
    found: str
    met: bool


class Result(NamedTuple):
    """A part's tables and notes, and the targets it has figures for."""

    text: str
    targets: Sequence[Target] = ()


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Each of these by the one of those from the same run."""
    return [this / that for this, that in zip(these, those, strict=True)]


def at_least(what: str, least: float, values: Sequence[float], form: str = ".2f", unit: str = "") -> Target:
    """The median of `values` is to be no less."""
    return Target(what, f"at least {least:{form}}{unit}", spread(values, form), median(values) >= least)


def at_most(what: str, most: float, values: Sequence[float], form: str = ".2f", unit: str = "") -> Target:
    """The median of `values` is to be no more."""
    return Target(what, f"at most {most:{form}}{unit}", spread(values, form), median(values) <= most)
