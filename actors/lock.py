"""One data directory has one supervisor."""

import fcntl
import os
import time
from pathlib import Path

from tally.store.copying import give_to_owner

SUPERVISOR = "supervisor"
LOOK_SECONDS = 0.5  # whoever looks whether a supervisor runs holds the lock for a moment


class AlreadyRunning(Exception):
    """Another process holds the data directory; the message names it, and `pid` is its number if known."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class DirectoryLock:
    """Holds `<who>.lock` in the data directory until this process ends, however it ends.

    The supervisor holds the directory itself as well: a file can be deleted, and somebody else can hold a new
    one in its place. The file tells who holds the lock, to earlier releases too.
    """

    def __init__(self, directory: Path, who: str = SUPERVISOR, patience: float = LOOK_SECONDS) -> None:
        """Waits for up to `patience` seconds. Raises AlreadyRunning or OSError."""
        self.path = directory / f"{who}.lock"
        self.descriptors: list[int] = []
        """A process that inherited them would hold the lock as well."""
        until = time.monotonic() + patience
        try:
            if who == SUPERVISOR:
                self._hold(directory, os.O_RDONLY | os.O_DIRECTORY, until)
            # A link there could lead root's command to any file, which it would empty.
            self._hold(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, until)
            give_to_owner(self.path)
            os.ftruncate(self.descriptors[-1], 0)
            os.pwrite(self.descriptors[-1], f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.close()
            if not isinstance(error, BlockingIOError):
                raise
            holder = _noted(self.path) or _holder(directory)
            raise AlreadyRunning(
                f"{directory} is in use by another {who}, process {holder or 'unknown'}; stop it, "
                "or set data.directory elsewhere",
                holder,
            ) from None

    def is_in_place(self) -> bool:
        """Whether the locked directory is still the one at its path, and not another in its place."""
        try:
            return os.path.samestat(os.stat(self.path.parent), os.fstat(self.descriptors[0]))
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the directory; the file stays."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def _hold(self, path: Path, flags: int, until: float) -> None:
        self.descriptors.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
        while True:
            try:
                return fcntl.flock(self.descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)


def is_held(directory: Path) -> bool:
    """Whether a supervisor, or a command that needs it alone, holds `directory`."""
    try:
        DirectoryLock(directory, patience=0).close()
    except AlreadyRunning:
        return True
    return False


def _noted(file: Path) -> int | None:
    """The process whose number is in the lock file."""
    try:
        text = file.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdigit() else None


def _holder(directory: Path) -> int | None:
    """The process that holds the directory, as far as the kernel tells."""
    try:
        found, locks = directory.stat(), Path("/proc/locks").read_text()
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    held = (line.split() for line in locks.splitlines() if " FLOCK " in line)
    return next((int(fields[4]) for fields in held if fields[5] == place), None)
