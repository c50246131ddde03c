"""Dead letters: entries that a group could not apply, kept until a person decides.

A letter holds the entry's own fields and the reason. A redrive hands it only to the group that failed, over a
small stream of that group. The inbox makes it count once. The stream keeps the event as it came; edits are
kept beside it, for a later rebuild.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress
from typing import Any, NamedTuple, Self

import msgspec

from tally.events import PAYLOAD_FIELD, TYPE_FIELD, EventId, InvalidEvent, UnknownEventType, decode
from tally.store.stream import Entry, EventStream, is_entry_id

_NO_LETTER, _NO_GROUP = "0", "-"  # redrive.lua's answers in these cases
_LOOK_SECONDS = 0.1
_OURS = (b"StreamId", b"Group", b"Reason", b"Deliveries", b"FailedAt", b"EventName")


class GroupGone(Exception):
    """The group that failed is gone; the message names the letter, and what that means."""


class StillDead(ValueError):
    """The edited event could not be applied either; the message says why."""


class DeadLetter(NamedTuple):
    """A letter: the entry as it was on the stream, and its failure."""

    id: str
    entry: Entry
    group: str
    reason: str
    deliveries: int
    failed_at: str
    is_edited: bool = False

    @property
    def type(self) -> str:
        """The event type in the entry."""
        return _text(self.entry.fields.get(TYPE_FIELD, b"?"))

    @property
    def payload(self) -> bytes:
        """The event's payload as it came."""
        return self.entry.fields.get(PAYLOAD_FIELD, b"")

    @property
    def indented(self) -> bytes:
        """The payload for people: one value on each line, if it is JSON."""
        try:
            return msgspec.json.format(self.payload, indent=2)
        except (ValueError, RecursionError):
            return self.payload

    def edited(self, payload: bytes) -> Self:
        """The letter with another payload. Its event keeps its name, so it counts once.

        Raises StillDead for an event that could not be applied either.
        """
        fields = {**self.entry.fields, PAYLOAD_FIELD: payload}
        try:
            decode(fields)
        except UnknownEventType as error:
            raise StillDead(f"this release does not know events of the type {error}") from error
        except InvalidEvent as error:
            raise StillDead(f"this could not be applied as {self.type} either: {error}") from error
        fields[PAYLOAD_FIELD] = msgspec.json.format(payload, indent=-1)
        return self._replace(entry=Entry(self.entry.id, fields, _name(self.entry)), is_edited=True)

    def entry_shown(self) -> dict[str, str]:
        """The entry's own fields for people."""
        return {_text(name): _text(value) for name, value in self.entry.fields.items()}

    def shown(self) -> dict[str, str]:
        """Its fields for people: the entry's own, then the failure."""
        return {
            **self.entry_shown(),
            "StreamId": _text(self.entry.id),
            "Group": self.group,
            "Reason": self.reason,
            "Deliveries": str(self.deliveries),
            "FailedAt": self.failed_at,
        }


class Outcome(NamedTuple):
    """The outcome of redriving letters; so many were `gone` already.

    `failed` has the new letters of those that failed again, by their old ids. `waiting` were not tried yet.
    `refused` has the reasons, by id, for letters that no group would try.
    """

    applied: list[DeadLetter]
    failed: dict[str, DeadLetter]
    waiting: list[DeadLetter]
    refused: dict[str, str]
    gone: int


