"""Lines of the log that anybody can cause: few of them, however often it happens."""

import threading
import time


class Seldom:
    """One line in so many seconds. Safe for any number of threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._more, self._next = 0, 0.0

    def due(self) -> int | None:
        """How many more there were since the last line; None when it is too soon for another."""
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                self._more += 1
                return None
            more, self._more, self._next = self._more, 0, now + self._seconds
            return more
