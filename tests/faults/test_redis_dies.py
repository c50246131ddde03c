"""Redis is killed or unreachable: Tally accepts every write, and publishes in order when Redis is back."""

import statistics
import time
from typing import Any

from support.load import Load
from support.redis_process import RedisProcess
from support.tally import Client, Tally
from support.troubles import troubles
from support.waiting import eventually

AWAY_SECONDS = 5.0
ANSWER_SECONDS = 3.0  # on a busy machine: far less than the five seconds that a command to Redis may take
WAITING_FOR_REDIS = {
    "customers-relay",
    "accounts-relay",
    "customers-consumer-1",
    "accounts-consumer-1",
    "accounts-consumer-2",
}


def test_a_redis_that_is_killed_and_restarted_on_its_append_only_file_is_as_if_nothing_had_been(
    on_server: Tally, server: RedisProcess
) -> None:
    load = Load(on_server, spread=3)
    with load:
        for _ in range(3):
            load.goes_on(300)
            server.kill()
            load.goes_on(100)
            server.start()
        load.goes_on(300)
    load.exact()


def test_while_redis_is_away_every_write_is_accepted_in_its_usual_time_and_published_when_it_is_back(
    on_server: Tally, server: RedisProcess
) -> None:
    load = Load(on_server, spread=3)
    usual = [load.post() for _ in range(200)]

    server.kill()
    back_at = time.monotonic() + AWAY_SECONDS
    meanwhile = []
    while time.monotonic() < back_at:
        meanwhile.append(load.post())
    assert statistics.median(meanwhile) < 3 * statistics.median(usual)
    assert max(meanwhile) < max(ANSWER_SECONDS, 3 * max(usual))

    server.start()
    load.exact()
    assert eventually(lambda: not troubles(on_server))


def test_while_redis_is_away_both_services_and_the_supervisor_say_so_at_once(
    on_server: Tally, server: RedisProcess
) -> None:
    load = Load(on_server, clients=1, spread=3)
    with load:
        server.kill()
        for service in (on_server.customers, on_server.accounts):
            eventually(lambda: _in_time(service, "/status")["status"] == "degraded")  # noqa: B023
            status = _in_time(service, "/status")
            assert any("Redis" in reason for reason in status["reasons"])
            assert status["redis"]["reachable"] is False
            for path in ("/health/live", "/health/ready"):
                assert _in_time(service, path) == {"status": "ok"}
        eventually(lambda: set(troubles(on_server)) == WAITING_FOR_REDIS)
        assert all("connect" in trouble.lower() for trouble in troubles(on_server).values())
        assert on_server.customers.get("/status")["outbox_depth"] > 0
        eventually(lambda: len(_reasons(on_server)) == 1)  # not once for each actor

        server.start()
    load.exact()
    for service in (on_server.customers, on_server.accounts):
        eventually(lambda: service.get("/status")["status"] == "ok")  # noqa: B023
    eventually(lambda: not troubles(on_server))


def _reasons(tally: Tally) -> set[str]:
    return {reason for report in tally.reports() for reason in report["reasons"]}


def _in_time(service: Client, path: str) -> dict[str, Any]:
    started = time.monotonic()
    answer: dict[str, Any] = service.get(path)
    assert time.monotonic() - started < ANSWER_SECONDS, path
    return answer
