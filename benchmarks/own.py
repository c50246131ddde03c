"""Tally's own consumer, relay and recovery, each called in a process of its own."""

from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path

from benchmarks import entries
from benchmarks.client import Unexpected
from benchmarks.entries import STREAM
from benchmarks.spent import Spent
from tally.actors.consumer import Consumer
from tally.actors.relay import Relay
from tally.config import ConsumersSettings
from tally.events import Event, Id
from tally.recovery import lost_customers
from tally.store import accounts, customers
from tally.store.cause import CauseOf
from tally.store.consumer_group import ConsumerGroup
from tally.store.records import NewCustomer, NewInvoice
from tally.store.stream import EventStream, connect

CUSTOMERS = AT_ONCE = 10_000


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


def record_and_publish(directory: Path, url: str, count: int) -> None:
    """Record so many invoices, of CUSTOMERS customers, in a new customers.db in `directory`, and publish."""
    database = customers.open_database(directory)
    database.expect_writes()
    store, relay = customers.Customers(database), Relay(database, EventStream(connect(url), STREAM))
    while relay.step():  # now it may write under its name
        pass
    with database.transaction():
        ids = store.create_customers(
            [NewCustomer(f"Customer {n}", Id(n % 100 + 1)) for n in range(CUSTOMERS)]
        )
    invoices = entries.invoices(count, CUSTOMERS)
    while some := list(islice(invoices, AT_ONCE)):
        new = [NewInvoice(ids[each.customer - 1], date.fromisoformat(each.date), each.cents) for each in some]
        with database.transaction():
            store.create_invoices(new)
        while relay.step():
            pass
    database.close()


def recover(directory: Path, url: str, count: int) -> Spent:
    """Make the customers.db that had `count` invoices again in `directory`; return the time spent."""
    started = Spent.now()
    recovered = lost_customers.recover(directory, EventStream(connect(url), STREAM), None)
    spent = Spent.since(started)
    if recovered.invoices != count or recovered.lacks:
        raise Unexpected(f"{count} invoices were published, not {recovered}")
    return spent
