"""Events that left the stream unread are published again by their source, for that group alone."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.disks import copied_while_in_use, replaced
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.waiting import eventually
from tally.store.dead_letters import DeadLetters
from tally.store.stream import EventStream

SECTIONS: dict[str, Any] = {"consumers": {"claim_idle_ms": 200, "max_deliveries": 1}}
INVOICE = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 1}


class Shop:
    """A Tally with an account and a customer. Only the wanted parts run."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self.directory = directory
        self._redis_url = redis_url
        with self.running() as tally:
            tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
            tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
            eventually(tally.settled)
            assert tally.stop() == 0

    def running(self, *arguments: str) -> AbstractContextManager[Tally]:
        return running(self.directory, *arguments, redis_url=self._redis_url, **SECTIONS)

    def publish_unread(self, invoices: int) -> None:
        """Record and publish invoices while no accounts service runs."""
        with self.running("--only", "customers") as tally:
            tally.customers.post("/invoices/batch", [INVOICE] * invoices)
            assert tally.stop() == 0

    def prune_outbox(self, service: str) -> None:
        """As happens after the retention."""
        with closing(sqlite3.connect(self.directory / "data" / f"{service}.db")) as connection, connection:
            connection.execute("DELETE FROM outbox WHERE sequence < (SELECT max(sequence) FROM outbox)")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(server: RedisProcess) -> redis.Redis:
    return server.client


@pytest.fixture
def shop(tmp_path: Path, server: RedisProcess) -> Shop:
    """A shop on the bundled server. The tests with TAKING run on each engine."""
    return Shop(tmp_path, server.url)


def _revenue(tally: Tally) -> int:
    return int(tally.accounts.get("/accounts/1")["total_revenue_cents"])


def _reasons(tally: Tally) -> list[str]:
    return [reason for report in tally.reports() for reason in report["reasons"]]


def _deleted(client: redis.Redis) -> None:
    entries: Any = client.xrevrange("event-stream", count=20)
    client.xdel("event-stream", *(id for id, _ in entries[3:9]))


def _last_deleted(client: redis.Redis) -> None:
    """Delete the last entry, which no group will be handed, and some of ours."""
    _deleted(client)
    id: Any = client.xadd("event-stream", {"EventTypeName": "Noise", "Payload": "{}"})
    client.xdel("event-stream", id)


Taking = Callable[[redis.Redis], object]

TAKING: dict[str, Taking] = {
    "XDEL of some": _deleted,
    "another publisher's MAXLEN": lambda client: client.xadd(
        "event-stream", {"EventTypeName": "Noise", "Payload": "{}"}, maxlen=5
    ),
    "a group set to $": lambda client: [
        client.xgroup_setid("event-stream", group["name"], "$")
        for group in client.xinfo_groups("event-stream")
    ],
    "read by somebody who acknowledges": lambda client: [
        client.xreadgroup(group["name"], "thief", {"event-stream": ">"}, count=7, noack=True)
        for group in client.xinfo_groups("event-stream")
    ],
    "XDEL of some and of the last": _last_deleted,
    "everything trimmed": lambda client: client.xtrim("event-stream", maxlen=0),
}


