"""Housekeeping removes what was kept long enough, and nothing that is still needed."""

import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from support.tally import running
from support.waiting import eventually
from tally.actors.housekeeper import Housekeeper
from tally.actors.relay import Relay
from tally.events import EventId
from tally.store.accounts import Accounts, NewAccount, open_database
from tally.store.consumer_group import ConsumerGroup
from tally.store.groups import Groups
from tally.store.idempotency import KEPT_SECONDS, Answer, IdempotencyKeys, KeyedRequest
from tally.store.inbox import Inbox
from tally.store.stream import EventStream, connect

DAY = 24 * 60 * 60


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(open_database(tmp_path))


@pytest.fixture
def stream(redis_url: str) -> EventStream:
    """A stream that Tally has known for a long time."""
    stream = EventStream(connect(redis_url), "event-stream")
    stream.client.set("{event-stream}:contact", 0)
    return stream


OURS = ("accounts@0000000a", "customers@0000000b")


def _caught_up(client: redis.Redis) -> None:
    """Both services have read and acknowledged everything."""
    for group in OURS:
        with suppress(redis.ResponseError):
            client.xgroup_create("event-stream", group, id="0", mkstream=True)
        client.xgroup_setid("event-stream", group, "$")


class Clock:
    """A wall clock that the test sets. Redis keeps its own."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def _only_new_entries(client: redis.Redis, clock: Clock) -> None:
    """Everything published has been trimmed, and a newer entry is there."""
    id = f"{int(clock.now * 1000) + 60_000}-0"
    client.xadd("event-stream", {"n": 1}, id=id)
    client.xtrim("event-stream", maxlen=1, approximate=False)
    client.set("{event-stream}:trimmed", id)


def _tidy(accounts: Accounts, stream: EventStream, clock: Clock, days: float = 7) -> None:
    housekeeper = Housekeeper(accounts.database, stream, timedelta(days=days), now=clock)
    while housekeeper.step():
        pass


def _publish(accounts: Accounts, stream: EventStream, count: int) -> None:
    with accounts.database.transaction():
        for _ in range(count):
            accounts.create_account(NewAccount("a", "u"))
    relay = Relay(accounts.database, stream)
    while relay.step():
        pass


def _rows(accounts: Accounts, table: str) -> int:
    return int(accounts.database.value(f"SELECT count(*) FROM {table}"))


def test_published_events_are_kept_for_the_retention_and_the_last_for_good(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    clock = Clock()
    _publish(accounts, stream, 2500)
    _tidy(accounts, stream, clock)
    clock.now += 6 * DAY
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "outbox") == 2500
    clock.now += 2 * DAY
    _only_new_entries(client, clock)
    _tidy(accounts, stream, clock)
    assert accounts.outbox.after(0, 10) == accounts.outbox.after(2499, 10)

    _publish(accounts, stream, 1)
    assert accounts.outbox.last() == 2501
    assert client.hget("{event-stream}:published", accounts.database.source) == b"2501"


def test_pruning_reads_no_more_the_more_events_are_kept(accounts: Accounts) -> None:
    """It holds the write lock: with two million events it took seconds, every minute."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    accounts.database._connection.set_progress_handler(count, 10)
    taken = []
    for _ in range(2):
        with accounts.database.transaction():
            for _ in range(2000):
                accounts.create_account(NewAccount("a", "u"))
        before = steps
        with accounts.database.transaction():
            accounts.outbox.prune(int(time.time()), 10)
        taken.append(steps - before)
    assert taken[1] <= taken[0] + 10


def test_what_redis_has_lost_is_kept_until_it_is_published_again(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """The row was pruned before the relay saw the loss, so readers who still needed it asked in vain."""
    clock = Clock()
    clock.now -= 8 * DAY
    _publish(accounts, stream, 10)
    _tidy(accounts, stream, clock)
    clock.now += 8 * DAY
    client.flushall()
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "outbox") == 10
    relay = Relay(accounts.database, stream)
    while relay.step():
        pass
    assert client.xlen("event-stream") == 10


