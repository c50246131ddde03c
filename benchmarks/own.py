"""Tally's own consumer and relay, each driven by its step alone in a process of its own."""

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.entries import STREAM
from tally.actors.consumer import Consumer
from tally.actors.relay import Relay
from tally.events import Event
from tally.store import accounts, customers
from tally.store.outbox import Outbox
from tally.store.stream import ConsumerGroup, EventStream, connect


def consume(directory: Path, url: str, count: int) -> float:
    """Apply `count` events to the accounts.db in `directory`; answer the seconds."""
    database = accounts.open_database(directory)
    store = accounts.Accounts(database)
    left = count

    def apply(events: Sequence[Event]) -> None:
        nonlocal left
        left -= len(events)
        store.apply(events)

    name = "accounts-consumer-1"
    consumer = Consumer(
        ConsumerGroup(EventStream(connect(url), STREAM), database.source, name),
        database,
        apply,
        after_commit=lambda: None,
        restore_outbox=store.outbox,
        batch=500,
        claim_idle_ms=10_000,
        max_deliveries=5,
        siblings=[name],
    )
    started = time.perf_counter()
    while left > 0:
        consumer.step()
    return time.perf_counter() - started


def relay(directory: Path, url: str) -> float:
    """Publish the outbox of the customers.db in `directory`; answer the seconds."""
    outbox = Outbox(customers.open_database(directory))
    relay = Relay(outbox, EventStream(connect(url), STREAM))
    started = time.perf_counter()
    while relay.step():
        pass
    return time.perf_counter() - started
