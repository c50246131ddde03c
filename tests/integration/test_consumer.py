"""The consumers: each entry is applied once, by any of them, and a bad entry does not stop the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from support.figures import revenue_by_customer
from support.waiting import eventually
from tally.actors.consumer import HOLD_SECONDS, Consumer
from tally.actors.housekeeper import Housekeeper
from tally.config import ConsumersSettings
from tally.events import Event, EventId, InvoiceCreated
from tally.recovery.missing import Missing
from tally.store.accounts import Accounts, open_database
from tally.store.cause import CauseOf
from tally.store.consumer_group import ConsumerGroup
from tally.store.dead_letters import DeadLetter, DeadLetters
from tally.store.errors import StoreUnavailable
from tally.store.inbox import DEAD, Inbox
from tally.store.stream import Age, Entry, EventStream, connect

CLAIM_IDLE_MS = 300
BLOCK_MS = 50  # a read waits this long when nothing comes


class Reader:
    """A consumer of one accounts.db, with a clock that the test sets."""

    def __init__(
        self,
        url: str,
        directory: Path,
        name: str = "accounts-consumer-1",
        before_apply: Callable[[Sequence[Event]], None] = lambda events: None,
        member: type[ConsumerGroup] = ConsumerGroup,
    ) -> None:
        self.accounts = Accounts(open_database(directory))
        self.inbox = Inbox(self.accounts.database)
        self.now = 0.0
        self.rings = 0
        self.fails = False
        self.on_ring: Callable[[], None] = lambda: None
        self.group = member(
            EventStream(connect(url), "event-stream"), self.accounts.database.source, name, BLOCK_MS
        )

        def apply(events: Sequence[Event], cause_of: CauseOf) -> None:
            before_apply(events)
            assert not self.fails
            self.accounts.apply(events)

        self.consumer = Consumer(
            self.group,
            self.accounts.database,
            apply,
            after_commit=self._ring,
            settings=ConsumersSettings(batch=100, claim_idle_ms=CLAIM_IDLE_MS, max_deliveries=3),
            siblings=["accounts-consumer-1", "accounts-consumer-2"],
            clock=lambda: self.now,
        )

    def _ring(self) -> None:
        self.rings += 1
        self.on_ring()

    def sweep_until(self, done: Callable[[], bool]) -> None:
        """Take over entries of others again and again: only Redis knows how long an entry was idle."""

        def look() -> bool:
            self.now += CLAIM_IDLE_MS
            self.consumer.step()
            return done()

        eventually(look)

    def nothing_pending(self) -> bool:
        return self.group.pending() == 0

    def steps(self, count: int = 3) -> None:
        """Recover, take over, read: a consumer's first three steps."""
        for _ in range(count):
            self.consumer.step()

    def revenue(self) -> dict[int, int]:
        return revenue_by_customer(self.accounts.database)


@pytest.fixture
def publish(client: redis.Redis) -> Callable[..., bytes]:
    """Put an invoice of a customer on the stream, as another program would."""

    def publish(customer: int, cents: object, event_id: str | None = None) -> bytes:
        payload = (
            f'{{"id":"1","customer_id":"{customer}","purchase_price_cents":{cents},'
            '"created_date":"2019-01-09T00:00:00Z","purchase_date":"2019-01-09"}'
        )
        fields: dict[Any, Any] = {"EventTypeName": "InvoiceCreated", "Payload": payload}
        if event_id:
            fields["EventId"] = event_id
        id: bytes = client.xadd("event-stream", fields)  # type: ignore[assignment]
        return id

    return publish


@pytest.fixture
def reader(redis_url: str, tmp_path: Path) -> Reader:
    return Reader(redis_url, tmp_path)


def _dead(client: redis.Redis) -> list[dict[bytes, bytes]]:
    entries: Any = client.xrange("{event-stream}:dead")
    return [fields for _, fields in entries]


def test_entries_are_applied_and_acknowledged(reader: Reader, publish: Callable[..., bytes]) -> None:
    for customer in (7, 8, 7):
        publish(customer, 100)
    reader.steps()
    assert reader.revenue() == {7: 200, 8: 100}
    assert reader.group.pending() == 0
    assert reader.rings == 1


