"""Limits how many long answers are made at once. They are made while they are sent."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from weakref import finalize

from tally.http.problems import Refusal

OF_A_USER, OF_ALL = 8, 32  # in one process


class LongLists:
    """Counts the long answers being sent. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()

    def begin(self, user: str, pieces: Iterator[bytes]) -> "LongList":
        """The pieces of one more long answer, for a user; "" is everybody. Raises Refusal."""
        with self._lock:
            if self._under_way.total() >= OF_ALL or (user and self._under_way[user] >= OF_A_USER):
                why = "Read those that you have asked for to their end, or ask for pages: ?limit="
                raise Refusal(429, "Too many long lists at once", why)
            self._under_way[user] += 1
        return LongList(pieces, self._end, user)

    def _end(self, user: str) -> None:
        with self._lock:
            self._under_way[user] -= 1
            self._under_way += Counter()  # forgets users without any


class LongList:
    """Iterates over the pieces. WSGI calls `close` when it needs no more; that may be repeated.

    It closes itself when nobody has it any more, as an answer to HEAD is never read.
    """

    def __init__(self, pieces: Iterator[bytes], end: Callable[[str], None], user: str) -> None:
        self._pieces = pieces
        self.close = finalize(self, end, user)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces
