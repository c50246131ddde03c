"""The network to Redis stalls, loses bytes or cuts: nothing is published twice or stays pending."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.engines import free_port
from support.load import Load
from support.proxy import Proxy, proxied
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.troubles import troubled, troubles
from support.waiting import eventually
from tally.recovery import first_start

LONGER_THAN_A_COMMAND_MAY_TAKE = 6.0  # seconds; Tally gives up a command after five
WITHOUT_WAITING = 3.0  # seconds, on a busy machine
CONSUMERS = {"consumers": {"claim_idle_ms": 2000}}
SHORTEST_HEARTBEAT = {"supervisor": {"heartbeat_timeout": 2}}
SEVERAL_HEARTBEATS = 8.0  # seconds


@pytest.fixture
def proxy(server: RedisProcess) -> Iterator[Proxy]:
    with proxied(server.port) as proxy:
        yield proxy


@pytest.fixture
def through(tmp_path: Path, proxy: Proxy) -> Iterator[Tally]:
    """A running Tally that reaches the server through the proxy. No fault may end its actors."""
    with running(tmp_path, redis_url=proxy.url, **CONSUMERS) as tally:
        before = tally.pids()
        yield tally
        assert tally.pids() == before


def test_a_redis_that_stands_still_for_longer_than_a_command_may_take(
    on_server: Tally, server: RedisProcess
) -> None:
    load = Load(on_server, spread=3)
    with load:
        load.goes_on(300)
        server.signal(signal.SIGSTOP)
        _post_for(load, LONGER_THAN_A_COMMAND_MAY_TAKE)
        eventually(lambda: len(troubled(on_server, "timeout")) == 5)
        server.signal(signal.SIGCONT)
        load.goes_on(300)
    load.exact()
    eventually(lambda: not troubles(on_server))


def test_a_network_that_stalls_and_then_delivers_what_it_held_back(through: Tally, proxy: Proxy) -> None:
    load = Load(through, spread=3)
    with load:
        load.goes_on(300)
        proxy.stall()
        _post_for(load, LONGER_THAN_A_COMMAND_MAY_TAKE)
        eventually(lambda: len(troubled(through, "timeout")) == 5)
        proxy.go_on()
        load.goes_on(300)
    load.exact()
    eventually(lambda: not troubles(through))


def test_a_network_that_swallows_everything_for_a_while(through: Tally, proxy: Proxy) -> None:
    load = Load(through, spread=3)
    with load:
        load.goes_on(300)
        proxy.swallow()
        _post_for(load, 1)
        proxy.go_on()  # open connections stay deaf: Tally has to give up their commands
        eventually(lambda: "TimeoutError" in through.said())
        load.goes_on(300)
    load.exact()
    eventually(lambda: not troubles(through))


def test_connections_that_are_cut_again_and_again(through: Tally, proxy: Proxy) -> None:
    load = Load(through, spread=3)
    with load:
        for _ in range(30):
            load.goes_on(30)
            proxy.cut()
    load.exact()


def test_connections_that_are_cut_in_the_middle_of_a_reply(through: Tally, proxy: Proxy) -> None:
    load = Load(through, spread=3)
    with load:
        for size in (0, 1, 2, 3, 4, 5, 8, 13, 50, 100, 200, 500, 1_000, 3_000, 10_000, 30_000) * 2:
            cuts = proxy.cuts
            proxy.cut_after(size)
            eventually(lambda: proxy.cuts > cuts)  # noqa: B023
    load.exact()


def test_status_is_told_in_time_while_the_network_stalls(through: Tally, proxy: Proxy) -> None:
    load = Load(through, spread=3)
    load.post()
    proxy.stall()
    for service in (through.customers, through.accounts):
        started = time.monotonic()
        status = service.get("/status")
        assert time.monotonic() - started < WITHOUT_WAITING
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
        assert load.post() < LONGER_THAN_A_COMMAND_MAY_TAKE / 2  # it doesn't wait for Redis


def test_who_waits_for_a_redis_that_stands_still_is_not_taken_for_hung(
    tmp_path: Path, server: RedisProcess
) -> None:
    with running(tmp_path, redis_url=server.url, **SHORTEST_HEARTBEAT) as tally:
        before, load = tally.pids(), Load(tally, clients=1, spread=3)
        with load:
            load.goes_on(100)
            server.signal(signal.SIGSTOP)
            time.sleep(SEVERAL_HEARTBEATS)
            server.signal(signal.SIGCONT)
            load.goes_on(100)
        load.exact()
        _nobody_was_killed(tally, before)


def test_nor_is_who_gets_each_answer_late(tmp_path: Path, proxy: Proxy) -> None:
    with running(tmp_path, redis_url=proxy.url, **SHORTEST_HEARTBEAT) as tally:
        before, load = tally.pids(), Load(tally, clients=1, spread=3)
        with load:
            over = time.monotonic() + SEVERAL_HEARTBEATS
            while time.monotonic() < over:
                proxy.stall()
                time.sleep(1.9)  # shorter than the heartbeat, but longer with the wait before it
                proxy.go_on()
                time.sleep(0.02)
        load.exact()
        _nobody_was_killed(tally, before)


def test_nor_is_who_gets_no_connection(tmp_path: Path) -> None:
    with full_up() as port:
        url = f"redis://127.0.0.1:{port}/0"
        first_start.make(tmp_path / "data")  # else Tally would wait for Redis before it takes requests
        with running(tmp_path, redis_url=url, **SHORTEST_HEARTBEAT) as tally:
            before = tally.pids()
            time.sleep(SEVERAL_HEARTBEATS)
            eventually(lambda: len(troubled(tally, "timeout")) == 5)
            _nobody_was_killed(tally, before)
            assert tally.stop() == 0


@contextmanager
def full_up() -> Iterator[int]:
    """A port whose server accepts no more connections: clients wait and get no answer."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=0) as listener, ExitStack() as callers:
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def _nobody_was_killed(tally: Tally, before: dict[str, int]) -> None:
    assert "actor_hangs" not in tally.said()
    assert tally.pids() == before
