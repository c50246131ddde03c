"""A database that can't know whether it is the newest gets a new name.

So no name and no number ever means two things.
"""

import csv
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.disks import copied_while_in_use, gone_its_own_way, replaced
from support.figures import accounts_db, agree
from support.load import Load
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.waiting import eventually
from tally.store.accounts import Accounts, NewAccount, open_database


@pytest.fixture
def tally(tmp_path: Path, server: RedisProcess) -> Iterator[Tally]:
    with running(tmp_path, redis_url=server.url) as tally:
        yield tally


def _customers_db(tally: Tally) -> Path:
    return accounts_db(tally).with_name("customers.db")


def _ids(tally: Tally) -> list[int]:
    """The ids of all invoices."""
    with closing(sqlite3.connect(_customers_db(tally))) as database:
        return [id for (id,) in database.execute("SELECT id FROM invoice ORDER BY id")]


def _names(client: redis.Redis) -> list[bytes]:
    entries: Any = client.xrange("event-stream")
    return [fields[b"EventId"] for _, fields in entries]


def _sources(client: redis.Redis) -> set[str]:
    return {name.decode().partition(":")[0] for name in _names(client) if name.startswith(b"customers@")}


def _all_is_well(tally: Tally, load: Load) -> None:
    """All accepted changes are there and count once, and new ones do too."""
    agree(tally)
    with load:
        load.goes_on(50)
    agree(tally)
    ids = [int(invoice.id or 0) for invoice in load.invoices]
    assert len(ids) == len(set(ids)), "a number was given twice"
    assert {*ids} <= {*_ids(tally)}
    for service in (tally.customers, tally.accounts):
        eventually(lambda service=service: service.get("/status")["status"] == "ok")  # type: ignore[misc]


def _gets_another_name(tally: Tally, server: RedisProcess, load: Load) -> None:
    """Start it again while Redis is away, record something, and let Redis come back."""
    eventually(tally.settled)
    assert tally.stop() == 0
    server.kill()
    tally.start()
    with load:
        load.goes_on(50)
    server.start()
    eventually(tally.settled)


def _copied_in_between(tally: Tally, load: Load, before: int, after: int) -> Path:
    """A copy of customers.db that was made while it was written to, between so many records and so many."""
    copy = tally.directory / "copy.db"
    with load:
        load.goes_on(before)
        copied_while_in_use(_customers_db(tally), copy)
        load.goes_on(after)
    eventually(tally.settled)
    return copy


def test_a_backup_that_is_written_to_while_redis_is_away_gives_other_numbers(
    tally: Tally, server: RedisProcess
) -> None:
    load = Load(tally)
    copy = _copied_in_between(tally, load, 100, 100)
    assert tally.stop() == 0
    highest, before = max(_ids(tally)), len(_ids(tally))
    server.kill()
    replaced(_customers_db(tally), copy)
    tally.start()
    posted = len(load.invoices)
    with load:
        load.goes_on(100)
    assert min(int(invoice.id or 0) for invoice in load.invoices[posted:]) > 10**9 > highest
    assert tally.said().count("began_name") == 1
    server.start()
    _all_is_well(tally, load)
    assert len([id for id in _ids(tally) if id <= highest]) == before, "what it lacked has not come back"
    assert len(_sources(server.client)) == 2
    names = _names(server.client)
    assert len(names) == len(set(names))


def test_when_redis_and_the_newest_events_are_lost_new_ones_are_not_taken_for_them(
    tally: Tally, server: RedisProcess
) -> None:
    """The new events had the names of lost ones that accounts.db had applied: they did not count."""
    load = Load(tally)
    copy = _copied_in_between(tally, load, 50, 50)
    shown = load.shown()
    assert tally.stop() == 0
    server.client.flushall()
    replaced(_customers_db(tally), copy)
    tally.start()
    posted = len(load.invoices)
    with load:
        load.goes_on(30)
    eventually(tally.settled)
    assert load.shown() == shown + sum(invoice.cents for invoice in load.invoices[posted:])


