"""Any history, any fault between any two steps: the accounts equal what was committed.

A state machine drives a real customers.db, a relay, a Redis, and two consumers of a real
accounts.db. Connections break before or after a command was done, processes die between any two
steps, Redis falls back to an older state or loses everything. At the end all faults are over, and the
accounts must show exactly what customers.db holds.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from support.engines import BUNDLED, started
from support.figures import revenue_by_customer
from tally.actors.consumer import Consumer
from tally.actors.relay import Relay
from tally.events import Id
from tally.recovery.standing import Standing
from tally.store import accounts, customers
from tally.store.accounts import Accounts, NewAccount
from tally.store.customers import Customers, NewCustomer, NewInvoice
from tally.store.outbox import Outbox
from tally.store.stream import Age, Claim, ConsumerGroup, Entry, EventStream, Published, Publishing, connect

CONSUMERS = ("accounts-consumer-1", "accounts-consumer-2")
CALM, BEFORE, AFTER = "calm", "before", "after"


class Line:
    """The way to Redis: it may break before the next command gets there, or before its answer is back."""

    def __init__(self) -> None:
        self.breaks = CALM
        self.after_commands = 0

    def carry(self, command: Callable[[], Any]) -> Any:
        if self.breaks == CALM or self.after_commands > 0:
            self.after_commands -= 1
            return command()
        when, self.breaks = self.breaks, CALM
        if when == AFTER:
            command()
        raise redis.ConnectionError(f"the line broke {when} the command")


class BrokenStream(EventStream):
    """A stream at the end of such a line."""

    def __init__(self, client: redis.Redis, key: str, line: Line) -> None:
        super().__init__(client, key)
        self._line = line

    def publish(self, source: str, floor: int, rows: Any) -> Published:
        done: Callable[[], Published] = lambda: super(BrokenStream, self).publish(source, floor, rows)  # noqa: E731
        answer: Published = self._line.carry(done)
        return answer

    def publishing(self) -> Publishing:
        return BrokenPublishing(self, self._line)


class BrokenPublishing(Publishing):
    """Batches on their way over such a line."""

    def __init__(self, stream: EventStream, line: Line) -> None:
        super().__init__(stream)
        self._line = line

    def send(self, source: str, floor: int, rows: Any, group: str = "") -> None:
        self._line.carry(lambda: super(BrokenPublishing, self).send(source, floor, rows, group))

    def answer(self) -> Published:
        answer: Published = self._line.carry(super().answer)
        return answer


class BrokenGroup(ConsumerGroup):
    """A consumer at the end of such a line."""

    def __init__(self, stream: EventStream, group: str, consumer: str, line: Line) -> None:
        super().__init__(stream, group, consumer, block_ms=1)
        self._line = line

    def read_new(self, count: int, ahead: int = 0) -> list[Entry]:
        read: Callable[[], list[Entry]] = lambda: super(BrokenGroup, self).read_new(count, ahead)  # noqa: E731
        entries: list[Entry] = self._line.carry(read)
        return entries

    def read_pending(self, after: bytes, count: int) -> list[Entry]:
        read: Callable[[], list[Entry]] = lambda: super(BrokenGroup, self).read_pending(after, count)  # noqa: E731
        entries: list[Entry] = self._line.carry(read)
        return entries

    def claim(self, idle_ms: int, start: bytes, count: int) -> Claim:
        take: Callable[[], Claim] = lambda: super(BrokenGroup, self).claim(0, start, count)  # noqa: E731
        claim: Claim = self._line.carry(take)
        return claim

    def acknowledge(self, ids: Any, age: Age = Age()) -> None:  # noqa: B008
        self._line.carry(lambda: super(BrokenGroup, self).acknowledge(ids, age))


class History(RuleBasedStateMachine):
    """The steps that a history is made of."""

    url: str

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name)
        self.client = connect(self.url)
        self.client.flushall()
        self.customers = Customers(customers.open_database(path))
        self.accounts_path = path
        self.line = Line()
        self.older: list[dict[bytes, Any]] = [{}]
        self.copies: list[Path] = []
        self.foreign: dict[str, int] = {}
        self.start_relay()
        self.consumers = {name: self.start_consumer(name) for name in CONSUMERS}
        self.start_accounts()

    # What clients do

    @rule()
    def open_account(self) -> None:
        with self.accounts.database.transaction():
            self.accounts.create_account(NewAccount("a", "u"))

    @rule(account=st.integers(1, 2))
    def create_customer(self, account: int) -> None:
        with self.customers.database.transaction():
            self.customers.create_customers([NewCustomer("c", Id(account))])

    @rule(data=st.data(), cents=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def create_invoices(self, data: st.DataObject, cents: list[int]) -> None:
        if ids := [customer.id for customer in self.customers.customers(None, -1, 1000)]:
            id = data.draw(st.sampled_from(ids))
            new = [NewInvoice(id, date(2019, 1, 6), each) for each in cents]
            with self.customers.database.transaction():
                self.customers.create_invoices(new)

    @rule(data=st.data())
    def delete_invoice(self, data: st.DataObject) -> None:
        if ids := [invoice.id for invoice in self.customers.invoices(None, -1, 1000)]:
            with self.customers.database.transaction():
                self.customers.delete_invoice(data.draw(st.sampled_from(ids)))

    @rule(data=st.data())
    def delete_customer(self, data: st.DataObject) -> None:
        if ids := [customer.id for customer in self.customers.customers(None, -1, 1000)]:
            with self.customers.database.transaction():
                self.customers.delete_customer(data.draw(st.sampled_from(ids)))

    @rule(with_id=st.booleans(), times=st.integers(1, 2))
    def another_program_publishes(self, with_id: bool, times: int) -> None:
        number = len(self.foreign) + 1
        customer = str(1_000_000 + number)
        self.foreign[customer] = 10**number if number < 10 else number
        cents = self.foreign[customer]
        fields: dict[Any, Any] = {
            "EventTypeName": "InvoiceCreated",
            "Payload": f'{{"id":"1","customer_id":"{customer}","purchase_price_cents":{cents},'
            '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-09"}',
        }
        if with_id:
            fields["EventId"] = f"other:{number}"
        for _ in range(times if with_id else 1):
            self.client.xadd("event-stream", fields)

    # What processes do, and what becomes of them

    @rule()
    def relay_turns(self) -> None:
        self.quietly(self.relay.step)

    @rule()
    def relay_looks_again(self) -> None:
        self.relay.look_again()
        self.quietly(self.relay.step)

    @rule(name=st.sampled_from(CONSUMERS), sweep=st.booleans())
    def consumer_turns(self, name: str, sweep: bool) -> None:
        consumer, clock = self.consumers[name]
        if sweep:
            clock[0] += 1_000_000
        self.quietly(consumer.step)

    @rule()
    def start_relay(self) -> None:
        stream = BrokenStream(self.client, "event-stream", self.line)
        self.relay = Relay(self.customers.database, stream, pass_over=True, batch=2)

    @rule()
    def accounts_relay_turns(self) -> None:
        self.quietly(self.accounts_relay.step)

    @rule()
    def accounts_relay_looks_again(self) -> None:
        self.accounts_relay.look_again()
        self.quietly(self.accounts_relay.step)

    def start_accounts(self) -> None:
        """HTTP takes requests once the relay has compared the database with the stream."""
        self.line.breaks = CALM
        self.accounts = Accounts(accounts.open_database(self.accounts_path))
        stream = BrokenStream(self.client, "event-stream", self.line)
        self.accounts_relay = Relay(self.accounts.database, stream, Standing(self.accounts, stream).settle)
        self.accounts_relay.step()

    @rule(name=st.sampled_from(CONSUMERS))
    def consumer_is_replaced(self, name: str) -> None:
        self.consumers[name][0]._database.close()  # as the kernel does for a process that ends
        self.consumers[name] = self.start_consumer(name)

    def start_consumer(self, name: str) -> tuple[Consumer, list[float]]:
        store = Accounts(accounts.open_database(self.accounts_path))
        clock = [0.0]
        stream = EventStream(self.client, "event-stream")
        consumer = Consumer(
            BrokenGroup(stream, store.database.source, name, self.line),
            store.database,
            store.apply,
            after_commit=lambda: None,
            batch=3,
            claim_idle_ms=1000,
            max_deliveries=1000,
            siblings=CONSUMERS,
            clock=lambda: clock[0],
        )
        return consumer, clock

    # Faults

    @rule(when=st.sampled_from([BEFORE, AFTER]), commands=st.integers(0, 3))
    def the_line_will_break(self, when: str, commands: int) -> None:
        self.line.breaks, self.line.after_commands = when, commands

    @rule()
    def redis_is_copied(self) -> None:
        keys: Any = self.client.keys("*")
        self.older.append({key: self.client.dump(key) for key in keys})

    @rule(data=st.data())
    def redis_falls_back_to_an_older_copy(self, data: st.DataObject) -> None:
        copy = data.draw(st.sampled_from(self.older))
        self.client.flushall()
        for key, value in copy.items():
            self.client.restore(key, 0, value)

    @rule(made_again=st.booleans())
    def the_stream_is_deleted(self, made_again: bool) -> None:
        self.client.delete("event-stream")
        if made_again:
            self.client.xadd("event-stream", {"EventTypeName": "OrderShipped"})

    @rule()
    def the_group_is_destroyed(self) -> None:
        if self.client.exists("event-stream"):
            for consumer, _ in self.consumers.values():
                self.client.xgroup_destroy("event-stream", consumer._group.group)

    @rule()
    def the_accounts_database_is_copied(self) -> None:
        copy = self.accounts_path / f"copy-{len(self.copies)}.db"
        store = Accounts(accounts.open_database(self.accounts_path))
        store.database.execute("VACUUM INTO ?", (str(copy),))
        store.database.close()
        self.copies.append(copy)

    @rule(data=st.data())
    def the_accounts_database_falls_back_to_an_older_copy(self, data: st.DataObject) -> None:
        if self.copies:
            copy = data.draw(st.sampled_from(self.copies))
            for consumer, _ in self.consumers.values():
                consumer._database.close()
            self.accounts.database.close()
            for suffix in ("-wal", "-shm"):
                (self.accounts_path / f"accounts.db{suffix}").unlink(missing_ok=True)
            shutil.copy(copy, self.accounts_path / "accounts.db")
            self.consumers = {name: self.start_consumer(name) for name in CONSUMERS}
            self.start_accounts()

    # What must hold

    def quietly(self, step: Callable[[], Any]) -> None:
        with suppress(redis.ConnectionError):
            step()

    def teardown(self) -> None:
        if not hasattr(self, "directory"):
            return
        self.line.breaks = CALM
        self.settle()
        try:
            self.compare()
        finally:
            self.client.close()
            self.directory.cleanup()

    def delivered(self, group: ConsumerGroup) -> bytes:
        """The last entry that the group was handed."""
        groups: Any = self.client.xinfo_groups("event-stream")
        (delivered,) = [each["last-delivered-id"] for each in groups if each["name"] == group.group.encode()]
        return bytes(delivered)

    def settle(self) -> None:
        group = self.consumers[CONSUMERS[0]][0]._group
        for _ in range(100):
            for relay in (self.relay, self.accounts_relay):
                relay.look_again()
                while relay.step():
                    pass
            for consumer, clock in self.consumers.values():
                clock[0] += 1_000_000
                for _ in range(3):
                    consumer.step()
            newest: Any = self.client.xrevrange("event-stream", count=1)
            if group.pending() == 0 and (not newest or self.delivered(group) == newest[0][0]):
                return
        raise AssertionError("it does not settle")

    def compare(self) -> None:
        revenue: Counter[int] = Counter()
        for invoice in self.customers.invoices(None, -1, 100_000):
            revenue[int(invoice.customer_id)] += invoice.purchase_price_cents
        expected = {
            int(customer.id): (int(customer.account_id), revenue[int(customer.id)])
            for customer in self.customers.customers(None, -1, 100_000)
        }
        store = Accounts(accounts.open_database(self.accounts_path))
        shown = {
            int(customer.customer_id): (account, customer.total_revenue_cents)
            for account in (1, 2)
            for customer in store.customers_of(account, -1, 100_000)
        }
        assert shown == expected
        assert (self.relay.refusal, self.accounts_relay.refusal) == (None, None)
        self.compare_foreign(store)
        self.compare_stream(self.customers.outbox)
        told = self.compare_stream(store.outbox)
        assert [account.id for account in store.accounts(-1, 100_000)] == told

    def compare_foreign(self, store: Accounts) -> None:
        """What others published counts once, or not at all when Redis lost it before it was read."""
        rows = revenue_by_customer(store.database)
        for customer, cents in self.foreign.items():
            assert rows.get(int(customer), 0) in (0, cents)

    def compare_stream(self, outbox: Outbox) -> list[int]:
        """Every event of ours is on the stream once, and in order; answers the ids that they tell of."""
        pages = EventStream(self.client, "event-stream").entries_of(outbox.source)
        ours = [entry for page in pages for entry in page]
        sequences = [int(entry.fields[b"EventId"].rpartition(b":")[2]) for entry in ours]
        assert sequences == list(range(1, outbox.last() + 1))
        return [int(json.loads(entry.fields[b"Payload"])["id"]) for entry in ours]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(BUNDLED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def test_any_history_with_any_faults_leaves_what_was_committed(url: str) -> None:
    History.url = url
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
