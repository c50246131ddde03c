"""`recover`: makes a lost customers.db again."""

from pathlib import Path

import click

from tally.actors import logs
from tally.commands.databases import kept_stopped
from tally.commands.progress import Bars
from tally.commands.shared import ALONE, Group, stream_of
from tally.config import Settings
from tally.recovery import lost_customers
from tally.store import customers


@click.group(cls=Group, example="recover customers")
def recover() -> None:
    """Make again what was lost with its disk."""


@recover.command("customers", example="recover customers --from /var/backups/tally/monday/customers.db")
@click.option(
    "--from",
    "copy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A backup's customers.db to begin with.",
)
@click.option("--source", help="The name of the database that is meant, where Redis has events of several.")
@click.option("--empty", is_flag=True, help="Begin with an empty one instead, beside what was lost.")
def recover_customers(settings: Settings, copy: Path | None, source: str | None, empty: bool) -> None:
    """Make a lost customers.db again, from the stream and, with --from, a backup's file.

    Tally must be stopped and Redis must answer; `run --only redis` runs a private one alone. Events that are
    neither on the stream nor in the file are reported by number, and no number is given again.
    """
    if sum((copy is not None, source is not None, empty)) > 1:
        raise click.UsageError("of --from, --source and --empty, give one")
    logs.configure(settings.log, "recover")
    with stream_of(settings, without_redis=ALONE) as stream, kept_stopped(settings.directory, customers.FILE):
        if empty:
            name = lost_customers.begin_empty(settings.directory, settings.node.number)
            click.echo(f"{settings.directory / customers.FILE}: empty, as {name}")
            return
        with Bars() as bars:
            advance, pages = bars.add("stream, pages"), iter(range(1, 10**9))
            stream.beat = lambda: advance(next(pages))
            made = lost_customers.recover(settings.directory, stream, copy, settings.node.number, source)
        click.echo(
            f"{settings.directory / customers.FILE}: {made.source} again, {made.customers:,} customers and "
            f"{made.invoices:,} invoices; {made.from_stream:,} events from the stream"
        )
        for told in made.lacks:
            click.echo(told)
