"""Another program publishes an event under a source of ours, with a number that was never given."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.redis_double import RedisDouble
from tally.actors.relay import Relay
from tally.actors.services import ACCOUNTS, CUSTOMERS, Service
from tally.config import ConsumersSettings
from tally.events import AccountCreated, CustomerCreated, Event, Id, encode, now
from tally.http.status import StatusProbe, StatusReport
from tally.recovery.standing import Standing
from tally.store import accounts, customers
from tally.store.accounts import Accounts, NewAccount
from tally.store.asks import Asks
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.records import NewCustomer
from tally.store.stream import EventStream

KEY = "event-stream"


class Both:
    """Both services, with all that runs, in turns."""

    def __init__(self, directory: Path) -> None:
        self.now = 1_700_000_000.0
        self.stream = EventStream(RedisDouble(lambda: int(self.now * 1000), (8, 0)).client(), KEY)
        self.customers = Customers(customers.open_database(directory))
        self.accounts = Accounts(accounts.open_database(directory))
        self._directory = directory
        self._parts: list[Callable[[], object]] = []
        settings, clock = ConsumersSettings(claim_idle_ms=1000), lambda: self.now
        for service, store in ((CUSTOMERS, self.customers), (ACCOUNTS, self.accounts)):
            database, stream = store.database, self.stream
            relay = Relay(database, stream, Standing(store, stream).settle)
            consumer = service.consumer("1", ["1"], database, stream, settings, lambda: None, clock=clock)
            answering = service.answering(database, stream)
            # One turn of a consumer looks after leftovers of others, the next reads.
            self._parts += [relay.look_again, relay.step, answering.step, consumer.step, consumer.step]

    def record(self) -> None:
        with self.accounts.database.transaction():
            self.accounts.create_account(NewAccount("a", "u"))
        with self.customers.database.transaction():
            self.customers.create_customers([NewCustomer("c", Id(1))])

    def go_on(self, turns: int = 10) -> None:
        for _ in range(turns):
            self.now += 1
            for part in self._parts:
                part()

    def status(self, service: Service) -> StatusReport:
        def opened() -> closing[Database]:
            return closing(service.open(self._directory))

        return StatusProbe(service.name, opened, self._directory, lambda: self.stream, list)()

    def end(self) -> None:
        self.customers.database.close()
        self.accounts.database.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    both = Both(tmp_path)
    both.record()
    both.go_on()
    yield both
    both.end()


@pytest.mark.parametrize("number", [5_000, 2**40 - 1])
def test_of_a_customers_service_they_are_told_and_asked_for_no_longer(both: Both, number: int) -> None:
    """All numbers below were asked for, and answered a thousand at a time. Near 2^40, none was left."""
    source = both.customers.database.source
    event = CustomerCreated(Id(77), Id(1), "made up", now())
    both.stream.client.xadd(KEY, _fields(event, source, number))
    both.go_on()
    assert Asks(both.stream).of(source) == {}
    [told] = both.status(ACCOUNTS).reasons
    assert f"{number - 2:,} events of {source}" in told
    assert f"numbers 2-{number - 1};" in told
    for _ in range(3):
        both.record()
        both.go_on()
    assert both.status(ACCOUNTS).reasons == [told]
    assert both.accounts.database.value("SELECT count(*) FROM customer_name") == 5


@pytest.mark.parametrize("number", [5_000, 2**40 - 1])
def test_of_an_accounts_service_they_are_asked_for_no_longer(both: Both, number: int) -> None:
    source = both.accounts.database.source
    event = AccountCreated(Id(77), "made up", "", "u", now())
    both.stream.client.xadd(KEY, _fields(event, source, number))
    both.go_on()
    for _ in range(3):
        both.record()
        both.go_on()
    assert Asks(both.stream).of(source) == {}
    told = " ".join(both.status(CUSTOMERS).reasons + both.status(ACCOUNTS).notes)
    assert f"{number - 2:,} events of {source}" in told
    assert both.status(ACCOUNTS).outbox_depth == 0


def _fields(event: Event, source: str, number: int) -> Any:
    kind = type(event).__name__
    return {"EventTypeName": kind, "Payload": encode(event), "EventId": f"{source}:{number}"}
