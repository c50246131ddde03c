"""`backup`: copies of the databases, while Tally runs or not."""

from collections.abc import Iterator
from pathlib import Path

from tally.actors import control
from tally.commands.progress import Bars
from tally.store import accounts, customers
from tally.store.copying import PAGE_BYTES, copy_database

# In this order: what the copy of accounts.db has applied is then in the copy of customers.db too,
# and both together, on an empty Redis, come to the right figures by themselves.
FILES = (accounts.FILE, customers.FILE)


class CannotBackUp(Exception):
    """There is nothing to copy, or something in the way; the message says what, for the user."""


def back_up(data: Path, directory: Path) -> Iterator[str]:
    """Copy the databases in `data` into `directory`, which is made; tell of each once it is safe.

    Raises CannotBackUp before anything is copied, StoreError or OSError.
    """
    files = [file for file in FILES if (data / file).exists()]
    if not files:
        raise CannotBackUp(f"{data}: there is neither {' nor '.join(FILES)}")
    if lost := {*_of_running_services(data)} - {*files}:
        raise CannotBackUp(f"{data / min(lost)}: is gone, and its service runs: `status` tells more")
    for file in FILES:
        if (directory / file).exists():
            raise CannotBackUp(f"{directory / file} is there already; give a directory without one")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in files:
        with Bars() as bars:
            pages = (data / file).stat().st_size // PAGE_BYTES
            copy_database(data / file, directory / file, bars.add(f"{file}, pages", pages))
        yield f"{directory / file}: {(directory / file).stat().st_size / 1e6:,.1f} MB"


def _of_running_services(data: Path) -> Iterator[str]:
    """The files of the services that the running supervisor has actors of."""
    try:
        names = [actor.name for actor in control.ask(data)]
    except control.NotRunning:
        names = []
    for file in FILES:
        if any(name.startswith(f"{Path(file).stem}-") for name in names):
            yield file
