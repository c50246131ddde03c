"""The order to stop, as a signal gives it."""

import select

from tally.actors.doorbell import Doorbell


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
