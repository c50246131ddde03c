"""`promote`: a standby takes its primary's place, as a person says."""

from collections.abc import Callable

import click

from tally.actors.services import SERVICES, followers, url_of
from tally.commands.command_line import Failed
from tally.commands.shared import Command, confirmed, stream_of
from tally.config import Settings
from tally.store import membership
from tally.store.membership import Candidate, Membership, at_work, leases_of
from tally.store.stream import EventStream


@click.command(cls=Command, example="promote")
@click.option("--yes", is_flag=True, help="Don't ask.")
def promote(settings: Settings, yes: bool) -> None:
    """Make this standby the primary of its node, whether the old one still runs or not.

    The old primary becomes a standby once it reaches Redis, and hands over what it had accepted but not
    published. Works beside `run`, or before it.
    """
    with stream_of(settings) as stream:
        click.echo(promote_here(settings, stream, lambda told: confirmed(told, yes)))


def promote_here(settings: Settings, stream: EventStream, confirm: Callable[[str], bool]) -> str:
    """Promote the databases in the data directory once that is confirmed; answer what was done.

    Raises Failed, StoreError or RedisError.
    """
    directory, number, found = settings.directory, settings.node.number, list[Candidate]()
    for database in followers(directory, lambda name: SERVICES[name].open(directory, make=False)):
        url = url_of(settings, database.service)
        Membership(database, stream, url).take()  # tells Redis what the database knows of its primary
        found.append(Candidate(database.source, url))
    if not found:
        raise Failed(f"{directory} has no standby's databases: it is a primary's, or empty")
    old = sorted(leases_of(stream, number))
    working = [name for name in old if at_work(stream, name)]
    told = f"node {number} goes on here, as {' and '.join(each.source for each in found)}"
    if working:
        told += f". {' and '.join(working)} is at work now, and becomes a standby"
    if not confirm(told):
        raise Failed("not confirmed, so nothing was changed; --yes confirms beforehand")
    membership.promote(stream, number, found)
    return f"promoted: {told}"
