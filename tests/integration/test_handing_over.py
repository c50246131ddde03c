"""An old primary's unpublished changes are compared with the new primary's records."""

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import redis
from msgspec import UNSET, UnsetType

from support.publishing import publish
from support.waiting import PATIENCE, eventually
from tally import figures
from tally.actors import shared
from tally.actors.actor import Actor
from tally.actors.relay import Relay
from tally.actors.relay_process import RelayProcess
from tally.config import load
from tally.events import CustomerCreated, Id, InvoiceCreated, InvoiceDeleted, encode, now
from tally.http import reasons
from tally.recovery import following, handing_over, joining
from tally.recovery.following import Follower
from tally.recovery.handing_over import TakingOver, go_on, hand_over
from tally.recovery.standing import Standing
from tally.store import accounts, customers, lacking, nodes, notes
from tally.store.accounts import Accounts, NewAccount
from tally.store.cause import Cause
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.errors import InvoiceCredited, StoreUnavailable
from tally.store.idempotency import Answer, IdempotencyKeys, KeyedRequest, made, made_many
from tally.store.incarnations import ROOM, incarnations
from tally.store.listing import ListQuery
from tally.store.membership import Candidate, Membership, Replaced, promote, read_nodes, remove
from tally.store.outbox import OutboxRow
from tally.store.records import (
    CustomerChange,
    InvoiceChange,
    NewCredit,
    NewCustomer,
    NewInvoice,
)
from tally.store.stream import Entry, EventStream
from tally.store.write_permission import WritePermission

pytestmark = pytest.mark.whole  # of databases: the engine only carries their events
Change = Callable[[Customers], object]
DAY = date(2019, 1, 6)


class Two(NamedTuple):
    """The customers of the old primary, now a standby, and of the new one. Both began with the same data."""

    old: Any  # Customers; in one test, Accounts
    new: Any
    stream: EventStream

    def settle(self) -> None:
        """Hand over, take over, publish and follow, until nothing is left to do."""
        follower, taking_over = Follower(self.old, self.stream), TakingOver(self.new, self.stream)
        for _ in range(3):
            follower.catch_up()
            hand_over(self.old.database, self.stream)
            taking_over.step()
            _publish(self.new, self.stream)
            follower.catch_up()


@pytest.fixture
def two(tmp_path: Path, client: redis.Redis) -> Iterator[Two]:
    """Both have customers 1 and 2 with 100 and 200 cents. The old one publishes nothing any more."""
    stream = EventStream(client, "event-stream")
    places = [tmp_path / "old", tmp_path / "new"]
    for place in places:
        place.mkdir()
    accounts.open_database(places[0]).close()
    with closing(customers.open_database(places[0])) as first:
        store = Customers(first)
        with first.transaction():
            ids = store.create_customers([NewCustomer(name, Id(1)) for name in ("a", "b")])
            store.create_invoices(
                [NewInvoice(ids[0], DAY, 100, "r"), NewInvoice(ids[1], DAY, 200)],
            )
        _publish(store, stream)
        copies = tmp_path / "copies"
        shutil.copytree(places[0], copies)
    joining.follow(places[1], copies, 0)
    old, new = (Customers(customers.open_database(place)) for place in places)
    Follower(new, stream).catch_up()
    go_on(new, stream)
    yield Two(old, new, stream)
    old.database.close()
    new.database.close()


def _publish(store: Any, stream: EventStream) -> None:
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    for _ in range(10):
        relay.step()
        relay.look_again()


def _promote_again(two: Two) -> None:
    """Let the old primary, which has handed over nothing, go on in the new one's place."""
    Follower(two.old, two.stream).catch_up()
    go_on(two.old, two.stream)
    _publish(two.old, two.stream)


def _do(store: Any, change: Callable[[Any], object]) -> None:
    with store.database.transaction():
        change(store)


def _invoices(store: Customers) -> dict[int, tuple[int, int]]:
    """Amount and revision of each invoice, by number."""
    return {
        int(each.id): (each.purchase_price_cents, each.revision)
        for each in store.invoices(ListQuery(limit=100))
    }


def _told(stream: EventStream) -> int:
    """The sum of the events on the stream, in cents."""
    cents = 0
    for entries in stream.pages():
        for entry in entries:
            told: Any = msgspec.json.decode(entry.fields[b"Payload"])
            kind = entry.fields[b"EventTypeName"]
            if kind == b"InvoiceCreated":
                cents += told["purchase_price_cents"]
            elif kind == b"InvoiceUpdated":
                cents += told["purchase_price_cents"] - told["previous_price_cents"]
            elif kind == b"InvoiceDeleted":
                cents -= told.get("last_price_cents", told["purchase_price_cents"])
            elif kind == b"CreditCreated":
                cents -= told["credited_cents"]
            elif kind == b"CreditDeleted":
                cents += told["credited_cents"]
    return cents


