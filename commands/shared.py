"""What every command of the command line has in common."""

import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from tally import config
from tally.actors import redis_access
from tally.commands import inherited
from tally.config import InvalidSettings, Settings
from tally.events import Id
from tally.store.errors import StoreError
from tally.store.stream import EventStream, RedisError

FAILED, WRONG_USAGE = 1, 2  # exit statuses; click's own for wrong usage is 2 as well
# So many are made before Python looks for cycles among them. A batch has thousands, and no cycles: with
# Python's own 700, looking took a quarter of the time.
OBJECTS = 10_000
FROM_A_CHECKOUT = "python supervisor.py"  # how Tally is called there, and in the examples of our docstrings


class Command(click.Command):
    """A command whose help calls Tally by the name that it was called by: `tally`, `python -m tally`."""

    def get_help(self, ctx: click.Context) -> str:
        """The help, with examples that can be copied."""
        return super().get_help(ctx).replace(FROM_A_CHECKOUT, ctx.find_root().info_name or "tally")


class Group(Command, click.Group):
    """The same for commands that have others below them."""

    command_class = Command

    def main(self, *arguments: Any, **options: Any) -> Any:
        """The whole program, whatever it inherits: what it can't do ends it with one clear message."""
        if fault := inherited.mend():
            end(WRONG_USAGE, fault)
        gc.set_threshold(OBJECTS)
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                sys.stdout.flush()
        except inherited.CannotPrint as error:
            inherited.let_go_of_output()
            end(FAILED, f"can't write to standard output: {error.strerror}")
        except BrokenPipeError:
            inherited.let_go_of_output()
            sys.exit(FAILED)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--config FILE`."""
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        help="Settings file; it may hold only what differs from the defaults.",
    )(command)


def some_id(_context: object, _parameter: object, value: str | None) -> Id | None:
    """Click's callback of an option that is the id of an account or a customer."""
    try:
        return None if value is None else Id.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--token TOKEN`."""
    return click.option(
        "--token",
        envvar="TALLY_TOKEN",
        show_envvar=True,
        callback=_token,
        help="Of POST /auth/login, where auth.mode is not off.",
    )(command)


def _token(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[!-~]+", value):
        raise click.BadParameter("Expected visible ASCII characters")
    return value


def load(file: Path | None) -> Settings:
    """The settings; ends the program with WRONG_USAGE and every fault when they don't hold."""
    try:
        return config.load(file)
    except InvalidSettings as error:
        end(WRONG_USAGE, "\n".join(error.faults))


def confirmed(told: str, yes: bool) -> bool:
    """Tell what is about to be lost, and ask; nobody at a terminal says no."""
    say(told)
    if yes or not sys.stdin.isatty():
        return yes
    try:
        return click.confirm("Go on?", err=True)
    except click.Abort:  # Ctrl-C
        click.echo(err=True)
        return False


def redis_url(settings: Settings) -> str:
    """By which the stream is reached; ends the program with FAILED when Tally's way in can't be used."""
    with faults_told(settings):
        return redis_access.url(settings)


ALONE = " (a private one alone: `run --only redis`)"
"""What makes a private Redis answer while Tally is stopped."""


@contextmanager
def faults_told(
    settings: Settings,
    *known: type[Exception],
    without_redis: str = "",
    interrupted: str = "interrupted; run the same command again",
) -> Iterator[None]:
    """Whatever goes wrong inside ends the program with FAILED and one clear message.

    Errors of the kinds `known` tell themselves, as a StoreError does. `without_redis` is added where Redis
    does not answer.
    """
    try:
        yield
    except RedisError as error:
        end(FAILED, f"Redis at {settings.redis.address}: {error}{without_redis}")
    except StoreError as error:
        end(FAILED, str(error))
    except known as error:
        end(FAILED, str(error))
    except OSError as error:
        end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")
    except KeyboardInterrupt:
        end(FAILED, interrupted)


@contextmanager
def stream_of(settings: Settings) -> Iterator[EventStream]:
    """The stream; what goes wrong with it inside ends the program with FAILED and one clear message."""
    with faults_told(settings):
        yield EventStream.at(redis_access.url(settings), settings.redis.stream)


@contextmanager
def printing() -> Iterator[None]:
    """Ctrl-C, or a reader of standard output that goes, ends what is inside quietly, with status 0."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        inherited.let_go_of_output()


def say(message: str) -> None:
    """Tell people something, beside what is printed."""
    with suppress(OSError):  # the exit status tells, where nobody can read it
        for line in message.splitlines():
            click.echo(f"tally: {line}", err=True)


def end(status: int, message: str) -> NoReturn:
    """End the program with that exit status and one clear message."""
    say(message)
    sys.exit(status)
