"""The doorbell: whoever commits an event wakes the relay at once, whichever process it is in."""

import os
import select


class Doorbell:
    """A pipe that the supervisor makes and every actor inherits. Rings are not counted."""

    def __init__(self) -> None:
        self._listen, self._button = os.pipe()
        os.set_blocking(self._listen, False)
        os.set_blocking(self._button, False)

    def ring(self) -> None:
        """Wake whoever waits. Never blocks; may be repeated."""
        try:
            os.write(self._button, b"!")
        except BlockingIOError:
            return  # full: it has been rung, and nobody has answered yet

    def fileno(self) -> int:
        """Readable while it has been rung."""
        return self._listen

    def silence(self) -> None:
        """Forget the rings up to now. Call it before looking for what they told of."""
        try:
            while len(os.read(self._listen, 4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def is_rung(self) -> bool:
        """Whether somebody rang since the last silence."""
        return bool(select.select([self._listen], [], [], 0)[0])
