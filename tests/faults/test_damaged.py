"""Broken pages in a database: each program that meets one reports the file and the remedy in one line."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from support.cli import command
from support.tally import Tally, running
from support.waiting import eventually

PAGE = 4096
REMEDY = "restore it from a backup"


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    """A Tally with enough rows that some pages are only read on request."""
    with running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
        customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        for _ in range(2):
            tally.customers.post("/invoices/batch", [invoice] * 5000)
        eventually(tally.settled)
        yield tally


def _damage(database: Path, *tables: str) -> None:
    """Overwrite a table's content, as a failing disk would. No process may have the file open."""
    with closing(apsw.Connection(str(database))) as connection:
        places = ", ".join("?" * len(tables))
        where = f"name IN ({places}) AND pagetype = 'leaf'"
        pages = [page for (page,) in connection.execute(f"SELECT pageno FROM dbstat WHERE {where}", tables)]
    with database.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xff" * PAGE)


def test_what_is_asked_for_is_503_and_all_else_goes_on(tally: Tally) -> None:
    file = tally.directory / "data" / "customers.db"
    assert tally.stop() == 0
    _damage(file, "invoice")
    tally.start()

    response = tally.customers.request("GET", "/invoices/7")
    assert response.status == 503
    assert response.json()["detail"] == f"{file}: database disk image is malformed; {REMEDY}"
    assert tally.customers.get("/customers/1")["name"] == "c"
    assert "Traceback" not in tally.said()


@pytest.mark.parametrize("table", ["invoice", "invoice_by_customer", "meta"])
def test_check_and_backup_find_it(tally: Tally, tmp_path: Path, table: str) -> None:
    file, config = tally.directory / "data" / "customers.db", tally.directory / "tally.toml"
    assert tally.stop() == 0
    with closing(apsw.Connection(str(file))) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    _damage(file, table if table in names else next(name for name in names if "invoice_" in name))

    check = command("check", "--config", config)
    assert check.returncode == 1
    assert any(
        line.startswith(f"BAD   customers.db: {file}: ") and line.endswith(REMEDY)
        for line in check.stdout.splitlines()
    ), check.stdout
    assert "good  accounts.db" in check.stdout

    backup = command("backup", tmp_path / "copy", "--config", config)
    assert backup.returncode == 1
    assert backup.stderr.count("\n") == 1
    assert str(file) in backup.stderr
    assert "backup" in backup.stderr
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["accounts.db"]


@pytest.mark.parametrize("table", ["meta", "outbox"])
def test_run_ends_with_one_line_where_it_cannot_do_without(tally: Tally, table: str) -> None:
    file = tally.directory / "data" / "customers.db"
    assert tally.stop() == 0
    _damage(file, table)
    run = command("run", "--config", tally.directory / "tally.toml")
    assert run.returncode == 1
    told = [line for line in run.stderr.splitlines() if line.startswith("tally: ")]
    assert len(told) == 1
    assert str(file) in told[0]
    assert REMEDY in told[0]
    assert "Traceback" not in run.stderr
    assert "CorruptError" not in run.stderr


def test_an_actor_that_meets_it_says_so_and_the_others_go_on(tally: Tally) -> None:
    """The accounts service can't apply events any more; the customers service still takes invoices."""
    file = tally.directory / "data" / "accounts.db"
    assert tally.stop() == 0
    _damage(file, "customer", "revenue")
    tally.start()
    invoice = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 1}
    tally.customers.post("/invoices", invoice)

    def told() -> bool:
        return f"{file}: database disk image is malformed; {REMEDY}" in tally.said()

    eventually(told)
    assert "Traceback" not in tally.said()
    tally.customers.post("/invoices", invoice)