@pytest.fixture(scope="module")
def recording(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A customers service with one customer, on each engine. It stays while accounts services come and go."""
    with redis.Redis.from_url(engine) as client:
        client.flushall()
    directory = tmp_path_factory.mktemp("customers")
    with running(directory, "--only", "customers", redis_url=engine, **SECTIONS) as tally:
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        with _accounts(tally) as other:
            other.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
            eventually(lambda: len(other.accounts.get("/accounts/1")["customers"]) == 1)
            assert other.stop() == 0
        yield tally


def _accounts(tally: Tally) -> AbstractContextManager[Tally]:
    """The accounts service beside it. Its data directory is separate, and the same each time."""
    directory, url = tally.directory / "accounts", tally.settings["redis"]["url"]
    return running(directory, "--only", "accounts", redis_url=url, **SECTIONS)


@pytest.mark.parametrize("taking", TAKING)
def test_what_is_taken_off_the_stream_unread_comes_again(recording: Tally, engine: str, taking: str) -> None:
    client = redis.Redis.from_url(engine, protocol=2)
    with _accounts(recording) as tally:
        before = _revenue(tally)
        assert tally.stop() == 0
    recording.customers.post("/invoices/batch", [INVOICE] * 30)
    eventually(lambda: recording.customers.get("/status")["outbox_depth"] == 0)
    TAKING[taking](client)
    with _accounts(recording) as tally:
        eventually(lambda: _revenue(tally) == before + 30)
        eventually(lambda: not any(tally.accounts.get("/status")["redis"]["lag"].values()))
        for service in (tally.accounts, recording.customers):
            eventually(lambda service=service: service.get("/status")["status"] == "ok")  # type: ignore[misc]
        assert client.keys("*asked*") == []
        assert tally.stop() == 0
    client.close()


def test_only_the_gap_is_published_again_and_to_that_group_alone(shop: Shop, client: redis.Redis) -> None:
    shop.publish_unread(30)
    _deleted(client)
    before = client.xlen("event-stream")
    with shop.running() as tally:
        eventually(lambda: _revenue(tally) == 30)
        eventually(tally.settled)
        assert client.xlen("event-stream") == before


def test_missing_events_are_lag_until_they_are_there(shop: Shop, client: redis.Redis) -> None:
    shop.publish_unread(30)
    _deleted(client)
    with shop.running("--only", "accounts") as tally:  # no customers service answers

        def lag() -> int:
            return int(sum(tally.accounts.get("/status")["redis"]["lag"].values()))

        eventually(lambda: lag() == 6)
        eventually(lambda: "6 events of customers@" in str(tally.accounts.get("/status")["reasons"]))
        assert tally.accounts.get("/status")["status"] == "degraded"
        tally.stop()
    with shop.running() as tally:
        eventually(lambda: _revenue(tally) == 30)
        eventually(lambda: not _reasons(tally))


def test_what_no_outbox_has_any_more_is_told_and_its_remedy_helps(shop: Shop, client: redis.Redis) -> None:
    shop.publish_unread(30)
    _deleted(client)
    shop.prune_outbox("customers")
    with shop.running() as tally:
        eventually(lambda: "6 events of customers@" in str(_reasons(tally)))
        eventually(lambda: "rebuild accounts" in str(_reasons(tally)))
        assert _revenue(tally) == 24
        done = command("rebuild", "accounts", "--yes", "--config", tally.directory / "tally.toml", seconds=60)
        assert done.returncode == 0, done
        eventually(lambda: _revenue(tally) == 30)
        eventually(lambda: not _reasons(tally))


def test_a_customers_service_that_was_away_too_long_learns_how_the_accounts_stand(
    shop: Shop, client: redis.Redis
) -> None:
    """The customers of the deleted account stayed for good, and status was ok."""
    with shop.running("--only", "accounts") as tally:
        tally.accounts.request("DELETE", "/accounts/1?cascade=true")
        tally.accounts.post("/accounts", {"name": "three", "owned_by": "user3"})
        assert tally.stop() == 0
    shop.prune_outbox("accounts")
    client.xtrim("event-stream", maxlen=0)
    with shop.running() as tally:
        eventually(lambda: tally.customers.get("/customers")["customers"] == [])
        eventually(tally.settled)
        eventually(lambda: not _reasons(tally))


def test_a_customers_service_does_without_what_accounts_db_lacks_since_it_was_put_back(
    shop: Shop, client: redis.Redis, tmp_path: Path
) -> None:
    """The service stayed degraded. The suggested remedy, to build accounts.db again, did not help."""
    copy = tmp_path / "copy.db"
    with shop.running("--only", "accounts") as tally:
        copied_while_in_use(shop.directory / "data" / "accounts.db", copy)
        tally.accounts.post("/accounts", {"name": "three", "owned_by": "user3"})
        eventually(lambda: client.xlen("event-stream") > 1)
        assert tally.stop() == 0
    client.xtrim("event-stream", maxlen=0)
    replaced(shop.directory / "data" / "accounts.db", copy)
    with shop.running() as tally:
        eventually(tally.settled)
        eventually(lambda: not _reasons(tally))
        assert "are nowhere any more" in " ".join(tally.accounts.get("/status")["notes"])
        tally.accounts.post("/accounts", {"name": "four", "owned_by": "user4"})
        eventually(tally.settled)


def test_what_was_recorded_after_a_deletion_outlives_that_the_deletion_is_told_again(
    shop: Shop, client: redis.Redis
) -> None:
    """Accounts aren't checked, so a customer may be recorded for a deleted account."""
    with shop.running() as tally:
        tally.accounts.request("DELETE", "/accounts/1?cascade=true")
        eventually(lambda: tally.customers.get("/customers")["customers"] == [])
        eventually(tally.settled)
        later = tally.customers.post("/customers", {"name": "later", "account_id": "1"})["id"]
        eventually(tally.settled)
        assert tally.stop() == 0
    with shop.running("--only", "accounts") as tally:
        for name in ("two", "three"):
            tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})
        assert tally.stop() == 0
    shop.prune_outbox("accounts")
    client.xtrim("event-stream", maxlen=1)
    with shop.running() as tally:
        eventually(tally.settled)
        eventually(lambda: not client.keys("*redrive*"))
        assert [each["id"] for each in tally.customers.get("/customers")["customers"]] == [later]


def test_many_missing_events_come_again_at_a_flat_pace(shop: Shop, client: redis.Redis) -> None:
    with shop.running("--only", "customers") as tally:
        for _ in range(3):
            tally.customers.post("/invoices/batch", [INVOICE] * 10_000)
        assert tally.stop() == 0
    client.xtrim("event-stream", maxlen=0)
    with shop.running() as tally:
        eventually(lambda: _revenue(tally) == 30_000)
        eventually(tally.settled)


