"""Upgrading: this release opens the files of every release, and the next one opens this one's."""

import json
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import release
from support.cli import command
from support.tally import ROOT, Tally, running
from support.waiting import eventually
from tally.actors.services import SERVICES
from tally.store import accounts, customers
from tally.store.database import Database


def test_the_first_releases_files_are_kept() -> None:
    assert release.DATA / "release-0.1.0" in release.releases()


def _one_more_of_everything(tally: Tally) -> None:
    """Work goes on: new ids are above all others, and an invoice is counted once."""
    before = release.contents(tally)
    last = {
        kind: max((int(each["id"]) for each in before[kind]), default=0) for kind in ("accounts", "customers")
    }
    account = tally.accounts.post("/accounts", {"name": "new", "owned_by": "u"})["id"]
    customer = tally.customers.post("/customers", {"name": "new", "account_id": account})["id"]
    tally.customers.post(
        "/invoices", {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 7}
    )
    after = release.contents(tally)
    assert (int(account) > last["accounts"], int(customer) > last["customers"]) == (True, True)
    assert after["accounts"][:-1] == before["accounts"]
    assert after["accounts"][-1]["total_revenue_cents"] == 7


@pytest.mark.parametrize("kept", release.releases(), ids=lambda kept: kept.name)
def test_a_releases_data_directory_is_taken_over_as_it_was_left(tmp_path: Path, kept: Path) -> None:
    release.copied(kept, tmp_path / "data")
    with running(tmp_path) as tally:
        assert release.contents(tally) == json.loads((kept / release.CONTENTS).read_text())
        reports = [tally.customers.get("/status"), tally.accounts.get("/status")]
        assert [report["reasons"] for report in reports] == [[], []]
        _one_more_of_everything(tally)


def test_what_the_first_release_counted_has_no_month_until_it_is_counted_again(tmp_path: Path) -> None:
    """FOUND D12."""
    release.copied(release.DATA / "release-0.1.0", tmp_path / "data")
    with running(tmp_path) as tally:
        before = {
            each["account"]["id"]: each["total_revenue_cents"] for each in tally.accounts.get("/accounts")
        }
        for account, total in before.items():
            (unknown,) = tally.accounts.get(f"/accounts/{account}/revenue")["revenue"] or [None]
            assert (unknown and unknown["month"], unknown["revenue_cents"] if unknown else 0) == (None, total)
        customer = next(
            each for each in tally.customers.get("/customers")["customers"] if each["account_id"] in before
        )
        invoice = {"customer_id": customer["id"], "purchase_date": "2026-11-27", "purchase_price_cents": 5}
        tally.customers.post("/invoices", invoice)
        eventually(tally.settled)
        periods = tally.accounts.get(f"/accounts/{customer['account_id']}/revenue")["revenue"]
        assert [(each["month"], each["revenue_cents"]) for each in periods] == [
            ("2026-11", 5),
            (None, before[customer["account_id"]]),
        ]
        assert command("rebuild", "accounts", "--config", tally.directory / "tally.toml").returncode == 0
        eventually(tally.settled)
        invoices = tally.customers.get("/invoices?limit=1000")["invoices"]
        account_of = {
            each["id"]: each["account_id"]
            for each in tally.customers.get("/customers?limit=1000")["customers"]
        }
        for account in before:
            expected = Counter[str]()
            for each in invoices:
                if account_of[each["customer_id"]] == account:
                    expected[each["purchase_date"][:7]] += each["purchase_price_cents"]
            found = tally.accounts.get(f"/accounts/{account}/revenue")["revenue"]
            assert {
                each["month"]: each["revenue_cents"] for each in found if each["revenue_cents"]
            } == expected


def _tables(database: Database) -> dict[str, Any]:
    """The structure of a schema, however it was written down."""
    names = database.rows("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    tables = [name for type, name in names if type == "table"]
    return {
        "names": sorted(names),
        "tables": sorted(database.rows("PRAGMA table_list")),
        "columns": {name: database.rows(f"PRAGMA table_xinfo({name})") for name in tables},
        "indexes": {name: sorted(database.rows(f"PRAGMA index_list({name})")) for name in tables},
        "indexed": {
            name: database.rows(f"PRAGMA index_xinfo({name})") for type, name in names if type == "index"
        },
        "references": {name: database.rows(f"PRAGMA foreign_key_list({name})") for name in tables},
        "triggers": sorted(database.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")),
    }


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kept", release.releases(), ids=lambda kept: kept.name)
def test_a_releases_file_comes_to_the_schema_of_a_new_one(tmp_path: Path, kept: Path, service: str) -> None:
    release.copied(kept, tmp_path / "kept")
    (tmp_path / "new").mkdir()
    upgraded = SERVICES[service].open(tmp_path / "kept", migrate=True)
    assert _tables(upgraded) == _tables(SERVICES[service].open(tmp_path / "new"))


def _schema(module: ModuleType) -> int:
    """The version of a service's schema."""
    return 1 + len(module.MIGRATIONS)


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Programs started from now on belong to a release that adds these steps to its schemas."""

    def install(**steps: str) -> None:
        tree = tmp_path / "next" / "tally"
        leave = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "data", "tests", "docs")
        shutil.copytree(ROOT, tree, ignore=leave, dirs_exist_ok=True)
        for service, step in steps.items():
            module = tree / "store" / f"{service}.py"
            source = module.read_text(encoding="utf-8")
            further = f"\nMIGRATIONS = (*MIGRATIONS, {step!r})\n"
            opened = "open_database = open_database._replace(migrations=MIGRATIONS)\n"
            module.write_text(f"{source}\n{further}{opened}", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tree.parent))

    return install


def test_run_brings_the_files_up_to_date_and_nothing_else_does(
    tmp_path: Path, next_release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as tally:
        next_release(
            customers="ALTER TABLE customer ADD COLUMN note TEXT;",
            accounts="ALTER TABLE account ADD COLUMN note TEXT;",
        )
        config = tmp_path / "tally.toml"
        checked = command("check", "--config", config)  # the next release's, while this one runs
        assert (checked.returncode, checked.stdout.count("`run` brings it up to date")) == (0, 2)
        _one_more_of_everything(tally)
        left = release.contents(tally)
        assert tally.stop() == 0

        tally.start()
        assert release.contents(tally) == left
        assert tally.said().count("bringing_up_to_date") == 2
        _one_more_of_everything(tally)
        assert tally.stop() == 0

        monkeypatch.delenv("PYTHONPATH")
        refused = command("run", "--config", config)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        newer = f"(schema {_schema(customers) + 1}, this one knows {_schema(customers)})"
        assert f"customers.db: written by a newer release {newer}" in refused.stderr


def test_an_upgrade_that_fails_says_so_in_a_line_and_the_release_before_goes_on(
    tmp_path: Path, next_release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "u"})
        left = release.contents(tally)
        assert tally.stop() == 0
        next_release(accounts="CREATE TABLE note (id); INSERT INTO note SELECT id FROM nowhere;")
        failed = command("run", "--config", tmp_path / "tally.toml")
        assert failed.returncode == 1
        told = [line for line in failed.stderr.splitlines() if line.startswith("tally: ")]
        assert len(told) == 1
        step = f"from schema {_schema(accounts)} to {_schema(accounts) + 1}"
        assert f"can't be brought {step}: no such table: nowhere" in told[0]

        monkeypatch.delenv("PYTHONPATH")
        tally.start()
        assert release.contents(tally) == left
        _one_more_of_everything(tally)
