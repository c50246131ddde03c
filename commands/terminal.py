"""The output of commands: tables for people on a terminal, plain lines for programs."""

import sys
from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from typing import Any

import click
import msgspec
from rich.console import Console, ConsoleRenderable
from rich.table import Column, Table
from rich.text import Text

from tally.http.visible import printable

Rows = Sequence[Sequence[str]]
"""The first one holds the headings."""


def fitted(line: str) -> str:
    """The line, cut off at the terminal's width; whole if the output is no terminal."""
    if not sys.stdout.isatty():
        return line
    text = Text(line)
    text.truncate(get_terminal_size().columns, overflow="ellipsis")
    return text.plain


def spoken(seconds: float) -> str:
    """The time in words: `45 s`, `3 min`, `2 h 5 min`, `4 days`."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return "1 day" if hours < 48 else f"{hours // 24} days"


def plain(rows: Rows) -> str:
    """The rows as aligned columns, nothing cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def table(rows: Rows) -> ConsoleRenderable:
    """The rows as a table within the terminal's width: long cells are folded, nothing is cut off."""
    made = Table(*(Column(heading, overflow="fold") for heading in rows[0]), box=None, pad_edge=False)
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    return made


def show_list(rows: Sequence[Mapping[str, Any]], as_json: bool, without: str) -> None:
    """Print things with the same columns: JSON, one on a line, or a table; the text `without` if none."""
    if as_json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
    elif rows:
        cells = [
            ["-" if value in (None, "") else printable(str(value)) for value in row.values()] for row in rows
        ]
        show([[*rows[0]], *cells])
    else:
        click.echo(without)


def show(rows: Rows) -> None:
    """Print the rows: as a table on a terminal, plain otherwise."""
    if sys.stdout.isatty():
        Console().print(table(rows))
    else:
        print(plain(rows))
