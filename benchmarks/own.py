"""Tally's own consumer and relay, each called step by step in a process of its own."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.entries import STREAM
from benchmarks.spent import Spent
from tally.actors.consumer import Consumer
from tally.actors.relay import Relay
from tally.config import ConsumersSettings
from tally.events import Event
from tally.store import accounts, customers
from tally.store.cause import CauseOf
from tally.store.consumer_group import ConsumerGroup
from tally.store.stream import EventStream, connect


def consume(directory: Path, url: str, count: int) -> Spent:
    """Apply `count` events to the accounts.db in `directory`; return the time spent."""
    database = accounts.open_database(directory)
    database.expect_writes()
    store = accounts.Accounts(database)
    left = count

    def apply(events: Sequence[Event], _cause_of: CauseOf) -> None:
        nonlocal left
        left -= len(events)
        store.apply(events)

    name = "accounts-consumer-1"
    consumer = Consumer(
        ConsumerGroup(EventStream(connect(url), STREAM), database.source, name),
        database,
        apply,
        after_commit=lambda: None,
        settings=ConsumersSettings(),
        siblings=[name],
    )
    started = Spent.now()
    while left > 0:
        consumer.step()
    return Spent.since(started)


def relay(directory: Path, url: str) -> Spent:
    """Publish the outbox of the customers.db in `directory`; return the time spent."""
    relay = Relay(customers.open_database(directory), EventStream(connect(url), STREAM))
    started = Spent.now()
    while relay.step():
        pass
    return Spent.since(started)
