"""The files that commands copy, replace or make again, and whether a running Tally has them open."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tally.actors import control
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.commands.command_line import Failed
from tally.store import accounts, customers
from tally.store.database import OpenDatabase

# `backup` copies them in this order. So every event that the copy of accounts.db has applied is in the copy
# of customers.db too, and both together reach the right figures on an empty Redis.
FILES = (accounts.FILE, customers.FILE)

# Like in `actors`, which takes half a second to load.
DATABASES: dict[str, OpenDatabase] = {each.SERVICE: each.open_database for each in (customers, accounts)}
"""How each service's database is opened."""


def at_work(data: Path) -> set[str]:
    """The databases in `data` whose services a supervisor is running now, as far as it answers."""
    try:
        return _open_at(data)
    except control.NotRunning:
        return set()


def _open_at(data: Path) -> set[str]:
    names = [actor.name for actor in control.ask(data, control.PATIENT_SECONDS)]
    return {file for file in FILES if any(name.startswith(f"{Path(file).stem}-") for name in names)}


@contextmanager
def kept_stopped(data: Path, *files: str) -> Iterator[None]:
    """Keep any Tally from opening these databases meanwhile; makes the directory `data`, if need be.

    Raises Failed if one has them open, or if a supervisor holds `data` and doesn't tell: it may be suspended,
    or about to start.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            there = _open_at(data)  # a supervisor that answers holds the directory
        except control.NotRunning as error:
            there = set()
            held.enter_context(closing(_held(data, str(error))))
        for file in sorted(there & {*files}):
            raise Failed(
                f"the {Path(file).stem} service runs in {data}; stop it first (`run --only redis` may go on)"
            )
        yield


def _held(data: Path, why: str) -> DirectoryLock:
    try:
        return DirectoryLock(data)
    except AlreadyRunning as error:
        holder = f"process {error.pid}" if error.pid else "a process"
        raise Failed(
            f"{holder} runs Tally in {data}, and does not tell which services ({why}); stop it first"
        ) from error
