"""`backup`, `restore` and `recover`: copies of the databases, and what is made again of them."""

from pathlib import Path

import click

from tally.actors import logs, redis_access
from tally.commands.shared import ALONE, Command, Group, config_option, confirmed, faults_told, load
from tally.config import Settings
from tally.store import accounts, customers
from tally.store.stream import EventStream


@click.command(cls=Command)
@config_option
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def backup(file: Path | None, directory: Path) -> None:
    """Copy customers.db and accounts.db into DIRECTORY, also while Tally runs.

    Nothing there is overwritten. `restore` puts a copy back.

    \b
    Example: python supervisor.py backup /var/backups/tally/monday
    """
    from tally.commands import backups  # what shows progress takes 0.1 s to load; `run` does without

    settings = load(file)
    kept = "interrupted; what is complete is kept"
    with faults_told(settings, backups.CannotBackUp, interrupted=kept):
        for copy in backups.back_up(settings.directory, directory):
            click.echo(copy)


@click.command(cls=Command)
@config_option
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Don't ask.")
def restore(file: Path | None, directory: Path, yes: bool) -> None:
    """Put the copies in DIRECTORY in the place of customers.db and accounts.db, while Tally is stopped.

    Tells what each copy has and what the stream will add, and asks. What was there is kept in a folder beside
    it. At its next start Tally takes back what the stream has of later; while `run --only redis` runs, or
    with a Redis of your own, this can tell how much that is.

    \b
    Example: python supervisor.py restore /var/backups/tally/monday
    """
    from tally.commands import restoring  # as above

    settings = load(file)
    with faults_told(settings):
        for told in restoring.restore(
            settings.directory, directory, _stream(settings), lambda told: confirmed(told, yes)
        ):
            click.echo(told)
        click.echo("`run` takes back what the stream has")


@click.command(cls=Command)
@config_option
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def join(file: Path | None, directory: Path) -> None:
    """Begin a node, or a standby, while it is stopped, from what another's `backup` has put in DIRECTORY.

    A node takes accounts.db, and gets the number that node.number says. Without it, a new node reads the
    whole stream, which may no longer have everything. A standby (node.standby) takes both databases, of the
    node that has its number. What the stream has of later they read when they run.

    \b
    Example: python supervisor.py join /var/backups/tally/monday
    """
    from tally.commands import restoring  # as above
    from tally.recovery import joining

    settings = load(file)
    with faults_told(settings):
        restoring.insist_on_stopped(settings.directory, accounts.FILE, customers.FILE)
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if settings.node.standby:
            followed = joining.follow(settings.directory, directory, settings.node.number)
            for name, source in followed.items():
                click.echo(
                    f"{settings.directory / name}: standby of node {settings.node.number}, as {source}"
                )
            return
        source = joining.join(settings.directory, directory / accounts.FILE, settings.node.number)
        click.echo(f"{settings.directory / accounts.FILE}: node {settings.node.number}, as {source}")
        if (directory / customers.FILE).exists():
            click.echo(f"{directory / customers.FILE} is not taken: its node alone changes what is in it")


@click.command(cls=Command)
@config_option
@click.option("--yes", is_flag=True, help="Don't ask.")
def promote(file: Path | None, yes: bool) -> None:
    """Make this standby the primary of its node, whether the old one still runs or not.

    That becomes a standby, once it reaches Redis, and hands over what it had accepted and not published. Runs
    beside `run`, or before it.

    \b
    Example: python supervisor.py promote
    """
    from tally.commands import promoting  # as above

    settings = load(file)
    with faults_told(settings):
        told = promoting.promote_here(settings, _stream(settings), lambda told: confirmed(told, yes))
        click.echo(told)


@click.group(cls=Group)
def recover() -> None:
    """Make again what was lost with its disk.

    \b
    Example: python supervisor.py recover customers
    """


@recover.command("customers")
@config_option
@click.option(
    "--from",
    "copy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A backup's customers.db to begin with.",
)
@click.option("--empty", is_flag=True, help="Begin with an empty one instead, beside what was lost.")
def recover_customers(file: Path | None, copy: Path | None, empty: bool) -> None:
    """Make a lost customers.db again, from the stream and, with --from, a backup's file.

    While Tally is stopped and Redis answers: a private one alone with `run --only redis`. Events that are
    neither on the stream nor in the file are told by number, and no number is given again.

    \b
    Example: python supervisor.py recover customers --from /var/backups/tally/monday/customers.db
    """
    from tally.commands import restoring
    from tally.commands.progress import Bars
    from tally.recovery import lost_customers

    settings = load(file)
    if copy and empty:
        raise click.UsageError("--from and --empty exclude each other")
    logs.configure(settings.log, "recover")
    with faults_told(settings, without_redis=ALONE):
        restoring.insist_on_stopped(settings.directory, customers.FILE)
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if empty:
            source = lost_customers.begin_empty(settings.directory, settings.node.number)
            click.echo(f"{settings.directory / customers.FILE}: empty, as {source}")
            return
        stream = _stream(settings)
        with Bars() as bars:
            advance, pages = bars.add("stream, pages"), iter(range(1, 10**9))
            made = lost_customers.recover(
                settings.directory, stream, copy, lambda: advance(next(pages)), settings.node.number
            )
        click.echo(
            f"{settings.directory / customers.FILE}: {made.source} again, {made.customers:,} customers and "
            f"{made.invoices:,} invoices; {made.from_stream:,} events from the stream"
        )
        for told in lost_customers.lacks(settings.directory):
            click.echo(told)


def _stream(settings: Settings) -> EventStream:
    return EventStream.at(redis_access.url(settings), settings.redis.stream)
