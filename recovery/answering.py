"""A source sends groups the events that they asked it for, as far as its outbox still has them."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import structlog

from tally.events import Event, encode
from tally.store import ranges
from tally.store.asks import COVERS_FIELD, LACKS_FIELD, Asks, Fields, published_fields
from tally.store.database import Database
from tally.store.incarnations import earlier_sources
from tally.store.outbox import Outbox, OutboxRow, outboxes
from tally.store.ranges import Range
from tally.store.stream import EventStream

AT_ONCE = 1000  # events that one answer holds
MOST_NOWHERE = 1_000_000  # numbers that a group can note one by one: more were made up by another program
MOST_UNSETTLED = 10_000  # events on their way to a group: they take memory until they are applied

_log = structlog.get_logger()


class Answering:
    """Answers for one database, under its present source name and its earlier ones.

    `state` gives events that bring a group to where the pruned events would have brought it. It answers None
    where that isn't possible for the group.
    """

    def __init__(
        self, database: Database, stream: EventStream, state: Callable[[str], Iterable[Event] | None]
    ) -> None:
        self._database = database
        self._asks = Asks(stream)
        self._state = state

    def step(self) -> bool:
        """Answer a part of the open asks, and tell whether more can be answered now.

        Raises RedisError or StoreUnavailable. May be repeated. Only for an outbox that may publish.
        """
        own, more = outboxes(self._database), False
        sources = [*own, *earlier_sources(self._database)]
        for source, asks in zip(sources, self._asks.of_all(sources), strict=True):
            for group, asked in asks.items():
                if self._asks.unsettled(group) < MOST_UNSETTLED:
                    more |= self._answer(source, own.get(source), group, asked)
        return more

    def _answer(self, source: str, outbox: Outbox | None, group: str, asked: list[Range]) -> bool:
        """`outbox` is None for a name from an earlier release: no events of it are kept."""
        last = outbox.last() if outbox else asked[-1].last
        pruned = ranges.both(asked, [Range(1, outbox.first() - 1 if outbox else last)])
        here = ranges.without(ranges.both(asked, [Range(1, last)]), pruned)
        rows = outbox.of(here, AT_ONCE) if outbox else []
        if len(rows) == AT_ONCE:
            here = ranges.both(here, [Range(1, rows[-1].sequence)])
        there = [Range(row.sequence, row.sequence) for row in rows]
        lacking = ranges.without(here, there)
        is_made_up = ranges.count(lacking) > MOST_NOWHERE
        gone = lacking if is_made_up else ranges.merge([*pruned, *lacking])
        if gone and not is_made_up and (state := self._state(group)) is not None:
            self._tell_state(source, group, asked, pruned, ranges.first_of(lacking, AT_ONCE), state)
            return True
        events = [published_fields(source, row) for row in rows]
        if not gone and not events:
            return False  # numbers that it has not given yet: this is an older copy, which heals by itself
        left = ranges.without(asked, [*gone, *there])
        every_gone = ranges.merge([*gone, *self._asks.gone(group).get(source, [])])
        if self._asks.answer(source, group, asked, left, every_gone, events):
            _log.info("asked_events_published", group=group, events=len(events), gone=ranges.count(gone))
        return bool(left)

    def _tell_state(
        self,
        source: str,
        group: str,
        asked: list[Range],
        pruned: list[Range],
        lacking: list[Range],
        state: Iterable[Event],
    ) -> None:
        """Send the current state, as events with names of their own, in the place of the pruned ones.

        Events that the source itself lacks get no replacement: the group goes without them, too.
        """
        every = _named(f"{source}+{secrets.token_hex(4)}", state if pruned else ())
        while events := list(islice(every, AT_ONCE)):
            if not self._asks.answer(source, group, asked, asked, [], events):
                return
        gone = ranges.merge([*pruned, *lacking])
        orders = [
            {field: f"{source}:{ranges.shown(each)}".encode()}
            for field, each in ((COVERS_FIELD, pruned), (LACKS_FIELD, lacking))
            if each
        ]
        if self._asks.answer(source, group, asked, ranges.without(asked, gone), [], orders):
            _log.info("state_published", group=group, instead_of=ranges.count(gone))


def _named(source: str, events: Iterable[Event]) -> Iterator[Fields]:
    for number, event in enumerate(events, 1):
        yield published_fields(source, OutboxRow(number, type(event).__name__, encode(event), None))
