"""`rebuild accounts` computes the figures again, from the stream or from customers.db."""

import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.disks import copied_while_in_use, removed
from support.engines import bundled_process, free_port
from support.figures import accounts_db, agree, kept_totals, recorded, revenue_by_customer, shown, spoil
from support.tally import Tally, running
from support.waiting import eventually
from tally.actors.lock import DirectoryLock
from tally.recovery.rebuilding import Rebuilding
from tally.store import customers
from tally.store.accounts import open_database
from tally.store.database import Database
from tally.store.dead_letters import DeadLetters
from tally.store.groups import Groups
from tally.store.read_model import FOLDER, STREAM, Shadow
from tally.store.stream import EventStream, connect

FOREIGN = "900002"  # a customer known only from another publisher


def rebuild(tally: Tally, *options: str) -> str:
    """Run the command, which must succeed; return its output."""
    done = command("rebuild", "accounts", *options, "--config", tally.directory / "tally.toml", seconds=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(tally: Tally, *options: str) -> str:
    """Run the command, which must refuse without a traceback; return its messages."""
    done = command("rebuild", "accounts", *options, "--config", tally.directory / "tally.toml", seconds=60)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def record(tally: Tally) -> None:
    """Create accounts, customers and invoices, and delete some of each."""
    accounts = [tally.accounts.post("/accounts", {"name": f"{n}", "owned_by": "u"})["id"] for n in range(4)]
    customers = tally.customers.post(
        "/customers/batch", [{"name": f"{n}", "account_id": accounts[n % 4]} for n in range(40)]
    )["ids"]
    invoices = tally.customers.post(
        "/invoices/batch",
        [
            {
                "customer_id": random.choice(customers),
                "purchase_date": "2019-01-06",
                "purchase_price_cents": random.randint(0, 1_000_000),
            }
            for _ in range(1500)
        ],
    )["ids"]
    for invoice in invoices[:20]:
        tally.customers.delete(f"/invoices/{invoice}")
    tally.customers.delete(f"/customers/{customers[0]}")
    tally.accounts.delete(f"/accounts/{accounts[3]}?cascade=true")
    eventually(tally.settled)


def publish(
    client: redis.Redis, type: str, payload: Mapping[str, object], event_id: str = "", by: str = ""
) -> None:
    """Publish as another program does."""
    fields = {"EventTypeName": type, "Payload": json.dumps(payload), "EventId": event_id, "By": by}
    told: dict[Any, Any] = {name: value for name, value in fields.items() if value}
    client.xadd("event-stream", told)


def _invoice(customer: str, cents: int) -> dict[str, object]:
    told = {"id": "1", "customer_id": customer, "purchase_price_cents": cents}
    return {**told, "created_date": "2019-03-23T02:52:06Z", "purchase_date": "2019-01-06"}


def publish_foreign_customer(client: redis.Redis, account: str) -> None:
    """A customer with an invoice of 500 cents, and two entries that can't be applied."""
    then = "2019-03-23T02:52:06Z"
    customer = {"id": FOREIGN, "account_id": account, "name": "f", "created_date": then}
    publish(client, "CustomerCreated", customer)
    publish(client, "InvoiceCreated", _invoice(FOREIGN, 500))
    publish(client, "SomethingElse", {"id": "1"}, "other@1:1")
    publish(client, "InvoiceCreated", {"broken": True}, "other@1:2")
    eventually(lambda: client.xlen("{event-stream}:dead") == 1)  # the letter of the accounts service


def _source(file: Path) -> str:
    """The name that a database publishes under. Its group has the same name."""
    with closing(sqlite3.connect(file)) as database:
        [(identity,)] = database.execute("SELECT value FROM meta WHERE key = 'identity'")
    return f"{file.stem}@{identity}"


def _give_up_what_is_told(tally: Tally) -> str:
    """Say that the database for whose events `status` waits is gone for good; return its source."""
    [lost] = {*re.findall(r"`groups remove (.*?)`", str(tally.accounts.get("/status")["reasons"]))}
    done = command("groups", "remove", lost, "--yes", "--config", tally.directory / "tally.toml")
    assert done.returncode == 0, done.stderr
    return str(lost)


def _lose_the_stream(tally: Tally, client: redis.Redis) -> None:
    """Lose all that Redis has; what the outboxes have is on the stream again."""
    assert tally.stop() == 0
    client.flushall()
    tally.start()
    eventually(tally.settled)


def trim(tally: Tally) -> None:
    """Trim every applied entry from the stream: all of them, once both services have read it."""
    groups = Groups(_stream(tally))
    eventually(lambda: not any(group.unread or group.pending for group in groups.all()))
    assert _stream(tally).trim(0)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Tally]:
    """A running Tally with some history. Its Redis outlives it."""
    with (
        bundled_process(tmp_path / "redis", free_port()) as url,
        running(tmp_path, redis_url=url, consumers={"claim_idle_ms": 200, "max_deliveries": 2}) as tally,
    ):
        record(tally)
        yield tally


