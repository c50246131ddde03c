"""An older copy of accounts.db reads back its later published events, or leaves everything alone."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from support.publishing import publish
from tally.actors.relay import Relay
from tally.events import AccountDeleted, CustomerCreated, Id, decode, encode, now
from tally.recovery.standing import Standing
from tally.recovery.taking_back import AT_ONCE
from tally.store import customers
from tally.store.accounts import Accounts, NewAccount, open_database
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.ids import begin_block
from tally.store.inbox import Inbox
from tally.store.incarnations import ROOM, begin, incarnations
from tally.store.lacking import LACKING, told
from tally.store.listing import ListQuery
from tally.store.outbox import outboxes
from tally.store.ranges import Range
from tally.store.records import InvoiceChange, NewCredit, NewCustomer, NewInvoice
from tally.store.stream import Entry, EventStream, Publishing, connect
from tally.store.write_permission import WritePermission

pytestmark = pytest.mark.whole  # of databases: the engine only carries their events
SEVERAL_PAGES = 2500
DAY = date(2019, 1, 6)


class Copied:
    """An accounts.db, an older copy of it, and the events published in between."""

    def __init__(self, directory: Path, stream: EventStream, lost: int, in_block: bool = False) -> None:
        self.stream = stream
        self.original = Accounts(open_database(directory))
        if in_block:
            with self.original.database.transaction():
                begin_block(self.original.database)
        self.open(self.original, 10)
        (directory / "older").mkdir()
        copy = directory / "older" / "accounts.db"
        self.original.database.execute("VACUUM INTO ?", (str(copy),))
        self.open(self.original, lost)
        with self.original.database.transaction():
            self.original.delete_account(self.original.accounts(2, 1)[0].id)
        self.publish(Relay(self.original.database, stream))
        self.older = Accounts(open_database(copy.parent))
        self.relay = Relay(self.older.database, stream, Standing(self.older, stream).settle)

    @staticmethod
    def open(accounts: Accounts, count: int) -> None:
        with accounts.database.transaction():
            for number in range(count):
                accounts.create_account(NewAccount(f"{number}", "u"))

    @staticmethod
    def publish(relay: Relay) -> None:
        while relay.step():
            pass

    def outboxes(self) -> list[list[tuple[object, ...]]]:
        sql = "SELECT sequence, type, payload FROM outbox ORDER BY sequence"
        return [each.database.rows(sql) for each in (self.original, self.older)]


@pytest.fixture
def copied(tmp_path: Path, redis_url: str) -> Copied:
    return Copied(tmp_path, EventStream(connect(redis_url), "event-stream"), lost=SEVERAL_PAGES)


def test_all_that_was_published_since_comes_back_with_its_effects(copied: Copied) -> None:
    copied.publish(copied.relay)
    original, older = copied.outboxes()
    assert older == original
    assert copied.older.accounts(-1, 10_000) == copied.original.accounts(-1, 10_000)
    assert copied.relay.refusal is None


def test_new_accounts_go_on_where_the_lost_ones_ended(copied: Copied) -> None:
    copied.publish(copied.relay)
    copied.open(copied.older, 1)
    copied.publish(copied.relay)
    assert [account.id for account in copied.older.accounts(10 + SEVERAL_PAGES, 10)] == [11 + SEVERAL_PAGES]
    assert copied.stream.published(copied.older.outbox.source).last == 12 + SEVERAL_PAGES


def test_a_running_database_that_others_went_on_with_gives_no_number_meanwhile(copied: Copied) -> None:
    """It had seen that it was the newest; then a copy was at work while nobody here could look."""
    doubts: list[int] = []

    class Noting(WritePermission):
        def doubt(self) -> None:
            super().doubt()
            doubts.append(copied.older.outbox.last())

    permission = Noting()
    permission.confirm()
    copied.older.database.is_newest = permission.is_confirmed
    before = copied.older.outbox.last()
    Standing(copied.older, copied.stream, permission).settle()
    assert doubts == [before]
    assert permission.is_confirmed()
    assert [each.source for each in incarnations(copied.older.database)] == [copied.original.database.source]


def test_what_tells_of_no_event_begins_no_name(copied: Copied) -> None:
    database = copied.older.database
    database.is_newest = lambda: False
    with database.transaction():
        copied.older.outbox.add([])
    assert len(incarnations(database)) == 1
    with database.transaction():
        copied.older.outbox.add([AccountDeleted(Id(1), now())])
    assert len(incarnations(database)) == 2


@pytest.mark.parametrize("part", [1, 2, 3])
def test_what_is_written_while_events_are_taken_back_gets_another_name(copied: Copied, part: int) -> None:
    """It is written before this part of them, by a process that is started while Redis is away."""
    directory = copied.older.database.path.parent
    written = Accounts(open_database(directory))
    written.database.is_newest, written.database.run = lambda: False, "this"
    parts = itertools.count(1)  # in all looks

    class Slow(EventStream):
        def entries_of(self, source: str, after: bytes = b"0-0") -> Iterator[Entry]:
            for number, entry in enumerate(super().entries_of(source, after)):
                if number % AT_ONCE == 0 and next(parts) == part:
                    copied.open(written, 1)
                yield entry

    with closing(written.database):
        copied.open(copied.original, 2 * AT_ONCE)
        copied.publish(Relay(copied.original.database, copied.stream))
        stream = Slow(copied.stream.client, "event-stream")
        copied.publish(Relay(copied.older.database, stream, Standing(copied.older, stream).settle))
        mine, new = outboxes(copied.older.database).values()
        assert mine.last() == copied.original.outbox.last()
        assert [copied.stream.published(each.source).last for each in (mine, new)] == [mine.last(), 1]
        names = [account.name for account in copied.original.accounts(-1, 10**6)]
        assert sorted(each.name for each in copied.older.accounts(-1, 10**6)) == sorted([*names, "0"])


def test_of_a_block_too_no_number_is_given_again(tmp_path: Path, redis_url: str) -> None:
    """A restored copy does not know how far the block was used."""
    copied = Copied(tmp_path, EventStream(connect(redis_url), "event-stream"), lost=5, in_block=True)
    copied.publish(copied.relay)
    copied.open(copied.older, 6)
    copied.publish(copied.relay)
    original, older = copied.outboxes()
    assert older[: len(original)] == original
    assert len(copied.older.accounts(-1, 10_000)) == len(copied.original.accounts(-1, 10_000)) + 6


def test_a_copy_that_has_gone_its_own_way_keeps_what_it_alone_has_under_another_name(copied: Copied) -> None:
    copied.open(copied.older, 5)
    copied.publish(copied.relay)
    assert copied.relay.refusal is None
    original, older = copied.outboxes()
    assert older[:-5] == original
    former, newest, _ = incarnations(copied.older.database)
    assert (former.last, [row[0] for row in older[-5:]]) == (
        len(original),
        [newest.base + number for number in range(1, 6)],
    )
    assert copied.stream.published(newest.source).last == 5
    ids = [account.id for account in copied.older.accounts(10, 10_000)]
    assert ids[:SEVERAL_PAGES] == [*range(11, 11 + SEVERAL_PAGES)]
    assert len(ids) == SEVERAL_PAGES + 5
    assert min(ids[SEVERAL_PAGES:]) > 10**9


def test_what_two_copies_of_one_that_went_its_own_way_both_have_is_told_once(
    copied: Copied, client: redis.Redis
) -> None:
    """A machine is copied while its database contradicts the stream; both copies publish those events."""
    copied.open(copied.older, 5)
    twin = copied.older.database.path.parent / "twin"
    twin.mkdir()
    copied.older.database.execute("VACUUM INTO ?", (str(twin / "accounts.db"),))
    copied.publish(copied.relay)
    others = Accounts(open_database(twin))
    relay = Relay(others.database, copied.stream, Standing(others, copied.stream).settle)
    copied.publish(relay)
    copied.open(others, 1)
    copied.publish(relay)
    copied.relay.look_again()
    copied.open(copied.older, 1)
    copied.publish(copied.relay)
    entries: Any = client.xrange("event-stream")
    payloads = [each[b"Payload"] for _, each in entries if each[b"EventTypeName"] == b"AccountCreated"]
    ids = [msgspec.json.decode(payload)["id"] for payload in payloads]
    assert len(ids) == len({*ids}) == 10 + SEVERAL_PAGES + 5 + 2


def test_what_a_copy_goes_on_to_publish_under_a_name_that_ended_here_comes_when_its_events_are_forgotten(
    copied: Copied,
) -> None:
    copied.open(copied.older, 5)
    copied.publish(copied.relay)
    former, *_ = incarnations(copied.older.database)
    copied.older.database.execute("DELETE FROM outbox WHERE sequence <= ?", (former.last,))  # as after a week
    copied.open(copied.original, 2)
    copied.publish(Relay(copied.original.database, copied.stream))
    copied.relay.look_again()
    copied.publish(copied.relay)
    assert former.last
    assert incarnations(copied.older.database)[0].last == former.last + 2
    assert {each.id for each in copied.original.accounts(-1, 10_000)} <= {
        each.id for each in copied.older.accounts(-1, 10_000)
    }


def test_what_two_copies_changed_counts_as_the_later_one_says_and_what_one_deleted_not_at_all(
    tmp_path: Path, redis_url: str
) -> None:
    """Both published a difference from the same amount. Added up, these exceed the amount of either."""
    stream = EventStream(connect(redis_url), "event-stream")
    original = Customers(customers.open_database(tmp_path))
    with original.database.transaction():
        (customer,) = original.create_customers([NewCustomer("c", Id(1))])
        invoices = original.create_invoices([NewInvoice(customer, DAY, 100)] * 3)
    Copied.publish(Relay(original.database, stream))
    (tmp_path / "older").mkdir()
    original.database.execute("VACUUM INTO ?", (str(tmp_path / "older" / customers.FILE),))
    first, second, third = invoices

    def change(store: Customers, *changes: tuple[int, int]) -> None:
        for id, cents in changes:
            with store.database.transaction():
                store.change_invoice(id, InvoiceChange(purchase_price_cents=cents))

    def delete(store: Customers, id: int) -> None:
        with store.database.transaction():
            store.delete_invoice(id)

    change(original, (first, 200), (second, 200))
    delete(original, third)
    Copied.publish(Relay(original.database, stream))
    older = Customers(customers.open_database(tmp_path / "older"))
    change(older, (first, 300), (first, 310), (third, 300))
    delete(older, second)
    Copied.publish(Relay(older.database, stream, Standing(older, stream).settle))
    left = older.invoices(ListQuery(limit=10))
    assert [(each.id, each.purchase_price_cents, each.revision) for each in left] == [(first, 310, 3)]
    reader = Accounts(open_database(tmp_path))
    with reader.database.transaction():
        reader.apply(decode(entry.fields) for page in stream.pages() for entry in page)
    assert [each.total_revenue_cents for each in reader.customers_of(1)] == [310]


def test_what_two_copies_credited_is_all_there_and_counts_as_it_is_recorded(
    tmp_path: Path, redis_url: str
) -> None:
    """One credits an invoice that the other deletes. The credit stays, so both have the same sum."""
    stream = EventStream(connect(redis_url), "event-stream")
    original = Customers(customers.open_database(tmp_path))
    with original.database.transaction():
        (customer,) = original.create_customers([NewCustomer("c", Id(1))])
        first, second = original.create_invoices([NewInvoice(customer, DAY, 100)] * 2)
        (common,) = original.credits.create([NewCredit(customer, DAY, 1)])
    Copied.publish(Relay(original.database, stream))
    (tmp_path / "older").mkdir()
    original.database.execute("VACUUM INTO ?", (str(tmp_path / "older" / customers.FILE),))
    older = Customers(customers.open_database(tmp_path / "older"))

    with original.database.transaction():
        original.credits.create([NewCredit(customer, DAY, 20, first, "CN-1")])
        original.credits.delete(common)
        original.delete_invoice(second)
    Copied.publish(Relay(original.database, stream))
    with older.database.transaction():
        (new,) = older.create_invoices([NewInvoice(customer, DAY, 50, "R-1")])
        older.credits.create([NewCredit(customer, DAY, cents, of) for cents, of in ((3, second), (4, new))])
        older.credits.delete(common)
        older.delete_invoice(first)
    Copied.publish(Relay(older.database, stream, Standing(older, stream).settle))

    invoices, credits = older.invoices(ListQuery(limit=10)), older.credits.page(ListQuery(limit=10))
    assert [(each.purchase_price_cents, each.reference) for each in invoices] == [(50, "R-1")]
    assert sorted((each.credited_cents, each.invoice_id) for each in credits) == [
        (3, second),
        (4, invoices[0].id),
        (20, first),
    ]
    assert len({each.id for each in credits}) == 3
    reader = Accounts(open_database(tmp_path))
    with reader.database.transaction():
        reader.apply(decode(entry.fields) for page in stream.pages() for entry in page)
    assert [each.total_revenue_cents for each in reader.customers_of(1)] == [50 - 27]


def test_a_batch_on_its_way_publishes_nothing_after_an_event_of_another_of_its_name(copied: Copied) -> None:
    source, published = copied.original.outbox.source, 11 + SEVERAL_PAGES
    copied.publish(copied.relay)
    copied.open(copied.original, 2)
    with copied.older.database.transaction():
        for name in ("another", "one more"):
            copied.older.create_account(NewAccount(name, "u"))
    theirs, ours = (each.outbox.after(published, 2) for each in (copied.original, copied.older))
    assert publish(copied.stream, source, theirs[:1]).last == published + 1
    publishing = Publishing(copied.stream)
    publishing.send(source, 0, ours[1:], before=ours[0].payload)
    assert publishing.answer().last == published + 1
    publishing.send(source, 0, theirs[1:], before=theirs[0].payload)
    assert publishing.answer().last == published + 2


def test_what_both_had_published_stays_what_it_is_when_the_stream_has_only_the_newest(
    copied: Copied, client: redis.Redis
) -> None:
    copied.publish(copied.relay)
    before = copied.older.accounts(-1, 10_000)
    copied.open(copied.original, 2)
    copied.publish(Relay(copied.original.database, copied.stream))
    with copied.older.database.transaction():
        for name in ("another", "one more"):
            copied.older.create_account(NewAccount(name, "u"))
    client.xtrim("event-stream", 1, approximate=False)
    copied.publish(copied.relay)
    after = copied.older.accounts(-1, 10_000)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3  # its own rows, and the newest of the other's


def test_a_newest_event_that_was_another_s_and_is_off_the_stream_is_parted_from_once(
    copied: Copied, client: redis.Redis
) -> None:
    """Redis fell back, the older copy published others under the same numbers, and these were trimmed.

    The relay parted ways again and again in one turn, without an end.
    """
    client.flushall()
    copied.open(copied.older, 5)
    copied.publish(Relay(copied.older.database, copied.stream))
    client.xadd("event-stream", {"EventTypeName": "Of another program"}, maxlen=1, approximate=False)
    looks = itertools.count(1)

    class Counting(EventStream):
        def entries_of(self, source: str, after: bytes = b"0-0") -> Iterator[Entry]:
            assert next(looks) < 20, "it does not end"
            return super().entries_of(source, after)

    stream = Counting(client, "event-stream")
    relay = Relay(copied.original.database, stream, Standing(copied.original, stream).settle)
    copied.publish(relay)
    copied.open(copied.original, 1)
    copied.publish(relay)
    assert relay.refusal is None
    former, told, newest = outboxes(copied.original.database).values()
    assert (former.last(), stream.published(former.source).last) == (15, 15)
    assert [stream.published(each.source).last for each in (told, newest)] == [SEVERAL_PAGES - 3, 1]


def test_what_lies_between_the_copy_and_the_stream_is_noted_and_not_given_again(
    copied: Copied, client: redis.Redis
) -> None:
    entries: Any = client.xrange("event-stream")
    client.xtrim("event-stream", minid=entries[20][0], approximate=False)
    copied.publish(copied.relay)
    assert copied.relay.refusal is None
    original, older = copied.outboxes()
    assert older == original[:10] + original[20:]
    assert LACKING.of(copied.older.database) == {copied.older.outbox.source: [Range(11, 20)]}
    copied.open(copied.older, 1)
    copied.publish(copied.relay)
    assert copied.stream.published(copied.older.outbox.source).last == 12 + SEVERAL_PAGES


def test_what_was_taken_for_lost_comes_back_when_the_stream_has_it_again(
    copied: Copied, client: redis.Redis
) -> None:
    """This happens when another with the name, such as a machine's copy, publishes it to an empty Redis."""
    source = copied.older.outbox.source
    client.flushall()
    copied.stream.note_applied("customers@0000000b", {source: 11 + SEVERAL_PAGES})  # Redis knows no more
    copied.publish(copied.relay)
    assert LACKING.of(copied.older.database) == {source: [Range(11, 11 + SEVERAL_PAGES)]}
    client.flushall()
    copied.publish(Relay(copied.original.database, copied.stream))
    copied.relay.look_again()
    copied.publish(copied.relay)
    assert LACKING.of(copied.older.database) == {}
    original, older = copied.outboxes()
    assert older == original
    assert copied.older.accounts(-1, 10_000) == copied.original.accounts(-1, 10_000)


