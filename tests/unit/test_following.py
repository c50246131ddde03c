"""A standby's database follows its primary."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.actors.relay import Relay
from tally.events import Id
from tally.recovery import joining
from tally.recovery.following import AT_ONCE, Follower
from tally.store import accounts, customers
from tally.store.copying import copy_database
from tally.store.customers import Customers
from tally.store.incarnations import begin
from tally.store.lacking import LACKING
from tally.store.outbox import Outbox, outboxes
from tally.store.ranges import Range
from tally.store.records import NewCustomer
from tally.store.stream import Entry, EventStream

KEY = "event-stream"


class Busy(EventStream):
    """A stream to which another node publishes more with each look than one look reads."""

    looks = 0
    most = 0

    def read(self, after: bytes, count: int, block_ms: int) -> list[Entry]:
        if self.looks < self.most:
            self.looks += 1
            with self.client.pipeline(transaction=False) as pipeline:
                for _ in range(AT_ONCE):
                    pipeline.xadd(KEY, {"EventTypeName": "Other", "Payload": "{}"})
                pipeline.execute()
        return super().read(after, count, block_ms)


class Pair:
    """A primary, and its standby."""

    def __init__(self, directory: Path) -> None:
        self.stream = Busy(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), KEY)
        places = [directory / name for name in ("primary", "copies", "standby")]
        for place in places:
            place.mkdir()
        self.primary = Customers(customers.open_database(places[0]))
        accounts.open_database(places[1]).close()
        copy_database(places[0] / customers.FILE, places[1] / customers.FILE, lambda _: None)
        joining.follow(places[2], places[1], 0)
        self.standby = Customers(customers.open_database(places[2]))

    def record(self) -> None:
        """Record a customer at the primary, and publish it."""
        with self.primary.database.transaction():
            self.primary.create_customers([NewCustomer("c", Id(1))])
        relay = Relay(self.primary.database, self.stream)
        while relay.step():
            pass


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with closing(pair.primary.database), closing(pair.standby.database):
        yield pair


def test_catching_up_ends_with_what_was_there_when_it_began(pair: Pair) -> None:
    """While another node published quickly, one that lacks an event, and was promoted, never answered."""
    with pair.standby.database.transaction():
        LACKING.add(pair.standby.database, pair.primary.database.source, [Range(9, 9)])
    pair.record()
    pair.stream.most = 5
    Follower(pair.standby, pair.stream).catch_up()
    assert pair.standby.outbox.last() == pair.primary.outbox.last() == 1
    assert pair.stream.looks == 1


def test_a_name_of_its_primary_is_known_as_soon_as_redis_is_told_again_whose_it_is(pair: Pair) -> None:
    """Redis had lost that. The standby took the name for another node's until it was restarted."""
    pair.record()
    database = pair.primary.database
    with database.transaction():
        begin(database, pair.primary.outbox.last())
    pair.primary.outbox = Outbox(database)
    pair.record()
    heirs = pair.stream.heirs()
    pair.stream.client.delete("{event-stream}:incarnations")
    follower = Follower(pair.standby, pair.stream)
    follower.catch_up()
    assert not follower.step()
    pair.stream.note_heirs(heirs)
    for _ in range(10):
        if not follower.step():
            follower.look()
    own = outboxes(pair.standby.database)
    assert [(source, own[source].last()) for source in outboxes(database)] == [(each, 1) for each in own]
