"""How the rates grow with more consumers and more HTTP processes on one machine."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import cdnow, entries, load
from benchmarks.apart import apart
from benchmarks.client import until
from benchmarks.entries import STREAM
from benchmarks.plan import Plan, Result
from benchmarks.report import paragraph, spread, table
from benchmarks.running import running
from benchmarks.scene import Scene

PROCESSES = (1, 2, 4)
CLIENTS = 16  # of each HTTP process


def measure(plan: Plan) -> Result:
    """Consume with 1, 2 and 4 consumers, and post to 1, 2 and 4 HTTP processes, in turn."""
    count, seconds = plan.choose((200_000, 5.0), (20_000, 1.0))
    consumed = plan.alternate({f"{n} consumers": _consuming(plan.base, n, count) for n in PROCESSES})
    posted = plan.alternate({f"{n} HTTP processes": _posting(plan.base, n, seconds) for n in PROCESSES})
    rows = [["processes", "events applied/s", "POST /invoices/s"]]
    for number, applied, requests in zip(PROCESSES, consumed.values(), posted.values(), strict=True):
        rows.append([str(number), spread(applied, ",.0f"), spread(requests, ",.0f")])
    return Result(f"{table(rows)}\n\n{_notes(count, seconds)}")


def consume(base: Path | None, consumers: int, count: int) -> float:
    """Events a second that a whole Tally applies, from the first one published until all are visible."""
    with running(base, consumers={"accounts": consumers}) as tally:
        scene = Scene(tally, cdnow.CUSTOMERS)
        until(tally.settled, pause=0.02)
        began = time.monotonic()
        apart(publish, tally.redis_url, scene.customers, count)
        scene.sent += entries.total(count)
        until(scene.shown, pause=0.02)
        taken = time.monotonic() - began
        scene.insist()
    return count / taken


def publish(url: str, customers: list[str], count: int) -> None:
    """Publish `count` invoices from another source, as fast as the server takes them."""
    made = (
        invoice._replace(customer=int(customers[invoice.customer - 1])).fields()
        for invoice in entries.invoices(count)
    )
    entries.publish(url, STREAM, made)


def post(base: Path | None, processes: int, seconds: float) -> float:
    """Requests a second that so many HTTP processes answer, with CLIENTS clients for each."""
    with running(base, customers={"processes": processes}) as tally:
        scene = Scene(tally, cdnow.CUSTOMERS)
        until(tally.settled, pause=0.02)
        clients = CLIENTS * processes
        found = apart(load.run, tally.customers_port, scene.requests(5_000), clients, seconds)
        scene.sent += found.weight
        scene.insist()
    return found.rate


def _consuming(base: Path | None, consumers: int, count: int) -> Callable[[], float]:
    return lambda: consume(base, consumers, count)


def _posting(base: Path | None, processes: int, seconds: float) -> Callable[[], float]:
    return lambda: post(base, processes, seconds)


def _notes(count: int, seconds: float) -> str:
    return paragraph(f"""
        A whole Tally, otherwise at default settings, new for each run. Applied: {count:,}
        InvoiceCreated by another publisher, as fast as Redis takes them, from the first published to
        all visible; the publishing shares the cores. Posted: {CLIENTS} kept-alive clients for each HTTP
        process, for {seconds:.0f} s, while what they post is published and consumed too. One SQLite
        file has one writer at a time, and the processes share {os.cpu_count()} cores with Redis and the
        clients: what stops growing here has run out of one of them.
    """)