def test_with_such_a_gap_all_is_published_again_to_an_empty_redis(
    copied: Copied, client: redis.Redis
) -> None:
    entries: Any = client.xrange("event-stream")
    client.xtrim("event-stream", minid=entries[20][0], approximate=False)
    copied.publish(copied.relay)
    client.flushall()
    copied.relay.look_again()
    copied.publish(copied.relay)
    entries = client.xrange("event-stream")
    names = [fields[b"EventId"] for _, fields in entries]
    wanted = [*range(1, 11), *range(21, 12 + SEVERAL_PAGES)]
    assert names == [f"{copied.older.outbox.source}:{number}".encode() for number in wanted]


def test_when_the_stream_has_none_of_it_left_its_numbers_are_known(
    copied: Copied, client: redis.Redis
) -> None:
    client.delete("event-stream")
    copied.publish(copied.relay)
    copied.open(copied.older, 1)
    (newest,) = copied.older.accounts(10 + SEVERAL_PAGES - 1, 10)
    assert newest.id == 11 + SEVERAL_PAGES
    assert copied.older.outbox.last() == 12 + SEVERAL_PAGES


def test_what_another_has_published_under_its_name_is_no_event_of_its_own(
    copied: Copied, client: redis.Redis
) -> None:
    source, forged = copied.older.outbox.source, 500_000
    for type, number in (("AccountCreated", 15), ("AccountDeleted", forged)):
        client.xadd("event-stream", {"EventTypeName": type, "Payload": "{", "EventId": f"{source}:{number}"})
    copied.publish(copied.relay)
    original, older = copied.outboxes()
    assert older == original


