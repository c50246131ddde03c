"""Asks: groups ask a source for events that the stream will not hand them any more.

Beside the stream there is a hash for each source, from group to ranges of sequences. The source's relay
answers over the group's redrive stream, so that no other group gets the events again. It notes events that
its outbox no longer has in a hash for each group, from source to ranges.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from tally.events import EVENT_ID_FIELD, PAYLOAD_FIELD, TYPE_FIELD
from tally.store import ranges
from tally.store.outbox import OutboxRow
from tally.store.ranges import Range
from tally.store.stream import EventStream, texts

COVERS_FIELD = b"Covers"  # of an order: `<source>:<ranges>` that the events before it replace
LACKS_FIELD = b"Lacks"  # of an order: `<source>:<ranges>` that the source itself lacks since it was put back

ASKED = b"0-0"  # the stream id of an event that was asked for: its real one is not known

Fields = dict[bytes, bytes]


class Asks:
    """The asks beside a stream. Every call raises RedisError when Redis can't be asked."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._client = stream.client
        self._answer = stream.script("answer")
        self._note_gone = stream.script("note_gone")

    def of(self, source: str) -> dict[str, list[Range]]:
        """The ranges that each group asks this source for."""
        return _ranges(self._stream.hash("asked", source))

    def of_all(self, sources: Sequence[str]) -> list[dict[str, list[Range]]]:
        """The same for several sources, in one turn."""
        with self._client.pipeline(transaction=False) as asked:
            for source in sources:
                asked.hgetall(self._stream.beside("asked", source))
            return [_ranges(texts(found)) for found in asked.execute()]

    def ask(self, source: str, group: str, wanted: Sequence[Range]) -> None:
        """Ask for these events. This replaces the group's earlier ask of that source."""
        self._client.hset(self._stream.beside("asked", source), group, ranges.shown(wanted))

    def give_up(self, source: str) -> bool:
        """Note that its database is gone for good: its events are not asked for any more.

        Events that were asked for count as gone. Answers False when none were. May be repeated.
        """
        self._client.hset(self._stream.beside("removed"), source, "")
        asked = self.of(source)
        for group, wanted in asked.items():
            self.note_gone(source, group, wanted)
            self._client.hdel(self._stream.beside("asked", source), group)
        return bool(asked)

    def given_up(self) -> set[str]:
        """The sources whose databases are gone for good, as noted by people."""
        return {*self._stream.hash("removed")}

    def take_up_again(self, sources: Collection[str]) -> None:
        """Note that these sources still exist, so that they are asked again. May be repeated."""
        if back := self.given_up() & {*sources}:
            with self._client.pipeline(transaction=True) as transaction:
                for group in self._stream.groups():
                    transaction.hdel(self._stream.beside("gone", group), *back)
                transaction.hdel(self._stream.beside("removed"), *back)
                transaction.execute()

    def note_gone(self, source: str, group: str, lost: Sequence[Range]) -> None:
        """Note for a group that no outbox has these events any more, unless the source was taken up again.

        May be repeated.
        """
        every = ranges.merge([*self.gone(group).get(source, []), *lost])
        keys = [self._stream.beside("removed"), self._stream.beside("gone", group)]
        self._note_gone(keys=keys, args=[source, ranges.shown(every)])

    def forget(self, group: str) -> None:
        """Keep nothing for a group that is gone, except an empty stream. May be repeated.

        Tally has no right to delete keys: it might delete a wrong one.
        """
        for source in self._stream.published_by_source():
            self._client.hdel(self._stream.beside("asked", source), group)
        if sources := self.gone(group):
            self._client.hdel(self._stream.beside("gone", group), *sources)
        self._client.xtrim(self._stream.beside("redrive", group), maxlen=0, approximate=False)

    def gone(self, group: str) -> dict[str, list[Range]]:
        """By source: events that the group asked for and no outbox has any more."""
        return _ranges(self._stream.hash("gone", group))

    def unsettled(self, group: str) -> int:
        """How many events are on their way to the group."""
        return int(self._client.xlen(self._stream.beside("redrive", group)))

    def answer(
        self,
        source: str,
        group: str,
        asked: Sequence[Range],
        left: Sequence[Range],
        gone: Sequence[Range],
        events: Sequence[Fields],
    ) -> bool:
        """Hand over `events`; of the ranges `asked`, `left` stay asked. False when the ask has changed.

        `gone` are all events of the source that the group can't get any more. May be repeated.
        """
        beside = (("redrive", group), ("asked", source), ("gone", group))
        keys = [self._stream.beside(*name) for name in beside]
        told = [ranges.shown(each) for each in (asked, left, gone)]
        packed = [msgspec.msgpack.encode(fields) for fields in events]
        return bool(self._answer(keys=keys, args=[group, source, *told, *packed]))


def published_fields(source: str, row: OutboxRow) -> Fields:
    """The fields of an event's entry on the stream."""
    return {
        TYPE_FIELD: row.type.encode(),
        PAYLOAD_FIELD: row.payload,
        EVENT_ID_FIELD: f"{source}:{row.sequence}".encode(),
        **{name: value.encode() for name, value in row.further().items()},
    }


def _ranges(found: Mapping[str, str]) -> dict[str, list[Range]]:
    return {name: ranges.parsed(text) for name, text in found.items()}
