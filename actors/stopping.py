"""The order to stop, as a signal gives it."""

import os
import select
from typing import Protocol


class Readable(Protocol):
    """Something select can wait for."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class StopOrder:
    """Whether to stop. Once set, it stays set.

    Unlike a threading.Event, it can be set in a signal handler. An Event takes a lock to be set. The code
    that the handler interrupts may hold that lock, and then both wait for ever.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def set(self) -> None:
        """Wake every waiter, now and later. Safe in a signal handler; may be repeated."""
        self._is_set = True
        try:
            os.write(self._wake, b"!")
        except BlockingIOError:
            return

    def is_set(self) -> bool:
        """Whether it was set. Blocks never."""
        return self._is_set

    def wait(self, seconds: float, *others: Readable | int) -> bool:
        """Block until it is set, one of `others` is readable, or the time is over; False: it is over."""
        return bool(select.select([self._woken, *others], [], [], seconds)[0])

    def close(self) -> None:
        """Close the descriptors. After that it can't be set or waited for."""
        os.close(self._woken)
        os.close(self._wake)
