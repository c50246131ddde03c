"""`groups`: who reads the stream, how far, and what is kept for whom."""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from tally.actors.services import SERVICES
from tally.commands import terminal
from tally.commands.shared import (
    FAILED,
    Group,
    config_option,
    confirmed,
    end,
    load,
    printing,
    stream_of,
)
from tally.config import Settings
from tally.store import groups as store
from tally.store.errors import StoreError
from tally.store.groups import Groups
from tally.store.incarnations import own_sources
from tally.store.membership import at_work, read_nodes
from tally.store.membership import remove as remove_databases
from tally.store.stream import entry_time


@click.group("groups", cls=Group)
def groups_command() -> None:
    """See who reads the stream, and remove a group that nobody needs any more.

    \b
    Example: python supervisor.py groups list
    """


@groups_command.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(file: Path | None, as_json: bool) -> None:
    """List the groups: whose each is, how far it has read, what it has in hand and has not read.

    \b
    Example: python supervisor.py groups list
    """
    with stream_of(load(file)) as stream, printing():
        groups = Groups(stream)
        holding, overtaken = groups.holding(), groups.overtaken()
        rows = [_row(group, holding, overtaken) for group in groups.all()]
    terminal.show_list(rows, as_json, without="nobody reads the stream yet")


@groups_command.command()
@config_option
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
def remove(file: Path | None, name: str, yes: bool) -> None:
    """Remove a group: nothing is kept for it any more, and who reads from it begins at the oldest entry.

    Where it is of a Tally's database, that counts as gone for good: nobody waits for its events any more. So
    a standby's is removed from its node.

    \b
    Example: python supervisor.py groups remove accounts@4f2a9c1e
    """
    settings = load(file)
    with stream_of(settings) as stream:
        groups = Groups(stream)
        found = {group.name: group for group in groups.all()}.get(name)
        node = read_nodes(stream).get(name)
        if name in _of_databases(settings, but_former=bool(node and node.is_standby)):
            end(FAILED, f"{name} is of a database in {settings.directory}, and in use")
        if seconds := at_work(stream, name):
            end(FAILED, f"{name} is at work: stop its Tally, and wait for {seconds:.0f} s")
        if found is None and not groups.is_asked(name):
            end(FAILED, f"there is no group {name}; `groups list` shows them")
        what = "what is asked of it counts as lost"
        if found:
            what = f"with {found.pending:,} entries in hand and {found.unread:,} that it has not read"
        if not confirmed(f"the group {name} goes, {what}; the entries stay on the stream", yes):
            end(FAILED, "not confirmed, so it stays; --yes confirms beforehand")
        groups.remove(name)
        if node and node.is_standby:
            remove_databases(stream, {name: node})
    click.echo(f"removed {name}")


def _of_databases(settings: Settings, but_former: bool) -> set[str]:
    """The groups and sources of the databases that are here; `but_former` names, which others had."""
    found: set[str] = set()
    for name, service in SERVICES.items():
        if (settings.directory / f"{name}.db").exists():
            with suppress(StoreError), closing(service.open(settings.directory, make=False)) as database:
                found |= {database.source} | (set() if but_former else own_sources(database))
    return found


def _row(group: store.Group, holding: Mapping[str, str], overtaken: Mapping[str, int]) -> dict[str, Any]:
    return {
        "group": group.name,
        "of": "Tally" if group.is_a_services else "another program",
        "read up to": None if group.last_delivered == "0-0" else entry_time(group.last_delivered),
        "in hand": group.pending,
        "not read": group.unread,
        "idle s": None if group.idle_ms is None else group.idle_ms // 1000,
        "beyond the retention": _beyond(group.name, holding, overtaken),
    }


def _beyond(name: str, holding: Mapping[str, str], overtaken: Mapping[str, int]) -> str | None:
    if name in holding:
        return "entries are kept for it"
    return f"{overtaken[name]:,} removed unread" if name in overtaken else None
