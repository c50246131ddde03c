"""Lines of the log that anybody can cause: few of them, however often it happens."""

import threading
import time


class Seldom:
    """So many lines in so many seconds, one unless told. Safe for any number of threads."""

    def __init__(self, seconds: float, lines: int = 1) -> None:
        self._seconds, self._lines = seconds, lines
        self._lock = threading.Lock()
        self._more, self._left, self._next = 0, 0, 0.0

    def due(self) -> int | None:
        """How many more there were since the last line; None when there were enough."""
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
