"""Housekeeping: what was kept long enough is forgotten, and nothing that is still needed."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from support.waiting import eventually
from tally.actors.housekeeper import Housekeeper
from tally.actors.relay import Relay
from tally.events import EventId
from tally.store.accounts import Accounts, NewAccount, open_database
from tally.store.idempotency import KEPT_SECONDS, Answer, IdempotencyKeys
from tally.store.inbox import Inbox
from tally.store.stream import ConsumerGroup, EventStream, connect

DAY = 24 * 60 * 60


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(open_database(tmp_path))


@pytest.fixture
def stream(redis_url: str) -> EventStream:
    return EventStream(connect(redis_url), "event-stream")


class Clock:
    """A wall clock that the test turns; Redis keeps its own."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def _tidy(accounts: Accounts, stream: EventStream, clock: Clock, days: float = 7) -> None:
    housekeeper = Housekeeper(accounts.database, stream, timedelta(days=days), now=clock)
    while housekeeper.step():
        pass


def _publish(accounts: Accounts, stream: EventStream, count: int) -> None:
    with accounts.database.transaction():
        for _ in range(count):
            accounts.create_account(NewAccount("a", "u"))
    relay = Relay(accounts.outbox, stream)
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
    _tidy(accounts, stream, clock)
    assert accounts.outbox.after(0, 10) == accounts.outbox.after(2499, 10)

    _publish(accounts, stream, 1)
    assert accounts.outbox.last() == 2501
    assert client.hget("{event-stream}:published", accounts.database.source) == b"2501"


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


def test_the_table_of_publications_stays_small(accounts: Accounts, stream: EventStream) -> None:
    clock = Clock()
    for _ in range(400):
        _publish(accounts, stream, 1)
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


def test_idempotency_keys_are_forgotten_after_their_day(accounts: Accounts, stream: EventStream) -> None:
    clock = Clock()
    keys = IdempotencyKeys(accounts.database, clock)
    for n in range(5):
        keys.once(f"key-{n}", b"request", lambda: Answer(None, b"{}"))
    clock.now += KEPT_SECONDS - 10
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "idempotency") == 5
    clock.now += 20
    _tidy(accounts, stream, clock)
    assert _rows(accounts, "idempotency") == 0


def test_the_inbox_forgets_the_names_of_entries_that_are_no_longer_on_the_stream(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    inbox = Inbox(accounts.database)
    first: Any = client.xadd("event-stream", {"a": 1})
    ms = int(first.partition(b"-")[0])
    inbox.take(["old", EventId("a", 7)], ms - 1)
    inbox.take(["new"], ms)
    _tidy(accounts, stream, Clock())
    assert accounts.database.rows("SELECT name FROM inbox_name") == [("new",)]
    assert inbox.take([EventId("a", 7)], ms) == set()


def test_the_stream_is_trimmed_up_to_what_every_group_has_acknowledged(
    stream: EventStream, client: redis.Redis
) -> None:
    for n in range(10):
        client.xadd("event-stream", {"n": n}, id=f"{n + 1}-0")
    fast = ConsumerGroup(stream, "fast", "c")
    slow = ConsumerGroup(stream, "slow", "c")
    for group in (fast, slow):
        group.create()
    fast.acknowledge([entry.id for entry in fast.read_new(10)])
    read = slow.read_new(7)
    slow.acknowledge([entry.id for entry in read if entry.id != b"4-0"])

    assert stream.trim(7 * DAY * 1000).removed == 3
    assert _ids(client) == [f"{n}-0" for n in range(4, 11)]
    slow.acknowledge([b"4-0"])
    assert stream.trim(7 * DAY * 1000).removed == 3
    assert _ids(client) == [f"{n}-0" for n in range(7, 11)]


def test_entries_within_the_retention_stay(stream: EventStream, client: redis.Redis) -> None:
    group = ConsumerGroup(stream, "g", "c")
    group.create()
    for n in range(10):
        client.xadd("event-stream", {"n": n})
    group.acknowledge([entry.id for entry in group.read_new(10)])
    assert stream.trim(DAY * 1000).removed == 0
    assert client.xlen("event-stream") == 10


def test_a_group_that_never_read_holds_the_stream_back(stream: EventStream, client: redis.Redis) -> None:
    client.xadd("event-stream", {"n": 1}, id="1-0")
    client.xgroup_create("event-stream", "new", id="0")
    assert stream.trim(1000) == (0, [])
    assert client.xlen("event-stream") == 1


def test_a_group_that_nobody_reads_any_more_holds_nothing_back_and_is_named(
    stream: EventStream, client: redis.Redis
) -> None:
    client.xadd("event-stream", {"n": 1}, id="1-0")
    client.xadd("event-stream", {"n": 2}, id="2-0")
    left, alive = ConsumerGroup(stream, "left", "c"), ConsumerGroup(stream, "alive", "c")
    left.create()
    left.read_new(1)
    alive.create()

    def trimmed() -> bool:
        alive.acknowledge([entry.id for entry in alive.read_pending(b"0-0", 10)])
        alive.remove_others(["c"], 0)
        return stream.trim(300).stale_groups == ["left"]

    alive.acknowledge([entry.id for entry in alive.read_new(10)])
    eventually(trimmed)
    assert _ids(client) == ["2-0"]


def test_a_stream_that_is_not_there_is_no_fault(accounts: Accounts, stream: EventStream) -> None:
    _tidy(accounts, stream, Clock())
    assert stream.trim(1000) == (0, [])


def _ids(client: redis.Redis) -> list[str]:
    entries: Any = client.xrange("event-stream")
    return [id.decode() for id, _ in entries]
