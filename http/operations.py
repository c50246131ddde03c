"""The operations page's calls, for admins only.

They are the page's own, and may change with it. GET /status tells a service's state.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import falcon
import structlog
from msgspec import Meta, Struct, field

from tally.events import PAYLOAD_FIELD
from tally.http import bodies
from tally.http.auth import insist_on_admin, principal
from tally.http.minutes import Minute
from tally.http.problems import FieldError, Refusal, WrongFields
from tally.http.reasons import UNREADABLE, ActorReport
from tally.http.service import read_body
from tally.http.values import Text
from tally.store.dead_letters import DeadLetter, DeadLetters, Outcome, StillDead
from tally.store.groups import Group, Groups
from tally.store.idempotency import encode_answer
from tally.store.stream import ENTRY_ID, EventStream, Memory, RedisError, entry_time, is_a_services

MOST_LETTERS = 200  # shown, or decided on, at a time
MOST_UNREAD = 1000  # a group's unread entries are counted up to here
WAIT_SECONDS = 5.0  # for the outcome of a redrive
LONGEST_EDITED = 256 * 1024  # bytes of a payload: as a JSON string, a larger one may not fit into a body
_LONGEST_TEXT = 4000  # shown characters of a letter's field

_log = structlog.get_logger()


class StreamReport(Struct, frozen=True):
    """Redis, and the groups that read the stream; `trouble` is why everything else is unknown."""

    actors: list[ActorReport]
    trouble: str | None = None
    memory: Memory = Memory()
    entries: int | None = None
    oldest: str | None = None
    groups: list[dict[str, Any]] = []
    most_unread: int = MOST_UNREAD


LetterId = Annotated[str, Meta(pattern=f"^{ENTRY_ID}$")]


class Chosen(Struct, frozen=True):
    """The body of an action on dead letters: their ids."""

    ids: Annotated[list[LetterId], Meta(min_length=1, max_length=MOST_LETTERS)]


class Edit(Struct, frozen=True):
    """The body of an edit: a letter, and the new payload of its event."""

    id: LetterId
    payload: Text


def add_operations(app: Any, operations: "OperationsResource") -> None:
    """Add the operations page's calls to `app`."""
    app.add_route("/operations/dead-letters", operations, suffix="letters")
    app.add_route("/operations/dead-letters/{id}", operations, suffix="payload")
    for name in ("minutes", "stream", "redrive", "edit", "discard"):
        app.add_route(f"/operations/{name}", operations, suffix=name)


def _report(actors: list[ActorReport], stream: EventStream) -> StreamReport:
    groups, entries = Groups(stream), stream.length()
    holding, overtaken = groups.holding(), groups.overtaken()
    oldest = stream.read(b"0-0", 1, block_ms=0)
    return StreamReport(
        actors,
        memory=stream.memory(),
        entries=entries,
        oldest=entry_time(oldest[0].id.decode()) if oldest else None,
        groups=[_group(each, holding, overtaken) for each in groups.all(MOST_UNREAD)],
    )


def _group(group: Group, holding: Collection[str], overtaken: Mapping[str, int]) -> dict[str, Any]:
    """A group that reads the stream. `unread` is MOST_UNREAD if there are as many or more.

    If it `holds_back`, entries older than data.retention_days are kept for it. `overtaken` counts those that
    were removed before it had read them.
    """
    return {
        "name": group.name,
        "of_tally": is_a_services(group.name),
        "read_up_to": None if group.last_delivered == "0-0" else entry_time(group.last_delivered),
        "pending": group.pending,
        "unread": group.unread,
        "idle_seconds": None if group.idle_ms is None else group.idle_ms / 1000,
        "holds_back": group.name in holding,
        "overtaken": overtaken.get(group.name, 0),
    }


class RedisAway(Refusal):
    """503: nothing can be decided now."""

    def __init__(self, error: Exception) -> None:
        super().__init__(503, "Redis does not answer", f"Redis does not answer: {error}")


class LetterGone(falcon.HTTPNotFound):
    """404: somebody has decided on the letter."""

    def __init__(self, id: str) -> None:
        said = f"There is no dead letter {id} any more: it was redriven, edited or discarded meanwhile."
        super().__init__(title="No dead letter", description=said)


