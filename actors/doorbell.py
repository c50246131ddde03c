"""Pipes that wake: a committed event wakes the relay at once, and a signal the process that gets it."""

import os
import select
from contextlib import suppress


class Doorbell:
    """A pipe that the supervisor makes and every actor inherits. Rings are not counted."""

    def __init__(self) -> None:
        self._listen, self.button = os.pipe()
        os.set_blocking(self._listen, False)
        os.set_blocking(self.button, False)

    def ring(self) -> None:
        """Wake the waiting relay. Never blocks; may be repeated."""
        with suppress(BlockingIOError):  # full: it was rung before, and nobody has answered yet
            os.write(self.button, b"!")

    def fileno(self) -> int:
        """A descriptor that is readable once it was rung."""
        return self._listen

    def silence(self) -> None:
        """Forget the rings up to now. Call it before looking for new events."""
        with suppress(BlockingIOError):
            while len(os.read(self._listen, 4096)) == 4096:
                pass

    def is_rung(self) -> bool:
        """Whether somebody rang since the last silence."""
        return bool(select.select([self._listen], [], [], 0)[0])

    def close(self) -> None:
        """Close the descriptors. After that it can't be rung or waited for."""
        os.close(self._listen)
        os.close(self.button)


class StopOrder(Doorbell):
    """Whether to stop. Once set, it stays set.

    Unlike a threading.Event, it can be set in a signal handler. An Event takes a lock to be set. The code
    that the handler interrupts may hold that lock, and then both wait for ever.
    """

    _is_set = False

    def set(self) -> None:
        """Wake every waiter, now and later. Safe in a signal handler; may be repeated."""
        self._is_set = True
        self.ring()

    def is_set(self) -> bool:
        """Whether it was set. Blocks never."""
        return self._is_set

    def wait(self, seconds: float, *others: Doorbell | int) -> bool:
        """Block until it is set, one of `others` is readable, or the time is over; False: it is over."""
        return bool(select.select([self, *others], [], [], seconds)[0])
