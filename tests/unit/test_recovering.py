"""A customers.db that is made again from a copy, which has gone its own way since."""

import shutil
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.actors.relay import Relay
from tally.events import Id
from tally.recovery import lost_customers
from tally.recovery.standing import Standing
from tally.store import notes
from tally.store.customers import FILE, Customers, open_database
from tally.store.database import Database
from tally.store.records import NewCustomer, NewInvoice
from tally.store.stream import EventStream


def _record(store: Customers, cents: int) -> None:
    with store.database.transaction():
        store.create_invoices([NewInvoice(Id(1), date(2019, 1, 6), cents)])


def _publish(store: Customers, stream: EventStream) -> None:
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    while relay.step():
        pass


def test_what_became_of_its_numbers_is_told_where_status_says(tmp_path: Path) -> None:
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    data, aside = tmp_path / "data", tmp_path / "aside"
    data.mkdir()
    with closing(open_database(data)) as database:
        with database.transaction():
            Customers(database).create_customers([NewCustomer("one", Id(1))])
        _publish(Customers(database), stream)
    shutil.copytree(data, aside)
    with closing(open_database(data)) as database:
        _record(Customers(database), 1)
        _publish(Customers(database), stream)
    with closing(open_database(aside)) as database:
        _record(Customers(database), 2)
    (data / FILE).unlink()
    lost_customers.recover(data, stream, aside / FILE)
    with closing(open_database(data, make=False)) as database:
        [told] = notes.told(database)
    [file] = data.glob("renumbered-*.csv")
    assert str(file) in told
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize("deleted", [[], [1], [1, 2]])
def test_from_the_stream_alone_the_file_has_every_row_and_index(tmp_path: Path, deleted: list[int]) -> None:
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    with closing(open_database(tmp_path)) as database:
        store = Customers(database)
        with database.transaction():
            store.create_customers([NewCustomer(name, Id(1)) for name in ("one", "two")])
        for customer in (1, 2):
            for cents in range(3):
                with database.transaction():
                    store.create_invoices([NewInvoice(Id(customer), date(2019, 1, 6), cents)])
        for customer in deleted:
            with database.transaction():
                store.delete_customer(customer)
        with database.transaction():
            left = {1, 2} - {*deleted}
            store.create_invoices([NewInvoice(Id(each), date(2019, 1, 6), 7) for each in left])
        _publish(store, stream)
        before = _rows(database)
    (tmp_path / FILE).unlink()
    lost_customers.recover(tmp_path, stream, None)
    with closing(open_database(tmp_path, make=False)) as database:
        assert _rows(database) == before


def _rows(database: Database) -> list[list[tuple[object, ...]]]:
    tables = "invoice ORDER BY id", "customer ORDER BY id", "doomed_customer"
    every = [database.rows(f"SELECT * FROM {each}") for each in tables]
    return [*every, database.rows("SELECT name, sql FROM sqlite_schema ORDER BY name")]