def test_nothing_is_trimmed_that_a_database_lacks_which_was_put_back(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """Its group had acknowledged the entry, which was trimmed before the consumers set the group back."""
    inbox, group = Inbox(accounts.database), accounts.database.source
    for id in ("1-0", "2-0"):
        client.xadd("event-stream", {"EventTypeName": "InvoiceCreated"}, id=id)
    _caught_up(client)
    client.xgroup_create("event-stream", group, id="$")
    with accounts.database.transaction():
        before = inbox.grow()
    for age in (before._replace(transactions=2), before):  # the group has seen a later state than this
        client.hset("{event-stream}:ages", group, f"{age.branch} {age.transactions}")
        clock = Clock()
        housekeeper = Housekeeper(
            accounts.database, stream, timedelta(days=7), lambda: {group: inbox.age()}, now=clock
        )
        housekeeper.step()
        assert client.xlen("event-stream") == (2 if age != before else 1)


def test_what_was_not_published_is_kept_however_old(accounts: Accounts, stream: EventStream) -> None:
    clock = Clock()
    _publish(accounts, stream, 10)
    with accounts.database.transaction():
        for _ in range(10):
            accounts.create_account(NewAccount("a", "u"))
    for _ in range(20):
        clock.now += 5 * DAY
        _tidy(accounts, stream, clock)
    assert accounts.outbox.first() <= 11
    assert len(accounts.outbox.after(10, 100)) == 10


@pytest.mark.whole  # of the database
def test_the_table_of_publications_stays_small(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    clock = Clock()
    for _ in range(400):
        _publish(accounts, stream, 1)
        _only_new_entries(client, clock)
        _tidy(accounts, stream, clock)
        clock.now += DAY / 4
    assert _rows(accounts, "publication") <= 110
    assert _rows(accounts, "outbox") <= 7 * 4 + 10


def test_a_clock_that_is_set_back_keeps_more_and_loses_nothing(
    accounts: Accounts, stream: EventStream
) -> None:
    clock = Clock()
    _publish(accounts, stream, 10)
    _tidy(accounts, stream, clock)
    clock.now -= 3600
    _publish(accounts, stream, 10)
    _tidy(accounts, stream, clock)
    clock.now += 7 * DAY - 60
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "outbox") == 20


def test_what_was_published_while_the_clock_was_behind_is_kept_when_that_is_set_right(
    accounts: Accounts, stream: EventStream
) -> None:
    """It seemed to be a month old: were Redis to lose its entries now, nobody would have them any more."""
    clock = Clock()
    clock.now -= 30 * DAY
    _publish(accounts, stream, 10)
    _tidy(accounts, stream, clock)
    clock.now += 30 * DAY
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "outbox") == 10


def test_idempotency_keys_are_forgotten_after_their_day(accounts: Accounts, stream: EventStream) -> None:
    clock = Clock()
    keys = IdempotencyKeys(accounts.database, clock)
    for n in range(5):
        keys.once(KeyedRequest(f"key-{n}", "/accounts", b""), lambda: Answer(None, b"{}"))
    clock.now += KEPT_SECONDS - 10
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "idempotency") == 5
    clock.now += 20
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "idempotency") == 0