def test_a_letter_is_not_missing_nor_is_one_that_was_discarded(shop: Shop, client: redis.Redis) -> None:
    letters = DeadLetters(EventStream(client, "event-stream"))
    with shop.running() as tally:
        client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": "x", "EventId": "shop:1"})
        client.hset("{event-stream}:published", "shop", 1)
        eventually(lambda: len(letters.all()) == 1)
        eventually(tally.settled)
        (letter,) = letters.all()
        assert letters.discard(letter)
        eventually(lambda: client.xlen(f"{{event-stream}}:redrive:{letter.group}") == 0)
        eventually(tally.settled)
        eventually(lambda: not _reasons(tally))
        assert client.keys("*asked*") == []


def test_a_letter_that_was_redriven_after_the_backup_counts_in_the_copy_that_is_put_back(
    shop: Shop, client: redis.Redis
) -> None:
    """The event was missing, no letter was left, and status was ok."""
    live, copy = shop.directory / "data" / "accounts.db", shop.directory / "copy.db"
    letters = DeadLetters(EventStream(client, "event-stream"))
    with shop.running() as tally:
        _set_revenue(live, 2**63 - 1)
        tally.customers.post("/invoices", INVOICE)
        eventually(lambda: len(letters.all()) == 1)
        _set_revenue(live, 0)
        eventually(tally.settled)
        assert tally.stop() == 0
    shutil.copy(live, copy)
    with shop.running() as tally:
        assert all(map(letters.redrive, letters.all()))
        eventually(lambda: _revenue(tally) == 1)
        assert tally.stop() == 0
    shutil.copy(copy, live)
    with shop.running() as tally:
        eventually(lambda: _revenue(tally) == 1)
        eventually(lambda: not _reasons(tally))


def test_a_lost_letter_that_nobody_can_publish_again_is_told(shop: Shop, client: redis.Redis) -> None:
    live, copy = shop.directory / "data" / "accounts.db", shop.directory / "copy.db"
    letters = DeadLetters(EventStream(client, "event-stream"))
    with shop.running() as tally:
        _set_revenue(live, 2**63 - 1)
        tally.customers.post("/invoices", INVOICE)
        eventually(lambda: len(letters.all()) == 1)
        _set_revenue(live, 0)
        tally.customers.post("/invoices", INVOICE)
        eventually(tally.settled)
        assert tally.stop() == 0
    shutil.copy(live, copy)
    with shop.running() as tally:
        assert all(map(letters.redrive, letters.all()))
        eventually(lambda: _revenue(tally) == 2)
        assert tally.stop() == 0
    shutil.copy(copy, live)
    shop.prune_outbox("customers")
    client.xtrim("event-stream", maxlen=1, approximate=False)
    with shop.running() as tally:
        eventually(lambda: "1 events of customers@" in str(_reasons(tally)))
        assert "rebuild accounts" in str(_reasons(tally))


def test_a_redriven_event_without_a_number_counts_once_beside_events_that_were_asked_for(
    shop: Shop, client: redis.Redis
) -> None:
    """The event's name was noted as that of a very old entry, and was pruned too early."""
    payload = '{"id":"9","customer_id":"1","purchase_price_cents":5,"created_date":"2019-01-09T00:00:00Z",'
    fields: Any = {"EventTypeName": "InvoiceCreated", "Payload": payload + '"purchase_date":"2019-01-09"}'}
    live = shop.directory / "data" / "accounts.db"
    letters = DeadLetters(EventStream(client, "event-stream"))
    with shop.running() as tally:
        _set_revenue(live, 2**63 - 1)
        client.xadd("event-stream", fields)
        eventually(lambda: len(letters.all()) == 1)
        _set_revenue(live, 0)
        assert tally.stop() == 0
    shop.publish_unread(10)
    _deleted(client)
    with shop.running("--only", "accounts") as tally:
        eventually(lambda: client.keys("*asked*"))
        assert tally.stop() == 0
    assert all(map(letters.redrive, letters.all()))
    for _ in range(2):  # the second time, housekeeping has run
        with shop.running() as tally:
            eventually(tally.settled)
            eventually(lambda: _revenue(tally) == 15)
            assert tally.stop() == 0
        for group in client.xinfo_groups("event-stream"):
            client.xgroup_destroy("event-stream", group["name"])


def _set_revenue(file: Path, cents: int) -> None:
    with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        connection.execute("UPDATE customer SET revenue_cents = ?", (cents,))


def test_a_redrive_is_refused_when_the_group_is_gone(shop: Shop, client: redis.Redis) -> None:
    """The letter went into a stream that nobody reads, and the command reported success."""
    fields: dict[Any, Any] = {
        "EventTypeName": "InvoiceCreated",
        "Payload": "x",
        "StreamId": "1-0",
        "Group": "accounts@00000bad",
    }
    id: Any = client.xadd("{event-stream}:dead", {**fields, "Reason": "r", "Deliveries": 1, "FailedAt": "f"})
    config = shop.directory / "tally.toml"
    done = command("dead-letters", "redrive", id.decode(), "--config", config)
    assert done.returncode == 1
    assert "accounts@00000bad, which is gone" in done.stderr
    assert client.xlen("{event-stream}:dead") == 1
    assert command("dead-letters", "discard", id.decode(), "--config", config).returncode == 0
    assert client.xlen("{event-stream}:dead") == 0