def _priced(cents: int) -> Change:
    return lambda store: store.change_invoice(1, InvoiceChange(purchase_price_cents=cents))


def _credited(cents: int) -> Change:
    return lambda store: store.credits.create([NewCredit(Id(1), DAY, cents, Id(1))])


def _deleted(store: Customers) -> None:
    store.delete_invoice(1)


CASES: dict[str, tuple[Change, Change, tuple[int, int] | None, int, bool]] = {
    # the old one's change, the new one's; then invoice 1, its credits, and whether there is a conflict
    "changed at both": (_priced(150), _priced(130), (150, 3), 0, False),
    "deleted at both": (_deleted, _deleted, None, 0, False),
    "changed, and deleted": (_priced(150), _deleted, None, 0, False),
    "deleted, and changed": (_deleted, _priced(130), None, 0, False),
    "credited at both": (_credited(30), _credited(40), (100, 0), 70, False),
    "credited at both by too much": (_credited(60), _credited(70), (100, 0), 130, True),
    "deleted, and credited": (_deleted, _credited(40), None, 40, True),
    "credited, and deleted": (_credited(40), _deleted, None, 40, True),
    "below its credits": (_priced(20), _credited(40), (20, 1), 40, True),
}


@pytest.mark.parametrize("case", CASES)
def test_changes_of_one_invoice_at_both_are_one_after_the_other(two: Two, case: str) -> None:
    ours, theirs, invoice, credited, conflict = CASES[case]
    _do(two.old, ours)
    _do(two.new, theirs)
    two.settle()
    assert _invoices(two.new).get(1) == invoice
    assert two.new.credits.of_invoice(1) == credited
    left = sum(cents for cents, _ in _invoices(two.new).values()) - sum(
        each.credited_cents for each in two.new.credits.page(ListQuery(limit=10))
    )
    assert _told(two.stream) == left, "who adds up the events comes to the same"
    told = notes.told(two.new.database)
    assert bool(told) == conflict
    if conflict:
        file = two.new.database.path.with_name("conflicts-customers.csv")
        assert str(file) in told[0]
        assert len(file.read_text().splitlines()) == 2
    assert not nodes.differs(two.old.database)
    assert _invoices(two.old) == _invoices(two.new)
    assert two.old.credits.of_invoice(1) == credited


def test_a_rest_that_is_never_handed_over_is_told_and_given_up_with_its_machine(two: Two) -> None:
    """Without its end, nothing was settled, and nobody was told."""
    old, new = two.old.database, two.new.database
    Membership(old, two.stream, wait_seconds=0).take()
    promote(two.stream, 0, [Candidate(new.source, "")])
    primary = Membership(new, two.stream, wait_seconds=0)
    primary.take()
    _do(two.old, _credited(60))
    _many(two.old, handing_over.MOST_LEFT, customer=2)
    _do(two.new, _credited(70))
    _publish(two.new, two.stream)
    Follower(two.old, two.stream).catch_up()
    hand_over(old, two.stream)
    taking_over = TakingOver(two.new, two.stream)
    while taking_over.step():
        pass
    [told] = reasons.awaiting_rest(new)
    assert f"`groups remove {old.source}`" in told
    assert notes.told(new) == []

    remove(two.stream, {old.source: read_nodes(two.stream)[old.source]})
    primary.take()
    taking_over.step()
    assert [*reasons.awaiting_rest(new)] == []
    [conflict] = notes.told(new)
    assert "breaks a rule" in conflict


def test_once_the_rest_has_come_nothing_is_awaited(two: Two) -> None:
    _many(two.old, handing_over.MOST_LEFT + 1, customer=2)
    taking_over, told = TakingOver(two.new, two.stream), set[str]()
    for _ in range(4):
        hand_over(two.old.database, two.stream)
        while two.stream.client.xlen("{event-stream}:handed:customers:0"):
            taking_over.step()
        told |= {*reasons.awaiting_rest(two.new.database)}
        _publish(two.new, two.stream)
        Follower(two.old, two.stream).catch_up()
    assert len(told) == 1
    assert [*reasons.awaiting_rest(two.new.database)] == []
    assert two.new.database.value("SELECT count(*) FROM invoice") == 2 + handing_over.MOST_LEFT + 1


class Meanwhile(EventStream):
    """A stream on which somebody acts in the middle of taking over."""

    def __init__(self, stream: EventStream, done: Callable[[], object]) -> None:
        super().__init__(stream.client, stream.key)
        self._done = done

    def published_by_source(self) -> dict[str, int]:
        found = super().published_by_source()
        self._done()
        return found


