"""Events applied a second, from the stream to accounts.db, beside the limit and FastStream."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import redis

from benchmarks import entries, limits, own
from benchmarks.apart import apart
from benchmarks.client import Unexpected, until
from benchmarks.entries import STREAM
from benchmarks.filled import revenue
from benchmarks.peers import faststream_consumer, protean_service
from benchmarks.plan import Plan, Result, at_least, ratios
from benchmarks.private_redis import calm, private_redis, processor_seconds
from benchmarks.report import paragraph
from benchmarks.running import scratch
from benchmarks.spent import Pace, beside, rates
from tally.store import accounts

OF_READ, OF_BATCHES, OF_SINGLE, OF_PROTEAN = 0.8, 3.0, 70.0, 5_000.0


def measure(plan: Plan) -> Result:
    """Consume one stream by each in turn; return rates and ratios."""
    count, some, few, fewest = plan.choose((200_000, 100_000, 5_000, 500), (20_000, 10_000, 500, 50))
    with private_redis(plan.base, plan.server) as url:
        for length in (count, some, few):
            key = STREAM if length == count else _key(length)
            entries.publish(url, key, (invoice.fields() for invoice in entries.invoices(length)))
        paces = plan.alternate(
            {
                "limit: read and acknowledge": lambda: read(url, count),
                "Tally": lambda: tally(plan.base, url, count),
                "FastStream, batches": lambda: faststream(plan.base, url, some, in_batches=True),
                "FastStream, singly": lambda: faststream(plan.base, url, few, in_batches=False),
                "Protean": lambda: protean(plan.base, url, fewest),
                "limit: commit": lambda: commit(plan.base, count),
            }
        )
    targets = [
        at_least(f"consume: Tally / {side}", least, ratios(rates(paces["Tally"]), rates(paces[side])))
        for side, least in (
            ("limit: read and acknowledge", OF_READ),
            ("FastStream, batches", OF_BATCHES),
            ("FastStream, singly", OF_SINGLE),
            ("Protean", OF_PROTEAN),
        )
    ]
    return Result(f"{beside('consume', paces, 'Tally')}\n\n{_notes(count, some, few, fewest)}", targets)


def read(url: str, count: int) -> Pace:
    """The pace of the limit."""
    calm(url)
    with _group(url, STREAM) as group:
        before = processor_seconds(url)
        spent = apart(limits.read, url, STREAM, group, count)
        return Pace.of(count, spent, processor_seconds(url) - before)


def commit(base: Path | None, count: int) -> Pace:
    """Commit rows in durable transactions, each with as many rows as a batch has events."""
    with scratch(base) as directory:
        return Pace.of(count, apart(limits.commit, directory, count))


def tally(
    base: Path | None, url: str, count: int, prepare: Callable[[Path], None] = lambda directory: None
) -> Pace:
    """Tally's pace, on an accounts.db from `prepare`, else on an empty one."""
    calm(url)
    with scratch(base) as directory:
        prepare(directory)
        with closing(accounts.open_database(directory)) as database:
            before, source = _tallys(directory), database.source
        with _group(url, STREAM, source):
            started = processor_seconds(url)
            spent = apart(own.consume, directory, url, count)
            taken = processor_seconds(url) - started
            _insist(_tallys(directory) - before, count)
    return Pace.of(count, spent, taken)


def faststream(base: Path | None, url: str, count: int, in_batches: bool) -> Pace:
    """FastStream's pace."""
    calm(url)
    with scratch(base) as directory, _group(url, _key(count)) as group:
        before = processor_seconds(url)
        spent = apart(faststream_consumer.consume, directory, url, _key(count), group, count, in_batches)
        taken = processor_seconds(url) - before
        _insist(_revenue(directory / faststream_consumer.FILE), count)
    return Pace.of(count, spent, taken)


def protean(base: Path | None, url: str, count: int) -> Pace:
    """Protean's pace, from its outbox to its projections."""
    with scratch(base) as directory:
        before = processor_seconds(url)
        spent = apart(protean_service.consume, directory, url, count)
        taken = processor_seconds(url) - before
        _insist(_revenue(directory / protean_service.FILE), count)
    return Pace.of(count, spent, taken)


def _key(length: int) -> str:
    """A stream with that many entries, for consumers that can't stop by themselves."""
    return f"{STREAM}:{length}"


@contextmanager
def _group(url: str, key: str, name: str = "group") -> Iterator[str]:
    """The name of a new group. At the end it must have acknowledged everything, and is removed."""
    yield name
    with closing(redis.Redis.from_url(url, protocol=2)) as client:
        until(lambda: client.xpending(key, name)["pending"] == 0, pause=0.01, seconds=5)
        client.xgroup_destroy(key, name)


def _tallys(directory: Path) -> int:
    with closing(sqlite3.connect(directory / accounts.FILE)) as connection:
        return revenue(connection)


def _revenue(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        [[cents]] = connection.execute("SELECT coalesce(sum(revenue_cents), 0) FROM customer")
    return int(cents)


def _insist(cents: int, count: int) -> None:
    if cents != (sent := entries.total(count)):
        raise Unexpected(f"{count} events came to {cents} cents, not {sent}")


def _notes(count: int, some: int, few: int, fewest: int) -> str:
    return paragraph(f"""
        CDNOW's purchases by date, over and over under new ids, on one redis-server (append-only file,
        rewritten before each run so that it isn't during one), read by a new group into an empty file
        each time, 500 at a time; {count:,} events, FastStream {some:,} in batches and {few:,} singly.
        Each in a process of its own that is alone at work, from its first command to its last commit.
        Tally: Consumer.step until the stream is done: decode, inbox, revenue, one durable commit,
        acknowledge. Limit: redis-py with hiredis, XREADGROUP and XACK, and nothing else. FastStream:
        dedupe row and revenue in the standard library's SQLite, one durable commit for a batch or for a
        message, pydantic models, acknowledged after the handler. Limit of commits: apsw, 500 rows to a
        transaction. Protean: {fewest:,} events from its outbox to its projections, published by its outbox
        processor and counted once by its event handler, in one process with SQLite; so it does here what
        Tally's relay and consumer do. Every run's revenue is compared with what was published.
        Processor: of that process alone, which what else runs on the machine does not add to; and beside
        it that of Redis.
    """)
