"""A primary, its standby and Redis on separate hosts; the lines are cut both ways and one way."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from faults.test_failover import are_counted_once, recorded_all, shows
from integration.test_nodes import ACCOUNT, sell
from integration.test_standby import FAILOVER_SECONDS, follow, is_primary, recorded

from support.hosts import Host, TallyAt, at, hosts, process_at
from support.loading import IS_SOAK, Working
from support.tally import Tally, prepared
from support.waiting import eventually
from tally.actors.redis_binaries import bundled

PORT = 6379
BOTH_WAYS, FROM_IT, TO_IT = (True, True), (True, False), (False, True)
CASES = [("commit", BOTH_WAYS), ("publish", TO_IT)]
if IS_SOAK:
    CASES = [*product(("commit", "publish"), (BOTH_WAYS, FROM_IT, TO_IT))]


class Apart(NamedTuple):
    """Two machines, and the host of their Redis."""

    first: TallyAt
    second: TallyAt
    of_redis: Host

    def renewed_at(self) -> int:
        """When the first machine last renewed the lease of its customers.db (ms, by Redis's clock)."""
        source = f"customers@{self.first.customers.get('/status')['identity']}"
        with at(self.of_redis.name), redis.Redis(port=PORT) as client:
            lease: Any = client.hget("{event-stream}:leases", source)
        return int(lease.split()[1])

    def renews_for(self, seconds: float) -> None:
        """Wait until the first machine has renewed its lease for that long."""
        since = self.renewed_at()
        eventually(lambda: self.renewed_at() - since > seconds * 1000)

    def agree(self, work: Working, besides: dict[str, int]) -> None:
        """All answered invoices and those of `besides` are at both machines, and count once."""
        assert len({*work.answered.values()}) == len(work.answered), "an id was given twice"
        eventually(lambda: recorded_all(self.first) == recorded_all(self.second))
        for tally in (self.first, self.second):
            eventually(tally.settled)
        there = recorded_all(self.first)
        for tally in (self.first, self.second):
            eventually(partial(shows, tally, sum(there.values())))
        for id, cents in besides.items():
            assert there.pop(id) == cents
        are_counted_once(work, there, self.first)


@pytest.fixture
def apart(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Apart]:
    """A primary that has recorded something, its standby, and Redis. The parameter is `answer_after`."""
    server = bundled()
    assert server is not None
    with hosts(3) as (_, (one, two, of_redis)), ExitStack() as stack:
        options = f"--port {PORT} --bind 0.0.0.0 --protected-mode no --save '' --appendonly no".split()
        stack.enter_context(process_at(of_redis.name, [server, *options], tmp_path / "redis.txt"))
        url = f"redis://{of_redis.address}:{PORT}/0"
        first, second = (_machine(host, tmp_path, url, request.param) for host in (one, two))
        second.settings["node"]["standby"] = True
        for each in (first, second):
            stack.callback(each.end)
        first.start()
        account = first.accounts.post("/accounts", ACCOUNT)["id"]
        customer = first.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        sell(first.customers, customer, 100)
        eventually(first.settled)
        follow(first, second)
        yield Apart(first, second, of_redis)


def _machine(host: Host, directory: Path, redis_url: str, answer_after: str) -> TallyAt:
    node = {
        "failover_seconds": FAILOVER_SECONDS,
        "url_customers": f"http://{host.address}",
        "url_accounts": f"http://{host.address}",
    }
    tally = prepared(
        directory / host.name, redis_url=redis_url, node=node, customers={"answer_after": answer_after}
    )
    return TallyAt(host, tally.directory, tally.settings)


def _are_primary(tally: Tally) -> bool:
    return is_primary(tally.customers) and is_primary(tally.accounts)


def _go_on(work: Working) -> None:
    """Wait until some more invoices are answered."""
    answered = len(work.answered)
    eventually(lambda: len(work.answered) > answered + 20)


@pytest.mark.parametrize(("apart", "way"), CASES, indirect=["apart"])
def test_the_standby_takes_the_place_of_a_primary_that_is_cut_off(
    apart: Apart, way: tuple[bool, bool]
) -> None:
    out, back = way
    first, second, _ = apart
    answers_after_commit = first.settings["customers"]["answer_after"] == "commit"
    handed = {}
    with Working([first, second], "1", random.randrange(2**32)) as work:
        _go_on(work)
        first.host.cut(out=out, back=back)
        if answers_after_commit:
            handed[sell(first.customers, "1", 7)] = 7
        eventually(partial(_are_primary, second))
        assert not is_primary(first.customers)
        assert not is_primary(first.accounts)
        _go_on(work)
        if out:  # else the event was published, and only the answers are lost
            assert not handed.keys() & recorded(second).keys()
        first.host.mend()
        eventually(lambda: all(report["standby"] for report in first.reports()))
        _go_on(work)
    assert _are_primary(second)
    apart.agree(work, handed)


@pytest.mark.parametrize("way", [BOTH_WAYS, FROM_IT, TO_IT] if IS_SOAK else [FROM_IT])
@pytest.mark.parametrize("apart", ["commit"], indirect=True)
def test_a_standby_that_is_cut_off_waits_and_catches_up(apart: Apart, way: tuple[bool, bool]) -> None:
    out, back = way
    first, second, _ = apart
    with Working([first], "1", random.randrange(2**32)) as work:
        _go_on(work)
        second.host.cut(out=out, back=back)
        eventually(lambda: not second.customers.get("/status")["redis"]["reachable"])
        apart.renews_for(2 * FAILOVER_SECONDS)
        _go_on(work)
        assert not is_primary(second.customers)
        newest = work.answered[max(work.answered.keys() - work.gone)]
        assert newest not in recorded_all(second)
        second.host.mend()
        eventually(lambda: recorded_all(second).keys() >= {newest})
        apart.renews_for(2 * FAILOVER_SECONDS)
        _go_on(work)
    assert _are_primary(first)
    assert not is_primary(second.customers)
    assert not is_primary(second.accounts)
    apart.agree(work, {})
