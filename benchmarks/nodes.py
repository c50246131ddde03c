"""The costs of each further node: the same events, applied by one, two and three accounts services."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

from benchmarks import capacity, cdnow, entries
from benchmarks.apart import apart
from benchmarks.client import until
from benchmarks.plan import Plan, Result
from benchmarks.private_redis import private_redis, processor_seconds
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running
from benchmarks.scene import Scene

NODES = (1, 2, 3)


class Cost(NamedTuple):
    """An event's processor time in microseconds: in Redis, and in the last node."""

    redis: float
    node: float


def measure(plan: Plan) -> Result:
    """Publish to one, two and three nodes, in turn."""
    count = plan.choose(200_000, 20_000)
    runs: dict[str, Callable[[], Cost]] = {str(n): partial(_consume, plan, n, count) for n in NODES}
    rows = [["nodes", "Redis, µs an event", "the last node's processes, µs an event"]]
    for nodes, costs in plan.alternate(runs).items():
        rows.append([nodes, *(spread(each, ".1f") for each in zip(*costs, strict=True))])
    return Result(f"{table(rows)}\n\n{_notes(count)}")


def _consume(plan: Plan, nodes: int, count: int) -> Cost:
    with private_redis(plan.base, plan.server) as url, ExitStack() as stack:
        redis = {"url": url, "embedded": "never"}
        first = last = stack.enter_context(running(plan.base, redis=redis))
        for number in range(1, nodes):
            node = {"number": number}
            last = stack.enter_context(running(plan.base, roles=["accounts"], redis=redis, node=node))
        scene = Scene(first, cdnow.CUSTOMERS)
        until(first.settled, pause=0.02)
        until(lambda: _has_all(last), pause=0.02)
        before = processor_seconds(url), _spent(last)
        apart(capacity.publish, url, scene.customers, count)
        scene.sent += entries.total(count)
        until(scene.shown, pause=0.02)
        until(lambda: _has_all(last), pause=0.02)
        scene.insist()
        after = processor_seconds(url), _spent(last)
    redis_s, node_s = (end - start for start, end in zip(before, after, strict=True))
    return Cost(redis_s / count * 1e6, node_s / count * 1e6)


def _has_all(node: Running) -> bool:
    """Whether the node's accounts service has applied every event."""
    with closing(node.accounts()) as client:
        told = client.get("/status")["redis"]
    return told["pending"] == 0 and not any(told["lag"].values())


def _spent(node: Running) -> float:
    """The processor time of all its processes, in seconds."""
    spent = 0.0
    for process in node.processes().values():
        times: Any = process.cpu_times()
        spent += times.user + times.system
    return spent


def _notes(count: int) -> str:
    return paragraph(f"""
        {count:,} InvoiceCreated by another publisher, on a Redis of its own (append-only file), applied
        by the accounts services of so many nodes, all on this machine. Redis: to take the entries, and
        to hand them to every node. The last node: its supervisor, relay, consumers and HTTP process;
        where it is the only one, the customers service too. Nothing is measured but processor time, as
        all share the cores.
    """)
