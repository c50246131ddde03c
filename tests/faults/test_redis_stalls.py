"""The network to Redis stalls, loses or cuts: nothing is published twice, nothing stays pending."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.load import Load
from support.proxy import Proxy, proxied
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.troubles import troubled, troubles
from support.waiting import eventually

LONGER_THAN_A_COMMAND_MAY_TAKE = 6.0  # seconds; a command is given up after five
CONSUMERS = {"consumers": {"claim_idle_ms": 2000}}


@pytest.fixture
def proxy(server: RedisProcess) -> Iterator[Proxy]:
    with proxied(server.port) as proxy:
        yield proxy


@pytest.fixture
def through(tmp_path: Path, proxy: Proxy) -> Iterator[Tally]:
    """A running Tally that reaches the server through the proxy; no fault may end its actors."""
    with running(tmp_path, redis_url=proxy.url, **CONSUMERS) as tally:
        before = tally.pids()
        yield tally
        assert tally.pids() == before


def test_a_redis_that_stands_still_for_longer_than_a_command_may_take(
    on_server: Tally, server: RedisProcess
) -> None:
    load = Load(on_server)
    with load.running():
        load.accepted(300)
        server.signal(signal.SIGSTOP)
        _post_for(load, LONGER_THAN_A_COMMAND_MAY_TAKE)
        assert len(troubled(on_server, "timeout")) == 5
        server.signal(signal.SIGCONT)
        load.accepted(300)
    load.exact()
    eventually(lambda: not troubles(on_server))


def test_a_network_that_stalls_and_then_delivers_what_it_held_back(through: Tally, proxy: Proxy) -> None:
    load = Load(through)
    with load.running():
        load.accepted(300)
        proxy.stall()
        _post_for(load, LONGER_THAN_A_COMMAND_MAY_TAKE)
        assert len(troubled(through, "timeout")) == 5
        proxy.go_on()
        load.accepted(300)
    load.exact()
    eventually(lambda: not troubles(through))


def test_a_network_that_swallows_everything_for_a_while(through: Tally, proxy: Proxy) -> None:
    load = Load(through)
    with load.running():
        load.accepted(300)
        proxy.swallow()
        _post_for(load, 1)
        proxy.go_on()  # what was open stays deaf: only giving up its commands helps
        eventually(lambda: "TimeoutError" in through.said())
        load.accepted(300)
    load.exact()
    eventually(lambda: not troubles(through))


def test_connections_that_are_cut_again_and_again(through: Tally, proxy: Proxy) -> None:
    load = Load(through)
    with load.running():
        for _ in range(30):
            load.accepted(30)
            proxy.cut()
    load.exact()


def test_connections_that_are_cut_in_the_middle_of_a_reply(through: Tally, proxy: Proxy) -> None:
    load = Load(through)
    with load.running():
        for size in (0, 1, 2, 3, 4, 5, 8, 13, 50, 100, 200, 500, 1_000, 3_000, 10_000, 30_000) * 2:
            cuts = proxy.cuts
            proxy.cut_after(size)
            eventually(lambda: proxy.cuts > cuts)  # noqa: B023
    load.exact()


def test_status_is_told_in_time_while_the_network_stalls(through: Tally, proxy: Proxy) -> None:
    load = Load(through)
    load.post()
    proxy.stall()
    for service in (through.customers, through.accounts):
        started = time.monotonic()
        status = service.get("/status")
        assert time.monotonic() - started < 1
        assert status["status"] == "degraded"
        assert any("Redis" in reason for reason in status["reasons"])
        for path in ("/health/live", "/health/ready"):
            assert service.get(path) == {"status": "ok"}
    proxy.go_on()
    load.exact()


def _post_for(load: Load, seconds: float) -> None:
    """Post one invoice after another; each is accepted in its usual time."""
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        assert load.post() < 1
