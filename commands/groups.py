"""`groups`: the readers of the stream, how far each is, and what is kept for it."""

from contextlib import closing, suppress
from typing import Any

import click

from tally.commands import terminal
from tally.commands.command_line import Failed
from tally.commands.databases import DATABASES
from tally.commands.shared import Group, confirmed, printing, stream_of
from tally.config import Settings
from tally.store import groups as store
from tally.store.asks import Asks
from tally.store.errors import StoreError
from tally.store.groups import Groups
from tally.store.incarnations import own_sources
from tally.store.membership import at_work, read_nodes
from tally.store.membership import remove as remove_databases
from tally.store.stream import EventStream, entry_time, is_a_services


@click.group(cls=Group, example="groups list")
def groups() -> None:
    """See who reads the stream, and remove a group that nobody needs any more."""


@groups.command("list", example="groups list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(settings: Settings, as_json: bool) -> None:
    """List the groups: who owns each, how far it has read, what it has in hand and has not read."""
    with stream_of(settings) as stream, printing():
        every = Groups(stream)
        beyond = {name: f"{count:,} removed unread" for name, count in every.overtaken().items()}
        beyond |= dict.fromkeys(every.holding(), "entries are kept for it")
        rows = [_row(group, beyond.get(group.name)) for group in every.all()]
    terminal.show_list(rows, as_json, without="nobody reads the stream yet")


@groups.command(example="groups remove accounts@4f2a9c1e")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Remove a group: nothing is kept for it any more, and a later reader of it begins at the oldest entry.

    If the group belongs to a Tally's database, that database counts as gone for good, and nobody waits for
    its events any more. A standby's database is removed from its node.
    """
    with stream_of(settings) as stream:
        every = Groups(stream)
        found = {group.name: group for group in every.all()}.get(name)
        node = read_nodes(stream).get(name)
        if name in _of_databases(settings, but_former=bool(node and node.is_standby)):
            raise Failed(f"{name} is of a database in {settings.directory}, and in use")
        _insist_on_rest(stream, name)
        if found is None and not Asks(stream).of(name):
            raise Failed(f"there is no group {name}; `groups list` shows them")
        what = "what is asked of it counts as lost"
        if found:
            what = f"with {found.pending:,} entries in hand and {found.unread:,} that it has not read"
        if not confirmed(f"the group {name} goes, {what}; the entries stay on the stream", yes):
            raise Failed("not confirmed, so it stays; --yes confirms beforehand")
        _insist_on_rest(stream, name)  # it may have been started meanwhile
        every.remove(name)
        if node and node.is_standby:
            remove_databases(stream, {name: node})
    click.echo(f"removed {name}")


def _insist_on_rest(stream: EventStream, name: str) -> None:
    if seconds := at_work(stream, name):
        raise Failed(f"{name} is at work: stop its Tally, and wait for {seconds:.0f} s")


def _of_databases(settings: Settings, but_former: bool) -> set[str]:
    """The groups and sources of the databases that are here; with `but_former`, only their present names."""
    found: set[str] = set()
    for name, opened in DATABASES.items():
        if (settings.directory / f"{name}.db").exists():
            with suppress(StoreError), closing(opened(settings.directory, make=False)) as database:
                found |= {database.source} | (set() if but_former else own_sources(database))
    return found


def _row(group: store.Group, beyond: str | None) -> dict[str, Any]:
    return {
        "group": group.name,
        "of": "Tally" if is_a_services(group.name) else "another program",
        "read up to": None if group.last_delivered == "0-0" else entry_time(group.last_delivered),
        "in hand": group.pending,
        "not read": group.unread,
        "idle s": None if group.idle_ms is None else group.idle_ms // 1000,
        "beyond the retention": beyond,
    }
