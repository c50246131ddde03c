"""customers.db is made again, or restored, with the stream's events under all its names."""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis

from tally.actors.relay import Relay
from tally.commands.restore import put_back
from tally.events import Id, decode
from tally.recovery.following import Follower
from tally.recovery.lost_customers import CannotRecover, begin_empty, recover
from tally.recovery.standing import Standing
from tally.recovery.taking_back import AT_ONCE
from tally.store import accounts, customers
from tally.store.accounts import Accounts, NewAccount
from tally.store.copying import copy_database
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.incarnations import begin, incarnations, own_sources
from tally.store.lacking import told
from tally.store.outbox import Outbox
from tally.store.records import InvoiceChange, NewCredit, NewCustomer, NewInvoice
from tally.store.stream import EventStream, connect


def _publish_all(store: Customers, stream: EventStream) -> None:
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    relay.look_again()
    while relay.step():
        pass


def _published(store: Customers, stream: EventStream, names: int, each: int) -> None:
    """Begin `names` new names, and publish `each` customers under each."""
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    for _ in range(names):
        with store.database.transaction():  # as on the first write after Redis lost its records
            begin(store.database, store.outbox.last())
        store.outbox = Outbox(store.database)
        with store.database.transaction():
            store.create_customers([NewCustomer("Ada", Id(1))] * each)
        relay.look_again()
        while relay.step():
            pass


