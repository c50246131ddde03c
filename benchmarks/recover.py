"""How long it takes until what was lost is back: a customers.db, events on the stream, and a word of it."""

import time
from contextlib import closing
from pathlib import Path

import redis

from benchmarks import limits, own
from benchmarks.apart import apart
from benchmarks.backlog import pile_up
from benchmarks.client import until
from benchmarks.entries import STREAM
from benchmarks.plan import Plan, Result, at_least, at_most
from benchmarks.private_redis import private_redis, processor_seconds
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, scratch, started
from benchmarks.scene import Scene
from benchmarks.spent import Pace, beside, rates
from tally.store import customers

EVENTS_PER_SECOND = 50_000
MISSING_SECONDS, TOLD_SECONDS = 20.0, 1.0
CUSTOMERS = 1_000
_LIMIT, _TALLY = "limit: read", "Tally"
_LOOK_SECONDS = 0.01


def measure(plan: Plan) -> Result:
    """Lose each, and return how long it took until it was back."""
    count, missing = plan.choose((1_000_000, 100_000), (20_000, 20_000))
    with private_redis(plan.base, plan.server) as url, scratch(plan.base) as directory:
        apart(own.record_and_publish, directory, url, count)
        paces = plan.alternate(
            {_LIMIT: lambda: read(url, count), _TALLY: lambda: recover(plan.base, url, count)}
        )
    taken = plan.alternate({f"{missing:,} missing events": lambda: miss(plan.base, missing)})
    [found] = taken.values()
    back, told = ([each[place] for each in found] for place in (0, 1))
    rows = [
        ["lost while it runs", "s, median (min..max)"],
        [f"{missing:,} unread events, until all are visible", spread(back, ".2f")],
        ["the file customers.db, until status says degraded", spread(told, ".2f")],
    ]
    targets = [
        at_least(
            "recover: customers.db from the stream, events/s", EVENTS_PER_SECOND, rates(paces[_TALLY]), ",.0f"
        ),
        at_most(f"recover: {missing:,} missing events, s", MISSING_SECONDS, back),
        at_most("recover: customers.db gone until degraded, s", TOLD_SECONDS, told),
    ]
    return Result(f"{beside('recover', paces, _TALLY)}\n\n{table(rows)}\n\n{_notes(count, missing)}", targets)


def read(url: str, count: int) -> Pace:
    """The pace of the limit."""
    before = processor_seconds(url)
    spent = apart(limits.read_all, url, STREAM)
    return Pace.of(count, spent, processor_seconds(url) - before)


def recover(base: Path | None, url: str, count: int) -> Pace:
    """The pace at which an empty directory gets its customers.db."""
    with scratch(base) as directory:
        before = processor_seconds(url)
        spent = apart(own.recover, directory, url, count)
        return Pace.of(count, spent, processor_seconds(url) - before)


def miss(base: Path | None, count: int) -> tuple[float, float]:
    """The seconds until missing events are visible, and until a removed customers.db is told of.

    The first from the moment in which the accounts service, which could not read while they were there, is
    ready.
    """
    with scratch(base) as directory:
        with started(directory) as tally:
            scene = Scene(tally, CUSTOMERS)
            until(tally.settled, pause=0.05)
        with started(directory, roles=["customers", "redis"]) as tally:
            pile_up(tally, scene, count)
            with closing(redis.Redis.from_url(tally.own_redis_url, protocol=2)) as client:
                client.xtrim(STREAM, maxlen=0, approximate=False)
        with started(directory) as tally:
            ready, scene.tally = time.monotonic(), tally
            until(scene.shown, 0.05, seconds=300)
            back = time.monotonic() - ready
            scene.insist()
            return back, _until_told(tally)


def _until_told(tally: Running) -> float:
    """The seconds from the removal of customers.db until GET /status says so."""
    (tally.directory / customers.FILE).unlink()
    gone = time.monotonic()
    with closing(tally.customers()) as client:
        until(lambda: bool(client.get("/status")["status"] == "degraded"), _LOOK_SECONDS)
    return time.monotonic() - gone


def _notes(count: int, missing: int) -> str:
    return paragraph(f"""
        {count:,} invoices of {own.CUSTOMERS:,} customers, recorded in batches of {own.AT_ONCE:,} and
        published by Tally's own code. Then, from that stream alone, what `recover customers` does, in a
        process of its own each time; all must be there. Limit: redis-py with hiredis, XRANGE from end to end,
        {limits.AT_ONCE} entries at a time, and nothing else. Missing events: a Tally with {CUSTOMERS:,}
        customers is stopped; `run --only customers --only redis` accepts and publishes the invoices; the
        stream is emptied by XTRIM; `run` starts everything, and from "ready" on GET /accounts/{{id}} is
        repeated until it shows the cents of all. Last, customers.db is removed while all runs.
    """)
