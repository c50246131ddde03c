"""Limits log lines that anybody can cause."""

import threading
import time


class Seldom:
    """At most so many lines in so many seconds, by default one. Safe for any number of threads."""

    def __init__(self, seconds: float, lines: int = 1) -> None:
        self._seconds, self._lines = seconds, lines
        self._lock = threading.Lock()
        self._more, self._left, self._next = 0, 0, 0.0

    def due(self) -> int | None:
        """How many events had no line since the last one; None if no line is due."""
        now = time.monotonic()
        with self._lock:
            if now >= self._next:
                self._left, self._next = self._lines, now + self._seconds
            if not self._left:
                self._more += 1
                return None
            more, self._more = self._more, 0
            self._left -= 1
            return more
