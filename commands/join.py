"""`join`: begins a node, or a standby, from another's backup."""

from pathlib import Path

import click

from tally.commands.databases import kept_stopped
from tally.commands.shared import Command, faults_told
from tally.config import Settings
from tally.recovery import joining
from tally.store import accounts, customers


@click.command(cls=Command, example="join /var/backups/tally/monday")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def join(settings: Settings, directory: Path) -> None:
    """Begin a node or a standby from another's backup in DIRECTORY, while it is stopped.

    A node takes accounts.db, and gets the number in node.number. A new node without such a copy reads the
    whole stream, which may no longer have everything. A standby (node.standby) takes both databases of the
    node with its number. When it runs, it reads the later events from the stream.
    """
    with faults_told(settings), kept_stopped(settings.directory, accounts.FILE, customers.FILE):
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