def test_an_event_that_is_published_twice_counts_once(reader: Reader, publish: Callable[..., bytes]) -> None:
    for event_id in ("a:1", "a:2", "a:1", "some-uuid", "some-uuid"):
        publish(7, 100, event_id)
    reader.steps()
    publish(7, 100, "a:2")
    publish(7, 100, "some-uuid")
    reader.steps(1)
    assert reader.revenue() == {7: 300}


def test_a_consumer_that_died_after_its_commit_and_before_its_acknowledgement_counts_nothing_twice(
    reader: Reader, publish: Callable[..., bytes], redis_url: str, tmp_path: Path
) -> None:
    publish(7, 100)
    reader.steps()
    reader.group.set_back()  # the entry is handed out again, as if never acknowledged
    reader.group.read_new(10)
    assert reader.group.pending() == 1

    replacement = Reader(redis_url, tmp_path)
    replacement.steps(1)
    assert replacement.revenue() == {7: 100}
    assert replacement.group.pending() == 0


def test_the_replacement_first_applies_what_its_predecessor_had_read(
    reader: Reader, publish: Callable[..., bytes]
) -> None:
    reader.group.create()
    for _ in range(250):
        publish(7, 1)
    reader.group.read_new(250)
    reader.steps(1)
    assert reader.revenue() == {7: 250}
    assert reader.group.pending() == 0


def test_in_a_backlog_no_transaction_keeps_other_writers_waiting_for_long(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes]
) -> None:
    """However slow the machine is: requests give up on the lock after PATIENT_SECONDS."""
    held: list[float] = []

    def slowly(events: Sequence[Event]) -> None:
        held.append(len(events) * 0.0002)
        busy.now += held[-1]

    busy = Reader(redis_url, tmp_path, before_apply=slowly)
    for _ in range(5000):
        publish(7, 1)
    busy.steps(2)
    while sum(busy.revenue().values()) < 5000:
        busy.steps(1)
    assert max(held) == pytest.approx(HOLD_SECONDS)


def test_what_a_lost_consumer_had_read_is_claimed_once_it_was_idle_long_enough(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes]
) -> None:
    lost = Reader(redis_url, tmp_path, "accounts-consumer-2")
    lost.group.create()
    publish(7, 100)
    lost.group.read_new(10)

    survivor = Reader(redis_url, tmp_path)
    survivor.sweep_until(survivor.nothing_pending)
    assert survivor.revenue() == {7: 100}

    # The lost consumer wakes up and applies the entries it had read: nothing changes.
    lost.steps(3)
    assert survivor.revenue() == {7: 100}


