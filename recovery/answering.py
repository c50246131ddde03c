"""A source answers what groups have asked it for, as far as its outbox has it."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import structlog

from tally.events import EVENT_ID_FIELD, PAYLOAD_FIELD, TYPE_FIELD, Event, encode
from tally.store import ranges
from tally.store.asks import COVERS_FIELD, Asks, Fields, published_fields
from tally.store.database import Database
from tally.store.outbox import Outbox
from tally.store.ranges import Range
from tally.store.stream import EventStream
from tally.store.succession import earlier_sources

AT_ONCE = 1000  # events that one answer holds
MOST_UNSETTLED = 10_000  # events on their way to a group: they take memory until they are applied

_log = structlog.get_logger()


def _unknown(_group: str) -> None:
    return None


class Answering:
    """Answers for one database, as its source and as those that it was before.

    `state` tells the events that leave a group where the pruned ones would have left it, if that can be told
    for that group.
    """

    def __init__(
        self,
        database: Database,
        stream: EventStream,
        state: Callable[[str], Iterable[Event] | None] = _unknown,
    ) -> None:
        self._database = database
        self._outbox = Outbox(database)
        self._asks = Asks(stream)
        self._state = state

    def step(self) -> bool:
        """Answer a part of what is asked, and tell whether more is to be answered now.

        Raises RedisError or StoreUnavailable. May be repeated. Only for an outbox that may publish.
        """
        more = False
        for source in (self._outbox.source, *earlier_sources(self._database)):
            for group, asked in self._asks.of(source).items():
                if self._asks.unsettled(group) < MOST_UNSETTLED:
                    more |= self._answer(source, group, asked)
        return more

    def _answer(self, source: str, group: str, asked: list[Range]) -> bool:
        is_own = source == self._outbox.source
        last = (
            self._outbox.last() if is_own else asked[-1].last
        )  # of an earlier one, all that is gone is known
        pruned = ranges.within(asked, 1, self._outbox.first() - 1 if is_own else last)
        if pruned and (state := self._state(group)) is not None:
            self._tell_state(source, group, asked, pruned, state)
            return True
        here = ranges.first_of(ranges.without(ranges.within(asked, 1, last), pruned), AT_ONCE)
        rows = self._outbox.of(here)
        there = [Range(row.sequence, row.sequence) for row in rows]
        gone = ranges.merge([*pruned, *ranges.without(here, there)])
        events = [published_fields(source, row) for row in rows]
        if not gone and not events:
            return False  # numbers that it has not given yet: it is an older copy, which heals by itself
        left = ranges.without(asked, [*gone, *there])
        every_gone = ranges.merge([*gone, *self._asks.gone(group).get(source, [])])
        if self._asks.answer(source, group, asked, left, every_gone, events):
            _log.info("asked_events_published", group=group, events=len(events), gone=ranges.count(gone))
        return bool(left)

    def _tell_state(
        self, source: str, group: str, asked: list[Range], gone: list[Range], state: Iterable[Event]
    ) -> None:
        """Tell how things stand, under names of their own, and that the pruned events are needless then."""
        every = _named(f"{self._outbox.source}+{secrets.token_hex(4)}", state)
        while events := list(islice(every, AT_ONCE)):
            if not self._asks.answer(source, group, asked, asked, [], events):
                return
        covers = {COVERS_FIELD: f"{source}:{ranges.shown(gone)}".encode()}
        if self._asks.answer(source, group, asked, ranges.without(asked, gone), [], [covers]):
            _log.info("state_published", group=group, instead_of=ranges.count(gone))


def _named(source: str, events: Iterable[Event]) -> Iterator[Fields]:
    for number, event in enumerate(events, 1):
        yield {
            TYPE_FIELD: type(event).__name__.encode(),
            PAYLOAD_FIELD: encode(event),
            EVENT_ID_FIELD: f"{source}:{number}".encode(),
        }
