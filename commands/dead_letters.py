"""`dead-letters`: look at them, redrive, edit or discard them."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import click

from tally.commands import event_listing
from tally.commands.command_line import FAILED, Failed, say
from tally.commands.shared import Group, printing, stream_of
from tally.config import Settings
from tally.http.visible import printable
from tally.store.dead_letters import DeadLetter, DeadLetters, StillDead

_WAIT_SECONDS = 10.0  # for the outcome of a redrive


@click.group("dead-letters", cls=Group, example="dead-letters list")
def dead_letters() -> None:
    """Events that could not be applied: look at them, redrive, edit or discard them."""


@dead_letters.command("list", example="dead-letters list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
def list_letters(settings: Settings, as_json: bool) -> None:
    """List the dead letters, the oldest first."""
    with _letters(settings) as letters, printing():
        event_listing.print_letters(letters.all(), as_json)


@dead_letters.command(example="dead-letters show 1553318690326-0")
@click.argument("id")
def show(settings: Settings, id: str) -> None:
    """Show one dead letter with all its fields."""
    with _letters(settings) as letters:
        letter = _known(letters, id)
    for name, value in letter.shown().items():
        click.echo(printable(f"{name}: {value}"))


@dead_letters.command(example="dead-letters redrive --all")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
def redrive(settings: Settings, ids: tuple[str, ...], every: bool) -> None:
    """Redrive dead letters: the group that failed tries them again, and no other group sees them.

    Each counts once, however often it is redriven. Waits up to ten seconds for what comes of it. Exit status
    1 when not all of it was applied.
    """
    if bool(ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")
    with _letters(settings) as letters:
        _redrive(letters, letters.all() if every else [_known(letters, id) for id in ids])


@dead_letters.command(example="dead-letters edit 1553318690326-0")
@click.argument("id")
@click.option(
    "--payload",
    "source",
    type=click.File("rb"),
    metavar="FILE",
    help="The payload as it is to be; - reads standard input.",
)
def edit(settings: Settings, id: str, source: BinaryIO | None) -> None:
    """Correct the payload of one dead letter in your editor, and redrive it to the group that failed.

    It stays the same event and counts once. Only that group sees the change; the stream and other groups keep
    the event as it came. Nothing is done if the payload is left as it is, or can't be read.

    The editor is the one in VISUAL or EDITOR. Waits and ends as `redrive` does.
    """
    with _letters(settings) as letters:
        letter = _known(letters, id)
        try:
            edited = letter.edited(source.read()) if source else _edited(letter)
        except StillDead as error:
            raise Failed(printable(f"{letter.id} is left as it is: {error}")) from error
        if edited.indented == letter.indented:
            say(f"{id} is left as it is: nothing in its payload was changed")
        else:
            _redrive(letters, [edited])


def _edited(letter: DeadLetter) -> DeadLetter:
    """The letter as edited by the user; unchanged if nothing was saved."""
    if not sys.stdin.isatty() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise Failed(  # the editor that is found otherwise would wait for a terminal for ever
            f"{letter.id} is left as it is: this is no terminal, and neither VISUAL nor EDITOR names a"
            " program that edits without one; --payload FILE gives the payload"
        )
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
                raise Failed(f"{letter.id} is left as it is") from error
        text = saved


def _redrive(letters: DeadLetters, chosen: Sequence[DeadLetter]) -> None:
    """Redrive letters, wait, and tell the outcome; ends the program with FAILED unless all went well."""
    outcome = letters.redrive_all(chosen, _WAIT_SECONDS)
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


@dead_letters.command(example="dead-letters discard 1553318690326-0")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def discard(settings: Settings, ids: tuple[str, ...]) -> None:
    """Discard dead letters, for good."""
    with _letters(settings) as letters:
        chosen = [_known(letters, id) for id in ids]
        done = sum(letters.discard(letter) for letter in chosen)
    click.echo(f"{done} discarded")


@contextmanager
def _letters(settings: Settings) -> Iterator[DeadLetters]:
    with stream_of(settings) as stream:
        yield DeadLetters(stream)


def _known(letters: DeadLetters, id: str) -> DeadLetter:
    letter = letters.get(id)
    if letter is None:
        raise Failed(f"there is no dead letter {id}; `dead-letters list` shows them")
    return letter