@pytest.fixture
def client(filled: Tally) -> Iterator[redis.Redis]:
    """A client of the filled Tally's Redis."""
    with redis.Redis.from_url(filled.settings["redis"]["url"], protocol=2) as client:
        yield client


def test_spoiled_figures_are_put_right_on_every_engine(tally: Tally) -> None:
    record(tally)
    spoil(tally)
    assert "from the stream" in rebuild(tally)
    agree(tally)
    trim(tally)
    record(tally)
    spoil(tally)
    assert "from customers@" in rebuild(tally)
    agree(tally)


def test_spoiled_figures_are_put_right_from_the_stream(filled: Tally, client: redis.Redis) -> None:
    publish_foreign_customer(client, "1")
    eventually(filled.settled)
    right = shown(filled)
    assert right["1"][FOREIGN] == 500
    spoil(filled)
    assert shown(filled) != right

    assert "from the stream" in rebuild(filled)
    assert shown(filled) == right
    record(filled)
    right = recorded(filled)
    right["1"][FOREIGN] = 500
    assert shown(filled) == right
    assert client.xlen("{event-stream}:dead") == 1
    assert not (accounts_db(filled).parent / FOLDER).exists()


def test_what_is_recorded_meanwhile_is_not_missing_on_the_stream(filled: Tally) -> None:
    spoil(filled)

    @contextmanager
    def show(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: None
        record(filled)  # the last page has been read

    rebuilding = Rebuilding(accounts_db(filled).parent, _stream(filled), lambda loss: False, show)
    with closing(rebuilding):
        assert rebuilding.run().startswith("built again from the stream")
    agree(filled)


def test_once_the_stream_was_trimmed_they_come_from_customers_db(filled: Tally) -> None:
    trim(filled)
    for _ in range(2):
        record(filled)  # still on the stream, and in customers.db too
        spoil(filled)
        assert "from customers@" in rebuild(filled)
        agree(filled)


def test_what_another_publisher_told_stays_as_it_is_shown(filled: Tally, client: redis.Redis) -> None:
    """The customers.db of the rebuild knows none of those events, and notes nothing of their source."""
    publish_foreign_customer(client, "1")
    customer, before = next(iter(recorded(filled)["1"].items()))

    def are(foreign: int, more: int) -> bool:  # two consumers read them, in either order
        figures = shown(filled)["1"]
        return (figures[FOREIGN], figures[customer]) == (foreign, before + more)

    publish(client, "InvoiceCreated", _invoice(customer, 9), "other@2:3")  # the two before it are missing
    # This one stays, as the last one that was read.
    publish(client, "InvoiceCreated", _invoice(FOREIGN, 70), "other@2:4")
    eventually(lambda: are(570, 9))
    trim(filled)
    publish(client, "InvoiceCreated", _invoice(customer, 400), "other@2:5")
    publish(client, "InvoiceCreated", _invoice(FOREIGN, 1000), "other@2:6")
    eventually(lambda: are(1570, 409))
    figures, totals = shown(filled), kept_totals(filled)
    figures["1"][customer] -= 9  # the customer is Tally's own, and the stream has lost the event
    totals["1"] = (totals["1"][0], totals["1"][1] - 9)
    rebuild(filled)
    assert (shown(filled), kept_totals(filled)) == (figures, totals)
    with closing(sqlite3.connect(accounts_db(filled))) as database:
        ranges = database.execute("SELECT first, last FROM inbox_range WHERE source = 'other@2'").fetchall()
    assert ranges == [(3, 6)]


def test_an_edited_dead_letter_counts_on_when_built_from_customers_db(
    filled: Tally, client: redis.Redis
) -> None:
    """An invoice of one of our customers, by another program that gives its events no names."""
    customer, before = next(iter(recorded(filled)["1"].items()))
    publish(client, "InvoiceCreated", {**_invoice(customer, 1), "purchase_price_cents": "x"})
    [letter] = eventually(lambda: DeadLetters(_stream(filled)).all())
    edited = filled.directory / "edited.json"
    edited.write_text(json.dumps(_invoice(customer, 777)))
    config = ("--config", str(filled.directory / "tally.toml"))
    done = command("dead-letters", "edit", letter.id, "--payload", edited, *config)
    assert done.returncode == 0, done.stderr
    assert _has_revenue(filled, customer) == before + 777
    trim(filled)
    publish(client, "InvoiceCreated", _invoice(customer, 500))
    eventually(lambda: _has_revenue(filled, customer) == before + 777 + 500)
    told = rebuild(filled)
    assert _has_revenue(filled, customer) == before + 777 + 500, told


def test_revenue_that_nothing_else_knows_any_more_goes_with_consent_alone(
    filled: Tally, client: redis.Redis
) -> None:
    """Its customer was never told of, and Redis lost the stream since."""
    publish(client, "InvoiceCreated", _invoice(FOREIGN, 1250))
    eventually(lambda: _has_revenue(filled, FOREIGN) == 1250)
    _lose_the_stream(filled, client)
    assert "1 customers that are shown now, or have revenue, are known neither to" in refused(filled)
    assert _has_revenue(filled, FOREIGN) == 1250
    rebuild(filled, "--yes")
    assert _has_revenue(filled, FOREIGN) == 0


def test_it_says_what_revenue_was_if_that_is_another_now(filled: Tally, client: redis.Redis) -> None:
    """Redis lost another program's invoice of our customer: the customers service doesn't know it."""
    customer, before = next(iter(recorded(filled)["1"].items()))
    total = sum(cents for customers in recorded(filled).values() for cents in customers.values())
    assert "revenue" not in rebuild(filled)
    publish(client, "InvoiceCreated", _invoice(customer, 1250))
    eventually(lambda: _has_revenue(filled, customer) == before + 1250)
    _lose_the_stream(filled, client)
    told = rebuild(filled)
    assert f"; revenue was {(total + 1250) / 100:,.2f} in all, and is {total / 100:,.2f}" in told


def test_while_tally_is_stopped_what_it_had_not_read_yet_counts_once(
    filled: Tally, client: redis.Redis
) -> None:
    assert filled.stop() == 0
    then = "2019-03-23T02:52:06Z"
    customer = {"id": FOREIGN, "account_id": "1", "name": "f", "created_date": then}
    account = {"id": "70", "name": "a", "description": "", "owned_by": "u", "created_date": then}
    publish(client, "CustomerCreated", customer)
    publish(client, "AccountCreated", account, by="ana")
    spoil(filled)
    rebuild(filled)
    filled.start()
    eventually(filled.settled)
    figures = shown(filled)
    assert figures["1"].pop(FOREIGN) == 0
    assert figures == recorded(filled)
    assert figures["70"] == {}
    assert [each["by"] for each in filled.accounts.get("/accounts/70/history")["history"]] == ["ana"]


def test_a_new_accounts_db_on_a_trimmed_stream_asks_the_outbox_for_what_is_missing(filled: Tally) -> None:
    trim(filled)
    record(filled)
    assert filled.stop() == 0
    removed(accounts_db(filled))
    filled.start()
    eventually(
        lambda: "of accounts@" in str(filled.accounts.get("/status")["reasons"])
    )  # of the lost database
    eventually(lambda: "of customers@" not in str(filled.accounts.get("/status")["reasons"]))
    config = ("--config", str(filled.directory / "tally.toml"))
    own = _source(accounts_db(filled))
    done = command("groups", "remove", own, "--yes", *config)
    assert (done.returncode, f"{own} is of a database in" in done.stderr) == (1, True)
    lost = _give_up_what_is_told(filled)
    eventually(lambda: filled.accounts.get("/status")["reasons"] == [])
    assert f"events of {lost}, which is gone for good" in str(filled.accounts.get("/status")["notes"])
    eventually(filled.settled)
    agree(filled)


def test_a_database_that_was_given_up_and_is_there_again_is_asked(filled: Tally, tmp_path: Path) -> None:
    trim(filled)
    assert filled.stop() == 0
    database, copy = accounts_db(filled), tmp_path / "copy.db"
    source = _source(database)
    copied_while_in_use(database, copy)
    removed(database)
    filled.start()
    eventually(lambda: f"`groups remove {source}`" in str(filled.accounts.get("/status")["reasons"]))
    config = ("--config", str(filled.directory / "tally.toml"))
    assert command("groups", "remove", source, "--yes", *config).returncode == 0
    eventually(lambda: filled.accounts.get("/status")["reasons"] == [])
    assert filled.stop() == 0
    removed(database)
    copy.rename(database)
    filled.start()
    eventually(lambda: not _stream(filled).client.exists("{event-stream}:removed"))
    agree(filled)


def test_a_new_accounts_db_says_that_it_needs_it_when_no_outbox_has_what_is_missing(filled: Tally) -> None:
    trim(filled)
    record(filled)
    assert filled.stop() == 0
    removed(accounts_db(filled))
    with closing(sqlite3.connect(accounts_db(filled).with_name("customers.db"))) as connection, connection:
        connection.execute("DELETE FROM outbox WHERE sequence < (SELECT max(sequence) FROM outbox)")
    filled.start()
    eventually(lambda: "`rebuild accounts`" in str(filled.accounts.get("/status")["reasons"]))
    rebuild(filled)
    _give_up_what_is_told(filled)  # the lost accounts.db
    agree(filled)
    assert filled.accounts.get("/status")["status"] == "ok"


def test_without_customers_db_a_trimmed_stream_is_not_enough(filled: Tally) -> None:
    trim(filled)
    assert filled.stop() == 0
    removed(accounts_db(filled).with_name("customers.db"))
    assert "put a copy there" in refused(filled)


def test_without_redis_it_says_so_and_changes_nothing(filled: Tally) -> None:
    before = shown(filled)
    config = filled.directory / "other.toml"
    text = (filled.directory / "tally.toml").read_text()
    config.write_text(text.replace(filled.settings["redis"]["url"], f"redis://127.0.0.1:{free_port()}/0"))
    done = command("rebuild", "accounts", "--config", config)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Redis at redis://127.0.0.1" in done.stderr
    assert shown(filled) == before


def test_one_at_a_time(filled: Tally) -> None:
    lock = DirectoryLock(accounts_db(filled).parent, "rebuild")
    try:
        assert "in use by another rebuild" in refused(filled)
    finally:
        lock.close()
    rebuild(filled)


@pytest.fixture
def begun(filled: Tally) -> Shadow:
    """An interrupted rebuild of a Tally that is stopped by now. The name of customer 2 identifies it."""
    assert filled.stop() == 0
    live, stream = open_database(accounts_db(filled).parent), _stream(filled)
    shadow = Shadow.of(live, [STREAM], stream)
    shadow.take(next(stream.pages()))
    with _shadow_file(filled) as database:
        database.execute("UPDATE customer_name SET name = 'from the shadow' WHERE id = 2")
    live.close()
    return shadow


def _is_taken_up(tally: Tally) -> bool:
    rebuild(tally)
    tally.start()
    eventually(tally.settled)
    return "from the shadow" in _customer_names(tally)


def test_what_was_interrupted_goes_on_where_it_was(filled: Tally, begun: Shadow) -> None:
    assert _is_taken_up(filled)
    agree(filled)


def test_killed_before_it_removed_what_had_taken_its_place_it_counts_nothing_twice(
    filled: Tally, client: redis.Redis
) -> None:
    """Then the figures of other programs are in both files."""
    trim(filled)
    publish_foreign_customer(client, "1")
    publish(client, "InvoiceCreated", _invoice(FOREIGN, 70), "other@2:1")
    eventually(lambda: shown(filled)["1"][FOREIGN] == 570)
    assert filled.stop() == 0
    before = kept_totals(filled)
    directory = accounts_db(filled).parent
    with (
        closing(open_database(directory)) as live,
        closing(customers.open_database(directory)) as owned,
    ):
        shadow = Shadow.of(live, [owned.source], _stream(filled))
        shadow.copy(owned, lambda done: None)
        for entries in _stream(filled).pages(shadow.position):
            shadow.take(entries)
        with live.transaction():
            shadow.take_place_in(live)
    rebuild(filled)
    assert kept_totals(filled) == before


def test_what_was_begun_for_another_accounts_db_is_thrown_away(filled: Tally, begun: Shadow) -> None:
    removed(accounts_db(filled))
    assert not _is_taken_up(filled)
    agree(filled)


def test_what_was_begun_on_another_stream_is_thrown_away(
    filled: Tally, begun: Shadow, client: redis.Redis
) -> None:
    entries: Any = client.xrange("event-stream")
    client.delete("event-stream")
    for _, fields in entries:
        client.xadd("event-stream", fields)
    assert not _is_taken_up(filled)
    agree(filled)


def test_an_event_that_cannot_be_applied_is_left_to_the_consumers(
    filled: Tally, begun: Shadow, client: redis.Redis
) -> None:
    for entries in _stream(filled).pages(begun.position):
        begun.take(entries)
    with _shadow_file(filled) as database:
        database.execute("DELETE FROM recent_month")
        database.execute("UPDATE customer SET revenue_cents = 0")
        database.execute("UPDATE customer SET revenue_cents = 9223372036854000000 WHERE id = 2")
    then = "2019-03-23T02:52:06Z"
    invoice = {"id": "1", "customer_id": "2", "purchase_price_cents": 10**12, "created_date": then}
    publish(client, "InvoiceCreated", invoice | {"purchase_date": "2019-01-06"})
    publish(client, "CustomerCreated", {"id": FOREIGN, "account_id": "1", "name": "f", "created_date": then})
    rebuild(filled)
    filled.start()
    eventually(lambda: client.xlen("{event-stream}:dead") == 1)
    eventually(filled.settled)
    assert shown(filled)["1"][FOREIGN] == 0


@contextmanager
def _shadow_file(tally: Tally) -> Iterator[Database]:
    with closing(open_database(accounts_db(tally).parent / FOLDER)) as database, database.transaction():
        yield database


def _stream(tally: Tally) -> EventStream:
    return EventStream(connect(tally.settings["redis"]["url"]), "event-stream")


def _has_revenue(tally: Tally, customer: str) -> int:
    with closing(open_database(accounts_db(tally).parent, make=False)) as database:
        return revenue_by_customer(database).get(int(customer), 0)


def _customer_names(tally: Tally) -> set[str]:
    return {customer["name"] for each in tally.accounts.get("/accounts") for customer in each["customers"]}
