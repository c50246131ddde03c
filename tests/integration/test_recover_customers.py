"""customers.db is made again from what the stream has, whatever Redis has forgotten of its names."""

from pathlib import Path

import redis

from tally.actors.relay import Relay
from tally.events import Id
from tally.recovery.lost_customers import recover
from tally.recovery.standing import Standing
from tally.store import customers
from tally.store.customers import Customers, NewCustomer
from tally.store.incarnations import begin, own_sources
from tally.store.stream import EventStream, connect


def test_what_was_published_under_a_later_name_comes_back_though_redis_lost_the_first(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    database = customers.open_database(tmp_path)
    store, first = Customers(database), database.source
    with database.transaction():  # as on the first write after Redis has lost what it knew
        begin(database, store.outbox.last())
    with database.transaction():
        store.create_customers([NewCustomer("Ada", Id(1))])
    relay = Relay(database, stream, Standing(store, stream).settle)
    while relay.step():
        pass
    names = own_sources(database)
    database.close()
    (tmp_path / customers.FILE).unlink()
    assert client.hget("{event-stream}:published", first) is None

    recovered = recover(tmp_path, stream, None, beat=lambda: None)
    assert (recovered.customers, recovered.from_stream) == (1, 1)
    again = customers.open_database(tmp_path)
    assert [each.name for each in Customers(again).customers(None, -1, 10)] == ["Ada"]
    assert names <= own_sources(again)
    again.close()
