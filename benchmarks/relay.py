"""Events published a second, from an outbox to the stream, beside pipelined XADDs."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import redis

from benchmarks import entries, limits, own
from benchmarks.apart import apart
from benchmarks.client import Unexpected
from benchmarks.entries import STREAM
from benchmarks.plan import Plan, Result, at_least, ratios
from benchmarks.private_redis import calm, private_redis, processor_seconds
from benchmarks.report import paragraph
from benchmarks.running import scratch
from benchmarks.spent import Pace, beside, rates
from tally.store import customers

OF_WRITE = 1.4
_LIMIT, _TALLY = "limit: pipelined XADD", "Tally"


def measure(plan: Plan) -> Result:
    """Publish by each in turn; return rates and their ratio."""
    count = plan.choose(200_000, 20_000)
    with private_redis(plan.base, plan.server) as url, scratch(plan.base) as directory:
        apart(fill_outbox, directory, count)
        paces = plan.alternate(
            {
                _LIMIT: lambda: write(url, count),
                _TALLY: lambda: tally(plan.base, url, count, lambda to: copy(directory, to)),
            }
        )
    share = ratios(rates(paces[_TALLY]), rates(paces[_LIMIT]))
    target = at_least(f"relay: Tally / {_LIMIT}", OF_WRITE, share)
    return Result(f"{beside('publish', paces, _TALLY)}\n\n{_notes(count)}", [target])


def fill_outbox(directory: Path, count: int) -> None:
    """Put so many InvoiceCreated, and nothing else, into the outbox of the customers.db in `directory`."""
    database = customers.open_database(directory)
    with database.transaction():
        database.execute("DELETE FROM outbox")
        database.set_meta("published", 0)
        database.executemany(
            "INSERT INTO outbox (type, payload) VALUES ('InvoiceCreated', ?)",
            [(invoice.payload,) for invoice in entries.invoices(count)],
        )
    database.close()


def copy(source: Path, to: Path, name: str = "*.db") -> None:
    """Copy databases that no process uses to another data directory, and sync them."""
    to.mkdir(parents=True, exist_ok=True)
    files = [str(file) for file in source.glob(name)]
    subprocess.run(["cp", "--reflink=auto", *files, str(to)], check=True)
    os.sync()  # else the disk would write during a measurement


def write(url: str, count: int) -> Pace:
    """The pace of the limit."""
    _empty(url)
    before = processor_seconds(url)
    spent = apart(limits.write, url, STREAM, count)
    taken = processor_seconds(url) - before
    _insist(url, count)
    return Pace.of(count, spent, taken)


def tally(base: Path | None, url: str, count: int, prepare: Callable[[Path], None]) -> Pace:
    """Tally's pace, from a customers.db that `prepare` made."""
    _empty(url)
    with scratch(base) as directory:
        prepare(directory)
        before = processor_seconds(url)
        spent = apart(own.relay, directory, url)
        taken = processor_seconds(url) - before
        _insist(url, count)
    return Pace.of(count, spent, taken)


def _empty(url: str) -> None:
    client = redis.Redis.from_url(url, protocol=2)
    client.flushall()
    client.close()
    calm(url)


def _insist(url: str, count: int) -> None:
    wanted = (count, entries.total(count))
    if (found := entries.published(url, STREAM)) != wanted:
        raise Unexpected(f"(entries, cents) on the stream: {found}, not {wanted}")


def _notes(count: int) -> str:
    return paragraph(f"""
        {count:,} events on an empty Redis (append-only file), 500 at a time, each side in a
        process of its own. Tally: Relay.step until the outbox of a customers.db, filled before, is
        published: read from SQLite, the publishing script, and how far it has got noted without a sync
        after each batch. Limit: redis-py with hiredis, one pipeline (no transaction) of 500 XADDs, the
        fields made beforehand. Afterwards the whole stream is read, and the number of entries and the
        cents in them compared with what there was to publish. Processor: of that process alone, which
        what else runs on the machine does not add to, and beside it that of Redis; in Tally the publishing
        script runs there.
    """)