def test_what_only_a_lost_name_told_is_named_and_left_out_when_told_to(
    tally: Tally, server: RedisProcess, tmp_path: Path
) -> None:
    """customers.db is an older copy without that name, Redis lost all: only accounts.db has the effect."""
    load, copy = Load(tally), tmp_path / "copy.db"
    with load:
        load.goes_on(50)
    eventually(tally.settled)
    copied_while_in_use(_customers_db(tally), copy)
    assert tally.stop() == 0
    server.kill()
    tally.start()
    assert load.invoices[0].id
    tally.customers.request("DELETE", f"/invoices/{load.invoices[0].id}")
    server.start()
    eventually(tally.settled)
    assert tally.stop() == 0
    server.client.flushall()
    replaced(_customers_db(tally), copy)
    tally.start()
    eventually(tally.settled)
    assert load.shown() == sum(invoice.cents for invoice in load.invoices[1:])
    notes = " ".join(tally.customers.get("/status")["notes"])
    assert "`rebuild accounts` leaves it out" in notes
    config = str(tally.directory / "tally.toml")
    assert command("rebuild", "accounts", "--yes", "--config", config, seconds=60).returncode == 0
    assert load.shown() == sum(invoice.cents for invoice in load.invoices)
    _all_is_well(tally, load)


def test_a_start_while_redis_is_away_goes_on_under_another_name_and_loses_nothing(
    tally: Tally, server: RedisProcess
) -> None:
    load = Load(tally)
    with load:
        load.goes_on(50)
    eventually(tally.settled)
    for _ in range(2):
        assert tally.stop() == 0
        server.kill()
        tally.start()
        with load:
            load.goes_on(50)
        tally.accounts.post("/accounts", {"name": "meanwhile", "owned_by": "u"})
        assert tally.customers.get("/status")["outbox_depth"] > 0
        tally.kill("customers-http-1")
        with load:
            load.goes_on(20)
        server.start()
        eventually(tally.settled)
        assert tally.customers.get("/status")["outbox_depth"] == 0
    _all_is_well(tally, load)
    assert len(_sources(server.client)) == 3
    server.client.flushall()
    _all_is_well(tally, load)
    assert len(_sources(server.client)) == 3, "not all names were published again"


def test_what_is_started_again_while_redis_is_away_keeps_its_name(tally: Tally, server: RedisProcess) -> None:
    """It has seen on Redis that it is the newest, and has been written to ever since."""
    load = Load(tally)
    with load:
        load.goes_on(50)
        server.kill()
        for actor in ("customers-relay", "customers-http-1"):
            ended = tally.kill(actor)
            eventually(lambda actor=actor, ended=ended: tally.pids().get(actor, ended) != ended)  # type: ignore[misc]
            load.goes_on(20)
        before = tally.pids()
        tally.process.send_signal(signal.SIGHUP)
        eventually(lambda: not {*before.values()} & {*tally.pids().values()})
        load.goes_on(20)
        server.start()
        load.goes_on(20)
    _all_is_well(tally, load)
    assert len(_sources(server.client)) == 1
    assert max(_ids(tally)) == len(_ids(tally))
    assert "began_name" not in tally.said()


def test_a_backup_from_before_another_name_takes_over_both(
    tally: Tally, server: RedisProcess, tmp_path: Path
) -> None:
    load, copy = Load(tally), tmp_path / "copy.db"
    with load:
        load.goes_on(50)
        copied_while_in_use(_customers_db(tally), copy)
    for _ in range(2):
        _gets_another_name(tally, server, load)
    assert tally.stop() == 0
    before = _ids(tally)
    replaced(_customers_db(tally), copy)
    tally.start()
    eventually(lambda: _ids(tally) == before)
    _all_is_well(tally, load)


@pytest.mark.parametrize("times", [1, 2])
def test_a_copy_that_has_gone_its_own_way_keeps_both(tally: Tally, server: RedisProcess, times: int) -> None:
    """The remedy used to delete newer entries than the copy from the stream."""
    load = Load(tally)
    copy = _copied_in_between(tally, load, 100, 100)
    for _ in range(times):
        assert tally.stop() == 0
        before = len(_ids(tally))
        replaced(_customers_db(tally), copy)
        gone_its_own_way(_customers_db(tally))
        tally.start()
        _all_is_well(tally, load)
        assert len(_ids(tally)) >= before + 300
    names = _names(server.client)
    assert len(names) == len(set(names))
    files = sorted(
        _customers_db(tally).parent.glob("renumbered-*.csv"), key=lambda file: file.stat().st_mtime
    )
    assert len(files) == times
    rows = list(csv.DictReader(files[-1].open()))
    assert {int(row["new id"]) for row in rows if row["what"] == "invoice"} <= {*_ids(tally)}
    assert str(files[-1]) in str(tally.customers.get("/status")["notes"])


def test_killed_while_it_takes_back_or_parts_ways_it_comes_to_the_same(
    tally: Tally, server: RedisProcess
) -> None:
    load = Load(tally)
    copy = _copied_in_between(tally, load, 100, 1500)
    assert tally.stop() == 0
    before = len(_ids(tally))
    replaced(_customers_db(tally), copy)
    gone_its_own_way(_customers_db(tally))
    for tenth in range(2, 10, 2):
        tally.launch()
        with pytest.raises(Exception, match="timed out"):
            tally.process.wait(tenth / 10)
        tally.end()
    tally.start()
    _all_is_well(tally, load)
    assert len(_ids(tally)) >= before + 300