def test_an_entry_that_was_deleted_while_pending_is_done_with(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    lost = Reader(redis_url, tmp_path, "accounts-consumer-2")
    lost.group.create()
    first, _ = publish(7, 100), publish(7, 11)
    lost.group.read_new(10)
    client.xdel("event-stream", first)
    reader.steps(1)
    reader.sweep_until(reader.nothing_pending)
    assert reader.revenue() == {7: 11}


@pytest.mark.parametrize("loss", ["FLUSHALL", "DEL", "XGROUP DESTROY"])
def test_a_stream_or_group_that_is_gone_is_made_again_and_read_from_its_start(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, loss: str
) -> None:
    publish(7, 100, "a:1")
    reader.steps()
    if loss == "FLUSHALL":
        client.flushall()
    elif loss == "DEL":
        client.delete("event-stream")
    else:
        client.xgroup_destroy("event-stream", reader.group.group)
    publish(7, 100, "a:1")
    publish(7, 50, "a:2")
    reader.steps(4)
    assert reader.revenue() == {7: 150}
    assert reader.group.pending() == 0


def test_a_payload_that_cannot_be_decoded_is_a_dead_letter_at_once(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    publish(7, 100)
    bad = publish(7, '"x"')
    nothing = client.xadd("event-stream", {"who": "knows"})
    publish(7, 11)
    reader.steps()

    assert reader.revenue() == {7: 111}
    assert reader.group.pending() == 0
    first, second = _dead(client)
    assert (first[b"EventTypeName"], first[b"StreamId"], first[b"Group"], first[b"Deliveries"]) == (
        b"InvoiceCreated",
        bad,
        reader.group.group.encode(),
        b"1",
    )
    assert b"purchase_price_cents" in first[b"Reason"]
    assert first[b"FailedAt"].endswith(b"Z")
    assert (second[b"who"], second[b"StreamId"]) == (b"knows", nothing)


def test_an_entry_of_thousands_of_fields_is_a_dead_letter_too(reader: Reader, client: redis.Redis) -> None:
    client.xadd("event-stream", {f"field-{n}": n for n in range(10_000)})
    reader.steps()
    (letter,) = _dead(client)
    assert len(letter) == 10_006  # plus the fields that identify it, as it has no EventId
    assert reader.group.pending() == 0


def test_what_two_consumers_give_up_is_one_dead_letter(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """One is slow: the other takes the entry over, and both find that it can't be applied."""
    reader.steps()
    publish(7, '"x"')
    (slow,) = reader.group.read_new(10)
    other = Reader(redis_url, tmp_path, "accounts-consumer-2")
    other.sweep_until(lambda: bool(_dead(client)))
    assert not reader.group.bury(slow, "too late", 1)
    assert len(_dead(client)) == 1

    letters = DeadLetters(EventStream(connect(redis_url), "event-stream"))
    assert letters.redrive(letters.all()[0])
    (order,) = reader.group.redriven(10)
    assert reader.group.bury(order.entry, "again", 1, order.order)
    assert not reader.group.bury(order.entry, "too late", 1, order.order)
    assert [letter[b"Reason"] for letter in _dead(client)] == [b"again"]


class Slow(ConsumerGroup):
    """A consumer that stands still once, just before it gives an entry up: then `meanwhile` happens."""

    meanwhile: Callable[[], None] | None = None

    def deliveries(self, id: bytes) -> int:
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            meanwhile()
        return super().deliveries(id)


@pytest.mark.parametrize("is_edited", [False, True], ids=["discarded", "edited"])
def test_what_was_decided_on_a_letter_stays_so_when_another_consumer_gives_the_entry_up_later(
    publish: Callable[..., bytes],
    client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    is_edited: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow, first = (Reader(redis_url, tmp_path, f"accounts-consumer-{n}", member=Slow) for n in (2, 1))
    first.steps()
    slow.steps()
    publish(7, '"x"', "a:1")

    def decided() -> None:
        first.sweep_until(lambda: bool(_dead(client)))
        letters = DeadLetters(EventStream(connect(redis_url), "event-stream"))
        (letter,) = letters.all()
        if is_edited:
            letters.redrive(letter.edited(letter.payload.replace(b'"x"', b"5")))
        else:
            letters.discard(letter)
        first.sweep_until(lambda: first.inbox.is_settled(EventId("a", 1)))

    assert isinstance(slow.group, Slow)
    slow.group.meanwhile = decided
    slow.steps(1)
    assert _dead(client) == []
    assert slow.inbox.aside(DEAD) == set()
    assert slow.revenue() == ({7: 5} if is_edited else {})
    assert ("redriven_event_applied" in capsys.readouterr().out) == is_edited
    assert slow.group.pending() == 0


def test_an_entry_of_ten_megabytes_holds_nothing_up(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    publish(7, 100)
    publish(7, 11, "x" * 10_000_000)
    client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": b"[" * 10_000_000})
    publish(7, 1)
    reader.steps()
    assert reader.revenue() == {7: 112}
    assert [len(letter[b"Payload"]) for letter in _dead(client)] == [10_000_000]
    assert reader.group.pending() == 0


def test_what_two_sources_created_under_one_number_is_told(reader: Reader, client: redis.Redis) -> None:
    """Two such rows used to be merged without a word."""

    def create(number: int, name: str, event_id: str) -> None:
        payload = (
            f'{{"id":"{number}","account_id":"1","name":"{name}","created_date":"2019-01-09T00:00:00Z"}}'
        )
        client.xadd(
            "event-stream", {"EventTypeName": "CustomerCreated", "Payload": payload, "EventId": event_id}
        )

    create(1, "Ada", "a:1")
    create(1, "Ada", "b:1")
    reader.steps()
    assert reader.accounts.given_twice() == 0, "they say the same"
    create(1, "Bert", "b:2")
    create(2, "Carl", "b:3")
    reader.steps()
    assert reader.accounts.given_twice() == 1


def test_an_unknown_type_is_passed_over(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    client.xadd("event-stream", {"EventTypeName": "OrderShipped", "Payload": "{}"})
    publish(7, 100)
    reader.steps()
    assert reader.revenue() == {7: 100}
    assert (reader.group.pending(), _dead(client)) == (0, [])


def test_an_event_whose_handling_raises_is_tried_alone_and_dies_after_max_deliveries(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    def fail_on_13(events: Sequence[Event]) -> None:
        if any(isinstance(event, InvoiceCreated) and event.customer_id == 13 for event in events):
            raise ZeroDivisionError

    reader = Reader(redis_url, tmp_path, before_apply=fail_on_13)
    publish(7, 100)
    poison = publish(13, 100)
    publish(7, 11)
    reader.steps()
    assert reader.revenue() == {7: 111}
    assert reader.group.pending() == 1

    reader.sweep_until(reader.nothing_pending)
    (letter,) = _dead(client)
    assert (letter[b"StreamId"], letter[b"Deliveries"]) == (poison, b"3")


def test_one_event_that_raises_costs_the_others_of_its_batch_few_transactions(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes]
) -> None:
    """Each took one, and a sync of the disk: on a slow disk, a consumer with 10,000 was taken for hung."""
    tried: list[int] = []

    def fail_on_13(events: Sequence[Event]) -> None:
        tried.append(len(events))
        assert not any(isinstance(event, InvoiceCreated) and event.customer_id == 13 for event in events)

    reader = Reader(redis_url, tmp_path, before_apply=fail_on_13)
    for number in range(100):
        publish(13 if number == 40 else 7, 1)
    reader.steps()
    assert reader.revenue() == {7: 99}
    assert reader.group.pending() == 1
    assert len(tried) < 20


def test_an_event_of_the_first_year_is_applied_like_any_other(reader: Reader, client: redis.Redis) -> None:
    """Its date has no offset: in the machine's zone it may be before all dates, and its metric raised."""
    payload = '{"id":"1","name":"n","description":"","owned_by":"o","created_date":"0001-01-01T00:00:00"}'
    client.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": payload, "EventId": "shop:1"})
    reader.steps()
    assert reader.group.pending() == 0


def test_a_full_redis_is_told_later_how_far_the_group_has_applied(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    """It refused that in each sweep, and the consumer read nothing any more."""
    publish(7, 100, "shop:1")
    reader.steps()
    stream = EventStream(client, "event-stream")
    missing = Missing(reader.accounts.database, stream, lambda _: True)
    client.config_set("maxmemory", 1)
    try:
        missing.look()
    finally:
        client.config_set("maxmemory", 0)
    assert stream.applied_by_source() == {}
    missing.look()
    assert stream.applied_by_source() == {"shop": 1}


def test_a_failing_database_is_no_fault_of_the_events(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    failing = [True]

    def fail(events: Sequence[Event]) -> None:
        if failing[0]:
            raise StoreUnavailable("disk full")

    reader = Reader(redis_url, tmp_path, before_apply=fail)
    publish(7, 100)
    reader.steps(2)
    for _ in range(5):  # more often than max_deliveries
        with pytest.raises(StoreUnavailable):
            reader.steps(1)
    assert (reader.group.pending(), _dead(client)) == (1, [])

    failing[0] = False
    reader.steps(1)
    assert reader.revenue() == {7: 100}
    assert reader.group.pending() == 0


def test_a_database_older_than_its_group_is_caught_up_from_the_stream(
    reader: Reader, publish: Callable[..., bytes], redis_url: str, tmp_path: Path
) -> None:
    publish(7, 100)
    reader.steps()
    (tmp_path / "copy").mkdir()
    reader.accounts.database.execute("VACUUM INTO ?", (str(tmp_path / "copy" / "accounts.db"),))
    publish(7, 11)
    publish(8, 5)
    reader.steps(1)

    restored = Reader(redis_url, tmp_path / "copy")
    restored.steps(3)
    assert restored.revenue() == {7: 111, 8: 5}
    assert restored.group.pending() == 0


def test_the_original_of_a_copy_that_was_put_back_meanwhile_is_told_from_it(
    publish: Callable[..., bytes], redis_url: str, tmp_path: Path
) -> None:
    """The original has the higher count, but lacks what came while the copy was in use."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    copy.mkdir()
    publish(7, 1)
    reader = Reader(redis_url, original)
    reader.steps()
    reader.accounts.database.execute("VACUUM INTO ?", (str(copy / "accounts.db"),))
    for _ in range(20):
        publish(7, 1)
        reader.steps(1)
    reader.accounts.database.close()

    meanwhile = Reader(redis_url, copy)
    meanwhile.steps(5)
    publish(8, 5)
    meanwhile.steps(3)
    assert meanwhile.revenue() == {7: 21, 8: 5}
    meanwhile.accounts.database.close()

    again = Reader(redis_url, original)
    again.steps(5)
    assert again.revenue() == {7: 21, 8: 5}
    assert again.nothing_pending()


def test_an_entry_that_an_earlier_release_applied_counts_once_when_it_is_read_again(
    reader: Reader, publish: Callable[..., bytes]
) -> None:
    """Earlier releases noted only its id."""
    id = publish(7, 100)
    reader.steps()
    with reader.accounts.database.transaction():
        reader.accounts.database.execute("UPDATE inbox_name SET name = ?", (id.decode(),))
    reader.group.set_back()
    reader.steps()
    assert reader.revenue() == {7: 100}
    assert reader.nothing_pending()


def test_two_entries_that_got_the_same_id_count_both(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis
) -> None:
    """This happens after a failover to a server that lacks the first entry."""
    id = publish(7, 100)
    reader.steps()
    entries: Any = client.xrange("event-stream")
    ((_, fields),) = entries
    client.delete("event-stream")
    client.xadd("event-stream", {**fields, b"Payload": fields[b"Payload"].replace(b"100", b"11")}, id=id)
    reader.steps(5)
    assert reader.revenue() == {7: 111}


def test_a_letter_that_was_changed_and_redriven_counts_once_when_its_entry_is_read_again(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, redis_url: str
) -> None:
    letters = DeadLetters(EventStream(connect(redis_url), "event-stream"))
    letter = _letter(reader, client, publish, letters)
    fields = {**letter.entry.fields, b"Payload": letter.entry.fields[b"Payload"].replace(b"100", b"90")}
    letters.redrive(letter._replace(entry=Entry(letter.entry.id, fields, letter.entry.name)))
    reader.sweep_until(lambda: reader.revenue() == {7: 90})
    reader.group.set_back()
    reader.steps(5)
    assert reader.revenue() == {7: 90}


def test_a_name_is_kept_while_a_letter_of_it_exists(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, redis_url: str
) -> None:
    """Its name was forgotten after trimming. A restored Redis had the letter again, and it counted twice."""
    stream = EventStream(connect(redis_url), "event-stream")
    letters = DeadLetters(stream)
    letter = _letter(reader, client, publish, letters)
    kept = client.dump("{event-stream}:dead")
    client.xtrim("event-stream", maxlen=0)
    letters.redrive(letter)
    reader.sweep_until(lambda: reader.revenue() == {7: 100})
    client.delete("{event-stream}:dead")
    client.restore("{event-stream}:dead", 0, kept)  # type: ignore[arg-type]
    later = time.time() + 10 * 86400
    housekeeper = Housekeeper(
        reader.accounts.database,
        LaterStream(stream.client, "event-stream"),
        timedelta(days=7),
        now=lambda: later,
    )
    while housekeeper.step():
        pass
    letters.redrive(letter)
    reader.sweep_until(lambda: not client.xlen(stream.beside("redrive", reader.group.group)))
    assert reader.revenue() == {7: 100}


def test_a_name_is_known_while_its_letter_is_redriven_and_fails_again(
    reader: Reader, publish: Callable[..., bytes], client: redis.Redis, redis_url: str
) -> None:
    """Among the letters it was no more, and where it was looked for next it was no longer."""

    class Slow(EventStream):
        def pages(self, after: bytes = b"0-0", of: str = "") -> Iterator[list[Entry]]:
            yield from super().pages(after, of)
            if of == dead:
                reader.sweep_until(lambda: bool(client.xlen(dead)))

    dead = "{event-stream}:dead"
    letters = DeadLetters(Slow(connect(redis_url), "event-stream"))
    letter = _letter(reader, client, publish, letters)
    letters.redrive(letter)
    reader.fails = True
    assert letters.names(reader.group.group) == {letter.entry.event_name}


class LaterStream(EventStream):
    """A stream whose first entry has a later time."""

    def first_ms(self) -> int:
        return int(time.time() + 9 * 86400) * 1000


def _letter(
    reader: Reader, client: redis.Redis, publish: Callable[..., bytes], letters: DeadLetters
) -> DeadLetter:
    """A letter without an EventId. Its invoice could not be applied then, but now it can."""
    reader.steps()
    reader.fails = True
    publish(7, 100)
    reader.steps()
    reader.sweep_until(lambda: bool(client.xlen("{event-stream}:dead")))
    reader.fails = False
    (letter,) = letters.all()
    return letter


def test_a_group_is_not_set_back_while_its_siblings_work(
    reader: Reader, publish: Callable[..., bytes], redis_url: str, tmp_path: Path, client: redis.Redis
) -> None:
    sibling = Reader(redis_url, tmp_path, "accounts-consumer-2")
    reader.steps(1)
    publish(7, 1)
    sibling.group.read_new(1)  # read, not applied; `reader` acknowledges a newer entry
    newest = publish(7, 10)
    reader.steps()
    assert reader.group.pending() == 1
    Reader(redis_url, tmp_path, "accounts-consumer-1").steps(1)
    groups: Any = client.xinfo_groups("event-stream")
    assert groups[0]["last-delivered-id"] == newest


def test_a_group_is_not_set_back_by_a_sibling_that_begins_between_a_commit_and_its_acknowledgement(
    reader: Reader, publish: Callable[..., bytes], redis_url: str, tmp_path: Path, client: redis.Redis
) -> None:
    sibling = Reader(redis_url, tmp_path, "accounts-consumer-2")
    publish(7, "true")
    publish(7, 10)
    reader.on_ring = sibling.steps
    reader.steps()
    assert (len(_dead(client)), reader.revenue(), reader.group.pending()) == (1, {7: 10}, 0)


def test_an_age_of_before_a_database_had_applied_anything_is_not_noted_later(
    reader: Reader, publish: Callable[..., bytes]
) -> None:
    publish(7, 10)
    reader.steps()
    noted = reader.group.age()
    reader.group.acknowledge([], Age())
    assert reader.group.age() == noted != Age()


def test_consumers_that_are_no_longer_wanted_leave_the_group_when_nothing_is_pending_for_them(
    reader: Reader, publish: Callable[..., bytes], redis_url: str, tmp_path: Path
) -> None:
    def names() -> set[bytes]:
        consumers: Any = reader.group._client.xinfo_consumers("event-stream", reader.group.group)
        return {consumer["name"] for consumer in consumers}

    publish(7, 100)
    unwanted = Reader(redis_url, tmp_path, "accounts-consumer-9")
    unwanted.group.create()
    unwanted.group.read_new(1)
    assert unwanted.group.remove_others(["accounts-consumer-1"], 0) == []
    assert b"accounts-consumer-9" in names()
    reader.sweep_until(lambda: b"accounts-consumer-9" not in names())
    assert reader.revenue() == {7: 100}


def test_a_deletion_of_another_source_is_applied(reader: Reader, client: redis.Redis) -> None:
    client.xadd(
        "event-stream",
        {"EventTypeName": "AccountDeleted", "Payload": '{"id":"5","deleted_date":"2019-01-09T00:00:00Z"}'},
    )
    reader.steps()
    assert reader.accounts.database.rows("SELECT id, deleted FROM account") == [(5, 1)]


@pytest.mark.parametrize("type", ["InvoiceCreated", "NobodyKnowsThis"])
def test_what_could_not_be_applied_last_is_not_read_again_by_who_recovers(
    redis_url: str, tmp_path: Path, publish: Callable[..., bytes], client: redis.Redis, type: str
) -> None:
    reader = Reader(redis_url, tmp_path)
    publish(1, 100)
    client.xadd("event-stream", {"EventTypeName": type, "Payload": "{}"})
    reader.steps()
    letters = client.xlen("{event-stream}:dead")

    Reader(redis_url, tmp_path).steps()

    assert client.xlen("{event-stream}:dead") == letters == (type == "InvoiceCreated")
    assert reader.group.pending() == 0
    assert reader.revenue() == {1: 100}


@pytest.mark.parametrize("strange", [b"x", b"", b"a b", b"- -1", b"a " + b"9" * 30])
def test_an_age_that_another_program_wrote_ends_no_consumer(
    reader: Reader,
    publish: Callable[..., bytes],
    redis_url: str,
    tmp_path: Path,
    client: redis.Redis,
    strange: bytes,
) -> None:
    publish(7, 100, "a:1")
    reader.steps()
    client.hset("{event-stream}:ages", reader.group.group, strange)
    assert EventStream(client, "event-stream").ages() == {}
    again = Reader(redis_url, tmp_path)
    publish(7, 100, "a:2")
    again.steps(5)
    assert again.revenue() == {7: 200}
    assert again.group.age() == again.inbox.age() != Age()