def _asked(store: Customers) -> None:
    """A request with an Idempotency-Key, made the way an HTTP process makes it."""
    request, new = KeyedRequest("key", "/invoices", b"{}"), NewInvoice(Id(1), DAY, 7)

    def make() -> Answer:
        return made("/invoices", *store.create_invoices([new], Cause(None, request.request_key())))

    with store.database.transaction():
        IdempotencyKeys(store.database).once(request, make)


def test_what_is_asked_for_again_while_it_is_taken_over_counts_once(two: Two) -> None:
    """In one of 1,000 failovers an invoice came twice: the search for it ran before the lock was taken."""
    _asked(two.old)
    Follower(two.old, two.stream).catch_up()
    hand_over(two.old.database, two.stream)
    beside = Customers(customers.open_database(two.new.database.path.parent, make=False))
    TakingOver(two.new, Meanwhile(two.stream, lambda: _asked(beside))).step()
    beside.database.close()
    two.settle()
    for store in (two.new, two.old):
        assert sorted(cents for cents, _ in _invoices(store).values()) == [7, 100, 200]
    assert _told(two.stream) == 307


REQUEST = KeyedRequest("key", "/invoices/batch", b"{}")


def _ask(store: Customers) -> Answer:
    """Record two invoices, or answer as the first time."""

    def make() -> Answer:
        new = [NewInvoice(Id(2), DAY, 7)] * 2
        return made_many(store.create_invoices(new, Cause(None, REQUEST.request_key())))

    with store.database.transaction():
        return IdempotencyKeys(store.database).once(REQUEST, make)


def _many(store: Customers, count: int, customer: int = 1) -> None:
    _do(store, lambda store: store.create_invoices([NewInvoice(Id(customer), DAY, 1)] * count))


def test_a_request_that_is_handed_over_in_parts_is_there_whole(two: Two) -> None:
    """Its rest was taken for a repetition of the first part, and dropped without a word."""
    _many(two.old, handing_over.AT_ONCE - 1)
    answer = _ask(two.old)
    two.settle()
    assert _told(two.stream) == 300 + handing_over.AT_ONCE - 1 + 2 * 7
    for store in (two.new, two.old):
        invoices = store.invoices(ListQuery(limit=2000))
        assert sum(each.purchase_price_cents for each in invoices) == _told(two.stream)
        assert _ask(store).body == answer.body


def test_a_request_that_comes_in_parts_is_answered_again_after_a_restart_between_them(two: Two) -> None:
    """The parts before the restart were forgotten: the request was carried out again."""
    _many(two.old, handing_over.AT_ONCE - 1)
    answer = _ask(two.old)
    Follower(two.old, two.stream).catch_up()
    for _ in range(2):
        hand_over(two.old.database, two.stream)
        TakingOver(two.new, two.stream).step()
        _publish(two.new, two.stream)
    assert _ask(two.new).body == answer.body


def test_a_standby_that_is_restarted_in_the_middle_of_a_request_knows_its_answer(two: Two) -> None:
    follower = Follower(two.old, two.stream)
    follower.catch_up()
    _many(two.new, following.AT_ONCE - 1)
    answer = _ask(two.new)
    _publish(two.new, two.stream)
    assert follower.step() == following.AT_ONCE
    Follower(two.old, two.stream).catch_up()
    assert _ask(two.old).body == answer.body


def test_creations_keep_their_numbers_and_names(two: Two) -> None:
    _do(two.old, lambda store: store.create_customers([NewCustomer("c", Id(2))]))
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(3), DAY, 7)]))
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 5)]))
    two.settle()
    assert {3: (7, 0)}.items() <= _invoices(two.new).items()
    assert _invoices(two.new) == _invoices(two.old)
    names = [each.name for each in two.new.customers(CustomerQuery(limit=10))]
    assert names == ["a", "b", "c"]
    events = [entry.fields[b"EventId"] for page in two.stream.pages() for entry in page]
    assert f"{two.old.database.source}:5".encode() in events


def test_a_standby_that_has_other_events_than_its_primary_is_told_of_also_if_their_numbers_clash(
    two: Two,
) -> None:
    """Its relay died of the second invoice 3 each time, and the note that it differs was lost with that."""
    source = two.old.outbox.source
    _do(two.old, lambda store: store.change_invoice(1, InvoiceChange(purchase_price_cents=150)))
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7)]))
    theirs = [
        OutboxRow(5 + more, "InvoiceCreated", encode(InvoiceCreated(Id(id), Id(1), 9, now(), DAY)), None)
        for more, id in enumerate((4, 5, 3))
    ]
    publish(two.stream, source, theirs[:1])
    Follower(two.new, two.stream).catch_up()
    publish(two.stream, source, theirs[1:])
    follower = Follower(two.old, two.stream)
    follower.catch_up()
    assert nodes.differs(two.old.database)
    assert {3: (7, 0)}.items() <= _invoices(two.old).items()


