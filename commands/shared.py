"""The common parts of all commands."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from tally import config
from tally.actors import redis_access
from tally.actors.actor import CannotStart
from tally.actors.control import NotAnswering
from tally.actors.listening import PortTaken
from tally.actors.lock import AlreadyRunning
from tally.commands import inherited
from tally.commands.command_line import WRONG_USAGE, Exemplified, Failed, say
from tally.config import InvalidSettings, Settings
from tally.events import Id
from tally.store.errors import StoreError
from tally.store.stream import EventStream, RedisError

T = TypeVar("T")


def _load(context: click.Context, _parameter: object, file: Path | None) -> Settings:
    context.obj = file  # for `next_command`
    try:
        return config.load(file)
    except InvalidSettings as error:
        raise Failed("\n".join(error.faults), WRONG_USAGE) from error


class Command(Exemplified):
    """A command that takes `--config FILE`, and gets the Settings. Invalid settings end it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        text = "Settings file; it may hold only what differs from the defaults."
        kind = click.Path(path_type=Path)
        self.params.insert(0, click.Option(["--config", "settings"], type=kind, callback=_load, help=text))


class Group(Exemplified, click.Group):
    """A command that has others below it."""

    command_class = Command


def parsed(parse: Callable[[str], T]) -> Callable[[object, object, str | None], T | None]:
    """Click's callback for an option that `parse` reads, whose ValueError says what is expected."""

    def callback(_context: object, _parameter: object, value: str | None) -> T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


some_id = parsed(Id.parse)
"""Click's callback of an option that is the id of an account or a customer."""


def _token(value: str) -> str:
    if not re.fullmatch("[!-~]+", value):
        raise ValueError("Expected visible ASCII characters")
    return value


token_option = click.option(
    "--token",
    envvar="TALLY_TOKEN",
    show_envvar=True,
    callback=parsed(_token),
    help="Of POST /auth/login, where auth.mode is not off.",
)


def confirmed(told: str, yes: bool) -> bool:
    """Tell what is about to be lost, and ask. Without a terminal, the answer is no."""
    say(told)
    if yes or not sys.stdin.isatty():
        return yes
    try:
        return click.confirm("Go on?", err=True)
    except click.Abort:  # Ctrl-C
        click.echo(err=True)
        return False


ALONE = " (a private one alone: `run --only redis`)"
"""How to make a private Redis answer while Tally is stopped."""


@contextmanager
def faults_told(
    settings: Settings,
    where: str = "",
    without_redis: str = "",
    interrupted: str = "interrupted; run the same command again",
) -> Iterator[None]:
    """Any failure inside ends the program with one clear message.

    If an OSError names no file, `where` is named, by default the data directory. `without_redis` is added if
    Redis does not answer, and Ctrl-C ends the program with `interrupted`.
    """
    try:
        yield
    except RedisError as error:
        raise Failed(f"Redis at {settings.redis.address}: {error}{without_redis}") from error
    except (StoreError, AlreadyRunning, CannotStart, NotAnswering, PortTaken) as error:
        raise Failed(str(error)) from error
    except inherited.CannotPrint:
        raise
    except OSError as error:
        raise Failed(f"{error.filename or where or settings.directory}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        raise Failed(interrupted) from None


@contextmanager
def stream_of(settings: Settings, **told: str) -> Iterator[EventStream]:
    """The stream. A failure inside ends the program as in `faults_told`."""
    with faults_told(settings, **told):
        yield EventStream.at(redis_access.url(settings), settings.redis.stream)


@contextmanager
def printing() -> Iterator[None]:
    """Ctrl-C, or the end of standard output's reader, ends the inside quietly, with status 0."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        inherited.let_go_of_output()
