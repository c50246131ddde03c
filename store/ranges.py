"""Sets of whole numbers from 1 on, kept as ranges."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Range(NamedTuple):
    """The numbers from `first` to `last`, both included."""

    first: int
    last: int


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in as few ranges as hold them, ascending."""
    merged: list[Range] = []
    for current in sorted(ranges):
        if merged and current.first <= merged[-1].last + 1:
            merged[-1] = Range(merged[-1].first, max(merged[-1].last, current.last))
        else:
            merged.append(current)
    return merged


def of(numbers: Iterable[int]) -> list[Range]:
    """These numbers, in as few ranges as hold them, ascending."""
    return merge(Range(number, number) for number in numbers)


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """The numbers of `ranges` that are not in `taken`, ascending. In time proportional to both."""
    left, holes = [], deque(merge(taken))
    for first, last in merge(ranges):
        while holes and holes[0].first <= last:
            if holes[0].first > first:
                left.append(Range(first, holes[0].first - 1))
            first = max(first, holes[0].last + 1)
            if first > last:
                break  # the hole may go on in the next range
            holes.popleft()
        if first <= last:
            left.append(Range(first, last))
    return left


def both(ranges: Sequence[Range], others: Iterable[Range]) -> list[Range]:
    """The numbers that are in `ranges` and in `others`, ascending."""
    return without(ranges, without(ranges, others))


def count(ranges: Iterable[Range]) -> int:
    """How many numbers there are, in ranges that don't overlap."""
    return sum(each.last - each.first + 1 for each in ranges)


def first_of(ranges: Sequence[Range], most: int) -> list[Range]:
    """The first `most` numbers of ascending ranges."""
    found: list[Range] = []
    for first, last in ranges:
        if most <= 0:
            break
        found.append(Range(first, min(last, first + most - 1)))
        most -= last - first + 1
    return found


def shown(ranges: Iterable[Range]) -> str:
    """The ranges as text: `1-5,7`."""
    return ",".join(str(f) if f == l else f"{f}-{l}" for f, l in ranges)  # noqa: E741


def parsed(text: str) -> list[Range]:
    """Parse text written by `shown`. Raises ValueError for anything else."""
    found = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.append(Range(int(first), int(last or first)))
    return found
