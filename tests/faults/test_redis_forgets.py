"""Redis loses data: Tally publishes it again from the outbox, and counts it once."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from support.load import Load, assert_published
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.waiting import eventually

AGAIN_SECONDS = 3.0
CONSUMERS = ("customers-consumer-1", "accounts-consumer-1", "accounts-consumer-2")


def _destroy_groups(client: redis.Redis) -> None:
    groups: Any = client.xinfo_groups("event-stream")
    for group in groups:
        client.xgroup_destroy("event-stream", group["name"])


Loss = Callable[[redis.Redis], object]

LOSSES: dict[str, Loss] = {
    "FLUSHALL": lambda client: client.flushall(),
    "DEL stream": lambda client: client.delete("event-stream"),
    "DEL published": lambda client: client.delete("{event-stream}:published"),
    "DEL both": lambda client: client.delete("event-stream", "{event-stream}:published"),
    "XGROUP DESTROY": _destroy_groups,
}


class Shared(NamedTuple):
    """A Tally that goes on through several losses of a kind on one engine, and its loads."""

    tally: Tally
    client: redis.Redis
    loads: list[Load]

    def load(self) -> Load:
        """Another load, on a stream that has each event once."""
        eventually(self.tally.settled)
        self.client.flushall()
        if self.loads:
            eventually(self.published_all)
        self.loads.append(Load(self.tally, spread=3))
        return self.loads[-1]

    def exact(self, loss: Loss) -> None:
        """All counts once. If Redis forgot its position, it gets all events again."""
        self.loads[-1].exact(once=loss is not LOSSES["DEL published"], others=self.loads[:-1])

    def published_all(self) -> bool:
        """Whether Redis has every event, and reports so itself."""
        return _published_all(self.client, self.loads)


@pytest.fixture(scope="module", params=[*LOSSES.values()], ids=[*LOSSES])
def loss(request: pytest.FixtureRequest) -> Loss:
    """A way in which Redis loses data."""
    lost: Loss = request.param
    return lost


@pytest.fixture(scope="module")
def shared(engine: str, loss: Loss, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with redis.Redis.from_url(engine, protocol=2) as client:
        client.flushall()
        with running(tmp_path_factory.mktemp("tally"), redis_url=engine) as tally:
            yield Shared(tally, client, [])


def test_what_redis_loses_under_load_is_published_again_and_counted_once(shared: Shared, loss: Loss) -> None:
    load = shared.load()
    with load:
        for _ in range(3):
            load.goes_on(200)
            loss(shared.client)
        load.goes_on(200)
    shared.exact(loss)


def test_what_redis_loses_before_it_was_read_is_published_again_in_time_and_counted_once(
    shared: Shared, loss: Loss
) -> None:
    load, tally = shared.load(), shared.tally
    eventually(tally.settled)
    for name in CONSUMERS:
        tally.kill(name, signal.SIGSTOP)
    with load:
        load.goes_on(700)  # more than a batch
    load.settle()
    eventually(shared.published_all)

    loss(shared.client)
    eventually(shared.published_all, AGAIN_SECONDS)
    for name in CONSUMERS:
        tally.kill(name, signal.SIGCONT)
    shared.exact(loss)


def test_what_redis_loses_after_all_is_done_changes_nothing_and_does_not_end_anything(
    shared: Shared, loss: Loss
) -> None:
    load, before = shared.load(), shared.tally.pids()
    with load:
        load.goes_on(100)
    load.exact(others=shared.loads[:-1])

    loss(shared.client)
    eventually(shared.published_all, AGAIN_SECONDS)
    load.post()
    shared.exact(loss)
    assert shared.tally.pids() == before


def test_a_redis_that_comes_back_with_an_older_file_is_given_the_rest_again(
    on_server: Tally, server: RedisProcess, tmp_path: Path
) -> None:
    load = Load(on_server, spread=3)
    with load:
        load.goes_on(300)
        server.copy(tmp_path / "older")
        load.goes_on(700)
        server.kill()
        load.goes_on(100)
        server.put_back(tmp_path / "older")
        server.start()
        load.goes_on(100)
    load.exact()

    server.kill()
    server.put_back(tmp_path / "older")
    server.start()  # without any new write
    eventually(lambda: _published_all(server.client, [load]), AGAIN_SECONDS)
    load.exact()


def _published_all(client: redis.Redis, loads: list[Load]) -> bool:
    assert_published(client, [id for load in loads for id in load.ids()], once=False)
    last: Any = client.hgetall("{event-stream}:published")
    entries: Any = client.xrange("event-stream")
    seen = {fields[b"EventId"] for _, fields in entries}
    return seen == {b"%s:%d" % (source, n) for source, most in last.items() for n in range(1, int(most) + 1)}
