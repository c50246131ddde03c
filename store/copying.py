"""Copies of a database while it is in use; drafts of small files."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw

from tally.store.errors import DamagedDatabase, StoreUnavailable, UnusableDatabase, translated

PAGE_BYTES = 4096

_PAGES_AT_ONCE = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READING = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ)  # of the source


def copy_database(path: Path, copy: Path, advance: Callable[[int], None]) -> None:
    """Copy a snapshot of the database at `path` to `copy`, mode 0600; it is on the disk on return.

    Nobody waits meanwhile. `advance` is told how many pages are done. The copy gets its name once it is
    complete and checked; otherwise nothing is left. Raises FileExistsError when `copy` exists, StoreError, or
    OSError that names `copy`.
    """
    if copy.exists():
        raise FileExistsError(errno.EEXIST, "is there already, and is not overwritten", str(copy))
    partial = copy.with_name(f"{copy.name}.partial")
    with failures_of(copy):
        _remove(partial)  # left by a killed process
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with (
                translated(str(path)),
                closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as source,
                closing(apsw.Connection(str(partial))) as target,
            ):
                _copy(source, target, advance)
                identity = _identity(source)
            sync(partial)
            _prove(partial, identity, path)
            partial.rename(copy)
        finally:
            _remove(partial)
        sync(copy.parent)


@contextmanager
def failures_of(file: Path) -> Iterator[None]:
    """Errors of the disk that takes a file name the file, and tell what to do."""
    try:
        yield
    except OSError as error:
        told = f"could not be written: {error.strerror}; {_remedy(error, 'there')}, or use another disk"
        raise OSError(error.errno, told, str(file)) from error


def _prove(partial: Path, identity: object, path: Path) -> None:
    """Check that the copy is sound, and of the same database. Raises DamagedDatabase."""
    try:
        with closing(apsw.Connection(str(partial), flags=apsw.SQLITE_OPEN_READONLY)) as copy:
            found = copy.execute("PRAGMA integrity_check(1)").get
            faulty = found != "ok" or _identity(copy) != identity
    except apsw.Error as error:
        found, faulty = error, True
    if faulty:
        raise DamagedDatabase(
            path,
            f"its copy isn't sound ({' '.join(str(found).split())}), and was not kept",
            "`check` tells whether the file itself is damaged, and is to be restored from an earlier backup",
        )


@contextmanager
def told_of(copy: Path, made: Path, remedy: str) -> Iterator[None]:
    """Errors of a backup's file `copy`, or of the database `made` from it, name the file and its `remedy`."""
    try:
        yield
    except DamagedDatabase as error:
        raise DamagedDatabase(copy, error.fault, remedy) from error
    except UnusableDatabase as error:
        raise UnusableDatabase(str(error).replace(str(made), str(copy))) from error


def _identity(database: apsw.Connection) -> object:
    return database.execute("SELECT value FROM meta WHERE key = 'identity'").get


def _remove(partial: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _copy(source: apsw.Connection, target: apsw.Connection, advance: Callable[[int], None]) -> None:
    source.set_busy_timeout(5000)
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # begins the snapshot
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            try:
                backup.step(_PAGES_AT_ONCE)
            except (apsw.FullError, apsw.IOError) as error:
                if getattr(error, "extendedresult", 0) in _READING:
                    raise
                code = errno.ENOSPC if isinstance(error, apsw.FullError) else target.system_errno or errno.EIO
                raise OSError(code, os.strerror(code)) from error
            advance(backup.page_count - backup.remaining)


@contextmanager
def drafted(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with that content, mode 0600, on the disk. Gone afterwards, unless renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        give_to_owner(draft)
        sync(draft)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's content by what `change` makes of it, wholly or not at all.

    A missing file counts as empty. Mode 0600; on the disk on return. Only one call at a time for each file.
    Raises StoreUnavailable.
    """
    try:
        before = path.read_bytes() if path.exists() else b""
        with drafted(path, change(before)) as draft:
            draft.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"{path}: can't be replaced: {error.strerror}; {_remedy(error, 'on its disk')}"
        ) from error


def give_to_owner(path: Path) -> None:
    """Give a file that root made to the owner of its directory, whose Tally could not read it otherwise.

    A link is not followed: the directory's owner could have it lead to any file.
    """
    owner = path.parent.stat()
    with suppress(OSError):  # not root
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _remedy(error: OSError, there: str) -> str:
    return f"free some space {there}" if error.errno in _FULL else f"make it possible to write {there}"


def sync(path: Path) -> None:
    """Write a file's content, or a directory's names, through to the disk. Blocks until then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
