"""Redis loses what it had: it is published again from the outbox, and counted once."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from support.load import Load, assert_published
from support.redis_process import RedisProcess
from support.tally import Tally
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

losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@losses
def test_what_redis_loses_under_load_is_published_again_and_counted_once(
    tally: Tally, client: redis.Redis, loss: Loss
) -> None:
    load = Load(tally)
    with load.running():
        for _ in range(3):
            load.accepted(200)
            loss(client)
        load.accepted(200)
    load.exact(once=loss is not LOSSES["DEL published"])


@losses
def test_what_redis_loses_before_it_was_read_is_published_again_in_time_and_counted_once(
    tally: Tally, client: redis.Redis, loss: Loss
) -> None:
    load = Load(tally)
    eventually(tally.settled)
    for name in CONSUMERS:
        tally.kill(name, signal.SIGSTOP)
    with load.running():
        load.accepted(700)  # more than a batch
    eventually(lambda: _published_all(tally, client, load))

    loss(client)
    eventually(lambda: _published_all(tally, client, load), AGAIN_SECONDS)
    for name in CONSUMERS:
        tally.kill(name, signal.SIGCONT)
    load.exact(once=loss is not LOSSES["DEL published"])


@losses
def test_what_redis_loses_after_all_is_done_changes_nothing_and_does_not_end_anything(
    tally: Tally, client: redis.Redis, loss: Loss
) -> None:
    load, before = Load(tally), tally.pids()
    with load.running():
        load.accepted(100)
    load.exact()

    loss(client)
    eventually(lambda: _published_all(tally, client, load), AGAIN_SECONDS)
    load.post()
    load.exact(once=loss is not LOSSES["DEL published"])
    assert tally.pids() == before


def test_a_redis_that_comes_back_with_an_older_file_is_given_the_rest_again(
    on_server: Tally, server: RedisProcess, tmp_path: Path
) -> None:
    load = Load(on_server)
    with load.running():
        load.accepted(300)
        server.copy(tmp_path / "older")
        load.accepted(700)
        server.kill()
        load.accepted(100)
        server.put_back(tmp_path / "older")
        server.start()
        load.accepted(100)
    load.exact()

    server.kill()
    server.put_back(tmp_path / "older")
    server.start()  # and nobody writes
    eventually(lambda: _published_all(on_server, server.client, load), AGAIN_SECONDS)
    load.exact()


def _published_all(tally: Tally, client: redis.Redis, load: Load) -> bool:
    """Whether Redis has every event, and says so itself."""
    assert_published(client, load.invoices, once=False)
    last: Any = client.hgetall("{event-stream}:published")
    entries: Any = client.xrange("event-stream")
    seen = {fields[b"EventId"] for _, fields in entries}
    return seen == {b"%s:%d" % (source, n) for source, most in last.items() for n in range(1, int(most) + 1)}
