"""What commands show: tables and progress for people on a terminal, plain lines for programs."""

import sys
from collections.abc import Callable, Sequence
from shutil import get_terminal_size
from typing import Self

from rich.console import Console, ConsoleRenderable
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

Rows = Sequence[Sequence[str]]
"""The first one holds the headings."""


def printable(text: str) -> str:
    """The text on one line, with everything escaped that a terminal could take for an order."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def fitted(line: str) -> str:
    """The line, cut off where the terminal ends; whole when it isn't printed on one."""
    if not sys.stdout.isatty():
        return line
    text = Text(line)
    text.truncate(get_terminal_size().columns, overflow="ellipsis")
    return text.plain


def plain(rows: Rows) -> str:
    """The rows as aligned columns, nothing cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def table(rows: Rows) -> ConsoleRenderable:
    """The rows as a table that keeps to the terminal's width: long cells are folded, nothing is cut off."""
    made = Table(*(Column(heading, overflow="fold") for heading in rows[0]), box=None, pad_edge=False)
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    return made


def show(rows: Rows) -> None:
    """Print the rows: as a table on a terminal, plain otherwise."""
    if sys.stdout.isatty():
        Console().print(table(rows))
    else:
        print(plain(rows))


class Bars:
    """Progress bars with rate and time left, on standard error; none where it is no terminal."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), _TimeLeft())
        self._shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.stop()

    def add(self, what: str, total: int | None = None, done: int = 0) -> Callable[[int], None]:
        """Show one more; answers what is to be called with how many are done."""
        bar = self._shown.add_task(what, total=total, completed=done)
        return lambda done: self._shown.update(bar, completed=done)

    def say(self, text: str) -> None:
        """Print a line, above the bars."""
        self._shown.console.print(Text(printable(text)), soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text("")
