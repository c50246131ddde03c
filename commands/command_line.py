"""The command line as a whole: commands are imported when they are called, and fail in one way."""

import gc
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from tally.commands import inherited

FAILED, WRONG_USAGE = 1, 2  # exit statuses; click's own for wrong usage is 2 as well
# Python looks for reference cycles each time so many objects were made. A batch makes tens of thousands, and
# no cycles. With Python's own 700, the search took a quarter of the time; with 10,000 it took 4 %.
OBJECTS = 50_000
FROM_A_CHECKOUT = "python supervisor.py"  # how Tally is called there


class Failed(Exception):
    """Ends the program with `status` and this message, which says what to do."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Exemplified(click.Command):
    """A command whose help has an example, which calls Tally by the name used here."""

    def __init__(self, *arguments: Any, example: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The text, and below it the example on one line, so that it can be copied."""
        super().format_help_text(ctx, formatter)
        if self.example:
            formatter.write(f"\n  Example: {ctx.find_root().info_name or 'tally'} {self.example}\n")


class Program(Exemplified, click.Group):
    """The whole command line. A command is imported when it, or its help, is called.

    `lazy` has the first line of each command's help, by its name. A command is the function of its name, in
    the module of its name. `_` replaces `-`, and follows a name that is a keyword of Python.
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name, first_line in lazy.items():
            self.add_command(click.Command(name, help=first_line))  # for the list of commands

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that the arguments name, imported; its name, and the arguments after that."""
        name, command, others = super().resolve_command(ctx, args)
        return name, command and imported(command.name or ""), others

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command in any inherited environment. A failure ends it with one clear message."""
        if fault := inherited.mend():
            _end(WRONG_USAGE, fault)
        gc.set_threshold(OBJECTS)
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                sys.stdout.flush()
        except Failed as error:
            _end(error.status, str(error))
        except inherited.CannotPrint as error:
            inherited.let_go_of_output()
            _end(FAILED, f"can't write to standard output: {error.strerror}")
        except UnicodeEncodeError as error:  # an argument or a path has other bytes
            _end(WRONG_USAGE, f"{error.object!r} is not UTF-8")
        except BrokenPipeError:
            inherited.let_go_of_output()
            sys.exit(FAILED)


def imported(name: str) -> click.Command:
    """The command of that name."""
    place = name.replace("-", "_") + "_" * iskeyword(name)
    command: click.Command = getattr(import_module(f"tally.commands.{place}"), place)
    return command


def say(message: str) -> None:
    """Tell people something on standard error."""
    with suppress(OSError):  # if nobody can read it, the exit status tells
        for line in message.splitlines():
            click.echo(f"tally: {line}", err=True)


def _end(status: int, message: str) -> None:
    say(message)
    sys.exit(status)
