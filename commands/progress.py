"""Shows the progress of work to people who wait for it."""

import sys
from collections.abc import Callable
from contextlib import suppress

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from tally.http.visible import printable


class Bars(Progress):
    """Progress bars with rate and time left, on standard error; none if it is no terminal."""

    def __init__(self) -> None:
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        super().__init__(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())

    def add(self, what: str, total: int | None = None, done: int = 0) -> Callable[[int], None]:
        """Show one more bar; answers a function to call with the number that is done."""
        bar = self.add_task(what, total=total, completed=done)
        return lambda done: self.update(bar, completed=done)

    def say(self, text: str) -> None:
        """Print a line, above the bars. If nobody can read it, go on."""
        if self.disable:
            with suppress(OSError):
                click.echo(printable(text), err=True)
        else:
            self.console.print(Text(printable(text)), soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")
