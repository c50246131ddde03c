"""The doorbell: any process that commits an event wakes the relay at once, and a signal the supervisor."""

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
        try:
            os.write(self.button, b"!")
        except BlockingIOError:
            return  # full: it was rung before, and nobody has answered yet

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
