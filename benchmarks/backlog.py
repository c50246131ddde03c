"""The time from a start until a million unread events are all applied."""

import tempfile
import time
from pathlib import Path

from benchmarks.apart import apart
from benchmarks.client import until
from benchmarks.load import send_each
from benchmarks.plan import Plan, Result, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, started
from benchmarks.scene import Scene

MOST_SECONDS = 15.0
CUSTOMERS = 1_000
CONSUMERS = 2
_LOOK_SECONDS = 0.05


def measure(plan: Plan) -> Result:
    """Let events pile up while the accounts service is stopped, then start it; return how long it took."""
    count = plan.choose(1_000_000, 50_000)
    taken = plan.alternate({f"backlog of {count:,}": lambda: catch_up(plan.base, count)})
    [seconds] = taken.values()
    rows = [
        [f"{count:,} events unread", "median (min..max)"],
        ["from the start of the command to all visible, s", spread(seconds, ".2f")],
        ["events/s, the start included", spread([count / each for each in seconds], ",.0f")],
    ]
    return Result(
        f"{table(rows)}\n\n{_NOTES}", [at_most(f"backlog: {count:,} events, s", MOST_SECONDS, seconds)]
    )


def catch_up(base: Path | None, count: int) -> float:
    """Seconds from starting the command until GET /accounts/{id} shows `count` invoices made before."""
    consumers = {"accounts": CONSUMERS}
    with tempfile.TemporaryDirectory(prefix="tally-benchmark-", dir=base) as name:
        directory = Path(name)
        with started(directory, consumers=consumers) as tally:
            scene = Scene(tally, CUSTOMERS)
            until(tally.settled, pause=0.05)
        with started(directory, roles=["customers", "redis"], consumers=consumers) as tally:
            pile_up(tally, scene, count)
        with started(directory, consumers=consumers) as tally:
            scene.tally = tally
            until(scene.shown, _LOOK_SECONDS, seconds=300)
            taken = time.monotonic() - tally.started
            scene.insist()
    return taken


def pile_up(tally: Running, scene: Scene, count: int) -> None:
    """Have `count` invoices accepted and published, with no service to read them."""
    for request in scene.batches(count):
        apart(send_each, tally.customers_port, [request])
        scene.sent += request.weight
    until(lambda: _published(tally), pause=0.1, seconds=300)


def _published(tally: Running) -> bool:
    client = tally.customers()
    try:
        return bool(client.get("/status")["outbox_depth"] == 0)
    finally:
        client.close()


_NOTES = paragraph(f"""
    Default settings, {CONSUMERS} accounts consumers. A whole Tally is set up with {CUSTOMERS:,} customers
    and stopped; then `run --only customers --only redis` accepts and publishes the invoices, and is
    stopped; then `run` starts everything: Redis reads its append-only file, and the consumers what is
    unread. Visible: GET /accounts/{{id}}, repeated every {_LOOK_SECONDS * 1000:.0f} ms, shows the cents
    of all.
""")
