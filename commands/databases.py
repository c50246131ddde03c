"""The files that commands copy, replace or make again, and whether a running Tally has them open."""

from pathlib import Path

from tally.actors import control
from tally.commands.command_line import Failed
from tally.store import accounts, customers
from tally.store.database import OpenDatabase

# `backup` copies them in this order: all that the copy of accounts.db has applied is then in the copy of
# customers.db too, and both together, on an empty Redis, come to the right figures by themselves.
FILES = (accounts.FILE, customers.FILE)

# As `actors` has them, which take half a second to load.
DATABASES: dict[str, OpenDatabase] = {each.SERVICE: each.open_database for each in (customers, accounts)}
"""How each service's database is opened."""


def at_work(data: Path) -> set[str]:
    """The databases in `data` whose services are run by a supervisor now."""
    try:
        names = [actor.name for actor in control.ask(data)]
    except control.NotRunning:
        return set()
    return {file for file in FILES if any(name.startswith(f"{Path(file).stem}-") for name in names)}


def insist_on_stopped(data: Path, *files: str) -> None:
    """See that no running Tally has these databases open. Raises Failed."""
    for file in sorted(at_work(data) & {*files}):
        raise Failed(
            f"the {Path(file).stem} service runs in {data}; stop it first (`run --only redis` may go on)"
        )