def test_a_number_that_no_event_of_ours_can_have_ends_no_standby(two: Two, client: redis.Redis) -> None:
    source = two.new.outbox.source
    deleted = encode(InvoiceDeleted(Id(1), Id(1), 100, now()))
    client.xadd(
        "event-stream",
        {"EventTypeName": "InvoiceDeleted", "Payload": deleted, "EventId": f"{source}:{ROOM}"},
    )
    Follower(two.old, two.stream).catch_up()
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7)]))
    two.settle()
    assert _invoices(two.old) == _invoices(two.new)
    assert lacking.LACKING.of(two.old.database) == {}


def test_what_is_handed_over_under_a_number_that_is_taken_is_told(two: Two) -> None:
    """The primary's relay died of it, each time that it began."""
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7)]))
    _do(two.new, lambda store: store.database.execute("DELETE FROM meta WHERE key LIKE 'last_%_id'"))
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(2), DAY, 5)]))  # as 3, too
    two.settle()
    assert {3: (5, 0)}.items() <= _invoices(two.new).items()
    assert "another row has their number: numbers 5." in " ".join(lacking.told(two.new.database))


def test_what_is_of_a_customer_that_is_gone_is_told(two: Two) -> None:
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7)]))
    _do(two.old, lambda store: store.change_customer(1, CustomerChange(name="x")))
    _do(two.new, lambda store: store.delete_customer(1))
    two.settle()
    assert [cents for cents, _ in _invoices(two.new).values()] == [200]
    file = two.new.database.path.with_name("conflicts-customers.csv")
    assert len(file.read_text().splitlines()) == 2


def test_a_reference_that_both_gave_is_told(two: Two) -> None:
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7, "x")]))
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(2), DAY, 5, "x")]))
    two.settle()
    found = {each.purchase_price_cents: each.reference for each in two.new.invoices(ListQuery(limit=10))}
    assert found[5] == found[7] == "x"
    assert "has the same reference" in two.new.database.path.with_name("conflicts-customers.csv").read_text()


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("why\r\nMüller".encode("latin-1"), id="another program has saved it"),
        pytest.param(b'"' + 200_000 * b"x", id="the end of it is lost"),
    ],
)
def test_a_file_of_conflicts_that_can_t_be_read_stops_nobody(two: Two, before: bytes) -> None:
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7, "x")]))
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(2), DAY, 5, "x")]))
    file = two.new.database.path.with_name("conflicts-customers.csv")
    file.write_bytes(before)
    two.settle()
    content = file.read_bytes()
    assert content.startswith(before)
    assert content.splitlines()[-1].startswith(b"InvoiceCreated,")
    assert b"has the same reference" in content.splitlines()[-1]


def test_conflicts_that_can_t_be_written_down_wait_until_they_can(two: Two) -> None:
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 7, "x")]))
    _do(two.new, lambda store: store.create_invoices([NewInvoice(Id(2), DAY, 5, "x")]))
    file = two.new.database.path.with_name("conflicts-customers.csv")
    file.mkdir()
    with pytest.raises(StoreUnavailable, match=re.escape(str(file))):
        two.settle()
    assert not notes.told(two.new.database)
    file.rmdir()
    two.settle()
    assert len(_noted(two.new)) == 1
    assert file.read_text().startswith("event,payload,by,why\n")


@pytest.mark.parametrize("first", ["the old one hands over", "the old one is promoted again"])
def test_a_name_that_both_changed_is_the_old_one_s(two: Two, first: str) -> None:
    for name in ("x", "y"):
        _do(two.new, lambda store, name=name: store.change_customer(1, CustomerChange(name=name)))  # type: ignore[misc]
    _do(two.old, lambda store: store.change_customer(1, CustomerChange(name="z")))
    if first == "the old one hands over":
        two.settle()
    else:
        _publish(two.new, two.stream)
        _promote_again(two)
        Follower(two.new, two.stream).catch_up()
    for store in two.old, two.new:
        assert (store.customer(1).name, store.customer(1).revision) == ("z", 3)


def test_an_old_primary_that_is_promoted_before_it_hands_over_fits_its_own(two: Two) -> None:
    _do(two.old, _priced(150))
    _do(two.new, _priced(130))
    _publish(two.new, two.stream)
    _promote_again(two)
    assert _invoices(two.old)[1] == (150, 3)
    assert _told(two.stream) == 350


