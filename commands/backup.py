"""`backup`: copies of the databases, while Tally runs or not."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from tally.commands.command_line import Failed
from tally.commands.databases import FILES, at_work
from tally.commands.progress import Bars
from tally.commands.shared import Command, faults_told, parsed
from tally.config import Settings
from tally.store.copying import PAGE_BYTES, copy_database


def _directory(value: str) -> Path:
    if not value:  # a script's empty variable; pathlib takes it for the present directory
        raise ValueError("Expected the name of a directory")
    return Path(value)


@click.command(cls=Command, example="backup /var/backups/tally/monday")
@click.argument("directory", type=click.Path(file_okay=False), callback=parsed(_directory))
def backup(settings: Settings, directory: Path) -> None:
    """Copy customers.db and accounts.db into DIRECTORY, also while Tally runs.

    Nothing there is overwritten. `restore` puts a copy back.
    """
    data = settings.directory
    with faults_told(settings, interrupted="interrupted; what is complete is kept"):
        files = [file for file in FILES if (data / file).exists()]
        if not files:
            raise Failed(f"{data}: there is neither {' nor '.join(FILES)}")
        if lost := at_work(data) - {*files}:
            raise Failed(f"{data / min(lost)}: is gone, and its service runs: `status` tells more")
        for file in FILES:
            if (directory / file).exists():
                raise Failed(f"{directory / file} is there already; give a directory without one")
        with _held(directory):
            for file in files:
                with Bars() as bars:
                    pages = (data / file).stat().st_size // PAGE_BYTES
                    copy_database(data / file, directory / file, bars.add(f"{file}, pages", pages))
    for made in (directory / file for file in files):
        click.echo(f"{made}: {made.stat().st_size / 1e6:,.1f} MB")


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Make the directory, if need be, and keep other backups from it. It doesn't stay if nothing is in it."""
    new = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another backup into {directory} is under way; wait for it") from None
        except OSError:
            pass  # a file system that can't lock directories, such as NFS
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):  # not empty
            for each in new:
                each.rmdir()