def test_a_customer_that_another_published_under_its_name_and_a_number_that_is_taken_stops_nothing(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    """The relay died of it, each time that it began: nothing was published any more."""
    stream = EventStream(connect(redis_url), "event-stream")
    store = Customers(customers.open_database(tmp_path))

    def create(name: str) -> None:
        with store.database.transaction():
            store.create_customers([NewCustomer(name, Id(1))])
        Copied.publish(Relay(store.database, stream, Standing(store, stream).settle))

    create("a")
    source = store.database.source
    forged = encode(CustomerCreated(Id(1), Id(1), "another", now()))
    client.xadd(
        "event-stream",
        {"EventTypeName": "CustomerCreated", "Payload": forged, "EventId": f"{source}:2"},
    )
    stream.note_applied("accounts@0000000a", {source: 2})  # it has applied the entry
    Standing(store, stream).settle()
    create("b")
    assert [each.name for each in store.customers(CustomerQuery(limit=10))] == ["a", "b"]
    assert stream.published(source).last == 3
    assert "another row has their number: numbers 2." in told(store.database)[0]
    store.database.close()


@pytest.mark.parametrize("number", [ROOM, 10**17])
def test_a_number_that_no_event_of_ours_can_have_ends_no_database(
    tmp_path: Path, redis_url: str, number: int
) -> None:
    """Another program gave it under the database's name, and a group has applied it.

    The database went on from that number, which is beyond all that its name has room for. It could neither
    publish nor record any more.
    """
    stream = EventStream(connect(redis_url), "event-stream")
    store = Accounts(open_database(tmp_path))
    Copied.open(store, 1)
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    Copied.publish(relay)
    stream.note_applied("customers@0000000a", {store.database.source: number})
    relay.look_again()
    Copied.publish(relay)
    Copied.open(store, 1)
    Copied.publish(relay)
    assert stream.published(store.database.source).last == 2
    assert stream.known_by_source() == {store.database.source: 2}
    store.database.close()


def test_names_that_redis_and_the_copy_lack_are_known_to_the_database_beside(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    """Accounts showed those events, nobody had recorded them, and `status` said ok."""
    stream = EventStream(connect(redis_url), "event-stream")
    live, copied = Customers(customers.open_database(tmp_path)), tmp_path / "copy.db"
    shop = Accounts(open_database(tmp_path))
    live.database.execute("VACUUM INTO ?", (str(copied),))
    with live.database.transaction():
        begin(live.database, 0)
    begun = incarnations(live.database)[-1]
    with live.database.transaction():
        live.create_customers([NewCustomer(f"{number}", Id(1)) for number in range(3)])
    Copied.publish(Relay(live.database, stream, Standing(live, stream).settle))
    with shop.database.transaction():
        Inbox(shop.database).note(begun.source, [Range(1, 3)])
    Standing(shop, stream).settle()
    client.flushall()
    live.database.close()
    for file in tmp_path.glob("customers.db*"):
        file.unlink()
    copied.rename(tmp_path / customers.FILE)
    back = Customers(customers.open_database(tmp_path))
    Standing(back, stream).settle()
    assert LACKING.of(back.database) == {begun.source: [Range(1, 3)]}
