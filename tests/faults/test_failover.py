"""A primary and its standby, whatever becomes of them and of Redis: nothing is lost, and nothing counts twice."""

import signal
from functools import partial
from pathlib import Path

import psutil
import pytest
from integration.test_nodes import a_node, sell, shown
from integration.test_standby import FAILOVER_SECONDS, is_primary, pair, recorded, tool

from support.redis_process import RedisProcess
from support.tally import Tally
from support.waiting import eventually

pytestmark = pytest.mark.whole


def _freeze(tally: Tally) -> list[psutil.Process]:
    """Have all of a Tally stand still; answer its processes."""
    supervisor = psutil.Process(tally.process.pid)
    supervisor.suspend()
    every = [supervisor, *supervisor.children(recursive=True)]
    for process in every[1:]:
        process.suspend()
    return every


def _thaw(processes: list[psutil.Process]) -> None:
    for process in reversed(processes):
        process.resume()


def _shows(tally: Tally, cents: int) -> bool:
    return shown(tally) == {"1": {"1": cents}}


def test_nothing_is_lost_or_doubled_where_redis_rolls_the_promotion_back(
    tmp_path: Path, server: RedisProcess
) -> None:
    with pair(tmp_path, server.url) as (first, second):
        frozen = _freeze(first)
        server.kill()
        server.copy(tmp_path / "before")
        server.start()
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers))
        expected = {"1": 100, sell(second.customers, "1", 20): 20}
        server.kill()
        server.put_back(tmp_path / "before")
        server.start()
        _thaw(frozen)
        expected[sell(first.customers, "1", 3)] = 3  # both are primaries for a moment
        expected[sell(second.customers, "1", 4)] = 4
        eventually(lambda: not is_primary(first.customers), 30)
        assert is_primary(second.customers)
        for tally in (first, second):
            eventually(partial(_has, tally, expected), 30)
            eventually(partial(_shows, tally, 127), 30)
        eventually(lambda: first.settled() and second.settled(), 30)


def _has(tally: Tally, invoices: dict[str, int]) -> bool:
    return recorded(tally) == invoices


def test_a_primary_that_can_not_renew_its_lease_records_nothing(tmp_path: Path, server: RedisProcess) -> None:
    first = a_node(tmp_path / "first", server.url, 0)
    first.settings["node"]["failover_seconds"] = FAILOVER_SECONDS
    try:
        first.start()
        assert is_primary(first.customers)
        server.signal(signal.SIGSTOP)
        eventually(lambda: not (is_primary(first.customers) or is_primary(first.accounts)))
        new = {"name": "c", "account_id": "1"}
        refused = first.customers.request("POST", "/customers", new)
        assert (refused.status, refused.json()["title"]) == (503, "Store unavailable")
        assert first.customers.get("/customers")["customers"] == []
        server.signal(signal.SIGCONT)
        eventually(lambda: is_primary(first.customers))
        first.customers.post("/customers", new)
    finally:
        first.end()
