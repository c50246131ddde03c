"""A database that comes from an earlier copy, or is gone: what was committed is found again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import command
from support.disks import copied_while_in_use, copied_with_its_log, gone_its_own_way, removed, replaced
from support.invoices import Load
from support.tally import Tally, running
from support.waiting import eventually


def _open_account(tally: Tally, name: str) -> str:
    return str(tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"])


def _accounts(tally: Tally) -> list[Any]:
    return list(tally.accounts.get("/accounts"))


def _copy(tally: Tally, database: Path, copy: Path, by: Callable[[Path, Path], None]) -> None:
    """Copy the database under load; a copy with its log is of one that has been stopped."""
    if by is copied_with_its_log:
        assert tally.stop() == 0
        by(database, copy)
        tally.start()
    else:
        by(database, copy)


@pytest.mark.parametrize("by", [copied_while_in_use, copied_with_its_log])
def test_an_older_accounts_db_catches_up_by_itself(tmp_path: Path, by: Callable[[Path, Path], None]) -> None:
    with running(tmp_path) as tally:
        database, copy = tmp_path / "data" / "accounts.db", tmp_path / "copy.db"
        with Load(tally) as load:
            load.goes_on()
            _copy(tally, database, copy, by)
            since = [_open_account(tally, f"since {number}") for number in range(3)]
            load.goes_on()
            gone = _open_account(tally, "gone")
            tally.accounts.delete(f"/accounts/{gone}")
            load.goes_on()
        load.is_counted_once()
        before = _accounts(tally)
        assert tally.stop() == 0

        replaced(database, copy)
        tally.start()
        with load:
            fresh = _open_account(tally, "fresh")
            load.goes_on()
        load.is_counted_once()
        assert [each["account"] for each in _accounts(tally)] == [
            *(each["account"] for each in before),
            tally.accounts.get(f"/accounts/{fresh}")["account"],
        ]
        assert int(fresh) > max(map(int, [*since, gone]))
        status = json.loads(command("status", "--json", "--config", tmp_path / "tally.toml").stdout)
        assert [actor["trouble"] for actor in status["actors"] if actor["trouble"]] == []
        assert tally.accounts.get("/status")["outbox_depth"] == 0


def test_without_its_accounts_db_it_comes_to_the_same_accounts(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        with Load(tally) as load:
            others = [_open_account(tally, f"account {number}") for number in range(3)]
            tally.accounts.delete(f"/accounts/{others[1]}")
            load.goes_on()
        load.is_counted_once()
        before, identity = _accounts(tally), tally.accounts.get("/status")["identity"]
        assert tally.stop() == 0

        removed(tmp_path / "data" / "accounts.db")
        tally.start()
        eventually(lambda: _accounts(tally) == before)
        assert tally.accounts.get("/status")["identity"] != identity
        with load:
            fresh = _open_account(tally, "fresh")
            load.goes_on()
        load.is_counted_once()
        assert int(fresh) > max(map(int, others))


@pytest.fixture
def older_customers_db(tmp_path: Path) -> Any:
    """A Tally that was started again on an older customers.db which has gone its own way since.

    And what it had published before.
    """
    with running(tmp_path) as tally:
        database, copy = tmp_path / "data" / "customers.db", tmp_path / "copy.db"
        with Load(tally) as load:
            load.goes_on()
            copied_while_in_use(database, copy)
            load.goes_on()
        load.is_counted_once()
        assert tally.stop() == 0
        replaced(database, copy)
        gone_its_own_way(database)
        tally.start()
        yield tally, load


def test_an_older_customers_db_publishes_nothing_more(older_customers_db: tuple[Tally, Load]) -> None:
    tally, load = older_customers_db
    total = load.shown()
    eventually(lambda: "restored from an older copy" in tally.said())
    for number in range(300):  # beyond where the earlier database had got
        tally.customers.post("/customers", {"name": f"{number}", "account_id": load.account})
    assert tally.stop() == 0  # a relay drains its outbox then, and must not
    tally.start()
    eventually(lambda: "restored from an older copy" in tally.said())
    shown = tally.accounts.get(f"/accounts/{load.account}")
    assert (shown["total_revenue_cents"], len(shown["customers"])) == (total, 1)
    ids = {each["id"] for each in tally.customers.get("/invoices?limit=1000")["invoices"][:-300]}
    assert len(ids) < len(load.invoices), "what was published since has come back"


def test_the_log_and_status_name_the_remedy_for_an_older_customers_db(
    older_customers_db: tuple[Tally, Load],
) -> None:
    tally, _ = older_customers_db
    eventually(lambda: "`rebuild accounts`" in tally.said())
    told = command("status", "--json", "--config", tally.directory / "tally.toml")
    relay = next(each for each in json.loads(told.stdout)["actors"] if each["name"] == "customers-relay")
    assert "rebuild" in str(relay["trouble"])
    report = tally.customers.get("/status")
    assert report["status"] == "degraded"
    assert any("rebuild" in reason for reason in report["reasons"])
