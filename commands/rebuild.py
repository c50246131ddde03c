"""`rebuild accounts`: the read model of accounts.db again, while Tally runs, or while only Redis does."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import click

from tally.actors import logs
from tally.actors.lock import DirectoryLock, is_held
from tally.commands.progress import Bars
from tally.commands.shared import ALONE, Group, confirmed, stream_of
from tally.config import Settings
from tally.recovery.rebuilding import Rebuilding


@click.group(cls=Group, example="rebuild accounts")
def rebuild() -> None:
    """Build anew what can be built from something else."""


@rebuild.command("accounts", example="rebuild accounts")
@click.option("--yes", is_flag=True, help="Don't ask, whatever is lost; you will be told.")
def rebuild_accounts(settings: Settings, yes: bool) -> None:
    """Build the customers and revenue in accounts.db again, while Tally runs or only Redis does.

    Reads the stream if it still holds everything, else customers.db. The old figures are shown until the new
    ones are complete. Run it again after an interruption: it goes on.
    """
    logs.configure(settings.log, "rebuild")
    interrupted = "interrupted; run the same command again to go on"
    with stream_of(settings, without_redis=ALONE, interrupted=interrupted) as stream:
        stream.client.ping()
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(DirectoryLock(settings.directory, "rebuild")):
            is_alone = not is_held(settings.directory)
            confirm = partial(confirmed, yes=yes)
            with closing(Rebuilding(settings.directory, stream, confirm, _bar, make=is_alone)) as rebuilding:
                click.echo(rebuilding.run())


@contextmanager
def _bar(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """One stage of the work, shown while it lasts."""
    with Bars() as bars:
        yield bars.add(what, total, done)
