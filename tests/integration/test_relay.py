"""The relay: every committed event gets to the stream once, in order, whatever Redis loses."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from support.publishing import publish
from support.rights import without_right
from tally.actors.publication import Publication
from tally.actors.relay import BATCH, Relay
from tally.events import AccountDeleted, Id, now
from tally.store import nodes
from tally.store.accounts import Accounts, NewAccount, open_database
from tally.store.cause import Cause
from tally.store.consumer_group import ConsumerGroup
from tally.store.incarnations import begin
from tally.store.outbox import last_row
from tally.store.stream import EventStream, connect


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(open_database(tmp_path))


@pytest.fixture
def stream(redis_url: str) -> EventStream:
    return EventStream(connect(redis_url), "event-stream")


def _commit(accounts: Accounts, count: int) -> None:
    with accounts.database.transaction():
        for _ in range(count):
            accounts.create_account(NewAccount("a", "u"))


def _drain(relay: Relay) -> None:
    while relay.step():
        pass


def _sequences(client: redis.Redis) -> list[int]:
    entries: Any = client.xrange("event-stream")
    return [int(fields[b"EventId"].rpartition(b":")[2]) for _, fields in entries]


def test_committed_events_are_published_in_order_and_once(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    relay = Relay(accounts.database, stream)
    _commit(accounts, BATCH + 10)
    _drain(relay)
    _commit(accounts, 5)
    _drain(relay)
    assert _sequences(client) == list(range(1, BATCH + 16))
    assert accounts.outbox.depth() == 0


def test_the_events_of_a_request_are_published_together(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    several = [AccountDeleted(Id(number), now()) for number in range(1, 2 * BATCH)]
    with accounts.database.transaction():
        accounts.outbox.add(several[:3])
        accounts.outbox.add(several)
        accounts.outbox.add(several[:1])
    before, whole = [], Relay(accounts.database, stream)
    while whole.step():
        before.append(client.xlen("event-stream"))
    end = 3 + len(several)
    assert set(before) <= {0, end, end + 1}, "a part of a request was on the stream"
    assert _sequences(client) == list(range(1, end + 2))


def test_an_event_carries_the_contracts_fields(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with accounts.database.transaction():
        accounts.create_account(NewAccount("a", "u"), Cause(trace, "a:b:"))
    _drain(Relay(accounts.database, stream))
    entries: Any = client.xrange("event-stream")
    ((_, fields),) = entries
    assert list(fields) == [b"EventTypeName", b"Payload", b"EventId", b"TraceParent", b"RequestKey"]
    assert fields[b"RequestKey"] == b"a:b:1"
    assert fields[b"EventId"].decode() == f"{accounts.database.source}:1"
    assert fields[b"TraceParent"].decode() == trace
    assert client.hgetall("{event-stream}:published") == {accounts.database.source.encode(): b"1"}


def test_a_relay_killed_before_it_remembers_publishes_nothing_twice(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    _commit(accounts, 20)
    # A relay gets this far before it is killed:
    publish(stream, accounts.outbox.source, accounts.outbox.after(0, 12))
    _drain(Relay(accounts.database, stream))
    assert _sequences(client) == list(range(1, 21))


def test_a_relay_that_ends_leaves_what_is_recorded_meanwhile_to_the_next(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """Under load there was always more: it went on until it was killed."""
    _commit(accounts, 20)
    relay = Relay(accounts.database, stream, batch=5)
    relay.drain(lambda: _commit(accounts, 10))
    published = len(_sequences(client))
    assert 20 <= published < accounts.outbox.last()
    assert 20 <= accounts.outbox.published() <= published  # one batch was still on its way
    _drain(Relay(accounts.database, stream))
    assert _sequences(client) == list(range(1, accounts.outbox.last() + 1))


def test_a_batch_that_overlaps_what_is_published_adds_only_the_rest(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    _commit(accounts, 20)
    rows = accounts.outbox.after(0, 20)
    assert publish(stream, accounts.outbox.source, rows[:10]).last == 10
    assert publish(stream, accounts.outbox.source, rows[5:]).last == 20
    assert publish(stream, accounts.outbox.source, rows[:10]).last == 20
    assert _sequences(client) == list(range(1, 21))


def test_a_batch_beyond_a_gap_publishes_nothing_and_tells_where_to_go_on(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    _commit(accounts, 20)
    assert publish(stream, accounts.outbox.source, accounts.outbox.after(10, 10)).last == 0
    assert client.exists("event-stream") == 0


def test_who_waits_hears_how_far_it_is_also_when_all_was_published_before(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    first, second = Publication(1), Publication(1)
    _commit(accounts, 3)
    _drain(Relay(accounts.database, stream, publication=first))
    assert (first.row(), first.bells[0].is_rung()) == (3, True)
    _drain(Relay(accounts.database, stream, publication=second))  # as after a restart of Tally
    assert (second.row(), _sequences(client)) == (3, [1, 2, 3])
    with accounts.database.transaction():
        begin(accounts.database, 3)
    third = Publication(1)
    _drain(Relay(accounts.database, stream, publication=third))
    assert third.row() == last_row(accounts.database) == 3
    _commit(accounts, 1)
    _drain(Relay(accounts.database, stream, publication=third))
    assert third.row() == last_row(accounts.database)
    assert _sequences(client) == [1, 2, 3, 1]


@pytest.mark.parametrize("batch", [BATCH, 3])
def test_nobody_hears_of_what_too_few_replicas_have(
    accounts: Accounts, stream: EventStream, client: redis.Redis, batch: int
) -> None:
    publication = Publication(1, replicas=1)
    relay = Relay(accounts.database, stream, publication=publication, batch=batch)
    _commit(accounts, 3)
    assert [relay.step(), relay.step()] == [3, 0]  # the last event is sent again and again
    assert relay.lack == "0 of 1 replicas have what was published: changes are answered 503"
    _commit(accounts, 1)
    assert (relay.step(), _sequences(client)) == (1, [1, 2, 3, 4])
    assert (publication.row(), publication.bells[0].is_rung()) == (0, False)


def test_who_waits_hears_also_where_the_last_events_are_lost_here(
    accounts: Accounts, stream: EventStream
) -> None:
    _commit(accounts, 5)
    _drain(Relay(accounts.database, stream))
    with accounts.database.transaction():  # as in a restored copy
        accounts.database.execute("DELETE FROM outbox WHERE sequence > 3")
    publication = Publication(1)
    _drain(Relay(accounts.database, stream, publication=publication))
    assert publication.row() == last_row(accounts.database) == 3


@pytest.mark.parametrize("loss", ["FLUSHALL", "older copy"])
def test_what_redis_lost_is_published_again_with_the_same_ids(
    accounts: Accounts, stream: EventStream, client: redis.Redis, loss: str
) -> None:
    relay = Relay(accounts.database, stream)
    _commit(accounts, 10)
    _drain(relay)
    keys: Any = client.keys("*")
    older: dict[Any, Any] = {key: client.dump(key) for key in keys}
    _commit(accounts, 10)
    _drain(relay)

    client.flushall()
    if loss == "older copy":
        for key, value in older.items():
            client.restore(key, 0, value)
    _commit(accounts, 3)
    _drain(relay)

    assert _sequences(client) == list(range(1, 24))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("made_again_by", ["nobody", "another program", "a consumer", "both"])
def test_a_stream_that_is_deleted_or_emptied_is_published_again(
    accounts: Accounts, stream: EventStream, client: redis.Redis, made_again_by: str, busy: bool
) -> None:
    group = ConsumerGroup(stream, accounts.database.source, "c")
    group.create()
    relay = Relay(accounts.database, stream)
    _commit(accounts, 10)
    _drain(relay)
    group.acknowledge([group.read_new(1)[0].id])
    client.delete("event-stream")
    if made_again_by == "another program":
        client.xadd("event-stream", {"EventId": "theirs:0"})
    elif made_again_by == "a consumer":
        group.create()
    elif made_again_by == "both":
        client.xadd("event-stream", {"EventId": "theirs:0"})
        group.create()
    if busy:
        _commit(accounts, 1)
    else:
        relay.look_again()
    _drain(relay)
    assert [n for n in _sequences(client) if n] == list(range(1, 12 if busy else 11))


@pytest.mark.parametrize("gone", ["last", "all but another's"])
def test_for_entries_that_others_removed_nothing_is_published_again(
    accounts: Accounts, stream: EventStream, client: redis.Redis, gone: str
) -> None:
    """The whole outbox used to be published again and again once the source's last entry was gone."""
    ConsumerGroup(stream, accounts.database.source, "c").create()
    relay = Relay(accounts.database, stream)
    _commit(accounts, 10)
    _drain(relay)
    removed: Any = client.xrevrange("event-stream", count=1 if gone == "last" else 10)
    client.xadd("event-stream", {"EventId": "theirs:0"})
    client.xdel("event-stream", *(id for id, _ in removed))
    relay.look_again()
    _drain(relay)
    _commit(accounts, 2)
    _drain(relay)
    assert _sequences(client) == [*(range(1, 10) if gone == "last" else []), 0, 11, 12]


