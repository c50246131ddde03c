"""`nodes`: the Tallys that share the stream."""

import click

from tally.commands import terminal
from tally.commands.command_line import Failed
from tally.commands.shared import Group, confirmed, printing, stream_of
from tally.config import Settings
from tally.store.groups import Groups
from tally.store.membership import at_work, number_of, read_nodes
from tally.store.membership import remove as remove_databases
from tally.store.nodes import HIGHEST, Node
from tally.store.stream import EventStream


@click.group(cls=Group, example="nodes list")
def nodes() -> None:
    """See which Tallys share the stream, and remove one that is gone for good."""


@nodes.command("list", example="nodes list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(settings: Settings, as_json: bool) -> None:
    """List the nodes' databases: their numbers and addresses, and when each has last read the stream."""
    with stream_of(settings) as stream, printing():
        readers = Groups(stream)
        every = sorted(read_nodes(stream).items(), key=lambda named: (named[1].number, named[0]))
        rows = [_row(name, node, readers.idle_ms(name)) for name, node in every]
    terminal.show_list(rows, as_json, without="no node is known yet")


@nodes.command(example="nodes remove 2")
@click.argument("number", type=click.IntRange(0, HIGHEST))
@click.option("--yes", is_flag=True, help="Don't ask.")
def remove(settings: Settings, number: int, yes: bool) -> None:
    """Remove a node that is gone for good: nothing is kept for it any more.

    Its published events stay and count. Another node may then take its number, and gives new ids.
    """
    with stream_of(settings) as stream:
        there = _at_rest(stream, number)
        told = f"node {number} goes: {' and '.join(sorted(there))}. What it has not published is lost"
        if not confirmed(told, yes):
            raise Failed("not confirmed, so it stays; --yes confirms beforehand")
        if _at_rest(stream, number) != there:
            raise Failed(f"node {number} has changed meanwhile: run it again")
        readers, known, heirs = Groups(stream), read_nodes(stream), stream.heirs()
        for name in sorted({*there, *(each for each in heirs if number_of(each, known, heirs) == number)}):
            readers.remove(name)
        remove_databases(stream, there)
    click.echo(f"removed node {number}")


def _at_rest(stream: EventStream, number: int) -> dict[str, Node]:
    """The databases of a node. Raises Failed without one, or if one of them is at work."""
    known = read_nodes(stream).items()
    there = {name: node for name, node in known if node.number == number and not node.is_removed}
    if not there:
        raise Failed(f"there is no node {number}; `nodes list` shows them")
    for name in there:
        if seconds := at_work(stream, name):
            raise Failed(f"node {number} is at work ({name}): stop it, and wait for {seconds:.0f} s")
    return there


def _row(name: str, node: Node, idle_ms: int | None) -> dict[str, str | int | None]:
    return {
        "node": node.number,
        "database": name,
        "address": node.url,
        "idle s": None if idle_ms is None else idle_ms // 1000,
        "state": "gone for good" if node.is_removed else "standby" if node.is_standby else "",
    }
