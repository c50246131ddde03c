"""Redis answers with a refusal: Tally waits, says why, and continues when Redis allows it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from support.engines import free_port
from support.load import Load
from support.redis_process import RedisProcess
from support.rights import without_right
from support.tally import Tally, running
from support.troubles import troubled, troubles
from support.waiting import eventually

MOST_TRIES_A_SECOND = 30  # of five actors, which back off to one second
# A try takes several commands, with those in scripts. That makes 60 to 130, as waits are random, and now and
# then 175. Somebody who doesn't back off asks thousands of times.
MOST_COMMANDS_A_SECOND = 250
MOST_LINES = 10
SETTLING_SECONDS = 1.0  # the first tries come quickly one after another
MEASURED_SECONDS = 3.0


@pytest.fixture(scope="module")
def on_engine(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """One Tally on each engine for all these tests: after a refusal it is as before."""
    with redis.Redis.from_url(engine) as client:
        client.flushall()
    with running(tmp_path_factory.mktemp("tally"), redis_url=engine) as tally:
        yield tally


_LOADS: dict[Path, list[Load]] = {}


def _loads(tally: Tally) -> list[Load]:
    """The earlier loads of that Tally, which are on its stream."""
    return _LOADS.setdefault(tally.directory, [])


@pytest.fixture
def client(engine: str, on_engine: Tally) -> Iterator[redis.Redis]:
    """A client of the engine. The engine must stay as it is: a Tally uses it."""
    with redis.Redis.from_url(engine, protocol=2) as client:
        yield client


Refusal = Callable[[redis.Redis], AbstractContextManager[None]]


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    """Leave room for a little more; after that Redis refuses every command that takes memory."""
    memory: Any = client.info("memory")
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", memory["used_memory"] + 100_000)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def replica_of_nobody(client: redis.Redis) -> Iterator[None]:
    """Make it a replica of a missing server: it keeps its data, and takes no write."""
    client.replicaof("127.0.0.1", str(free_port()))
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def too_few_replicas(client: redis.Redis) -> Iterator[None]:
    """Have the server require replicas that it doesn't have."""
    client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", 0)


@contextmanager
def password_wanted(client: redis.Redis) -> Iterator[None]:
    """Set a password that Tally doesn't know, and close all older connections."""
    client.config_set("requirepass", "secret")
    client.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        client.config_set("requirepass", "")


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(replica_of_nobody, id="READONLY"),
        *(
            pytest.param(partial(without_right, command=command), id=f"no {command}")
            for command in ("xadd", "hset", "xack", "xautoclaim", "xreadgroup")
        ),
    ],
)
def test_what_is_refused_with_a_backlog_is_tried_seldom_and_told_once(
    on_engine: Tally, client: redis.Redis, refusal: Refusal
) -> None:
    def asked() -> int:
        stats: Any = client.info("stats")
        return int(stats["total_commands_processed"]) + int(stats.get("total_error_replies", 0))

    tally, others = on_engine, _loads(on_engine)
    load = Load(tally, spread=3)
    others.append(load)
    load.post()
    with refusal(client):
        for _ in range(4):
            load.post_batch(500)
        eventually(lambda: troubles(tally))
        time.sleep(SETTLING_SECONDS)
        before, lines = asked(), len(tally.said().splitlines())
        time.sleep(MEASURED_SECONDS)
        assert asked() - before < MOST_COMMANDS_A_SECOND * MEASURED_SECONDS
        assert len(tally.said().splitlines()) - lines < MOST_LINES
    load.exact(others=others[:-1])
    eventually(lambda: not troubles(tally))


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        pytest.param(out_of_memory, "maxmemory", id="OOM"),
        pytest.param(replica_of_nobody, "read only replica", id="READONLY"),
        pytest.param(too_few_replicas, "NOREPLICAS", id="NOREPLICAS"),
        pytest.param(password_wanted, "Authentication required", id="NOAUTH"),
    ],
)
def test_what_redis_refuses_is_waited_out(
    on_engine: Tally, client: redis.Redis, refusal: Refusal, reason: str
) -> None:
    def refused() -> int:
        errors: Any = client.info("errorstats")  # ERR: CLIENT SETINFO, unknown to old releases
        return sum(count["count"] for error, count in errors.items() if error != "errorstat_ERR")

    before, started = refused(), time.monotonic()
    _waits_out(on_engine, lambda: refusal(client), reason)
    assert refused() - before < MOST_TRIES_A_SECOND * (time.monotonic() - started)


def test_a_redis_that_cannot_save_is_waited_out(on_server: Tally, server: RedisProcess) -> None:
    def status() -> str:
        persistence: Any = server.client.info("persistence")
        return str(persistence["rdb_last_bgsave_status"])

    @contextmanager
    def cannot_save() -> Iterator[None]:
        in_the_way = server.directory / "dump.rdb"
        in_the_way.mkdir()
        server.client.config_set("save", "3600 1")
        server.client.bgsave()
        eventually(lambda: status() == "err")
        yield
        in_the_way.rmdir()
        server.client.bgsave()
        eventually(lambda: status() == "ok")

    _waits_out(on_server, cannot_save, "MISCONF")


def test_a_redis_that_is_loading_is_waited_out(on_server: Tally, server: RedisProcess) -> None:
    @contextmanager
    def loading() -> Iterator[None]:
        with server.client.pipeline(transaction=False) as much:
            for _ in range(10_000):
                much.set("{event-stream}:test", "x")
            much.execute()
        server.kill()
        server.start("--key-load-delay", "300", wait=False)  # microseconds, for each command in the file
        yield

    _waits_out(on_server, loading, "loading")


def test_a_full_redis_is_trimmed_and_goes_on_by_itself(tmp_path: Path) -> None:
    """It stayed full: nothing on it could be acknowledged or trimmed, whatever its age."""
    server = RedisProcess(tmp_path / "redis")
    server.start()
    client, old = server.client, {"EventTypeName": "Old", "Payload": "x" * 10_000}
    try:
        client.set("{event-stream}:contact", 0)  # known for longer than the retention
        for number in range(1, 401):
            client.xadd("event-stream", old, id=f"{number}-0")  # type: ignore[arg-type]
        with running(tmp_path / "tally", redis_url=server.url) as tally:
            load = Load(tally)
            load.post()
            memory: Any = client.info("memory")
            client.config_set("maxmemory", memory["used_memory"] - 500_000)
            load.post()
            eventually(lambda: troubled(tally, "maxmemory"))
            assert client.xlen("event-stream") > 400
            tally.kill("customers-relay")  # a new one trims at once, and each one every minute
            load.is_counted_once()
            assert client.xlen("event-stream") < 400
            eventually(lambda: not troubles(tally))
    finally:
        server.kill()


def _waits_out(tally: Tally, refusal: Callable[[], AbstractContextManager[None]], reason: str) -> None:
    """Under load, every write is accepted while the refusal lasts, and Tally reports the reason."""
    before, others, said = tally.pids(), _loads(tally), len(tally.said())
    load = Load(tally, clients=2, spread=3)
    others.append(load)
    with load:
        load.goes_on(100)
        with refusal():
            eventually(lambda: troubled(tally, reason))
            load.goes_on(100)
        load.goes_on(100)
    load.exact(others=others[:-1])
    eventually(lambda: not troubles(tally))
    assert tally.pids() == before
    assert re.search(reason, tally.said()[said:], re.IGNORECASE), "not in the log"