def _put_back_older_accounts(tally: Tally, load: Load) -> list[str]:
    """Stop Tally and put an older accounts.db back; return the accounts opened since that copy."""
    copy = tally.directory / "copy.db"
    copied_while_in_use(accounts_db(tally), copy)
    with load:
        load.goes_on(20)
    opened = [_open_account(tally, f"before {number}") for number in range(3)]
    eventually(tally.settled)
    assert tally.stop() == 0
    replaced(accounts_db(tally), copy)
    return opened


def test_accounts_that_a_copy_opens_while_redis_is_away_are_all_there(
    tally: Tally, server: RedisProcess
) -> None:
    load = Load(tally)
    opened = _put_back_older_accounts(tally, load)
    server.kill()
    tally.start()
    again = [_open_account(tally, f"after {number}") for number in range(5)]
    server.start()
    _all_is_well(tally, load)
    names = {each["account"]["id"]: each["account"]["name"] for each in tally.accounts.get("/accounts")}
    assert [names[id] for id in opened] == ["before 0", "before 1", "before 2"]
    assert [names[id] for id in again] == [f"after {number}" for number in range(5)]


def test_accounts_that_two_copies_have_opened_are_all_there(tally: Tally) -> None:
    load = Load(tally)
    opened = _put_back_older_accounts(tally, load)
    store = Accounts(open_database(accounts_db(tally).parent))
    with closing(store.database) as database, database.transaction():
        again = [store.create_account(NewAccount(f"after {number}", "u")) for number in range(5)]
        store.delete_account(again[4])
    assert int(opened[0]) in again
    tally.start()
    _all_is_well(tally, load)
    names = {each["account"]["id"]: each["account"]["name"] for each in tally.accounts.get("/accounts")}
    assert [names.pop(id) for id in opened] == ["before 0", "before 1", "before 2"]
    names.pop(load.account)
    assert sorted(names.values()) == [f"after {number}" for number in range(4)]
    assert all(int(id) > 10**9 for id in names)


def test_a_repeated_request_is_answered_with_the_number_that_counts(
    tally: Tally, server: RedisProcess
) -> None:
    """Its row was renumbered, as the stream had another row with that number."""
    account = _open_account(tally, "a")
    customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
    eventually(tally.settled)
    assert tally.stop() == 0
    copy = tally.directory / "copy.db"
    copied_while_in_use(_customers_db(tally), copy)
    tally.start()
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 5}
    tally.customers.post("/invoices", invoice)
    eventually(tally.settled)
    assert tally.stop() == 0
    replaced(_customers_db(tally), copy)
    with closing(sqlite3.connect(_customers_db(tally))) as database, database:
        now = database.execute("SELECT strftime('%s', 'now')").fetchone()[0]
        keys = {"one": ("/invoices/1", '{"id":"1"}'), "many": (None, '{"ids":["2","3"]}')}
        for key, (location, body) in keys.items():
            database.execute(
                "INSERT INTO idempotency VALUES (?, x'00', ?, ?, ?, NULL)",
                (key, location, body.encode(), int(now)),
            )
    gone_its_own_way(_customers_db(tally))
    tally.start()
    agree(tally)
    with closing(sqlite3.connect(_customers_db(tally))) as database:
        answers = dict(database.execute("SELECT key, CAST(body AS TEXT) FROM idempotency"))
        location = database.execute("SELECT location FROM idempotency WHERE key = 'one'").fetchone()[0]
    first = min(id for id in _ids(tally) if id > 10**9)
    assert answers["one"] == f'{{"id":"{first}"}}'
    assert location == f"/invoices/{first}"
    assert answers["many"] == f'{{"ids":["{first + 1}","{first + 2}"]}}'


def test_a_customers_db_with_several_names_is_recovered_whole(tally: Tally, server: RedisProcess) -> None:
    load = Load(tally)
    with load:
        load.goes_on(50)
    _gets_another_name(tally, server, load)
    assert tally.stop() == 0
    before = _ids(tally)
    _customers_db(tally).unlink()
    done = command("recover", "customers", "--config", tally.directory / "tally.toml")
    assert done.returncode == 0, done.stderr
    assert _ids(tally) == before
    tally.start()
    _all_is_well(tally, load)


def _open_account(tally: Tally, name: str) -> str:
    return str(tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"])