class DeadLetters:
    """The dead letters beside a stream. Every call raises RedisError when Redis can't be asked."""

    def __init__(self, stream: EventStream) -> None:
        self._client = stream.client
        self._stream = stream
        self._redrive = stream.script("redrive")

    def all(self) -> list[DeadLetter]:
        """Every letter, the oldest first."""
        return [*self.each()]

    def each(self, after: str = "0-0") -> Iterator[DeadLetter]:
        """The letters after that one, the oldest first. Reads them by pages: there may be very many."""
        for entry in chain.from_iterable(self._stream.pages(after.encode(), self._stream.beside("dead"))):
            yield _letter(entry.id, entry.fields)

    def first(self, count: int) -> list[DeadLetter]:
        """Up to `count` letters, the oldest first."""
        entries: Any = self._client.xrange(self._stream.beside("dead"), count=count)
        return [_letter(id, fields) for id, fields in entries]

    def get(self, id: str) -> DeadLetter | None:
        """The letter with that id; None without one, or if it is no id."""
        if not is_entry_id(id):
            return None
        entries: Any = self._client.xrange(self._stream.beside("dead"), id, id)
        return _letter(*entries[0]) if entries else None

    def redrive_all(self, chosen: Sequence[DeadLetter], seconds: float) -> Outcome:
        """Redrive letters to the groups that failed, and wait up to `seconds` for the outcome.

        May be repeated: each event counts once.
        """
        newest: Any = self._client.xrevrange(self._stream.beside("dead"), count=1)
        orders: list[tuple[DeadLetter, str]] = []
        refused: dict[str, str] = {}
        letters = {letter.id: letter for letter in chosen}  # one may be named twice
        for letter in letters.values():
            try:
                if order := self.redrive(letter):
                    orders.append((letter, order))
            except GroupGone as error:
                refused[letter.id] = str(error)
        before, deadline = newest[0][0].decode() if newest else "0-0", time.monotonic() + seconds
        failed: dict[str, DeadLetter] = {}
        left, tried = orders, list[DeadLetter]()
        while True:
            asked, left = left, self._not_carried_out(left)
            on_their_way = {letter.id for letter, _ in left}
            if done := [letter for letter, _ in asked if letter.id not in on_their_way]:
                failed |= self._again(done, before)  # at once: somebody may decide on the new letters
                tried += done
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(_LOOK_SECONDS)
        dead = self._stream.beside("dead")
        is_back = self._are_there([(dead, letter.id) for letter in tried])  # if Redis has lost the order
        back = [*compress(tried, is_back)]
        applied = [letter for letter in tried if letter.id not in failed and letter not in back]
        gone = len(letters) - len(orders) - len(refused)
        return Outcome(applied, failed, [*(letter for letter, _ in left), *back], refused, gone)

    def redrive(self, letter: DeadLetter) -> str | None:
        """Make the group that failed try again; answer the order, None when the letter was gone.

        Its edits count from then on, also for `corrections`. May be repeated. Raises GroupGone when the group
        is gone; the letter then stays.
        """
        order = self._order(letter, "edit" if letter.is_edited else "redrive")
        if order == _NO_GROUP:
            raise GroupGone(
                f"{letter.id} is of the group {letter.group}, which is gone, so nobody would try it again: "
                "its event is asked for by the database that took that one's place, or was built again"
            )
        return None if order == _NO_LETTER else order

    def _not_carried_out(self, orders: Sequence[tuple[DeadLetter, str]]) -> list[tuple[DeadLetter, str]]:
        """The orders that their groups have not carried out yet."""
        places = [(self._stream.beside("redrive", letter.group), order) for letter, order in orders]
        return [*compress(orders, self._are_there(places))]

    def _are_there(self, places: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each entry, given by its key and id, is there; asked in one turn."""
        with self._client.pipeline(transaction=False) as asked:
            for key, id in places:
                asked.xrange(key, id, id)
            return [*map(bool, asked.execute())]

    def _again(self, tried: Sequence[DeadLetter], newest: str) -> dict[str, DeadLetter]:
        """New letters of events that failed again, by the ids of the old letters.

        `newest` is the newest letter from before they were tried.
        """
        came: defaultdict[tuple[bytes, str], list[DeadLetter]] = defaultdict(list)
        for letter in self.each(newest):
            came[letter.entry.id, letter.group].append(letter)
        return {
            letter.id: new
            for letter in tried
            for new in came.get((letter.entry.id, letter.group), ())
            if new.entry == letter.entry
        }

    def names(self, group: str) -> set[str]:
        """The names of events without a number among a group's letters and those on their way to it."""
        ordered = self._names_ordered(group)  # a letter may be redriven now, and come back after that
        among_letters = {_name(letter.entry) for letter in self.each() if letter.group == group}
        return (ordered | among_letters | self._names_ordered(group)) - {""}

    def _names_ordered(self, group: str) -> set[str]:
        orders = chain.from_iterable(self._stream.pages(of=self._stream.beside("redrive", group)))
        return {_text(order.fields.get(b"Name", b"")) for order in orders}

    def discard(self, letter: DeadLetter) -> bool:
        """Discard the letter, and tell its group; False when it was gone. May be repeated."""
        return self._order(letter, "discard") != _NO_LETTER

    def _order(self, letter: DeadLetter, order: str) -> str:
        packed = msgspec.msgpack.encode(letter.entry.fields)
        keys = [self._stream.beside("dead"), self._stream.beside("redrive", letter.group), self._stream.key]
        names = [str(letter.entry.event_name), _name(letter.entry)]
        answer: bytes = self._redrive(
            keys=[*keys, self._stream.beside("edited", letter.group)],
            args=[letter.id, letter.entry.id, packed, letter.group, order, *names],
        )
        return answer.decode()

    def corrections(self, groups: Iterable[str]) -> "Corrections":
        """The edits of these groups' letters that were not discarded since."""
        found: dict[bytes, bytes] = {}
        for group in sorted(groups):
            edited: Any = self._client.hgetall(self._stream.beside("edited", group))
            found |= edited
        return Corrections(found)


class Corrections(NamedTuple):
    """The contents of events that were edited as dead letters, packed, by the events' names."""

    edits: Mapping[bytes, bytes]

    @property
    def digest(self) -> str:
        """A digest of all edits; empty without edits."""
        if not self.edits:
            return ""
        return hashlib.sha256(msgspec.msgpack.encode(sorted(self.edits.items()))).hexdigest()

    def of(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """These entries of the stream with their edits; each keeps its name."""
        return [self._corrected(entry) for entry in entries] if self.edits else entries

    def _corrected(self, entry: Entry) -> Entry:
        edited = self.edits.get(str(entry.event_name).encode())
        if edited is None:
            return entry
        return Entry(entry.id, msgspec.msgpack.decode(edited), _name(entry))


def _letter(id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    own = {name: value for name, value in fields.items() if name not in _OURS}
    stream_id, group, reason, deliveries, failed_at, name = (fields.get(name, b"") for name in _OURS)
    entry, times = Entry(stream_id, own, _text(name)), int(deliveries[:18]) if deliveries.isdigit() else 0
    return DeadLetter(id.decode(), entry, _text(group), _text(reason), times, _text(failed_at))


def _name(entry: Entry) -> str:
    """The name of an event without an EventId; "" if it has one."""
    name = entry.event_name
    return "" if isinstance(name, EventId) else name


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
