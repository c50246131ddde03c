"""The files that a release leaves: made once for each, kept for good, and opened by every later one.

To make them, when a release's schema is final, from the root of its checkout:

PYTHONPATH=tests .venv/bin/python -m support.release

This starts Tally, records some of everything, and stops it. Then it puts the data directory, and the
services' answers from before, into `tests/data/release-<version>/`.
"""

import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import redis

from support.tally import ROOT, Tally, running
from support.waiting import eventually
from tally.version import VERSION

DATA = ROOT / "tests" / "data"
CONTENTS = "contents.json"
# A Redis before 7, such as the bundled one, has one append-only file, which every later one can read.
_FILES = ("customers.db", "accounts.db", "redis/appendonly.aof")


def releases() -> list[Path]:
    """The directories of all releases whose files are kept."""
    return sorted(DATA.glob("release-*"))


def contents(tally: Tally) -> dict[str, Any]:
    """The services' answers, in the part that every release gives, once all events have been applied."""
    eventually(tally.settled)
    return {
        "accounts": [
            {
                **_part(each["account"], "id", "name", "description", "owned_by", "created_date"),
                "customers": [
                    _part(customer, "customer_id", "name", "total_revenue_cents")
                    for customer in each["customers"]
                ],
                "total_revenue_cents": each["total_revenue_cents"],
            }
            for each in tally.accounts.get("/accounts")
        ],
        "customers": [
            _part(each, "id", "account_id", "name", "created_date")
            for each in tally.customers.get("/customers?limit=1000")["customers"]
        ],
        "invoices": [
            _part(each, "id", "customer_id", "purchase_price_cents", "purchase_date", "created_date")
            for each in tally.customers.get("/invoices?limit=1000")["invoices"]
        ],
        "identities": [tally.customers.get("/status")["identity"], tally.accounts.get("/status")["identity"]],
    }


def _part(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: answer[name] for name in names}


def copied(release: Path, data: Path) -> None:
    """Put a copy of a release's files at the future `data.directory`."""
    shutil.copytree(release, data, ignore=shutil.ignore_patterns(CONTENTS))


def _record_some_of_everything(tally: Tally) -> None:
    """Rows in every table, with some deleted things."""
    customers, accounts = tally.customers, tally.accounts
    for name in ("one", "two", "gone"):
        account = {"name": name, "owned_by": f"owner of {name}", "description": "ä description"}
        accounts.post("/accounts", account, {"Idempotency-Key": f"account {name}".replace(" ", "-")})
    for number in range(6):
        customers.post("/customers", {"name": f"customer {number}", "account_id": str(number % 3 + 1)})
    new = [
        {"customer_id": str(n % 6 + 1), "purchase_date": "2019-01-06", "purchase_price_cents": 100 + n}
        for n in range(30)
    ]
    customers.post("/invoices/batch", new, {"Idempotency-Key": "invoices"})
    customers.delete("/invoices/1")
    customers.delete("/customers/2")
    with redis.Redis.from_url(tally.settings["redis"]["url"]) as another_publisher:
        payload = {"id": "1000", "account_id": "1", "name": "theirs", "created_date": "2019-01-06T00:00:00Z"}
        another_publisher.xadd(
            "event-stream", {"EventTypeName": "CustomerCreated", "Payload": json.dumps(payload)}
        )
    eventually(lambda: len(accounts.get("/accounts/1")["customers"]) == 3)
    accounts.delete("/accounts/3?cascade=true")
    eventually(lambda: len(customers.get("/customers")["customers"]) == 3)


def _keep(data: Path, kept: Path) -> None:
    for name in _FILES:
        file = data / name
        if file.suffix == ".db":
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept / name)


def main() -> None:
    """Make the files for the release of this checkout."""
    kept = DATA / f"release-{VERSION}"
    with tempfile.TemporaryDirectory() as scratch, running(Path(scratch)) as tally:
        _record_some_of_everything(tally)
        left = contents(tally)
        if tally.stop() != 0:
            sys.exit(f"it did not stop well: {tally.said()}")
        shutil.rmtree(kept, ignore_errors=True)
        _keep(Path(scratch) / "data", kept)
    (kept / CONTENTS).write_text(json.dumps(left, indent=1, ensure_ascii=False) + "\n")
    print(f"{kept}: made")


if __name__ == "__main__":
    main()
