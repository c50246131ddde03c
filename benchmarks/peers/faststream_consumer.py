"""A consumer of invoices by FastStream: a revenue per customer in SQLite, each event counted once.

Reads the same entries as Tally. Written as FastStream's documentation shows it: a group that begins at
the first entry, acknowledged after the handler has returned, the handler's argument validated by pydantic.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel, Field, Json

from benchmarks.spent import Spent

AT_ONCE = 500
FILE = "faststream.db"

_SCHEMA = """
CREATE TABLE inbox (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE customer (id INTEGER PRIMARY KEY, revenue_cents INTEGER NOT NULL);
"""


class Payload(BaseModel):
    """The payload of an InvoiceCreated."""

    id: int
    customer_id: int
    purchase_price_cents: int = Field(ge=0)
    created_date: str
    purchase_date: str


class Entry(BaseModel):
    """An entry of the stream."""

    event_type: str = Field(alias="EventTypeName")
    payload: Json[Payload] = Field(alias="Payload")
    event_id: str = Field(alias="EventId")


class Revenue:
    """The database; `left` events are still to come, and `done` is set after the last."""

    def __init__(self, file: Path, left: int) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)
        self._left = left
        self.done = asyncio.Event()

    def apply(self, entries: Sequence[Entry]) -> None:
        """Count the events that were not counted yet, in one durable transaction."""
        execute = self._connection.execute
        added: Counter[int] = Counter()
        execute("BEGIN IMMEDIATE")
        try:
            for entry in entries:
                if execute("INSERT OR IGNORE INTO inbox VALUES (?)", (entry.event_id,)).rowcount:
                    added[entry.payload.customer_id] += entry.payload.purchase_price_cents
            self._connection.executemany(
                "INSERT INTO customer VALUES (?, ?) ON CONFLICT (id)"
                " DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents",
                added.items(),
            )
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise
        self._left -= len(entries)
        if self._left <= 0:
            self.done.set()


def consume(directory: Path, url: str, key: str, group: str, count: int, in_batches: bool) -> Spent:
    """Apply `count` events as a new group; return the time spent, with the start of the broker."""
    return asyncio.run(_consume(Revenue(directory / FILE, count), url, key, group, in_batches))


async def _consume(revenue: Revenue, url: str, key: str, group: str, in_batches: bool) -> Spent:
    broker = RedisBroker(url, logger=None)  # type: ignore[arg-type]
    stream = StreamSub(key, group=group, consumer="one", last_id="0", max_records=AT_ONCE, batch=in_batches)
    subscriber = broker.subscriber(stream=stream, ack_policy=AckPolicy.NACK_ON_ERROR)
    if in_batches:

        async def handle_batch(entries: list[Entry]) -> None:
            revenue.apply(entries)

        subscriber(handle_batch)
    else:

        async def handle(entry: Entry) -> None:
            revenue.apply([entry])

        subscriber(handle)

    started = Spent.now()
    async with broker:
        await broker.start()
        await revenue.done.wait()
        return Spent.since(started)