@falcon.before(lambda req, *_: insist_on_admin(req, "Operations are"))
class OperationsResource(Struct):
    """The service's last hour, Redis, and the dead letters: events that wait for a decision.

    `minutes` are the service's own; `actors` are those that belong to no service, such as Redis.
    """

    minutes: Callable[[], list[Minute]]
    open_stream: Callable[[], EventStream]
    actors: Callable[[], list[ActorReport]]
    # Only one redrives at a time: waiting for an outcome holds a thread of the pool.
    _turns: threading.Lock = field(default_factory=threading.Lock)

    def on_get_minutes(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The numbers of recorded and applied events."""
        resp.data = encode_answer({"minutes": self.minutes()})

    def on_get_stream(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A StreamReport. No query keeps Redis busy, however large the stream is."""
        actors = self.actors()
        try:
            with self._stream() as stream:
                resp.data = encode_answer(_report(actors, stream))
        except RedisAway as away:
            resp.data = encode_answer(StreamReport(actors, trouble=away.description))
        except ValueError as error:  # another program has written it
            trouble = f"{UNREADABLE[0].upper()}{UNREADABLE[1:]}: {error}"
            resp.data = encode_answer(StreamReport(actors, trouble=trouble))

    def on_get_letters(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The number of letters, None while Redis does not answer, and the oldest ones."""
        found: list[DeadLetter] = []
        total: int | None = None
        with suppress(RedisAway), self._stream() as stream:
            found, total = DeadLetters(stream).first(MOST_LETTERS), stream.dead_letters()
        resp.data = encode_answer({"letters": [*map(_letter, found)], "total": total})

    def on_post_redrive(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Redrive letters to the groups that failed, and tell the outcome."""
        ids = bodies.decode(read_body(req), Chosen).ids
        with self._turn(), self._stream() as stream:
            letters = DeadLetters(stream)
            outcome = letters.redrive_all(_known(letters, ids), WAIT_SECONDS)
        _log.warning("dead_letters_redriven", letters=ids, by=principal(req).name)
        resp.data = encode_answer(_told(outcome))

    def on_get_payload(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """The whole payload of a letter's event, for editing. Raises LetterGone."""
        with self._stream() as stream:
            letter = _one(DeadLetters(stream), id)
        if (length := len(letter.payload)) > LONGEST_EDITED:
            raise falcon.HTTPConflict(
                title="Too long to edit here",
                description=f"The payload has {length:,} bytes, and {LONGEST_EDITED:,} can be edited here."
                f" `dead-letters edit {id}` opens it in an editor.",
            )
        resp.data = encode_answer({"payload": letter.indented.decode(errors="replace")})

    def on_post_edit(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Redrive a letter with another payload to the group that failed, and tell the outcome.

        Raises LetterGone, or WrongFields for an event that could not be applied either.
        """
        edit = bodies.decode(read_body(req), Edit)
        with self._turn(), self._stream() as stream:
            letters = DeadLetters(stream)
            edited = _edited(_one(letters, edit.id), edit.payload)
            outcome = letters.redrive_all([edited], WAIT_SECONDS)
        if outcome.gone:
            raise LetterGone(edit.id)
        _log.warning("dead_letter_edited", letter=edit.id, by=principal(req).name)
        resp.data = encode_answer(_told(outcome))

    def on_post_discard(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Discard letters, for good."""
        ids = bodies.decode(read_body(req), Chosen).ids
        with self._stream() as stream:
            letters = DeadLetters(stream)
            done = sum(letters.discard(letter) for letter in _known(letters, ids))
        _log.warning("dead_letters_discarded", letters=ids, by=principal(req).name)
        resp.data = encode_answer({"discarded": done})

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Take the only turn. Raises Refusal while another request has it."""
        if not self._turns.acquire(blocking=False):
            raise Refusal(429, "Under way", "Others are being redriven just now.")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _stream(self) -> Iterator[EventStream]:
        """Raises RedisAway."""
        stream = self.open_stream()
        try:
            with stream.client:
                yield stream
        except (RedisError, OSError) as error:
            raise RedisAway(error) from error


def _known(letters: DeadLetters, ids: list[str]) -> list[DeadLetter]:
    """The letters that still exist: somebody else may have decided on some."""
    return [letter for id in dict.fromkeys(ids) if (letter := letters.get(id))]


def _one(letters: DeadLetters, id: str) -> DeadLetter:
    """Raises LetterGone."""
    letter = letters.get(id)
    if letter is None:
        raise LetterGone(id)
    return letter


def _edited(letter: DeadLetter, payload: str) -> DeadLetter:
    """Raises WrongFields."""
    try:
        edited = letter.edited(payload.encode())
    except StillDead as error:
        said = str(error)
        raise WrongFields([FieldError("payload", said[0].upper() + said[1:])]) from error
    if edited.indented == letter.indented:
        raise WrongFields([FieldError("payload", "Nothing is changed in it")])
    return edited


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "applied": [letter.id for letter in outcome.applied],
        "failed": {id: _letter(new) for id, new in outcome.failed.items()},
        "waiting": [letter.id for letter in outcome.waiting],
        "refused": outcome.refused,
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter; `fields` are its entry's, each as text that may be cut off."""
    shown = letter.entry_shown()
    if PAYLOAD_FIELD in letter.entry.fields:
        shown[PAYLOAD_FIELD.decode()] = letter.indented.decode(errors="replace")
    return {
        "id": letter.id,
        "entry": letter.entry.id.decode(errors="replace"),
        "type": _cut(letter.type),
        "group": letter.group,
        "reason": _cut(letter.reason),
        "deliveries": letter.deliveries,
        "failed_at": letter.failed_at,
        "fields": {_cut(name): _cut(value) for name, value in shown.items()},
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
