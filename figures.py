"""Counters and histograms in shared memory: several processes keep them, and any can read them.

The supervisor makes a page of memory for each actor before it forks. Only the actor writes to its page; its
siblings read it. A restarted actor goes on with the same page, so nothing is lost. There is no file: nothing
to clean up, and no disk that can fill up or fail meanwhile (then writing to a mapped file would end the
process with SIGBUS).
"""

import mmap
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

PAGE_BYTES = 1 << 20  # room for some 4,000 series; only used parts take memory

_HEAD = struct.Struct("II")  # before each series: the bytes of its key, and how many numbers follow it
_NUMBER = 8  # bytes; everything is aligned to it


class Family(NamedTuple):
    """One metric: a counter, or with the upper bounds of its `buckets` a histogram.

    `known` are values of labels that exist from the start, as 0: a rate needs a first value.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[tuple[str, ...], ...] = ((),)

    @property
    def numbers(self) -> int:
        """How many numbers a series takes. A histogram has its buckets, the unbounded one, and the sum."""
        return len(self.buckets) + 2 if self.buckets else 1


Series = tuple[str, ...]
"""The key of a series: its family's name, and the values of its labels."""


def new_page() -> mmap.mmap:
    """Memory shared with every process that is forked later."""
    return mmap.mmap(-1, PAGE_BYTES)


class Figures:
    """The figures of one process, in its page. Safe for any number of threads; raises nothing.

    The values of labels must come from a known, small set. A series that finds no room isn't counted.
    """

    def __init__(self, page: mmap.mmap | None = None) -> None:
        self._page = page or new_page()
        self._numbers = memoryview(self._page).cast("d")
        self._guard = threading.Lock()
        self._places: dict[Series, int] = {series: place for series, place, _ in _records(self._page)}

    def add(self, family: Family, amount: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Count up."""
        with self._guard:
            place = self._place(family, labels)
            if place:
                self._numbers[place] += amount

    def observe(self, family: Family, value: float, labels: tuple[str, ...] = (), times: int = 1) -> None:
        """Note a value in a histogram, so many times."""
        with self._guard:
            place = self._place(family, labels)
            if place:
                self._numbers[place + bisect_left(family.buckets, value)] += times
                self._numbers[place + family.numbers - 1] += value * times

    def _place(self, family: Family, labels: tuple[str, ...]) -> int:
        """The offset of a series's numbers; 0 when there is no room for it."""
        series = (family.name, *labels)
        place = self._places.get(series)
        if place is None:
            place = self._places[series] = self._append(series, family.numbers)
        return place

    def _append(self, series: Series, numbers: int) -> int:
        """Write a series after the others. It is valid once the page's length includes it."""
        key = msgspec.json.encode(series)
        key += b" " * (-len(key) % _NUMBER)
        start = _used(self._page)
        place = start + _HEAD.size + len(key)
        end = place + numbers * _NUMBER
        if end > PAGE_BYTES:
            return 0
        # With zeros: a process that was killed right here may have left other bytes.
        self._page[start:end] = _HEAD.pack(len(key), numbers) + key + bytes(end - place)
        self._numbers[0] = end
        return place // _NUMBER


def sums(pages: Iterable[mmap.mmap]) -> dict[Series, list[float]]:
    """The numbers of every series on the pages, added up. Other processes may be writing meanwhile."""
    found: dict[Series, list[float]] = {}
    for page in pages:
        for series, place, count in _records(page):
            own = struct.unpack_from(f"{count}d", page, place * _NUMBER)
            found[series] = [a + b for a, b in zip(found.get(series, [0.0] * count), own, strict=True)]
    return found


def _records(page: mmap.mmap) -> Iterator[tuple[Series, int, int]]:
    """Each series, with its numbers' offset and count."""
    position, used = _NUMBER, _used(page)
    while position < used:
        length, numbers = _HEAD.unpack_from(page, position)
        position += _HEAD.size
        series = msgspec.json.decode(page[position : position + length], type=Series)
        position += length
        yield series, position // _NUMBER, numbers
        position += numbers * _NUMBER


def _used(page: mmap.mmap) -> int:
    """How many bytes of the page are used, by its first number, which counts itself."""
    (used,) = struct.unpack_from("d", page)
    return int(used) or _NUMBER