def test_what_was_trimmed_on_purpose_is_not_published_again(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    relay = Relay(accounts.database, stream)
    _commit(accounts, 10)
    _drain(relay)
    last: Any = client.xrevrange("event-stream", count=1)
    client.xtrim("event-stream", maxlen=0)
    client.set("{event-stream}:trimmed", f"{int(last[0][0].partition(b'-')[0]) + 1}-0")
    relay.look_again()
    _drain(relay)
    assert _sequences(client) == []
    _commit(accounts, 1)
    _drain(relay)
    assert _sequences(client) == [11]


def test_while_idle_a_loss_is_noticed_at_the_next_look(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    relay = Relay(accounts.database, stream)
    _commit(accounts, 10)
    _drain(relay)
    client.flushall()
    relay.look_again()
    _drain(relay)
    assert _sequences(client) == list(range(1, 11))


def test_events_that_the_outbox_no_longer_holds_do_not_hold_up_the_later_ones(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    _commit(accounts, 10)
    accounts.database.execute("DELETE FROM outbox WHERE sequence <= 6")
    _drain(Relay(accounts.database, stream))
    assert _sequences(client) == [7, 8, 9, 10]


def test_another_entry_that_got_the_id_of_one_that_was_deleted_is_not_taken_for_it(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    group = ConsumerGroup(stream, accounts.database.source, "c")
    group.create()
    relay = Relay(accounts.database, stream)
    _commit(accounts, 1)
    _drain(relay)
    entries: Any = client.xrange("event-stream")
    group.acknowledge([group.read_new(1)[0].id])
    client.delete("event-stream")
    others: list[Any] = [{"EventTypeName": "OrderShipped"}, {"EventId": "another@1:1"}]
    for fields in others:
        client.xadd("event-stream", fields, id=entries[0][0])  # as in the same millisecond
        relay.look_again()
        _drain(relay)
        found: Any = client.xrevrange("event-stream", count=1)
        assert found[0][1] == entries[0][1]
        client.delete("event-stream")


@pytest.mark.parametrize("later", [0, 5, 10, 30], ids=lambda n: f"{n} commits after the restore")
def test_what_another_publishes_under_its_name_is_not_mixed_with_its_own(
    accounts: Accounts, stream: EventStream, client: redis.Redis, tmp_path: Path, later: int
) -> None:
    _commit(accounts, 10)
    (tmp_path / "old").mkdir()
    accounts.database.execute("VACUUM INTO ?", (str(tmp_path / "old" / "accounts.db"),))
    _commit(accounts, 10)
    _drain(Relay(accounts.database, stream))

    restored = Accounts(open_database(tmp_path / "old"))
    if later:
        _commit(restored, later)
    relay = Relay(restored.database, stream)
    _drain(relay)

    assert _sequences(client) == list(range(1, 21))
    assert relay.refusal
    assert "another publishes under its name" in relay.refusal


def test_a_redis_that_is_older_than_what_the_outbox_keeps_is_gone_on_with(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """The relay took its own database for a restored one, and published nothing more."""
    _commit(accounts, 5)
    _drain(Relay(accounts.database, stream))
    beside = {key: client.hgetall(key) for key in ("{event-stream}:published", "{event-stream}:marks")}
    _commit(accounts, 15)
    _drain(Relay(accounts.database, stream))
    for key, fields in beside.items():  # as in an older append-only file
        client.hset(key, mapping=fields)  # type: ignore[arg-type]
    newer: Any = client.xrange("event-stream")
    client.xdel("event-stream", *(id for id, _ in newer[5:]))
    accounts.database.execute("DELETE FROM outbox WHERE sequence < 12")

    _commit(accounts, 1)
    relay = Relay(accounts.database, stream)
    _drain(relay)
    assert relay.refusal is None
    assert _sequences(client) == [*range(1, 6), *range(12, 22)]


@pytest.mark.parametrize("loss", ["FLUSHALL", "SCRIPT FLUSH", "CLIENT KILL TYPE normal"])
def test_what_is_on_its_way_when_redis_loses_something_is_published_once(
    accounts: Accounts, stream: EventStream, client: redis.Redis, loss: str
) -> None:
    relay = Relay(accounts.database, stream, batch=10)
    _commit(accounts, 55)
    assert [relay.step(), relay.step()] == [10, 10]  # the second is not confirmed yet

    client.execute_command(*loss.split())  # type: ignore[no-untyped-call]
    for _ in range(20):
        with suppress(redis.RedisError):
            relay.step()

    assert _sequences(client) == list(range(1, 56))
    assert accounts.outbox.depth() == 0


def _group(client: redis.Redis) -> dict[str, Any]:
    (group,) = client.xinfo_groups("event-stream")
    return dict(group)


def test_a_group_passes_over_what_is_of_no_concern_to_it(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """Then Redis too sees the group as caught up."""
    group = ConsumerGroup(stream, accounts.database.source, "a", block_ms=1)
    group.create()
    relay = Relay(accounts.database, stream, pass_over=True, batch=10)
    _commit(accounts, 25)
    _drain(relay)

    assert group.read_new(100) == []
    assert _group(client)["last-delivered-id"] == client.xinfo_stream("event-stream")["last-generated-id"]
    assert _group(client).get("lag", 0) == 0


def test_the_groups_of_other_nodes_and_of_standbys_pass_over_it_as_well(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    """They don't need it either: each cost Redis the same again, and was handed every event."""
    theirs = ("accounts@0000000b", "accounts@0000000c", "accounts@0000000d", "customers@0000000e")
    states = ("1:0", "0:0 standby", "2:1 removed", "0:0")
    nodes.keep(accounts.database, dict(zip(theirs, states, strict=True)))
    groups = [ConsumerGroup(stream, name, "a", block_ms=1) for name in (accounts.database.source, *theirs)]
    for group in groups:
        group.create()
    _commit(accounts, 25)
    _drain(Relay(accounts.database, stream, pass_over=True, batch=10))
    assert [len(group.read_new(100)) for group in groups] == [0, 0, 0, 25, 25]


def test_a_group_that_has_others_to_read_is_handed_all(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    group = ConsumerGroup(stream, accounts.database.source, "a", block_ms=1)
    group.create()
    theirs = client.xadd("event-stream", {"EventTypeName": "OrderShipped"})
    relay = Relay(accounts.database, stream, pass_over=True)
    _commit(accounts, 2)
    _drain(relay)
    assert [entry.id for entry in group.read_new(1)] == [theirs]
    _commit(accounts, 1)
    _drain(relay)
    assert len(group.read_new(100)) == 3


def test_after_a_failure_redis_is_asked_again(
    accounts: Accounts, stream: EventStream, client: redis.Redis
) -> None:
    relay = Relay(accounts.database, stream)
    _commit(accounts, 3)
    client.set("event-stream", "not a stream")
    with pytest.raises(redis.ResponseError):
        relay.step()
    client.delete("event-stream")
    _drain(relay)
    assert _sequences(client) == [1, 2, 3]


@pytest.mark.parametrize("right", ["hset", "xadd", "xgroup"])
def test_where_a_right_is_missing_midway_nothing_is_added(
    accounts: Accounts, stream: EventStream, client: redis.Redis, right: str
) -> None:
    ConsumerGroup(stream, accounts.database.source, "a", block_ms=1).create()
    relay = Relay(accounts.database, stream, pass_over=True, batch=10)
    for published in (0, 25):
        with without_right(client, right):
            _commit(accounts, 25)
            for _ in range(10):
                with suppress(redis.RedisError):
                    relay.step()
            assert client.xlen("event-stream") == published
        _drain(relay)
        assert _sequences(client) == list(range(1, published + 26))