def test_the_inbox_forgets_after_the_retention_the_names_of_entries_that_are_no_longer_on_the_stream(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    inbox = Inbox(accounts.database)
    first: Any = client.xadd("event-stream", {"a": 1})
    ms = int(first.partition(b"-")[0])
    inbox.take({"old": 1, EventId("a", 7): 2}, ms - 1)
    inbox.take({"new": 3}, ms)
    clock = Clock()
    _tidy(accounts, stream, clock)
    names = accounts.database.rows("SELECT name FROM inbox_name ORDER BY name")
    assert names == [("new",), ("old",)], "a Redis that was put back from a copy may come back with more"
    clock.now += 8 * DAY
    _tidy(accounts, stream, clock)
    assert accounts.database.rows("SELECT name FROM inbox_name") == [("new",)]
    assert inbox.take({EventId("a", 7): 2}, ms) == []


def test_the_stream_is_trimmed_up_to_what_every_group_has_acknowledged(
    stream: EventStream, client: redis.Redis
) -> None:
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    fast = ConsumerGroup(stream, "fast", "c")
    slow = ConsumerGroup(stream, "slow", "c")
    for group in (fast, slow):
        group.create()
    _caught_up(client)
    fast.acknowledge([entry.id for entry in fast.read_new(10)])
    read = slow.read_new(7)
    slow.acknowledge([entry.id for entry in read if entry.id != b"4-0"])

    assert stream.trim(7 * DAY * 1000) == 3
    assert _ids(client) == [f"{n}-0" for n in range(4, 11)]
    slow.acknowledge([b"4-0"])
    assert stream.trim(7 * DAY * 1000) == 3
    assert _ids(client) == [f"{n}-0" for n in range(7, 11)]


def test_entries_within_the_retention_stay(stream: EventStream, client: redis.Redis) -> None:
    group = ConsumerGroup(stream, "g", "c")
    group.create()
    for n in range(10):
        client.xadd("event-stream", {"n": n})
    group.acknowledge([entry.id for entry in group.read_new(10)])
    assert stream.trim(DAY * 1000) == 0
    assert client.xlen("event-stream") == 10


def test_a_group_that_never_read_holds_the_stream_back_for_the_retention(
    stream: EventStream, client: redis.Redis
) -> None:
    for n in range(3):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    client.xgroup_create("event-stream", "new", id="0")
    _caught_up(client)
    assert stream.trim(1000) == 0
    assert client.xlen("event-stream") == 3
    eventually(lambda: stream.trim(300) == 2)
    assert Groups(stream).overtaken() == {"new": 2}

    ConsumerGroup(stream, "new", "c").read_new(1)
    stream.trim(1000)
    assert Groups(stream).overtaken() == {}


def test_another_program_s_group_that_nobody_reads_holds_nothing_back_and_what_it_misses_is_counted(
    stream: EventStream, client: redis.Redis
) -> None:
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    _caught_up(client)
    left, held = ConsumerGroup(stream, "left", "c"), ConsumerGroup(stream, "held", "c")
    for group in (left, held):
        group.create()
    left.acknowledge([entry.id for entry in left.read_new(4)])
    held.acknowledge([entry.id for entry in held.read_new(7) if entry.id != b"6-0"])
    eventually(lambda: stream.trim(300) + 1 and _ids(client) == ["10-0"])
    assert Groups(stream).overtaken() == {"left": 5, "held": 4}
    stream.trim(300)
    assert Groups(stream).overtaken() == {"left": 5, "held": 4}


@pytest.mark.parametrize("reading", ["never", "some", "pending"])
@pytest.mark.parametrize("service", ["accounts", "customers"])
def test_a_service_s_group_holds_the_stream_however_long_nobody_has_read(
    stream: EventStream, client: redis.Redis, service: str, reading: str
) -> None:
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    _caught_up(client)
    idle = ConsumerGroup(stream, f"{service}@00000001", "c")
    idle.create()
    if reading != "never":
        read = idle.read_new(3)
        if reading == "some":
            idle.acknowledge([entry.id for entry in read])
        time.sleep(0.01)  # longer than the retention below
    stream.trim(5)
    assert _ids(client)[-7:] == [f"{n + 1}-0" for n in range(3, 10)]
    assert Groups(stream).holding() == {
        idle.group: {"never": "0-0", "some": "3-0", "pending": "1-0"}[reading]
    }


@pytest.mark.parametrize("missing", OURS)
def test_a_service_that_has_no_group_yet_will_want_everything(
    stream: EventStream, client: redis.Redis, missing: str
) -> None:
    client.xadd("event-stream", {"n": 1}, id="1-0")
    _caught_up(client)
    client.xgroup_destroy("event-stream", missing)
    assert stream.trim(1000) == 0
    assert Groups(stream).holding() == {missing.partition("@")[0]: "0-0"}
    _caught_up(client)
    assert stream.trim(1000) == 0, "the last that it has read is kept"
    assert Groups(stream).holding() == {}


def test_a_group_that_is_to_be_counts_before_it_is_made_also_beside_an_older_one(
    stream: EventStream, client: redis.Redis
) -> None:
    """accounts.db was deleted. The new one's relay trims before its consumers have created their group."""
    client.xadd("event-stream", {"n": 1}, id="1-0")
    _caught_up(client)
    client.xadd("event-stream", {"n": 2}, id="2-0")
    client.xgroup_setid("event-stream", OURS[0], "$")
    client.xgroup_setid("event-stream", OURS[1], "$")
    assert stream.trim(1000, ["accounts@000000ff", OURS[1]]) == 0
    assert Groups(stream).holding() == {"accounts@000000ff": "0-0"}


def test_a_clock_that_was_ahead_at_first_contact_holds_nothing_back(
    stream: EventStream, client: redis.Redis
) -> None:
    for n in range(3):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    _caught_up(client)
    client.set("{event-stream}:contact", 10**15)
    eventually(lambda: stream.trim(50) == 2)


def test_ids_that_other_programs_made_up_are_no_fault(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    client.xadd("event-stream", {"n": 1}, id="18446744073709551615-5")
    _tidy(accounts, stream, Clock())


def test_what_lay_there_at_first_contact_is_kept_for_the_retention_from_then(
    stream: EventStream, client: redis.Redis
) -> None:
    client.delete("{event-stream}:contact")
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    _caught_up(client)
    assert stream.trim(300) == 0
    assert client.xlen("event-stream") == 10
    eventually(lambda: stream.trim(300) == 9)


def test_a_group_whose_database_has_a_successor_is_removed(stream: EventStream, client: redis.Redis) -> None:
    client.xadd("event-stream", {"n": 1}, id="1-0")
    _caught_up(client)
    client.xgroup_create("event-stream", "accounts@000000ff", id="0")
    assert stream.trim(1000) == 0
    assert Groups(stream).holding() == {"accounts@000000ff": "0-0"}
    client.hset("{event-stream}:successors", "accounts@000000ff", OURS[0])
    stream.trim(1000)
    assert Groups(stream).holding() == {}
    assert {group["name"].decode() for group in client.xinfo_groups("event-stream")} == set(OURS)


def test_a_removed_group_holds_nothing_back_any_more(stream: EventStream, client: redis.Redis) -> None:
    client.xadd("event-stream", {"n": 1}, id="1-0")
    _caught_up(client)
    client.xgroup_create("event-stream", "accounts@000000ff", id="0")
    stream.trim(1000)
    assert Groups(stream).remove("accounts@000000ff")
    assert not Groups(stream).remove("accounts@000000ff")
    assert Groups(stream).holding() == {}


def test_events_are_kept_while_their_entries_are_on_the_stream(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """Otherwise they would be lost if Redis lost its data then."""
    clock = Clock()
    _publish(accounts, stream, 20)
    _tidy(accounts, stream, clock)
    clock.now += 30 * DAY
    _publish(accounts, stream, 1)
    _tidy(accounts, stream, clock)  # nobody has read, so nothing was trimmed
    assert client.xlen("event-stream") == 21
    assert _rows(accounts, "outbox") == 21


def test_what_redis_lost_is_kept_as_if_it_had_just_been_published(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    clock = Clock()
    _publish(accounts, stream, 20)
    _tidy(accounts, stream, clock)
    client.delete("event-stream", "{event-stream}:published", "{event-stream}:marks")
    clock.now += 8 * DAY
    _publish(accounts, stream, 1)
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "outbox") == 21


def test_a_stream_that_is_not_there_is_no_fault(accounts: Accounts, stream: EventStream) -> None:
    _tidy(accounts, stream, Clock())
    assert stream.trim(1000) == 0


def _ids(client: redis.Redis) -> list[str]:
    entries: Any = client.xrange("event-stream")
    return [id.decode() for id, _ in entries]


@pytest.mark.whole
def test_what_a_service_has_not_read_outlives_any_stop(tmp_path: Path, redis_url: str) -> None:
    """The relay used to trim at the start, before the consumers had read."""
    retention: dict[str, Any] = {"data": {"retention_days": 1 / 24 / 3600}}  # a second
    with running(tmp_path, redis_url=redis_url, **retention) as tally:
        account = tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
        customer = tally.customers.post("/customers", {"name": "John", "account_id": account})["id"]
        eventually(tally.settled)
        for name in tally.pids():
            if name.startswith("accounts-consumer"):
                tally.kill(name, signal.SIGSTOP)
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        tally.customers.post("/invoices/batch", [invoice] * 3000)
        eventually(lambda: tally.customers.get("/status")["outbox_depth"] == 0)
        tally.end()
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        eventually(lambda: min(_idle_ms(client)) > 2000)
        with running(tmp_path, "--only", "customers", redis_url=redis_url, **retention) as tally:
            eventually(lambda: "the stream keeps entries" in str(tally.customers.get("/status")["reasons"]))
            assert client.xlen("event-stream") >= 3000
    with running(tmp_path, redis_url=redis_url, **retention) as tally:
        eventually(tally.settled)
        assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 3000
        assert tally.accounts.get("/status")["reasons"] == []


def _idle_ms(client: redis.Redis) -> list[int]:
    groups: list[Any] = client.xinfo_groups("event-stream")
    return [
        consumer["idle"]
        for group in groups
        for consumer in client.xinfo_consumers("event-stream", group["name"])
    ]


@pytest.mark.parametrize("first", ["customers", "accounts"])
@pytest.mark.whole
def test_a_first_start_on_an_old_stream_keeps_all_of_it(tmp_path: Path, redis_url: str, first: str) -> None:
    payload = '{{"id":"{0}","account_id":"1","name":"c","created_date":"2019-01-06T12:00:00Z"}}'
    with redis.Redis.from_url(redis_url) as client:
        for n in range(1, 301):
            fields = {"EventTypeName": "CustomerCreated", "Payload": payload.format(n)}
            client.xadd("event-stream", fields, id=f"{n}-0")
    with running(tmp_path, "--only", first, redis_url=redis_url) as tally:
        service = tally.customers if first == "customers" else tally.accounts
        eventually(lambda: "no " in str(service.get("/status")["reasons"]))
    with running(tmp_path, redis_url=redis_url) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(lambda: len(tally.accounts.get("/accounts/1")["customers"]) == 300)


@pytest.mark.parametrize("number", [0, 1])
def test_another_nodes_group_holds_the_stream_for_ten_times_as_long_and_is_told_of_then(
    stream: EventStream, client: redis.Redis, number: int
) -> None:
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    _caught_up(client)
    client.hset("{event-stream}:nodes", "accounts@00000001", f"{number}:0")
    reader = ConsumerGroup(stream, "accounts@00000001", "c")
    reader.create()
    reader.read_new(3)
    time.sleep(0.4)
    stream.trim(100)
    assert len(_ids(client)) == 10, "that is a third of ten times as long"
    stream.trim(10)
    kept = [f"{n + 1}-0" for n in range(10)] if number == 0 else ["10-0"]
    assert _ids(client) == kept, "a group of this node counts for ever"
    assert Groups(stream).overtaken() == ({"accounts@00000001": 9} if number else {})
