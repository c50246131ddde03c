"""`dead-letters`: look at them, have them tried again, or forget them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from tally.commands import event_listing
from tally.commands.shared import FAILED, Group, config_option, end, load, printing, redis_url, say
from tally.http.visible import printable
from tally.store import redriving
from tally.store.dead_letters import DeadLetter, DeadLetters, StillDead
from tally.store.stream import EventStream, RedisError

_WAIT_SECONDS = 10.0  # for what comes of a redrive


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
        click.echo(printable(f"{name}: {value}"))


@dead_letters.command()
@config_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
def redrive(file: Path | None, ids: tuple[str, ...], every: bool) -> None:
    """Have the group that failed try again; no other group sees it. Counts once, however often done.

    Waits up to ten seconds for what comes of it. Exit status 1 when not all of it was applied.

    \b
    Example: python supervisor.py dead-letters redrive --all
    """
    if bool(ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")
    with _letters(file) as letters:
        _redrive(letters, letters.all() if every else [_known(letters, id) for id in ids])


@dead_letters.command()
@config_option
@click.argument("id")
@click.option(
    "--payload",
    "source",
    type=click.File("rb"),
    metavar="FILE",
    help="The payload as it is to be; - reads standard input.",
)
def edit(file: Path | None, id: str, source: BinaryIO | None) -> None:
    """Correct the payload of one dead letter in your editor, and have the group that failed try that.

    It stays the same event: it counts once. Only that group sees what was changed; the stream and other
    groups keep the event as it came. Nothing is done when the payload is left as it is, or can't be read.

    The editor is the one that VISUAL or EDITOR names. Waits and ends as `redrive` does.

    \b
    Example: python supervisor.py dead-letters edit 1553318690326-0
    """
    with _letters(file) as letters:
        letter = _known(letters, id)
        edited = _given(letter, source.read()) if source else _edited(letter)
        if edited.indented == letter.indented:
            say(f"{id} is left as it is: nothing in its payload was changed")
        else:
            _redrive(letters, [edited])


def _given(letter: DeadLetter, payload: bytes) -> DeadLetter:
    try:
        return letter.edited(payload)
    except StillDead as error:
        end(FAILED, printable(f"{letter.id} is left as it is: {error}"))


def _edited(letter: DeadLetter) -> DeadLetter:
    """As the user leaves it in the editor; as it was, when nothing was saved."""
    text = shown = letter.indented + b"\n"
    while True:
        saved = click.edit(text, extension=".json")
        if saved is None or saved == shown:
            return letter
        try:
            return letter.edited(saved)
        except StillDead as error:
            say(printable(str(error)))
            if not sys.stdin.isatty() or not click.confirm("Edit it again?", default=True, err=True):
                end(FAILED, f"{letter.id} is left as it is")
        text = saved


def _redrive(letters: DeadLetters, chosen: Sequence[DeadLetter]) -> None:
    """Redrive them, wait, and tell what came of it; ends the program with FAILED when not all went well."""
    outcome = redriving.redrive(letters, chosen, _WAIT_SECONDS)
    click.echo(f"{len(outcome.applied)} applied")
    for id, new in outcome.failed.items():
        say(printable(f"{id} failed again, and is {new.id} now: {new.reason}"))
    for why in outcome.refused.values():
        say(printable(why))
    if waiting := outcome.waiting:
        say(f"{len(waiting)} not tried yet: no consumer of {waiting[0].group} has come by; does Tally run?")
    if outcome.gone:
        say(f"{outcome.gone} not there any more: somebody else has just redriven, edited or discarded it")
    if outcome.failed or outcome.refused or waiting or outcome.gone:
        sys.exit(FAILED)


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
        yield DeadLetters(EventStream.at(redis_url(settings), settings.redis.stream))
    except RedisError as error:
        end(FAILED, f"Redis at {settings.redis.address}: {error}")


def _known(letters: DeadLetters, id: str) -> DeadLetter:
    letter = letters.get(id)
    if letter is None:
        end(FAILED, f"there is no dead letter {id}; `dead-letters list` shows them")
    return letter
