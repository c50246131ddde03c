"""A primary and its standby, with faults of both and of Redis: nothing is lost or counted twice."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis
from integration.test_nodes import a_node, node, sell, shown
from integration.test_standby import FAILOVER_SECONDS, is_primary, pair, recorded, tool

from support.clocks import clock_in
from support.loading import MARK, Machine, Working
from support.redis_process import RedisProcess
from support.tally import Tally
from support.waiting import eventually
from tally import config
from tally.actors.services import Differs
from tally.commands import promote
from tally.commands.command_line import Failed
from tally.store import customers
from tally.store.incarnations import incarnations
from tally.store.stream import EventStream

pytestmark = pytest.mark.whole


def freeze(tally: Tally) -> list[psutil.Process]:
    """Stop all of a Tally's processes with SIGSTOP, and return them."""
    supervisor = psutil.Process(tally.process.pid)
    supervisor.suspend()
    every = [supervisor, *supervisor.children(recursive=True)]
    for process in every[1:]:
        process.suspend()
    return every


def thaw(processes: list[psutil.Process]) -> None:
    """Let them continue."""
    for process in reversed(processes):
        process.resume()


def shows(tally: Machine, cents: int) -> bool:
    """Whether a Tally shows this revenue for the only customer."""
    return _shows_all(tally, {"1": cents})


def test_nothing_is_lost_or_doubled_where_redis_rolls_the_promotion_back(
    tmp_path: Path, server: RedisProcess
) -> None:
    with pair(tmp_path, server.url) as (first, second):
        frozen = freeze(first)
        server.kill()
        server.copy(tmp_path / "before")
        server.start()
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers))
        expected = {"1": 100, sell(second.customers, "1", 20): 20}
        server.kill()
        server.put_back(tmp_path / "before")
        server.start()
        thaw(frozen)
        expected[sell(first.customers, "1", 3)] = 3  # both are primaries for a moment
        expected[sell(second.customers, "1", 4)] = 4
        eventually(lambda: not is_primary(first.customers))
        assert is_primary(second.customers)
        for tally in (first, second):
            eventually(partial(_has, tally, expected))
            eventually(partial(shows, tally, 127))
        eventually(lambda: first.settled() and second.settled())


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


def test_a_standby_starts_without_redis_and_follows_once_that_is_there(
    tmp_path: Path, server: RedisProcess
) -> None:
    with pair(tmp_path, server.url) as (first, second):
        second.end()
        server.kill()
        second.start()
        assert not is_primary(second.customers)
        assert recorded(second) == {"1": 100}
        server.start()
        expected = {"1": 100, sell(first.customers, "1", 20): 20}
        eventually(partial(_has, second, expected))
        eventually(partial(shows, second, 120))


FAILOVERS = int(os.environ.get("TALLY_TEST_FAILOVERS", "3"))


@pytest.mark.parametrize("answer_after", ["commit", "publish"])
def test_what_is_answered_counts_once_over_any_failovers(
    tmp_path: Path, server: RedisProcess, answer_after: str
) -> None:
    """TALLY_TEST_FAILOVERS sets how many there are; the kind of each is random. The second machine's clock is
    off by as much as `check` allows. Another node records meanwhile, and its processes are killed."""
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    ahead = choose.choice([-50, 50])
    told = [f"seed {seed}, the second is {ahead} s ahead"]
    clock, environment = clock_in(tmp_path)
    clock.set(ahead)
    answers = {"answer_after": answer_after}
    with pair(tmp_path, server.url, customers=answers) as (old, new), node(tmp_path, server.url, 1) as other:
        customer = other.customers.post("/customers", {"name": "o", "account_id": "1"})["id"]
        new.end()
        new.environment = environment
        new.start()
        try:
            with Working([old, new], "1", seed) as work, Working([other], customer, seed) as theirs:
                for number in range(FAILOVERS):
                    how = choose.choice(["killed", "frozen", "alive", "redis killed"])
                    told.append(f"{number}: {how}, {len(work.answered)} answered")
                    other.kill(choose.choice([*other.pids()]))
                    _fail_over(how, old, new, server, choose)
                    old, new = new, old
            assert len({*work.answered.values()}) == len(work.answered), "an id was given twice"
            eventually(lambda: recorded_all(new) == recorded_all(old))
            for tally in (old, new, other):
                eventually(tally.settled)
            expected = {}
            for whose, at, where in ((work, "1", old), (theirs, customer, other)):
                there = recorded_all(where)
                are_counted_once(whose, there, where)
                expected[at] = sum(there.values())
            for tally in (old, new, other):
                eventually(partial(_shows_all, tally, expected))
        except BaseException as error:
            error.add_note("\n".join(told))
            raise


def _shows_all(tally: Machine, cents: dict[str, int]) -> bool:
    """Whether a Tally shows the revenue of each customer of the only account."""
    return shown(tally) == {"1": cents}


def _fail_over(how: str, old: Tally, new: Tally, server: RedisProcess, choose: random.Random) -> None:
    """Make the new one the primary, and the old one its standby."""
    frozen: list[psutil.Process] = []
    if how == "killed":
        old.end()
    elif how == "frozen":
        frozen = freeze(old)
    elif how == "redis killed":
        server.kill()
        server.start()
    eventually(partial(_promoted, new))
    eventually(lambda: is_primary(new.customers) and is_primary(new.accounts))
    time.sleep(choose.uniform(0, 0.5))  # the primary works alone for a while
    if how == "killed":
        old.start()
    thaw(frozen)
    eventually(lambda: all(report["standby"] for report in old.reports()))
    time.sleep(choose.uniform(0, 0.5))


def _promoted(tally: Tally) -> bool:
    settings = config.load(tally.directory / "tally.toml", {})
    stream = EventStream.at(settings.redis.full_url, settings.redis.stream)
    try:
        promote.promote_here(settings, stream, lambda told: True)
    except (Failed, Differs, redis.RedisError):
        return False  # the old one first hands over the changes that it had accepted
    return True


def recorded_all(tally: Machine) -> dict[str, int]:
    """All invoices of a Tally, by id."""
    found: dict[str, int] = {}
    after = ""
    while True:
        page = tally.customers.get(f"/invoices?limit=1000{after}")
        found |= {each["id"]: each["purchase_price_cents"] for each in page["invoices"]}
        if not page["next"]:
            return found
        after = f"&after={page['next']}"


def are_counted_once(work: Working, there: dict[str, int], tally: Tally) -> None:
    """Each answered invoice is there once, with an amount that it was given; nothing else is there."""
    marks = Counter(cents % MARK for id, cents in there.items() if id != "1")
    twice = [mark for mark, times in marks.items() if times > 1]
    assert not twice, "\n".join(str(row) for mark in twice for row in _events_of(tally, mark))
    for mark, id in work.answered.items():
        if mark in work.gone or (mark in work.doubtful and id not in there):
            assert id not in there, f"invoice {id} was deleted"
        elif mark in work.repeated:
            assert marks[mark] == 1, f"invoice {mark}"
        else:
            assert there.get(id) in work.amounts[mark], f"invoice {id}: {there.get(id)}"
    assert {*marks} <= {*work.answered}


def _events_of(tally: Tally, cents: int) -> list[tuple[object, ...]]:
    """The outbox events for invoices of that amount."""
    with closing(customers.open_database(tally.directory / "data", make=False)) as database:
        return [
            *database.rows(
                "SELECT sequence, type, payload, request_key FROM outbox WHERE CAST(payload AS TEXT) LIKE ?",
                (f'%"purchase_price_cents":{cents},%',),
            ),
            *((each.source, each.base, each.last) for each in incarnations(database)),
        ]
