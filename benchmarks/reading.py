"""How fast an account is shown while events are consumed at a steady rate."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks import entries, load
from benchmarks.apart import apart
from benchmarks.client import Unexpected, until
from benchmarks.entries import STREAM, Publisher, add
from benchmarks.load import Load, Request, get
from benchmarks.plan import Plan, Result, at_least, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import running
from benchmarks.scene import Scene

EVENTS = 20_000  # a second
READS = 50  # a second
MOST_MS = 10.0
KEPT_UP = 1.0  # the most that consuming may lag when publishing ends, in seconds
CUSTOMERS = 1_000
AT_ONCE = 200
CLIENTS = 4
_AROUND_SECONDS = 3.0  # publishing runs so much longer than reading


class Reading(NamedTuple):
    """The reads, the events a second meanwhile, and the seconds from the last event until all are applied."""

    reads: Load
    published: float
    lag: float


def measure(plan: Plan) -> Result:
    """Read an account with CUSTOMERS customers, with and without other invoices being consumed."""
    seconds = plan.choose(10.0, 3.0)
    found = plan.alternate(
        {
            "while consuming": lambda: read(plan.base, seconds, EVENTS),
            "otherwise idle": lambda: read(plan.base, seconds, 0),
        }
    )
    busy = found["while consuming"]
    targets = [
        at_most("read: p99 while consuming, ms", MOST_MS, [each.reads.latency(0.99) for each in busy]),
        at_least("read: events published/s", EVENTS * 0.99, [each.published for each in busy], ",.0f"),
        at_most("read: all applied after the last, s", KEPT_UP, [each.lag for each in busy]),
    ]
    return Result(f"{_table(found)}\n\n{_notes(seconds)}", targets)


def _table(found: dict[str, list[Reading]]) -> str:
    def row(what: str, figure: Callable[[Reading], float], form: str = ".2f") -> list[str]:
        return [what, *(spread([figure(reading) for reading in each], form) for each in found.values())]

    return table(
        [
            [f"GET /accounts/{{id}}, {CUSTOMERS:,} customers", *found],
            row("median, ms", lambda reading: reading.reads.latency(0.5)),
            row("p99, ms", lambda reading: reading.reads.latency(0.99)),
            row("longest, ms", lambda reading: reading.reads.latency(1)),
            row("events published/s", lambda reading: reading.published, ",.0f"),
            row("all applied after the last, s", lambda reading: reading.lag),
        ]
    )


def read(base: Path | None, seconds: float, events: int) -> Reading:
    """Read READS times a second for `seconds`, while `events` a second are published."""
    with running(base) as tally, ThreadPoolExecutor(1) as threads:
        shown, other = Scene(tally, CUSTOMERS), Scene(tally, CUSTOMERS)
        until(tally.settled, pause=0.02)
        publishing = None
        if events:
            count = int(events * (seconds + _AROUND_SECONDS))
            publishing = threads.submit(
                apart, publish_steadily, tally.redis_url, other.customers, count, events
            )
            until(lambda: other.revenue() > 0, pause=0.02)
        request = Request(get(f"/accounts/{shown.account}"))
        reads = apart(load.run, tally.accounts_port, [request], CLIENTS, seconds, READS, 200)
        if reads.refused:
            raise Unexpected(f"{reads.refused} reads were refused")
        if not publishing:
            return Reading(reads, 0, 0)
        reading = Reading(reads, *_kept_up(other, count, *publishing.result()))
        other.insist()
    return reading


def _kept_up(other: Scene, count: int, began: float, ended: float) -> tuple[float, float]:
    """Events published a second, and the time from the last of them until all are applied."""
    if time.monotonic() > ended + KEPT_UP:
        raise Unexpected("the events had all been published before the reads were done")
    other.sent += entries.total(count)
    until(other.shown, pause=0.01)
    return count / (ended - began), time.monotonic() - ended


def publish_steadily(url: str, customers: Sequence[str], count: int, rate: int) -> tuple[float, float]:
    """Publish `count` invoices from another source, `rate` a second; return the times of begin and end.

    Both on the monotonic clock, which all processes share. The commands are made before it begins.
    """
    commands = [
        add(STREAM, invoice._replace(customer=int(customers[invoice.customer - 1])).fields())
        for invoice in entries.invoices(count, len(customers))
    ]
    publisher = Publisher(url)
    began = time.monotonic()
    for first in range(0, count, AT_ONCE):
        time.sleep(max(0.0, began + first / rate - time.monotonic()))
        publisher.send(commands[first : first + AT_ONCE])
    ended = time.monotonic()
    publisher.close()
    return began, ended


def _notes(seconds: float) -> str:
    return paragraph(f"""
        A whole Tally at default settings. Another publisher, with an EventId of its own source, appends
        {EVENTS:,} InvoiceCreated a second to the stream, {AT_ONCE} at a time, for {CUSTOMERS:,}
        customers of another account; its commands are made beforehand. Meanwhile {READS} GETs a second
        for {seconds:.0f} s on a fixed schedule (open loop, counted from when each was due), by
        {CLIENTS} kept-alive connections. Everything shares the cores. All applied: GET /accounts/{{id}}
        of the other account shows the cents of all that was published; that it takes no longer than
        {KEPT_UP:.0f} s after the last says that the consumers keep up.
    """)
