"""One data directory has one supervisor."""

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another process holds the data directory; the message names it, and `pid` is its number if known."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class DirectoryLock:
    """Holds `<who>.lock` in the data directory until this process ends, however it ends."""

    def __init__(self, directory: Path, who: str = "supervisor") -> None:
        """Raises AlreadyRunning."""
        self.path = directory / f"{who}.lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 100).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise AlreadyRunning(
                f"{directory} is in use by another {who}, process {holder}; stop it, "
                "or set data.directory elsewhere",
                int(holder) if holder.isdigit() else None,
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """The descriptor; whoever inherits it would hold the lock as well."""
        return self._descriptor

    def release(self) -> None:
        """Let go of the directory; the file stays."""
        os.close(self._descriptor)


def supervisor_of(directory: Path) -> int | None:
    """The process that supervises in `directory`, or None when there is none."""
    try:
        DirectoryLock(directory).release()
    except AlreadyRunning as error:
        return error.pid
    return None