@pytest.mark.parametrize("change", [_priced(150), _credited(10)])
def test_what_an_old_primary_has_changed_and_deleted_is_gone_once(two: Two, change: Change) -> None:
    _do(two.old, _priced(130))
    _publish(two.old, two.stream)  # as before the promotion
    _do(two.old, change)
    with suppress(InvoiceCredited):
        _do(two.old, _deleted)
    _promote_again(two)
    left = sum(cents for cents, _ in _invoices(two.old).values())
    assert _told(two.stream) == left - two.old.credits.of_invoice(1)


def _primary(two: Two, which: Customers) -> None:
    """Promote that one; it publishes nothing yet."""
    Follower(which, two.stream).catch_up()
    go_on(which, two.stream)
    Standing(which, two.stream).settle()


def _hand(two: Two, standby: Customers, primary: Customers) -> None:
    Two(standby, primary, two.stream).settle()


def _sum(store: Customers) -> int:
    every = ListQuery(limit=10_000)
    credited = sum(each.credited_cents for each in store.credits.page(every))
    return sum(each.purchase_price_cents for each in store.invoices(every)) - credited


def _keyed(path: str, make: Callable[[Any, Cause], list[Id]]) -> Callable[[Any], Answer]:
    """A request with a key, as the HTTP processes carry it out."""
    request = KeyedRequest("key", path, b"{}")

    def ask(store: Any) -> Answer:
        def once() -> Answer:
            ids, events = store.outbox.telling(lambda: make(store, Cause(None, request.request_key())))
            return msgspec.structs.replace(made(path, *ids), events=str(events))

        with store.database.transaction():
            return IdempotencyKeys(store.database).once(request, once)

    return ask


def _keyed_invoice(cents: int, reference: str | UnsetType = UNSET) -> Callable[[Any], Answer]:
    new = NewInvoice(Id(1), DAY, cents, reference)
    return _keyed("/invoices", lambda store, cause: store.create_invoices([new], cause))


def _noted(store: Customers) -> list[str]:
    """Why, of each conflict that status tells of."""
    file = store.database.path.with_name("conflicts-customers.csv")
    if not file.exists():
        return []
    assert notes.told(store.database)
    with open(file, newline="") as content:
        return [row[-1] for row in csv.reader(content)][1:]


def test_of_two_answers_to_a_request_one_counts_whoever_asks(two: Two) -> None:
    """Each dropped the other's."""
    a, b, ask = two.old, two.new, _keyed_invoice(7)
    ask(a)
    ask(b)
    Follower(a, two.stream).catch_up()
    hand_over(a.database, two.stream)
    TakingOver(b, two.stream).step()  # it is replaced before it publishes
    go_on(a, two.stream)
    _publish(a, two.stream)
    _hand(two, b, a)
    for store in (a, b):
        assert sorted(cents for cents, _ in _invoices(store).values()) == [7, 100, 200]
        assert int(str(ask(store).location).rpartition("/")[2]) in _invoices(store)


@pytest.mark.parametrize("theirs", [_priced(130), _deleted])
@pytest.mark.parametrize("ours", [_priced(150), _deleted])
def test_who_is_promoted_again_settles_before_it_publishes(two: Two, ours: Change, theirs: Change) -> None:
    """Replaced in between, it left what it had published uncorrected for good."""
    _do(two.old, ours)
    _do(two.new, theirs)
    _publish(two.new, two.stream)
    Follower(two.old, two.stream).catch_up()
    go_on(two.old, two.stream)
    Relay(two.old.database, two.stream, Standing(two.old, two.stream).settle).step()
    _primary(two, two.new)
    two.settle()
    assert _told(two.stream) == _sum(two.new)
    assert _invoices(two.new) == _invoices(two.old)


def test_what_redis_has_lost_since_it_was_published_is_settled_too(two: Two) -> None:
    client: Any = two.stream.client
    before = {key: client.dump(key) for key in client.keys("*")}
    _do(two.old, _priced(150))
    _publish(two.old, two.stream)
    client.flushdb()
    for key, value in before.items():
        client.restore(key, 0, value)
    _do(two.new, _priced(130))
    _publish(two.new, two.stream)
    _promote_again(two)
    _hand(two, two.new, two.old)
    assert _told(two.stream) == _sum(two.old)
    assert _invoices(two.new) == _invoices(two.old)


def test_a_credit_that_was_taken_back_twice_is_corrected_once(two: Two) -> None:
    a, b = two.old, two.new
    _do(b, _credited(30))
    [credit] = b.credits.page(ListQuery(limit=3))
    _publish(b, two.stream)
    Follower(a, two.stream).catch_up()
    go_on(a, two.stream)
    for store in (a, b):
        _do(store, lambda store: store.credits.delete(credit.id))
    _publish(a, two.stream)
    _primary(two, b)  # its correction has a new name; it is replaced before it publishes
    _primary(two, a)
    _publish(a, two.stream)
    _hand(two, b, a)
    assert _told(two.stream) == _sum(a) == 300


