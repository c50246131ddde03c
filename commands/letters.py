"""`dead-letters`: look at them, have them tried again, or forget them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tally.commands import event_listing, terminal
from tally.commands.shared import FAILED, Group, config_option, end, load, printing, redis_url
from tally.store.dead_letters import DeadLetter, DeadLetters, GroupGone
from tally.store.stream import EventStream, RedisError, connect

STREAM_ID = re.compile(r"\d{1,20}-\d{1,20}")


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Events that could not be applied: look at them, have them tried again, or forget them.

    \b
    Example: python supervisor.py dead-letters list
    """


@dead_letters.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
def list_letters(file: Path | None, as_json: bool) -> None:
    """List the dead letters, the oldest first.

    \b
    Example: python supervisor.py dead-letters list
    """
    with _letters(file) as letters, printing():
        event_listing.print_letters(letters.all(), as_json)


@dead_letters.command()
@config_option
@click.argument("id")
def show(file: Path | None, id: str) -> None:
    """Show one dead letter with all its fields.

    \b
    Example: python supervisor.py dead-letters show 1553318690326-0
    """
    with _letters(file) as letters:
        letter = _known(letters, id)
    for name, value in letter.shown().items():
        click.echo(terminal.printable(f"{name}: {value}"))


@dead_letters.command()
@config_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
def redrive(file: Path | None, ids: tuple[str, ...], every: bool) -> None:
    """Have the group that failed try again; no other group sees it. Counts once, however often done.

    \b
    Example: python supervisor.py dead-letters redrive --all
    """
    if bool(ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")
    with _letters(file) as letters:
        chosen = letters.all() if every else [_known(letters, id) for id in ids]
        try:
            done = sum(letters.redrive(letter) for letter in chosen)
        except GroupGone as error:
            end(FAILED, str(error))
    click.echo(f"{done} to be tried again")


@dead_letters.command()
@config_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def discard(file: Path | None, ids: tuple[str, ...]) -> None:
    """Forget dead letters, for good.

    \b
    Example: python supervisor.py dead-letters discard 1553318690326-0
    """
    with _letters(file) as letters:
        chosen = [_known(letters, id) for id in ids]
        done = sum(letters.discard(letter) for letter in chosen)
    click.echo(f"{done} discarded")


@contextmanager
def _letters(file: Path | None) -> Iterator[DeadLetters]:
    settings = load(file)
    try:
        yield DeadLetters(EventStream(connect(redis_url(settings)), settings.redis.stream))
    except RedisError as error:
        end(FAILED, f"Redis at {settings.redis.address}: {error}")


def _known(letters: DeadLetters, id: str) -> DeadLetter:
    letter = letters.get(id) if STREAM_ID.fullmatch(id) else None
    if letter is None:
        end(FAILED, f"there is no dead letter {id}; `dead-letters list` shows them")
    return letter
