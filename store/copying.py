"""Copies of a database while it is in use."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from tally.store.errors import translated

PAGE_BYTES = 4096

_PAGES_AT_ONCE = 4096


def copy_database(path: Path, copy: Path, advance: Callable[[int], None]) -> None:
    """Make `copy`, mode 0600, what the database at `path` is at one moment; on the disk when this returns.

    Nobody has to wait meanwhile. `advance` is told how many pages are done. The file has
    its name once it is complete. Raises FileExistsError when there is one, StoreUnavailable or OSError.
    """
    if copy.exists():
        raise FileExistsError(errno.EEXIST, "is there already, and is not overwritten", str(copy))
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL, 0o600))
    with translated(str(path)):
        source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        target = apsw.Connection(str(partial))
        try:
            _copy(source, target, advance)
        finally:
            target.close()
            source.close()
    _sync(partial)
    partial.rename(copy)
    _sync(copy.parent)


def _copy(source: apsw.Connection, target: apsw.Connection, advance: Callable[[int], None]) -> None:
    source.set_busy_timeout(5000)
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the moment: writers change no step
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(_PAGES_AT_ONCE)
            advance(backup.page_count - backup.remaining)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
