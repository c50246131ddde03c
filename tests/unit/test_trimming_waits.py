"""`status` says why nothing is taken off the stream, and what ends that."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.actors.housekeeper import Housekeeper
from tally.actors.relay import Relay
from tally.actors.services import ACCOUNTS
from tally.config import ConsumersSettings
from tally.events import Id
from tally.http.status import StatusProbe, StatusReport
from tally.store import accounts, customers
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.inbox import Inbox
from tally.store.records import NewCustomer
from tally.store.stream import Age, EventStream

NOW = 1_700_000_000
YEAR, DAY = 365 * 24 * 3600, 24 * 3600
KEY = "event-stream"


class Waits:
    """A data directory with both databases, where the customers service alone runs, and a clock to set."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.directory = directory
        self._redis = RedisDouble(lambda: self.now * 1000, (8, 0))
        self.stream = EventStream(self._redis.client(), KEY)
        self.stream.client.set("{event-stream}:contact", 0)
        self.store = Customers(customers.open_database(directory))
        accounts.open_database(directory).close()

    def record(self) -> None:
        """Record a customer, and publish it."""
        with self.store.database.transaction():
            self.store.create_customers([NewCustomer("c", Id(1))])
        relay = Relay(self.store.database, self.stream)
        while relay.step():
            pass

    def consume(self) -> None:
        """Run the accounts service's consumer for a while."""
        with closing(accounts.open_database(self.directory)) as database:
            settings = ConsumersSettings()
            consumer = ACCOUNTS.consumer("1", ["1"], database, self.stream, settings, lambda: None)
            for _ in range(3):
                consumer.step()

    def _groups(self) -> dict[str, Age]:
        with closing(accounts.open_database(self.directory)) as theirs:
            every: list[Database] = [self.store.database, theirs]
            return {each.source: Inbox(each).age() for each in every}

    def trim(self) -> int:
        """Do the housekeeping; answer how many entries are left."""
        days = timedelta(days=7)
        Housekeeper(self.store.database, self.stream, days, self._groups, now=lambda: float(self.now)).step()
        return self.stream.length()

    def status(self) -> StatusReport:
        """What the customers service's `status` tells."""

        def opened() -> closing[Database]:
            return closing(customers.open_database(self.directory))

        return StatusProbe("customers", opened, self.directory, lambda: self.stream, list, self._groups)()


@pytest.fixture
def waits(tmp_path: Path) -> Waits:
    return Waits(tmp_path)


def test_of_a_database_that_was_put_back_and_whose_service_does_not_run(waits: Waits) -> None:
    copy = (waits.directory / accounts.FILE).read_bytes()
    waits.record()
    waits.consume()
    assert waits.status().reasons == []
    (waits.directory / accounts.FILE).write_bytes(copy)
    waits.now += 30 * DAY
    assert waits.trim() == 1
    [told] = waits.status().reasons
    assert "nothing is taken off the stream" in told
    assert "accounts.db" in told
    assert "run the accounts service" in told
    waits.consume()
    assert waits.status().reasons == []
    waits.store.database.close()


def test_it_does_not_wait_for_an_age_that_a_lost_database_left(waits: Waits) -> None:
    """No group was there to be set back. So the age stayed until this database was older."""
    copy = (waits.directory / accounts.FILE).read_bytes()
    waits.record()
    waits.consume()
    (waits.directory / accounts.FILE).write_bytes(copy)
    waits.stream.client.delete(KEY)
    waits.consume()
    assert waits.status().reasons == []
    waits.store.database.close()


def test_of_a_clock_that_was_years_ahead(waits: Waits) -> None:
    waits.now += 5 * YEAR
    waits.record()
    waits.now = NOW
    waits.record()
    waits.consume()
    waits.stream.client.xgroup_create(KEY, waits.store.database.source, id="$")
    waits.now += 30 * DAY
    assert waits.trim() == 2
    [told] = waits.status().reasons
    assert "2028-11-12" in told
    assert "groups list" in told
    waits.stream.client.delete(KEY)  # the remedy
    waits.record()
    waits.consume()
    assert waits.status().reasons == []
    assert waits.stream.length() == 3, "what the outbox keeps is published again"
    waits.store.database.close()


def test_a_clock_that_was_a_little_ahead_is_no_trouble(waits: Waits) -> None:
    waits.now += 600
    waits.record()
    waits.now = NOW
    waits.consume()
    assert waits.status().reasons == []
    waits.store.database.close()
