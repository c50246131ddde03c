"""A database is restored from an earlier copy, or is gone: Tally finds all committed changes again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import command
from support.disks import copied_while_in_use, copied_with_its_log, removed, replaced
from support.load import Load
from support.tally import Tally, running
from support.waiting import eventually


def _open_account(tally: Tally, name: str) -> str:
    return str(tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"])


def _accounts(tally: Tally) -> list[Any]:
    return list(tally.accounts.get("/accounts"))


def _copy(tally: Tally, database: Path, copy: Path, by: Callable[[Path, Path], None]) -> None:
    """Copy the database under load. A copy with its log is made of a stopped Tally."""
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