def test_what_was_published_under_a_later_name_comes_back_though_redis_lost_the_first(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    database = customers.open_database(tmp_path)
    first = database.source
    _published(Customers(database), stream, names=1, each=1)
    names = own_sources(database)
    database.close()
    (tmp_path / customers.FILE).unlink()
    assert client.hget("{event-stream}:published", first) is None

    recovered = recover(tmp_path, stream, None)
    assert (recovered.customers, recovered.from_stream) == (1, 1)
    again = customers.open_database(tmp_path)
    assert [each.name for each in Customers(again).customers(CustomerQuery(limit=10))] == ["Ada"]
    assert names <= own_sources(again)
    again.close()


def test_what_an_older_copy_has_under_numbers_that_were_given_again_is_told_from_the_streams_events(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    """It was not, if another program had deleted the entry with the number of the copy's last event."""
    stream = EventStream(connect(redis_url), "event-stream")
    directory, copy = tmp_path / "data", tmp_path / "copy.db"
    directory.mkdir()
    store = Customers(customers.open_database(directory))
    source = store.database.source
    _record(store, "Ada")
    _publish_all(store, stream)
    _record(store, "Bo", "Cy")  # events 2 and 3 are lost before they are published
    copy_database(directory / customers.FILE, copy, lambda done: None)
    store.database.close()
    (directory / customers.FILE).unlink()

    recover(directory, stream, None)
    store = Customers(customers.open_database(directory))
    _record(store, "Di", "Ed", "Flo")
    _publish_all(store, stream)
    store.database.close()
    (directory / customers.FILE).unlink()
    every: Any = client.xrange("event-stream")
    ids = {fields[b"EventId"].decode(): id for id, fields in every}
    client.xdel("event-stream", ids[f"{source}:3"])

    made = recover(directory, stream, copy)
    store = Customers(customers.open_database(directory))
    names = [each.name for each in store.customers(CustomerQuery(limit=10))]
    assert sorted(names) == ["Ada", "Bo", "Cy", "Di", "Flo"]
    assert any(f"{source}: 3" in each or "1 event" in each for each in made.lacks), made.lacks
    store.database.close()


def _record(store: Customers, *names: str) -> None:
    with store.database.transaction():
        store.create_customers([NewCustomer(name, Id(1)) for name in names])


def _publish_again(client: redis.Redis, names: list[str]) -> None:
    """Have entries stand at the end of the stream, as when Redis had lost something meanwhile."""
    every: Any = client.xrange("event-stream")
    entries = {fields[b"EventId"].decode(): (id, fields) for id, fields in every}
    for name in names:
        id, fields = entries[name]
        client.xdel("event-stream", id)
        client.xadd("event-stream", fields)


def _without(store: Customers, stream: EventStream, number: int) -> tuple[Customers, Any]:
    """Lose the file and one of its events, and make the file again; return it, and the event's fields."""
    name, directory = f"{store.database.source}:{number}".encode(), store.database.path.parent
    store.database.close()
    (directory / customers.FILE).unlink()
    every: Any = stream.client.xrange(stream.key)
    ((id, fields),) = [each for each in every if each[1][b"EventId"] == name]
    stream.client.xdel(stream.key, id)
    recover(directory, stream, None)
    return Customers(customers.open_database(directory)), fields


def _rows(store: Customers) -> list[Any]:
    """All that is recorded, and its history."""
    tables = ("customer", "invoice", "credit", "history", "updated")
    return [store.database.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


@pytest.mark.parametrize("count", [3, AT_ONCE + 5], ids=["few", "many"])
def test_events_that_were_published_once_more_are_taken_back_in_their_order(
    tmp_path: Path, redis_url: str, client: redis.Redis, count: int
) -> None:
    """The invoices of a customer whose creation stood behind them were left out without a word."""
    stream = EventStream(connect(redis_url), "event-stream")
    store = Customers(customers.open_database(tmp_path))
    source, day = store.database.source, date(2019, 1, 6)
    with store.database.transaction():
        (ada,) = store.create_customers([NewCustomer("Ada", Id(1))])  # event 1
        first, second = store.create_invoices([NewInvoice(ada, day, 500)] * 2)  # 2, 3
        store.change_invoice(first, InvoiceChange(purchase_price_cents=400))  # 4
        store.delete_invoice(second)  # 5
        (bob,) = store.create_customers([NewCustomer("Bob", Id(1))])  # 6
        store.change_invoice(first, InvoiceChange(purchase_price_cents=300))  # 7
        store.delete_customer(bob)  # 8
        store.create_invoices([NewInvoice(ada, day, 1)] * count)
    _publish_all(store, stream)
    before = _rows(store)
    store.database.close()
    (tmp_path / customers.FILE).unlink()
    _publish_again(client, [f"{source}:{number}" for number in (6, 4, 3, 1)])

    recover(tmp_path, stream, None)
    again = Customers(customers.open_database(tmp_path))
    assert _rows(again) == before
    assert told(again.database) == []
    again.database.close()


def test_what_follows_from_a_lost_event_is_told_and_applied_once_that_is_there_again(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    store = Customers(customers.open_database(tmp_path))
    source, day = store.database.source, date(2019, 1, 6)
    with store.database.transaction():
        (ada,) = store.create_customers([NewCustomer("Ada", Id(1))])
        first, second = store.create_invoices([NewInvoice(ada, day, 500)] * 2)
        store.change_invoice(first, InvoiceChange(purchase_price_cents=400))
        store.delete_invoice(second)
    _publish_all(store, stream)
    before = _rows(store)
    again, lost = _without(store, stream, 1)
    assert again.customers(CustomerQuery(limit=10)) == []
    assert [text.partition(". ")[0] for text in told(again.database)] == [
        f"1 events of {source} are nowhere any more since customers.db was put back: numbers 1",
        f"4 events of {source} can't be applied in customers.db: they follow from some that are nowhere any "
        "more, or another row has their number: numbers 2-5",
    ]
    client.xadd("event-stream", lost)  # by a copy of the machine
    Standing(again, stream).settle()
    assert _rows(again) == before
    assert told(again.database) == []
    again.database.close()


def _corrected_twice(store: Customers, invoice: Id, customer: Id) -> None:
    for cents in (400, 300):
        store.change_invoice(invoice, InvoiceChange(purchase_price_cents=cents))


def _corrected_and_deleted(store: Customers, invoice: Id, customer: Id) -> None:
    store.change_invoice(invoice, InvoiceChange(purchase_price_cents=400))
    store.delete_invoice(invoice)


def _corrected_and_gone_with_its_customer(store: Customers, invoice: Id, customer: Id) -> None:
    store.change_invoice(invoice, InvoiceChange(purchase_price_cents=400))
    store.delete_customer(customer)


def _credited_and_taken_back(store: Customers, invoice: Id, customer: Id) -> None:
    (credit,) = store.credits.create([NewCredit(customer, date(2019, 2, 6), 100, invoice)])
    store.credits.delete(credit)


@pytest.mark.parametrize(
    ("happened", "lost"),
    [
        (_corrected_twice, 3),
        (_corrected_twice, 2),
        (_corrected_and_deleted, 3),
        (_corrected_and_deleted, 2),
        (_corrected_and_gone_with_its_customer, 2),
        (_corrected_and_gone_with_its_customer, 3),
        (_credited_and_taken_back, 3),
    ],
)
def test_a_lost_event_that_is_told_again_is_in_its_place(
    tmp_path: Path,
    redis_url: str,
    client: redis.Redis,
    happened: Callable[[Customers, Id, Id], None],
    lost: int,
) -> None:
    """Whoever made the later changes knew it: they don't compete with it, and what ended stays so."""
    stream = EventStream(connect(redis_url), "event-stream")
    store = Customers(customers.open_database(tmp_path))
    with store.database.transaction():
        (ada,) = store.create_customers([NewCustomer("Ada", Id(1))])  # event 1
        (invoice,) = store.create_invoices([NewInvoice(ada, date(2019, 1, 6), 500)])  # 2
        happened(store, invoice, ada)  # 3, 4
    _publish_all(store, stream)
    before = _rows(store)[:3]
    again, fields = _without(store, stream, lost)
    assert f"numbers {lost}" in told(again.database)[0]
    client.xadd("event-stream", fields)
    Standing(again, stream).settle()
    _publish_all(again, stream)
    assert _rows(again)[:3] == before
    assert told(again.database) == []
    assert _counted(tmp_path, client) == sum(cents for _, _, cents, *_ in before[1])
    again.database.close()


def _counted(directory: Path, client: redis.Redis) -> int:
    """The revenue that an accounts.db shows which has every event of the stream."""
    every: Any = client.xrange("event-stream")
    with closing(accounts.open_database(directory)) as database, database.transaction():
        store = Accounts(database)
        store.create_account(NewAccount("a", "u"))
        store.apply(decode(fields) for _, fields in every)
        return sum(each.total_revenue_cents for each in store.customers_of(1))


def test_what_was_left_out_and_is_kept_nowhere_any_more_goes_on_being_told(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    store = Customers(customers.open_database(tmp_path))
    source = store.database.source
    with store.database.transaction():
        (ada,) = store.create_customers([NewCustomer("Ada", Id(1))])
        store.create_invoices([NewInvoice(ada, date(2019, 1, 6), 500)])
        store.create_customers([NewCustomer("Bob", Id(1))])
    _publish_all(store, stream)
    again, lost = _without(store, stream, 1)
    again.database.execute("DELETE FROM outbox WHERE sequence <= 2")  # as after data.retention_days
    client.xadd("event-stream", lost)
    Standing(again, stream).settle()
    (left_out,) = told(again.database)
    assert left_out.startswith(f"1 events of {source} can't be applied")
    again.database.close()


def test_a_standby_takes_in_what_was_lacking_when_it_comes(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    store, copy = Customers(customers.open_database(tmp_path)), tmp_path / "copy"
    copy.mkdir()
    copy_database(tmp_path / customers.FILE, copy / customers.FILE, lambda done: None)
    with store.database.transaction():
        (ada,) = store.create_customers([NewCustomer("Ada", Id(1))])
        (invoice,) = store.create_invoices([NewInvoice(ada, date(2019, 1, 6), 500)])
        store.change_invoice(invoice, InvoiceChange(purchase_price_cents=400))
    _publish_all(store, stream)
    _publish_again(client, [f"{store.database.source}:1"])
    standby = Customers(customers.open_database(copy))
    Follower(standby, stream).catch_up()
    assert _rows(standby) == _rows(store)
    assert told(standby.database) == []
    for each in (store, standby):
        each.database.close()


def test_names_that_follow_each_other_in_a_circle_are_refused(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    """Redis may hold anything, even heirs that form a circle."""
    stream = EventStream(connect(redis_url), "event-stream")
    database = customers.open_database(tmp_path)
    _published(Customers(database), stream, names=2, each=2)
    first, *_, last = (each.source for each in incarnations(database))
    database.close()
    (tmp_path / customers.FILE).unlink()
    stream.note_heirs({first: last})

    with pytest.raises(CannotRecover, match="the stream knows customers@"):
        recover(tmp_path, stream, None)


def _two_lost(directory: Path, stream: EventStream) -> tuple[str, str]:
    """Lose a customers.db, and the one that was begun in its place; return their names.

    Each had published one customer.
    """
    names: list[str] = []
    for _ in range(2):
        if names:
            begin_empty(directory)
        database = customers.open_database(directory)
        _published(Customers(database), stream, names=1, each=1)
        names.append(database.source)
        database.close()
        (directory / customers.FILE).unlink()
    first, second = names
    return first, second


def test_of_two_lost_databases_the_one_that_is_meant_is_made_again(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    first, second = _two_lost(tmp_path, stream)

    with pytest.raises(CannotRecover, match="`--source`") as refused:
        recover(tmp_path, stream, None)
    told = set(re.findall(r"customers@\w+", str(refused.value)))
    assert len(told) == 2
    with pytest.raises(CannotRecover, match=r"knows customers@.*, not customers@deadbeef"):
        recover(tmp_path, stream, None, wanted="customers@deadbeef")

    recovered = recover(tmp_path, stream, None, wanted=second)
    assert (recovered.source, recovered.from_stream) == (second, 1)
    with closing(customers.open_database(tmp_path)) as database:
        assert second in own_sources(database)
        assert first not in own_sources(database)


def test_a_database_of_which_redis_has_nothing_does_not_stand_in_the_way_of_another(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    """Redis, or the accounts.db, may know its name alone. With two names, only a copy was taken before."""
    stream = EventStream(connect(redis_url), "event-stream")
    client.xgroup_create("event-stream", "customers@1ef70f0e", mkstream=True)
    with pytest.raises(CannotRecover, match="nothing of it any more"):
        recover(tmp_path, stream, None)

    begin_empty(tmp_path)
    with closing(customers.open_database(tmp_path)) as database:
        _published(Customers(database), stream, names=1, each=1)
        name = database.source
    (tmp_path / customers.FILE).unlink()
    assert recover(tmp_path, stream, None).source == name


def test_restore_counts_what_the_stream_will_add_under_every_name(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    stream = EventStream(connect(redis_url), "event-stream")
    database = customers.open_database(tmp_path)
    store, copy = Customers(database), tmp_path / "copy"
    _published(store, stream, names=1, each=3)
    copy.mkdir()
    copy_database(tmp_path / customers.FILE, copy / customers.FILE, lambda done: None)
    _published(store, stream, names=2, each=5)
    database.close()
    asked: list[str] = []

    def confirm(told: str) -> bool:
        asked.append(told)
        return True

    put_back(tmp_path, copy, stream, confirm)
    assert asked[0].endswith("the stream will add its 10 later events")
    restored = Customers(customers.open_database(tmp_path))
    Standing(restored, stream).settle()
    assert len(restored.customers(CustomerQuery(limit=100))) == 13
    restored.database.close()
