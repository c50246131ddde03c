"""Somebody has destroyed a group by hand: nothing is published again that others have removed on purpose."""

import pytest

from support.publishing import publish
from support.redis_double import RedisDouble
from tally.store.consumer_group import ConsumerGroup
from tally.store.outbox import OutboxRow
from tally.store.stream import Age, EventStream

KEY = "event-stream"
SOURCE = "customers@0000000a"
GONE, OTHER = "accounts@0000000b", "customers@0000000c"
ROWS = [OutboxRow(number, "Unknown", b"%d" % number, None) for number in range(1, 4)]


@pytest.fixture
def stream() -> EventStream:
    """A stream with three events that two groups have acknowledged."""
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), KEY)
    groups = [ConsumerGroup(stream, name, "1") for name in (GONE, OTHER)]
    for group in groups:
        group.create()
    publish(stream, SOURCE, ROWS)
    for group in groups:
        group.acknowledge([entry.id for entry in group.read_new(10)], Age("b", 1))
    return stream


def _remove_newest(stream: EventStream) -> None:
    newest = stream.newest()
    assert newest
    stream.client.xdel(KEY, newest)
    stream.client.xadd(KEY, {"of": "another program"})


def test_of_a_database_that_is_gone(stream: EventStream) -> None:
    """Its age stayed, so each removal of the newest event had the whole outbox published again, for good."""
    stream.client.xgroup_destroy(KEY, GONE)
    _remove_newest(stream)
    assert stream.published(SOURCE).last == 3
    ConsumerGroup(stream, GONE, "1").create()  # it wasn't gone after all
    assert stream.published(SOURCE).last == 3


def test_a_stream_that_was_deleted_is_published_again_all_the_same(stream: EventStream) -> None:
    stream.client.delete(KEY)
    stream.client.xadd(KEY, {"of": "another program"})
    stream.client.xgroup_create(KEY, "another-program", id="0")
    ConsumerGroup(stream, OTHER, "1").create()
    assert stream.published(SOURCE).last == 0
    assert stream.published(SOURCE).ever == 3
