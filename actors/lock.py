"""One data directory has one supervisor."""

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another supervisor holds the data directory; the message names it."""


class DirectoryLock:
    """Holds `supervisor.lock` in the data directory until this process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises AlreadyRunning."""
        self.path = directory / "supervisor.lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 100).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise AlreadyRunning(
                f"{directory} is in use by another supervisor, process {holder}; stop it, "
                "or set data.directory elsewhere"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """The descriptor; whoever inherits it would hold the lock as well."""
        return self._descriptor

    def release(self) -> None:
        """Let go of the directory; the file stays."""
        os.close(self._descriptor)
