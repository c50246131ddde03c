"""Full or read-only disks, databases that other programs hold, and copies of databases."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import NoReturn

import pytest

from tally.events import Id
from tally.store import customers
from tally.store.records import NewInvoice

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def unavailable(what: str, reason: str) -> NoReturn:
    """Skip the test by name; where every tool is required, fail it."""
    if os.environ.get("TALLY_TEST_REQUIRE_ENGINES") == "1":
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(f"{what}: {reason}")


def run(*command: str | Path) -> str:
    """Run a program to its end; return its output. Raises CalledProcessError."""
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    ).stdout.strip()


@contextmanager
def tmpfs(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size at `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", directory)
    except (OSError, subprocess.CalledProcessError) as error:
        unavailable("mounting a tmpfs", f"{getattr(error, 'stderr', error)}")
    try:
        yield directory
    finally:
        run("umount", "--lazy", directory)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Leave no free byte in the file system of `directory`, for as long as the context lasts."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def held(database: Path, how: str) -> Iterator[None]:
    """Let another program begin a transaction (BEGIN `how`) and hold it for as long as the context lasts."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, database, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


def copied_while_in_use(database: Path, copy: Path) -> None:
    """Copy a database as it is now, with SQLite's own backup."""
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def copied_with_its_log(database: Path, copy: Path) -> None:
    """Copy the files of a database that no process uses."""
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{database}{suffix}")
        if file.exists():
            shutil.copy(file, f"{copy}{suffix}")


def removed(database: Path) -> None:
    """Remove the files of a database."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def replaced(database: Path, copy: Path) -> None:
    """Put a database's copy in its place."""
    removed(database)
    copied_with_its_log(copy, database)


def gone_its_own_way(customers_db: Path) -> None:
    """Record something in a copy, as if it was written to before Redis could be asked."""
    store = customers.Customers(customers.open_database(customers_db.parent))
    with closing(store.database) as database, database.transaction():
        [(customer,)] = database.rows("SELECT min(id) FROM customer")
        new = NewInvoice(Id(customer), date(2019, 1, 6), 1)
        store.create_invoices([new] * 300)


class FailingDisk:
    """An ext4 in a file, mounted at `directory`, that can turn read-only while it is in use."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.directory = directory
        self._image = image

    def mount(self) -> None:
        run("mount", "-o", "loop", self._image, self.directory)

    def fail(self) -> None:
        """Make it read-only, as the kernel does with a disk that gives errors."""
        try:
            run("mount", "-o", "remount,abort", self.directory)
        except subprocess.CalledProcessError:
            return  # the disk is read-only all the same

    def mend(self) -> None:
        """Check it, and mount it again; no process may use it.

        This mounts a copy: namespaces that other tests made may still have the old one mounted, read-only.
        """
        run("umount", self.directory)
        for device in run("losetup", "--noheadings", "--output", "NAME", "--associated", self._image).split():
            run("blockdev", "--flushbufs", device)
        self._image = Path(shutil.copy(self._image, f"{self._image}.copy"))
        subprocess.run(["fsck.ext4", "-fy", self._image], check=False, capture_output=True)
        self.mount()


@contextmanager
def failing_ext4(directory: Path) -> Iterator[FailingDisk]:
    """A disk of 64 MB at `directory` that can be made to fail."""
    directory.mkdir(parents=True, exist_ok=True)
    image = directory.with_suffix(".ext4")
    disk = FailingDisk(directory, image)
    try:
        with image.open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", "-F", image)
        disk.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        unavailable("mounting an ext4", f"{getattr(error, 'stderr', error)}")
    try:
        yield disk
    finally:
        run("umount", "--lazy", directory)


@contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Let nobody write to the files in `directory`, even through open descriptors.

    Files mapped into memory are left out: SIGBUS would kill their users.
    """
    files = [file for file in directory.rglob("*") if file.is_file() and not file.name.endswith("-shm")]
    run("chattr", "+i", *files)
    try:
        yield
    finally:
        run("chattr", "-i", *[file for file in files if file.exists()])
