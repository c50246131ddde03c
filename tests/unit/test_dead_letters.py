"""The outcome of a redrive is told rightly, whatever happens to the letters meanwhile."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support.redis_double import RedisDouble
from tally.store.consumer_group import ConsumerGroup
from tally.store.dead_letters import DeadLetters
from tally.store.stream import EventStream


class Watched(DeadLetters):
    """Before each look for what has become of the orders, something happens."""

    def __init__(self, stream: EventStream, happens: Sequence[Callable[[], object]]) -> None:
        super().__init__(stream)
        self._happens = iter(happens)

    def _not_carried_out(self, orders: Any) -> Any:
        if happens := next(self._happens, None):
            happens()
        return super()._not_carried_out(orders)


@pytest.fixture
def server() -> RedisDouble:
    return RedisDouble(lambda: 1_700_000_000_000)


@pytest.fixture
def group(server: RedisDouble) -> ConsumerGroup:
    """A group with two dead letters."""
    stream = EventStream(server.client(), "event-stream")
    group = ConsumerGroup(stream, "accounts@1", "1")
    group.create()
    for number in ("1", "2"):
        stream.client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": number})
    for entry in group.read_new(2):
        group.bury(entry, "why", 1)
    return group


def test_what_failed_again_is_told_though_somebody_has_decided_on_its_new_letter(
    server: RedisDouble, group: ConsumerGroup
) -> None:
    stream = EventStream(server.client(), "event-stream")
    letters = DeadLetters(stream)

    def one_fails() -> None:
        first, _ = group.redriven(2)
        group.bury(first.entry, "again", 1, first.order)

    def its_letter_is_discarded_and_the_other_applied() -> None:
        letters.discard(letters.all()[-1])
        group.settle(group.redriven(2))

    one, other = letters.all()
    watched = Watched(stream, [one_fails, its_letter_is_discarded_and_the_other_applied])
    outcome = watched.redrive_all([one, other], seconds=20)
    assert [*outcome.failed] == [one.id]
    assert outcome.applied == [other]


def test_what_redis_has_lost_the_order_of_waits(server: RedisDouble, group: ConsumerGroup) -> None:
    """As after a failover to a replica that lacks the newest writes: the letter is there again."""
    stream, state = EventStream(server.client(), "event-stream"), server.state()
    one, other = DeadLetters(stream).all()
    outcome = Watched(stream, [lambda: server.go_back(state)]).redrive_all([one, other], seconds=20)
    assert (outcome.applied, outcome.failed) == ([], {})
    assert outcome.waiting == [one, other]


def test_a_letter_that_is_named_twice_is_redriven_once(server: RedisDouble, group: ConsumerGroup) -> None:
    stream = EventStream(server.client(), "event-stream")
    one, other = DeadLetters(stream).all()
    watched = Watched(stream, [lambda: group.settle(group.redriven(2))])
    outcome = watched.redrive_all([one, other, one], seconds=5)
    assert (outcome.applied, outcome.gone) == ([one, other], 0)


def test_however_many_letters_there_are_they_are_read_by_pages(server: RedisDouble) -> None:
    """Relays and consumers read all in one answer, twice a minute: with very many they were killed."""
    stream, beats = EventStream(server.client(), "event-stream"), list[int]()
    stream.beat = lambda: beats.append(1)
    fields: dict[Any, Any] = {"Group": "accounts@1", "StreamId": "1-0", "EventTypeName": "InvoiceCreated"}
    for number in range(2001):
        stream.client.xadd("{event-stream}:dead", {**fields, "EventName": f"1-0 {number}"})
        stream.client.xadd("{event-stream}:redrive:accounts@1", {"Name": f"2-0 {number}"})
    assert len(DeadLetters(stream).names("accounts@1")) == 2 * 2001
    assert len(beats) == 9  # three pages of letters, and twice three of orders