def test_changes_with_one_revision_are_settled_even_if_the_sums_add_up(two: Two) -> None:
    a, b = two.old, two.new
    _do(a, _priced(50))
    _do(b, _priced(50))
    _primary(two, a)
    _publish(a, two.stream)
    _do(a, _priced(150))
    _do(a, lambda store: store.change_invoice(1, InvoiceChange(purchase_date=date(2019, 2, 6))))
    _primary(two, b)
    _publish(b, two.stream)
    _primary(two, a)
    _publish(a, two.stream)
    _hand(two, b, a)
    assert _invoices(a) == _invoices(b)
    assert _told(two.stream) == _sum(a)


def test_what_is_of_a_customer_that_the_old_one_deleted_is_told(two: Two) -> None:
    _do(two.old, lambda store: store.delete_customer(1))
    for cents in (7, 8):
        _do(two.new, lambda store, cents=cents: store.create_invoices([NewInvoice(Id(1), DAY, cents)]))  # type: ignore[misc]
    _do(two.new, lambda store: store.delete_invoice(max(_invoices(store))))
    two.settle()
    assert _noted(two.new) == ["its customer 1 was deleted meanwhile, so it counts nowhere"]


def test_what_was_done_with_the_other_answer_s_invoice_is_told(two: Two) -> None:
    ask = _keyed_invoice(50)
    ask(two.old)
    _do(two.old, lambda store: store.change_invoice(3, InvoiceChange(purchase_price_cents=70)))
    _do(two.old, lambda store: store.credits.create([NewCredit(Id(1), DAY, 20, Id(3))]))
    ask(two.new)
    two.settle()
    assert "the request of the invoice 3 came twice; its other answer counts" in _noted(two.new)
    assert _told(two.stream) == _sum(two.new)


def test_a_customer_in_use_stays_also_if_its_invoices_come_in_a_later_part(two: Two) -> None:
    new = [NewCustomer("k", Id(1))]
    ask = _keyed("/customers", lambda store, cause: store.create_customers(new, cause=cause))
    _many(two.old, handing_over.AT_ONCE - 1, customer=2)
    ask(two.old)
    _do(two.old, lambda store: store.create_invoices([NewInvoice(Id(3), DAY, 7777)]))
    ask(two.new)
    two.settle()
    assert _told(two.stream) == _sum(two.new) == 300 + handing_over.AT_ONCE - 1 + 7777
    assert "it is in use" in _noted(two.new)[0]


def test_an_account_in_use_stays(tmp_path: Path, client: redis.Redis) -> None:
    stream, places = EventStream(client, "event-stream"), [tmp_path / "old", tmp_path / "new"]
    for place in places:
        place.mkdir()
    customers.open_database(places[0]).close()
    with closing(accounts.open_database(places[0])) as first:
        _do(Accounts(first), lambda store: store.create_account(NewAccount("one", "u")))
        _publish(Accounts(first), stream)
        shutil.copytree(places[0], tmp_path / "copies")
    joining.follow(places[1], tmp_path / "copies", 0)
    ask = _keyed("/accounts", lambda store, cause: [store.create_account(NewAccount("k", "u"), cause)])
    with (
        closing(accounts.open_database(places[0])) as older,
        closing(accounts.open_database(places[1])) as other,
    ):
        old, new = Accounts(older), Accounts(other)
        Follower(new, stream).catch_up()
        go_on(new, stream)
        for store in (old, new):
            ask(store)
            with store.database.transaction():
                store.apply([CustomerCreated(Id(9), Id(2), "c", now())])
        Two(old, new, stream).settle()
        assert 2 in {each.id for each in new.accounts(-1, 10)}
        assert notes.told(other)


def _moved(id: int, account: int) -> Change:
    return lambda store: store.change_customer(id, CustomerChange(account_id=Id(account)))


def _recorded(cents: int, reference: str, customer: int = 1) -> Change:
    return lambda store: store.create_invoices([NewInvoice(Id(customer), DAY, cents, reference)])


NONE: dict[str, tuple[list[Change], list[Change]]] = {
    "a reference of an answer that doesn't count": (
        [_keyed_invoice(5, "x"), lambda store: store.change_customer(1, CustomerChange(name="q"))],
        [_keyed_invoice(5, "x")],
    ),
    "moved there and back": ([_moved(1, 2), _moved(1, 1)], [_moved(2, 2), _recorded(7, "r", 2)]),
    "deleted again": ([_recorded(7, "y"), lambda store: store.delete_invoice(3)], [_recorded(7, "y")]),
    "taken back in a later part": (
        [
            _credited(60),
            lambda store: store.create_invoices([NewInvoice(Id(2), DAY, 1)] * handing_over.AT_ONCE),
            lambda store: store.credits.delete(1),
        ],
        [_credited(70)],
    ),
}
"""What the old one does, and what the new one."""


