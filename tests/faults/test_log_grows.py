"""A reader that never ends keeps a database's log from being emptied: Tally reports it until then."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support.scraping import scrape
from support.tally import Tally, running
from support.waiting import eventually

MUCH = 64_000_000  # bytes
LITTLE = 1_000_000


@contextmanager
def pinned(database: Path) -> Iterator[None]:
    """A program has begun a read transaction, and doesn't end it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        yield


def test_the_log_that_a_reader_holds_back_is_told_and_shrinks_when_the_reader_has_gone(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
        customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        log = tmp_path / "data" / "customers.db-wal"
        posted = 0
        with pinned(tmp_path / "data" / "customers.db"):
            while log.stat().st_size < MUCH:
                tally.customers.post("/invoices/batch", [invoice] * 100)  # many pages, and few events
                posted += 100
            status = tally.customers.get("/status")
            assert status["status"] == "degraded"
            assert any("customers.db-wal" in reason for reason in status["reasons"])
            assert status["database_log_bytes"] >= MUCH
            assert _figure(tally) >= MUCH
        eventually(lambda: log.stat().st_size < LITTLE)
        eventually(lambda: tally.customers.get("/status")["status"] == "ok")
        assert _figure(tally) < LITTLE
        eventually(lambda: tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == posted)


def _figure(tally: Tally) -> float:
    return scrape(tally.customers).value("tally_database_log_bytes")
