"""The files that commands copy, replace or make again, and whether a running Tally has them open."""

from pathlib import Path

from tally.actors import control
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
    """The databases in `data` whose services a supervisor is running now."""
    try:
        names = [actor.name for actor in control.ask(data)]
    except control.NotRunning:
        return set()
    return {file for file in FILES if any(name.startswith(f"{Path(file).stem}-") for name in names)}


def insist_on_stopped(data: Path, *files: str) -> None:
    """Check that no running Tally has these databases open. Raises Failed."""
    for file in sorted(at_work(data) & {*files}):
        raise Failed(
            f"the {Path(file).stem} service runs in {data}; stop it first (`run --only redis` may go on)"
        )