@pytest.mark.parametrize("case", NONE)
def test_what_breaks_no_rule_in_the_end_is_no_conflict(two: Two, case: str) -> None:
    for store, changes in zip((two.old, two.new), NONE[case], strict=True):
        for change in changes:
            if "key" in change.__qualname__:
                change(store)
            else:
                _do(store, change)
    two.settle()
    assert _noted(two.new) == []


def test_what_the_other_service_tells_by_the_thousands_is_not_read(
    tmp_path: Path, client: redis.Redis
) -> None:
    stream, copies = EventStream(client, "event-stream"), tmp_path / "copies"
    primary = Accounts(accounts.open_database(tmp_path))
    customers.open_database(tmp_path).close()
    primary.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(tmp_path, copies, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    (tmp_path / "standby").mkdir()
    joining.follow(tmp_path / "standby", copies, 0)
    standby = Accounts(accounts.open_database(tmp_path / "standby"))
    follower = Follower(standby, stream)

    def theirs(count: int) -> bytes:
        for _ in range(count):
            last: Any = client.xadd("event-stream", {"EventTypeName": "Their", "EventId": "other:1"})
        return bytes(last)

    def opened() -> None:
        with primary.database.transaction():
            primary.create_account(NewAccount("a", "u"))
        relay = Relay(primary.database, stream)
        while relay.step():
            pass

    theirs(3)
    assert follower.step() == 3
    last = theirs(1000)
    assert follower.step() == 0
    assert standby.database.meta("followed") == last.decode()
    assert follower.step() == 0, "it has looked at all there is"
    theirs(5)
    opened()
    assert follower.step() == 6
    assert [account.name for account in standby.accounts(-1, 10)] == ["a"]
    theirs(2)
    assert follower.step() == 2, "the entry that it read last was its own"
    primary.database.close()
    standby.database.close()


def test_a_primary_that_is_replaced_while_it_heals_does_not_take_the_new_one_s_name(
    tmp_path: Path, client: redis.Redis
) -> None:
    """The old primary stood still meanwhile, then took over the name and the events under it."""
    stream = EventStream(client, "event-stream")
    places = [tmp_path / name for name in ("old", "new", "copies")]
    for place in places[:2]:
        place.mkdir()
    accounts.open_database(places[0]).close()
    with closing(customers.open_database(places[0])) as first:
        store, membership = Customers(first), Membership(first, stream, wait_seconds=0)
        _do(store, lambda store: store.create_customers([NewCustomer("a", Id(1))]))
        shutil.copytree(places[0], places[2])
        _do(store, lambda store: store.create_customers([NewCustomer("b", Id(1))]))
        _publish(store, stream)
        assert membership.take() is None
        source = first.source
    shutil.rmtree(places[0])
    shutil.copytree(places[2], places[0])
    joining.follow(places[1], places[2], 0)
    with (
        closing(customers.open_database(places[0])) as older,
        closing(customers.open_database(places[1])) as other,
    ):
        old, new = Customers(older), Customers(other)
        replaced: list[dict[str, str]] = []

        def replace() -> None:
            if not replaced:
                Membership(other, stream, wait_seconds=0).take()
                replaced.append(promote(stream, 0, [Candidate(other.source, "")]))
                Follower(new, stream).catch_up()
                go_on(new, stream)
                Standing(new, stream).settle()
                _do(new, lambda store: store.create_customers([NewCustomer("c", Id(1))]))
                _publish(new, stream)

        membership = Membership(older, stream, wait_seconds=0)
        stream.beat = replace
        with pytest.raises(Replaced):
            Standing(old, stream, membership=membership).settle()
        assert [each.source for each in incarnations(older)] == [source]
        assert replaced


class Failing(EventStream):
    """A stream whose Redis is away for the moment, once: when it is asked what `fails` names."""

    fails = ""
    asked = 0  # how often it was asked which name follows which

    def heirs(self) -> dict[str, str]:
        self._fail("heirs")
        self.asked += 1
        return super().heirs()

    def published_by_source(self) -> dict[str, int]:
        self._fail("published")
        return super().published_by_source()

    def _fail(self, asked: str) -> None:
        if self.fails == asked:
            self.fails = ""
            raise redis.ConnectionError("away for the moment")


class Shared(shared.Shared):
    """What the processes of a Tally share, with `stream_of_all` as their stream."""

    stream_of_all: EventStream

    def stream(self, actor: Actor) -> EventStream:
        return self.stream_of_all


@pytest.mark.parametrize("when", ["it becomes a standby", "it is promoted"])
def test_a_relay_outlives_that_redis_is_away_just_when(two: Two, when: str) -> None:
    old, node = two.old.database, two.old.database.path.parent
    if when == "it is promoted":
        Follower(two.old, two.stream).catch_up()
    Membership(old, two.stream, wait_seconds=0).take()
    promote(two.stream, 0, [Candidate(two.new.database.source, "")])
    settings = load(None, {"TALLY_DATA_DIRECTORY": str(node)})
    common = Shared(settings, "", {}, is_private=False)
    common.pages["customers-relay"] = figures.new_page()
    common.stream_of_all = stream = Failing(two.stream.client, two.stream.key)
    reports, told = os.pipe()
    actor = Actor("customers-relay", told)
    stream.fails = "published" if when == "it becomes a standby" else ""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(RelayProcess(common).run, actor, "customers")
        try:
            if when == "it is promoted":
                eventually(lambda: stream.asked > 1)  # it follows, and the housekeeper has asked, too
                stream.fails = "heirs"
                promote(two.stream, 0, [Candidate(old.source, "")])
                eventually(lambda: ended.done() or not nodes.follows(old))
            else:
                eventually(lambda: ended.done() or nodes.follows(old))
        finally:
            actor.stop()
        ended.result(PATIENCE)
    assert not stream.fails
    os.close(reports)
    os.close(told)


class Unreadable(EventStream):
    """A stream that can't be read, for a reason that stays."""

    why: Exception | None = None

    def read(self, after: bytes, count: int, block_ms: int) -> list[Entry]:
        if self.why:
            raise self.why
        return super().read(after, count, block_ms)


@pytest.mark.parametrize(
    "why", [ValueError("a fault"), StoreUnavailable("disk full"), redis.ResponseError("OOM")], ids=repr
)
def test_a_standby_that_cannot_follow_takes_the_place_of_its_primary_all_the_same(
    two: Two, why: Exception
) -> None:
    """It began to count anew with each failure, or ended, and `status` didn't say that following fails."""
    old, new = two.old.database, two.new.database
    Follower(two.old, two.stream).catch_up()
    Membership(old, two.stream, wait_seconds=0).take()
    promote(two.stream, 0, [Candidate(new.source, "")])
    of_env = {"TALLY_DATA_DIRECTORY": str(old.path.parent), "TALLY_NODE_FAILOVER_SECONDS": "2"}
    common = Shared(load(None, of_env), "", {}, is_private=False)
    common.pages["customers-relay"] = figures.new_page()
    common.stream_of_all = stream = Unreadable(two.stream.client, two.stream.key)
    stream.why = why
    reports, told = os.pipe()
    actor = Actor("customers-relay", told)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(RelayProcess(common).run, actor, "customers")
        try:
            eventually(lambda: ended.done() or read_nodes(two.stream)[old.source].has_number)
            assert f"following fails: {type(why).__name__}: {why}" in os.read(reports, 100_000).decode()
            stream.why = None
            eventually(lambda: ended.done() or not nodes.follows(old))
        finally:
            actor.stop()
        ended.result(PATIENCE)
    os.close(reports)
    os.close(told)


class Slow(Failing):
    """A stream before whose answer `seconds` pass, each time that it is asked how far names have got."""

    seconds = 0.0

    def published_by_source(self) -> dict[str, int]:
        self.seconds += 3
        return super().published_by_source()


def test_what_takes_longer_than_a_lease_to_take_over_is_taken_over_all_the_same(two: Two) -> None:
    """The permission to write ended in the middle, and so everything was undone, each time."""
    _do(two.old, _priced(150))
    _do(two.new, _priced(130))
    _publish(two.new, two.stream)
    Follower(two.old, two.stream).catch_up()
    hand_over(two.old.database, two.stream)
    Membership(two.new.database, two.stream, wait_seconds=0).take()
    directory = str(two.new.database.path.parent)
    settings = load(None, {"TALLY_DATA_DIRECTORY": directory, "TALLY_NODE_FAILOVER_SECONDS": "2"})
    common = Shared(settings, "", {}, is_private=False)
    common.pages["customers-relay"] = figures.new_page()
    common.stream_of_all = stream = Slow(two.stream.client, two.stream.key)
    common.permissions["customers"] = WritePermission(2, clock=lambda: stream.seconds)
    reports, told = os.pipe()
    actor = Actor("customers-relay", told)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(RelayProcess(common).run, actor, "customers")
        try:
            eventually(lambda: ended.done() or not stream.client.xlen("{event-stream}:handed:customers:0"))
        finally:
            actor.stop()
        ended.result(PATIENCE)
    assert _invoices(two.new)[1] == (150, 3)
    os.close(reports)
    os.close(told)
