"""`events` and `dead-letters list`: entries as lines, for people and for programs. Joins no group."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import msgspec
import redis
from tenacity import RetryCallState, Retrying, retry_if_exception_type, retry_if_not_exception_type
from tenacity.wait import wait_random_exponential

from tally.commands import terminal
from tally.commands.command_line import say
from tally.commands.event_choice import Choice
from tally.events import EVENT_TYPES, PAYLOAD_FIELD, TYPE_FIELD
from tally.http.visible import printable
from tally.store.dead_letters import DeadLetter
from tally.store.stream import BLOCK_MS, Entry, EventStream, entry_time

NEW = "$"  # this id means the end of the stream, as in Redis

_PAGE = 200  # new entries in memory at a time
_TYPE_WIDTH = max(map(len, EVENT_TYPES))


Form = Literal["line", "json", "raw"]
"""Cut to a terminal's width; JSON with all fields; or as Redis has it."""


class Listing:
    """Prints chosen entries in one form."""

    def __init__(self, choice: Choice, form: Form) -> None:
        self._choice = choice
        shown: dict[Form, Callable[[Entry], str]] = {"line": _line, "json": _json, "raw": self._raw}
        self._shown = shown[form]
        self._printed = 0

    def print(self, entries: list[Entry]) -> None:
        """Print them one below the other. Raises BrokenPipeError when nobody reads any more."""
        for entry in entries:
            if self._choice.wants(entry):
                print(self._shown(entry))
        sys.stdout.flush()

    def _raw(self, entry: Entry) -> str:
        """The entry as redis-cli shows it on a terminal: numbered, fields and values in quotes, by byte."""
        self._printed += 1
        margin = " " * len(f"{self._printed}) ")
        parts = [part for pair in entry.fields.items() for part in pair]
        width = len(str(len(parts)))
        lines = [f"{number:{width}}) {_quoted(part)}" for number, part in enumerate(parts, 1)]
        fields = f"\n{margin}   ".join(lines)
        return f"{self._printed}) 1) {_quoted(entry.id)}\n{margin}2) {fields}"


def print_letters(letters: Sequence[DeadLetter], as_json: bool) -> None:
    """Print a line of JSON for each dead letter, or one table; nothing if there are none."""
    if as_json:
        for letter in letters:
            print(_object(letter.id, letter.shown()))
    elif letters:
        rows = [
            (each.id, each.failed_at, *map(printable, (each.group, each.type, each.reason)))
            for each in letters
        ]
        terminal.show([("id", "failed at", "group", "event", "reason"), *rows])


Start = str | timedelta
"""The first id, or how long ago, by Redis's clock."""


def pages(stream: EventStream, start: Start, follow: bool) -> Iterator[list[Entry]]:
    """The entries from `start` on, up to the last one; with `follow`, then new ones, without end.

    Raises RedisError; with `follow`, only for lasting faults. While Redis can't be reached, it then waits,
    and says so on standard error, as it does when that is over.
    """
    if not follow:
        yield from stream.pages(_before(stream, start))
        return

    def tell_first(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            say(f"Redis does not answer, waiting for it: {state.outcome.exception()}")

    away = retry_if_exception_type((redis.ConnectionError, redis.TimeoutError))
    passing = away & retry_if_not_exception_type(redis.AuthenticationError)  # it is a ConnectionError, too
    wait = wait_random_exponential(multiplier=0.1, max=1)
    again = Retrying(retry=passing, wait=wait, before_sleep=tell_first, reraise=True)

    def patiently(ask: Callable[..., Any], *arguments: object) -> Any:
        answer = again(ask, *arguments)
        if again.statistics["attempt_number"] > 1:
            say("Redis answers again")
        return answer

    position = patiently(_before, stream, start)
    while True:
        page = patiently(stream.read, position, _PAGE, BLOCK_MS)
        yield page
        if page:
            position = page[-1].id


def _before(stream: EventStream, start: Start) -> bytes:
    """The id behind which `start` itself comes next."""
    if isinstance(start, timedelta):
        start = str(max(stream.now_ms() - start // timedelta(milliseconds=1), 0))
    if start == NEW:
        return stream.newest() or b"0-0"
    milliseconds, _, sequence = start.partition("-")
    number = max((int(milliseconds) << 64) + int(sequence or 0) - 1, 0)
    return f"{number >> 64}-{number % 2**64}".encode()


def _line(entry: Entry) -> str:
    id, type_, payload = entry.id.decode(), entry.fields.get(TYPE_FIELD), entry.fields.get(PAYLOAD_FIELD)
    return terminal.fitted(
        f"{id:15}  {entry_time(id) or '?':24}  {_text(type_):{_TYPE_WIDTH}}  {_text(payload)}"
    )


_decoded = partial(bytes.decode, errors="backslashreplace")


def _text(value: bytes | None) -> str:
    return "?" if value is None else printable(_decoded(value))


_ESCAPES = {b: f"\\{c}" for b, c in zip(b'"\\\n\r\t\a\b', '"\\nrtab', strict=True)}


def _quoted(value: bytes) -> str:
    """The value in quotes, with all but printable ASCII escaped, in a form that redis-cli accepts."""
    escaped = (_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in value)
    return f'"{"".join(escaped)}"'


def _object(id: str, fields: Mapping[str, str]) -> str:
    """One object on one line. A JSON object in a field stays one, to the digit."""
    return msgspec.json.encode(
        {**{name: _json_value(value) for name, value in fields.items()}, "id": id}
    ).decode()


def _json(entry: Entry) -> str:
    fields = {_decoded(name): _decoded(value) for name, value in entry.fields.items()}
    return _object(entry.id.decode(), fields)


def _json_value(text: str) -> Any:
    try:
        return msgspec.Raw(msgspec.json.format(text, indent=-1)) if text.lstrip().startswith("{") else text
    except (ValueError, RecursionError):
        return text
