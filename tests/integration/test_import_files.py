"""`import` of other programs' files: reading them, knowing rows again, taking an import back."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import credit, invoice, new_account, new_customer

from support import users
from support.cli import command
from support.disks import filled, tmpfs
from support.program import SUPERVISOR
from support.tally import ROOT, Tally, running
from support.waiting import eventually

FILES = ROOT / "tests" / "data" / "imports"
HEADER = "Invoice,Customer,Date,Amount\n"
NAMED = ("--customer", "Customer", "--date", "Date", "--amount", "Amount")
KNOWN = ("--id-column", "Invoice", *NAMED)


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """One Tally for all tests here; each imports into an account of its own."""
    with running(tmp_path_factory.mktemp("import-files")) as tally:
        yield tally


@pytest.fixture
def account(tally: Tally) -> str:
    return new_account(tally.accounts)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file."""

    def written(content: str) -> Path:
        path = tmp_path / f"{time.monotonic_ns()}.csv"
        path.write_text(content)
        return path

    return written


def _import(
    tally: Tally, account: str | None, file: Path, *options: str, status: int = 0
) -> "subprocess.CompletedProcess[str]":
    of = ("--account", account) if account else ()
    done = command("import", "--config", tally.directory / "tally.toml", *of, *options, file, seconds=60)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


def _invoices(tally: Tally, account: str) -> list[tuple[str, str, int, str | None]]:
    """Customer, date, cents and reference of each, ordered by id."""
    names = {each["id"]: each["name"] for each in _customers(tally, account)}
    found = tally.customers.get(f"/invoices?account_id={account}&limit=1000")["invoices"]
    return [
        (
            names[each["customer_id"]],
            each["purchase_date"],
            each["purchase_price_cents"],
            each.get("reference"),
        )
        for each in found
    ]


def _customers(tally: Tally, account: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tally.customers.get(f"/customers?account_id={account}&limit=1000")[
        "customers"
    ]
    return found


def _held(tally: Tally, account: str) -> tuple[int, int, int, int]:
    """The counts of customers, invoices and credits, and the cents of all together."""
    invoices = tally.customers.get(f"/invoices?account_id={account}&limit=1000")["invoices"]
    credits = tally.customers.get(f"/credits?account_id={account}&limit=1000")["credits"]
    cents = sum(each["purchase_price_cents"] for each in invoices) - sum(
        each["credited_cents"] for each in credits
    )
    return len(_customers(tally, account)), len(invoices), len(credits), cents


def _total(tally: Tally, account: str) -> int:
    eventually(tally.settled)
    total: int = tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"]
    return total


# Made-up files. Each has a property of real ones.

DECIMAL_COMMA = (
    "--encoding", "cp1252", "--customer", "Kunde", "--date", "Datum", "--amount", "Betrag", "--date-format",
    "%d.%m.%Y", "--decimal", ",", "--negative", "credit",
)  # fmt: skip
US_DATES = (
    "--customer", "Client", "--date", "Invoice Date", "--amount", "Total", "--date-format", "%m/%d/%Y",
    "--negative", "credit",
)  # fmt: skip
LINES = ("--id-column", "Invoice Number", "--customer", "Customer Name", "--date", "Invoice Date")
PAYMENTS = (
    "--customer", "Customer Email", "--date", "Created date (UTC)", "--amount", "Amount", "--id-column", "id",
    "--where", "Status=Paid",
)  # fmt: skip
NO_HEADER = (
    "--no-header",
    "--date",
    "1",
    "--customer",
    "2",
    "--amount",
    "3",
    "--delimiter",
    ";",
    "--decimal",
    ",",
)


@pytest.mark.parametrize(
    ("name", "options", "held"),
    [
        ("decimal-comma.csv", DECIMAL_COMMA, (2, 2, 1, 130446)),
        ("us-dates.csv", US_DATES, (2, 2, 1, 126550)),
        ("preamble.csv", ("--skip-lines", "3", *NAMED, "--skip-bad"), (2, 2, 0, 3000)),
        ("excel-unicode.txt", NAMED, (2, 2, 0, 1950)),
        ("sep-line.csv", (), (2, 2, 0, 300)),
        ("old-mac.csv", (), (2, 2, 0, 300)),
        ("lines-of-invoices.csv", (*LINES, "--amount", "Item Total", "--lines", "sum"), (2, 2, 0, 4000)),
        ("lines-of-invoices.csv", (*LINES, "--amount", "Total", "--lines", "first"), (2, 2, 0, 4000)),
        ("no-header.csv", NO_HEADER, (1, 2, 0, 730)),
        ("payments.csv", PAYMENTS, (1, 2, 0, 2600)),
        ("thousandths.csv", ("--skip-bad",), (1, 1, 0, 2933)),
        ("thousandths.csv", ("--round",), (2, 2, 0, 3933)),
    ],
)
def test_a_file_is_read_with_these_options(
    tally: Tally, account: str, name: str, options: tuple[str, ...], held: tuple[int, int, int, int]
) -> None:
    dry = _import(tally, account, FILES / name, *options, "--dry-run")
    assert "Nothing was recorded (--dry-run)" in dry.stdout
    assert _held(tally, account) == (0, 0, 0, 0)
    done = _import(tally, account, FILES / name, *options)
    assert _held(tally, account) == held
    assert f"together   {held[3] / 100:.2f}, from " in done.stdout
    assert done.stdout.splitlines()[1:] == dry.stdout.splitlines()[1 : len(done.stdout.splitlines())]
    assert _total(tally, account) == held[3]
    assert _import(tally, account, FILES / name, *options).stdout.startswith("Nothing new")
    assert _held(tally, account) == held


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (
            "lines-of-invoices.csv",
            (*LINES, "--amount", "Total"),
            "Expected one row for each, got 2 for 'INV-1'",
        ),
        ("lines-of-invoices.csv", (*LINES, "--amount", "Item Total"), "--lines takes them for one invoice"),
        ("thousandths.csv", (), "Expected at most two decimals"),
        ("preamble.csv", ("--skip-lines", "3", *NAMED), "Customer: Expected 1 to 200 characters, got 0"),
        ("us-dates.csv", US_DATES[:-2], "An amount can't be negative. To take an invoice back, delete it"),
        ("us-dates.csv", US_DATES[:6], "Expected a date, YYYY-MM-DD, got '1/31/2024'"),
        ("decimal-comma.csv", DECIMAL_COMMA[2:], "Expected UTF-8"),
    ],
)
def test_what_is_in_doubt_is_refused(
    tally: Tally, account: str, name: str, options: tuple[str, ...], told: str
) -> None:
    for more in ((), ("--dry-run",)):
        refused = _import(tally, account, FILES / name, *options, *more, status=1)
        assert told in refused.stderr
        assert _held(tally, account) == (0, 0, 0, 0)
    assert "Nothing would be imported" in refused.stdout


def test_payments_of_several_currencies_are_warned_of(tally: Tally, account: str) -> None:
    done = _import(tally, account, FILES / "payments.csv", *PAYMENTS)
    assert "warning: the column 'Currency' looks like a currency and has several: eur, usd" in done.stderr


def test_next_month_s_file_has_last_month_s_rows_too(tally: Tally, account: str) -> None:
    _import(tally, account, FILES / "january.csv", *KNOWN)
    assert _held(tally, account) == (2, 2, 0, 3000)
    done = _import(tally, account, FILES / "january-february.csv", *KNOWN)
    assert "invoices   1 (30.00) new, 2 (30.00) known" in done.stdout
    assert "customers  0 new, 2 known" in done.stdout
    assert _held(tally, account) == (2, 3, 0, 6000)


# Rows that are known already


def test_a_known_row_with_other_content_is_bad_until_it_is_to_be_updated(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    _import(tally, account, file(f"{HEADER}A,Ann,2024-01-06,10\nB,Ann,2024-01-07,5\n"), *KNOWN)
    other = file(f"{HEADER}A,Ann,2024-01-08,11\nB,Ann,2024-01-07,5\nC,Bo,2024-01-09,1\n")
    refused = _import(tally, account, other, *KNOWN, status=1)
    assert "line 2: Invoice: Expected what is there: the invoice" in refused.stderr
    assert "is of 2024-01-06, 10.00; --update changes it, got 'A'" in refused.stderr
    assert _held(tally, account) == (1, 2, 0, 1500)

    done = _import(tally, account, other, *KNOWN, "--update")
    assert "invoices   1 (1.00) new, 1 (5.00) known, 1 (11.00) changed" in done.stdout
    assert [each[1:] for each in _invoices(tally, account)] == [
        ("2024-01-08", 1100, "A"), ("2024-01-07", 500, "B"), ("2024-01-09", 100, "C"),
    ]  # fmt: skip
    assert _import(tally, account, other, *KNOWN, "--update").stdout.startswith("Nothing new")
    assert _total(tally, account) == 1700


def test_a_known_row_of_another_customer_stays_bad(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    _import(tally, account, file(f"{HEADER}A,Ann,2024-01-06,10\n"), *KNOWN)
    other = file(f"{HEADER}A,Bo,2024-01-06,10\nB,Bo,2024-01-06,1\n")
    for options in ((), ("--update",)):
        refused = _import(tally, account, other, *KNOWN, *options, status=1)
        assert "is of another customer" in refused.stderr
    _import(tally, account, other, *KNOWN, "--skip-bad")
    assert _invoices(tally, account) == [("Ann", "2024-01-06", 1000, "A"), ("Bo", "2024-01-06", 100, "B")]


def test_a_mended_file_adds_what_was_left_out(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    """FOUND C3: skipping bad rows first, and importing them fixed later, counts nothing twice."""
    content = f"{HEADER}A,Ann,2024-01-06,10\nB,Ann,soon,5\n"
    _import(tally, account, file(content), *KNOWN, "--skip-bad")
    assert _held(tally, account) == (1, 1, 0, 1000)
    _import(tally, account, file(content.replace("soon", "2024-01-07")), *KNOWN)
    assert _held(tally, account) == (1, 2, 0, 1500)


def test_bad_rows_are_written_apart_to_be_mended_and_imported_alone(
    tally: Tally, account: str, file: Callable[[str], Path], tmp_path: Path
) -> None:
    content = "customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,soon,5\nAnn,2024-01-07,x\n"
    apart = tmp_path / "bad.csv"
    _import(tally, account, file(content), "--skip-bad", "--rejects", str(apart))
    assert _held(tally, account) == (1, 1, 0, 1000)
    rows = [*csv.DictReader(io.StringIO(apart.read_text()))]
    assert [(each["customer"], each["line"]) for each in rows] == [("Bo", "3"), ("Ann", "4")]
    apart.write_text(apart.read_text().replace("soon", "2024-01-08").replace("-07,x", "-07,7"))
    _import(tally, account, apart)
    assert _held(tally, account) == (2, 3, 0, 2200)


def test_what_can_not_be_written_is_named_and_not_the_file_that_is_read(
    account: str, tally: Tally, file: Callable[[str], Path], tmp_path: Path
) -> None:
    bad = file("customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,soon,5\n")
    told = _import(tally, account, bad, "--skip-bad", "--rejects", "/dev/full", status=1).stderr
    assert "tally: /dev/full: could not be written: No space left on device" in told
    with tmpfs(tmp_path / "disk", megabytes=1) as disk, running(disk) as full:
        account = new_account(full.accounts)
        with filled(disk):
            told = _import(
                full, account, file("customer,purchase_date,amount\nA,2024-01-06,1\n"), status=1
            ).stderr
        assert f"tally: {disk}/data/imports/" in told
        assert ".jsonl: could not be written: No space left on device; free some space" in told


def test_bad_rows_from_standard_input_are_written_too(tally: Tally, account: str, tmp_path: Path) -> None:
    apart = tmp_path / "bad.csv"
    arguments = ["import", "--config", str(tally.directory / "tally.toml"), "--account", account, "-"]
    done = subprocess.run(
        [sys.executable, str(SUPERVISOR), *arguments, "--skip-bad", "--rejects", str(apart)],
        input=b"customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,soon,5\n",
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    assert apart.read_text().splitlines()[1].startswith("Bo,soon,5,3,")


def test_bad_rows_from_a_file_that_was_read_in_part_before_are_those_that_were_bad(
    tally: Tally, account: str, file: Callable[[str], Path], tmp_path: Path
) -> None:
    """A shell's `read` may take the lines before the names."""
    apart = tmp_path / "bad.csv"
    content = file("From a bank\ncustomer,purchase_date,amount\nAnn,2024-01-06,10\nBo,soon,5\n")
    arguments = ["import", "--config", str(tally.directory / "tally.toml"), "--account", account, "-"]
    with content.open("rb", buffering=0) as rest:
        rest.readline()
        done = subprocess.run(
            [sys.executable, str(SUPERVISOR), *arguments, "--skip-bad", "--rejects", str(apart)],
            stdin=rest,
            capture_output=True,
            timeout=60,
        )
    assert done.returncode == 0, done
    assert [row[:3] for row in csv.reader(io.StringIO(apart.read_text()))][1:] == [["Bo", "soon", "5"]]


def test_a_file_that_is_changed_while_it_is_read_is_not_imported(
    tally: Tally, account: str, file: Callable[[str], Path], tmp_path: Path
) -> None:
    """The pipe for bad rows is full until it is read, so the rest of the file is read late."""
    content = file("customer,purchase_date,amount\nAnn,2024-01-06,10\n" + "Bo,soon,5\n" * 100_000)
    apart = tmp_path / "bad.csv"
    os.mkfifo(apart)
    arguments = ["import", "--config", str(tally.directory / "tally.toml"), "--account", account]
    arguments += ["--skip-bad", "--rejects", str(apart), str(content)]
    with subprocess.Popen(
        [sys.executable, str(SUPERVISOR), *arguments], stderr=subprocess.PIPE, text=True
    ) as importing:
        with apart.open() as bad:
            with content.open("a") as more:
                more.write('Cy,soon,"5\n')
            while bad.read(64 * 1024):
                pass
        _, told = importing.communicate(timeout=60)
    assert importing.returncode == 1
    assert told.splitlines()[-1].endswith("was changed while it was read: run this again")
    assert _held(tally, account) == (0, 0, 0, 0)


def test_an_invoice_of_several_rows_is_bad_as_a_whole(
    tally: Tally, account: str, file: Callable[[str], Path], tmp_path: Path
) -> None:
    """Else its bad rows, imported alone, would be a part of its amount."""
    ids = [new_customer(tally.customers, account, "Ann") for _ in range(2)]
    apart = tmp_path / "bad.csv"
    content = file(f"{HEADER}A,Ann,2024-01-06,10\nB,Bo,2024-01-06,1\nA,Ann,2024-01-06,5\n")
    options = (*KNOWN, "--lines", "sum")
    done = _import(tally, account, content, *options, "--skip-bad", "--rejects", str(apart))
    assert "line 4: Customer: Expected one customer" in done.stderr
    tally.customers.delete(f"/customers/{ids[1]}")
    _import(tally, account, apart, *options)
    assert _invoices(tally, account) == [("Bo", "2024-01-06", 100, "B"), ("Ann", "2024-01-06", 1500, "A")]


def test_a_row_of_an_unknown_account_spoils_its_invoice(tally: Tally, file: Callable[[str], Path]) -> None:
    id = tally.accounts.post("/accounts", {"name": "Told twice", "owned_by": "user1"})["id"]
    rows = f"{id},A,Ann,2024-01-06,10\nNone,A,Ann,2024-01-06,5\n"
    rows += f"{id},B,Ann,2024-01-06,1\nTold twice,B,Ann,2024-01-06,1\n"
    options = (*KNOWN, "--lines", "sum", "--account-column", "Account", "--skip-bad")
    done = _import(tally, None, file(f"Account,{HEADER}{rows}{id},C,Ann,2024-01-06,2\n"), *options)
    for line, reference in (2, "A"), (4, "B"):
        assert f"line {line}: Invoice: Another row of {reference!r} is bad" in done.stderr
    assert _invoices(tally, id) == [("Ann", "2024-01-06", 200, "C")]


def test_every_row_that_is_bad_is_no_success(tally: Tally, account: str, file: Callable[[str], Path]) -> None:
    """FOUND C2: a scheduled job must notice it."""
    refused = _import(
        tally, account, file("customer,purchase_date,amount\nAnn,x,1\n"), "--skip-bad", status=1
    )
    assert "nothing was imported, as every row is bad (1)" in refused.stderr
    none = file(f"Status,{HEADER}Open,A,Ann,2024-01-06,1\n")
    refused = _import(tally, account, none, *KNOWN, "--where", "Status=Paid", status=1)
    assert "--where takes none of the 1 rows" in refused.stderr


def test_overlapping_files_are_told_by_what_they_have(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    """FOUND C4: by customer, date, amount, and the number of equal rows."""
    head = "customer,purchase_date,amount\n"
    twice = "Ann,2024-01-06,10\nAnn,2024-01-06,10\n"
    _import(tally, account, file(f"{head}{twice}Bo,2024-01-07,5\n"), "--overlapping")
    assert _held(tally, account) == (2, 3, 0, 2500)
    more = file(f"{head}{twice}Ann,2024-01-06,10\nBo,2024-01-07,5\nCy,2024-02-01,1\nBo,2024-02-02,-1\n")
    done = _import(tally, account, more, "--overlapping", "--negative", "credit")
    assert "invoices   2 (11.00) new, 3 (25.00) known" in done.stdout
    assert _held(tally, account) == (3, 5, 1, 3500)
    again = _import(tally, account, more, "--overlapping", "--negative", "credit")
    assert again.stdout.startswith("Nothing new")


def test_rows_that_look_like_what_is_there_are_warned_of(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    head = "customer,purchase_date,amount\nAnn,2024-01-06,10\n"
    assert _import(tally, account, file(head)).stderr == ""
    dry = _import(tally, account, file(f"{head}Bo,2024-01-07,5\n"), "--dry-run")
    assert "warning: 1 rows have the customer, date and amount of what is there already" in dry.stderr


# Customers and accounts


def test_customers_are_found_by_name_whoever_made_them(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    ann = new_customer(tally.customers, account, "Ann")
    content = "customer,purchase_date,amount\nAnn,2024-01-06,10\nANN,2024-01-06,1\n"
    done = _import(tally, account, file(content))
    assert "customers  1 new, 1 known" in done.stdout
    assert "differ in case or blanks alone: 'ANN', 'Ann'" in done.stderr
    (own,) = tally.customers.get(f"/invoices?customer_id={ann}")["invoices"]
    assert own["purchase_price_cents"] == 1000


def test_two_customers_of_one_name_are_told_and_the_row_is_bad(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    ids = [new_customer(tally.customers, account, "Ann") for _ in range(2)]
    content = file("customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,2024-01-06,1\n")
    refused = _import(tally, account, content, status=1)
    assert f"line 2: customer: Expected one customer of account {account} with this name" in refused.stderr
    assert f"there are {ids[0]} and {ids[1]}, got 'Ann'" in refused.stderr
    _import(tally, account, content, "--skip-bad")
    assert _held(tally, account) == (3, 1, 0, 100)

    tally.customers.delete(f"/customers/{ids[1]}")
    again = _import(tally, account, content, "--skip-bad")
    assert "line 2: Was bad when this file was imported, and left out" in again.stderr
    assert _held(tally, account) == (2, 1, 0, 100)


def test_every_name_can_be_a_new_customer(tally: Tally, account: str, file: Callable[[str], Path]) -> None:
    new_customer(tally.customers, account, "Ann")
    content = file("customer,purchase_date,amount\nAnn,2024-01-06,10\n")
    _import(tally, account, content, "--new-customers")
    assert _held(tally, account) == (2, 1, 0, 1000)


def test_each_row_may_have_its_own_account_by_id_or_name(tally: Tally, file: Callable[[str], Path]) -> None:
    name = f"Own {time.monotonic_ns()}"
    ids = [
        str(tally.accounts.post("/accounts", {"name": each, "owned_by": "user1"})["id"])
        for each in (name, f"{name} b", f"{name} c", f"{name} c")
    ]
    rows = [
        f"{name},Ann,2024-01-06,1",
        f"{ids[1]},Ann,2024-01-06,2",
        f"{name} c,Ann,2024-01-06,4",
        "no,Ann,2024-01-06,8",
    ]
    content = file("of,customer,purchase_date,amount\n" + "\n".join(rows))
    done = _import(tally, None, content, "--account-column", "of", "--skip-bad")
    assert f"line 4: of: Expected one account, there are {ids[2]} and {ids[3]}" in done.stderr
    assert "line 5: of: Expected the id or the name of an account, got 'no'" in done.stderr
    assert [_held(tally, id) for id in ids] == [(1, 1, 0, 100), (1, 1, 0, 200), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert _import(tally, None, content, "--account-column", "of", "--skip-bad").stdout.startswith(
        "Nothing new"
    )


def test_an_account_that_is_renamed_between_two_runs_mixes_nothing_up(
    tally: Tally, file: Callable[[str], Path]
) -> None:
    """Rows are counted from the file alone, whatever accounts exist."""
    name = f"Renamed {time.monotonic_ns()}"
    one, two = (
        str(tally.accounts.post("/accounts", {"name": each, "owned_by": "user1"})["id"])
        for each in (name, f"{name} too")
    )
    rows = f"{name} later,Ann,2024-01-06,1\n{name},Bo,2024-01-06,2\n{name} too,Cy,2024-01-06,4\n"
    content = file(f"of,customer,purchase_date,amount\n{rows}")
    options = ("--account-column", "of", "--skip-bad")
    _import(tally, None, content, *options)
    assert [_held(tally, id) for id in (one, two)] == [(1, 1, 0, 200), (1, 1, 0, 400)]
    assert tally.accounts.request("PATCH", f"/accounts/{two}", {"name": f"{name} later"}).status == 200
    again = _import(tally, None, content, *options)
    assert "line 2: Was bad when this file was imported" in again.stderr
    assert [_held(tally, id) for id in (one, two)] == [(1, 1, 0, 200), (1, 1, 0, 400)]


def test_an_account_that_is_told_in_two_ways_is_bad(tally: Tally, file: Callable[[str], Path]) -> None:
    name = f"Twice {time.monotonic_ns()}"
    id = str(tally.accounts.post("/accounts", {"name": name, "owned_by": "user1"})["id"])
    content = file(f"of,customer,purchase_date,amount\n{id},Ann,2024-01-06,1\n{name},Ann,2024-01-06,2\n")
    done = _import(tally, None, content, "--account-column", "of", "--skip-bad")
    assert f"Expected one way to tell the account {id}, '{id}' is another" in done.stderr
    assert _held(tally, id) == (1, 1, 0, 100)


def test_bad_rows_are_not_written_over_the_file_itself(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    content = file("customer,purchase_date,amount\nAnn,soon,1\n")
    refused = _import(tally, account, content, "--skip-bad", "--rejects", str(content), status=1)
    assert "--rejects would overwrite" in refused.stderr
    assert "soon" in content.read_text()


# Messages


def test_a_dry_run_tells_all_and_records_nothing(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    new_customer(tally.customers, account, "Ann")
    content = file(f"{HEADER}A,Ann,2024-01-06,10\nB,Bo,2024-01-08,-2.50\nC,Cy,soon,1\nD,Cy,later,1\nE,x\n")
    before = {*(tally.directory / "data").rglob("*")}
    dry = _import(tally, account, content, *KNOWN, "--negative", "credit", "--skip-bad", "--dry-run")
    assert dry.stdout.splitlines() == [
        "Nothing was recorded (--dry-run). The import would do this:",
        "rows       5, 3 bad",
        "customers  1 new, 1 known",
        "invoices   1 (10.00) new, 0 known",
        "credits    1 (-2.50) new, 0 known",
        "together   7.50, from 2024-01-06 to 2024-01-08",
        "bad        2: Date: Expected a date, YYYY-MM-DD",
        "bad        1: Expected 4 columns",
        "line 2: 2024-01-06, 10.00, 'Ann', 'A'",
        "line 3: 2024-01-08, -2.50, 'Bo', 'B'",
    ]
    assert _held(tally, account) == (1, 0, 0, 0)
    assert {*(tally.directory / "data").rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--account-column", "x"), "give either --account or --account-column"),
        (("--id-column", "x", "--overlapping"), "give either --id-column or --overlapping"),
        (("--overlapping", "--new-customers"), "--new-customers goes neither"),
        (("--lines", "sum"), "--lines needs --id-column"),
        (("--update",), "--update needs --id-column"),
        (("--undo", "--dry-run"), "--undo takes back for real"),
        (("--date-format", "%d.%m"), "Expected day, month and year"),
        (("--date-format", "%d.%d.%m.%Y"), "Expected day, month and year"),
        (("--encoding", "klingon"), "Expected an encoding"),
        (("--encoding", "base64"), "Expected an encoding"),
        (("--encoding", "idna"), "Expected an encoding"),
        (("--encoding", "undefined"), "Expected an encoding"),
        (("--where", "Paid"), "Expected COLUMN=VALUE"),
        (("--skip-lines", "-1"), "-1 is not in the range"),
        (("--decimal", "'"), "is not one of"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options: tuple[str, ...], told: str) -> None:
    done = command("import", "--account", "1", *options, str(FILES / "january.csv"))
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "a workbook of Excel"),
        (b"\x1f\x8b\x08\x00\x00", "packed by gzip"),
        ("customer,purchase_date,amount\r\n".encode("utf-16-le"), "--encoding utf-16-le"),
        (b'"cust"omer,purchase_date,amount\n', "line 1: is no CSV"),
        (b'customer,purchase_date,amount,"open\n', "line 1: is no CSV"),
        (b"a\rb\n", "line 1: the column 'customer' is not there"),
    ],
)
def test_files_that_are_none_are_told_without_a_traceback(
    tally: Tally, account: str, tmp_path: Path, content: bytes, told: str
) -> None:
    """FOUND C1."""
    file = tmp_path / "file.csv"
    file.write_bytes(content)
    (line,) = _import(tally, account, file, status=1).stderr.splitlines()
    assert told in line


# Taking an import back


def test_an_import_is_taken_back_but_for_what_was_changed_since(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    new_customer(tally.customers, account, "Ann")
    rows = [
        "A,Ann,2024-01-06,10",
        "B,Bo,2024-01-07,5",
        "C,Cy,2024-01-08,1",
        "D,Di,2024-01-09,2",
        "E,Ed,2024-01-10,-3",
    ]
    content = file(HEADER + "\n".join(rows))
    options = (*KNOWN, "--negative", "credit")
    _import(tally, account, content, *options)
    assert _held(tally, account) == (5, 4, 1, 1500)
    ids = {each[3]: each for each in _invoices(tally, account)}
    found = tally.customers.get(f"/invoices?account_id={account}")["invoices"]
    by_reference = {each["reference"]: each for each in found}
    assert ids.keys() == by_reference.keys()
    changed = tally.customers.request(
        "PATCH", f"/invoices/{by_reference['B']['id']}", {"purchase_price_cents": 600}
    )
    assert changed.status == 200
    tally.customers.post(
        "/invoices", invoice(by_reference["C"]["customer_id"], 7)
    )  # by hand, for its customer
    tally.customers.post(
        "/credits", credit(by_reference["D"]["customer_id"], 1, invoice_id=by_reference["D"]["id"])
    )

    undone = _import(tally, account, content, "--undo")
    assert undone.stdout == "Taken back: 1 credits, 2 invoices, 1 customers; 5 stay.\n"
    assert f"the invoice {by_reference['B']['id']} stays: it was changed since" in undone.stderr
    assert f"the invoice {by_reference['D']['id']} stays: it has invoices or credits" in undone.stderr
    assert _held(tally, account) == (4, 3, 1, 600 + 7 + 200 - 1)

    again = _import(tally, account, content, "--undo", status=1)
    assert "nothing is noted" in again.stderr
    done = _import(tally, account, content, *options, "--skip-bad")
    assert "line 3: Invoice: Expected what is there" in done.stderr
    assert _held(tally, account) == (5, 5, 2, 1000 + 600 + 100 + 7 + 200 - 1 - 300)
    assert _total(tally, account) == 1000 + 600 + 100 + 7 + 200 - 1 - 300


def test_a_file_that_is_known_as_a_whole_is_taken_back_and_imported_again(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    content = file("customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,2024-01-07,5\n")
    for _ in range(3):
        done = _import(tally, account, content)
        assert done.stdout.startswith("Imported.")
        assert _held(tally, account) == (2, 2, 0, 1500)
        undone = _import(tally, account, content, "--undo")
        assert undone.stdout == "Taken back: 0 credits, 2 invoices, 2 customers.\n"
        assert _held(tally, account) == (0, 0, 0, 0)


def test_a_file_that_nobody_imported_can_t_be_taken_back(
    tally: Tally, account: str, file: Callable[[str], Path]
) -> None:
    refused = _import(tally, account, file(f"{HEADER}A,Ann,2024-01-06,10\n"), "--undo", status=1)
    assert f"of an import of this file into account {account}" in refused.stderr


def test_with_another_user_s_token_nothing_is_taken_back_and_the_import_stays_known(tmp_path: Path) -> None:
    content = tmp_path / "file.csv"
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        root = users.sign_in(tally, "root")
        maria, tom = (new_account(root.accounts, owned_by=name) for name in ("maria", "tom"))
        for name in ("maria", "tom"):
            users.add(tally, name)
        of = {each: users.sign_in(tally, each).token for each in ("maria", "tom")}

        # Into one account
        content.write_text("customer,purchase_date,amount\nAnn,2024-01-06,10\nBo,2024-01-07,5\n")
        eventually(lambda: _import(tally, maria, content, "--token", root.token))
        refused = _import(tally, None, content, "--undo", "--token", of["tom"], status=1)
        assert f"for the user of this token there is no account {maria}" in refused.stderr
        again = _import(tally, maria, content, "--token", of["maria"])
        assert again.stdout.startswith("Nothing new")
        (invoice, _) = root.customers.get("/invoices")["invoices"]
        root.customers.request("DELETE", f"/invoices/{invoice['id']}")
        undone = _import(tally, None, content, "--undo", "--token", of["maria"])
        assert undone.stdout == (
            "Taken back: 0 credits, 1 invoices, 2 customers; 1 had been deleted before.\n"
        )

        # Into accounts of several
        content.write_text(
            f"account,customer,purchase_date,amount\n{maria},Ann,2024-01-06,1\n{tom},Bo,2024-01-06,2\n"
        )
        by_column = ("--account-column", "account")
        _import(tally, None, content, *by_column, "--token", root.token)
        refused = _import(tally, None, content, "--undo", "--token", of["maria"], status=1)
        assert "0 credits, 1 invoices, 1 customers. 2 are not there for the user of this token" in (
            refused.stderr
        )
        undone = _import(tally, None, content, "--undo", "--token", root.token)
        assert "0 credits, 1 invoices, 1 customers; 2 had been deleted before." in undone.stdout
        assert root.customers.get("/invoices")["invoices"] == []


# Imports killed in between


@pytest.mark.parametrize("options", [KNOWN, (*NAMED, "--overlapping")], ids=["id", "overlapping"])
def test_killed_while_a_batch_is_on_its_way_it_adds_nothing_twice_and_all_can_be_taken_back(
    tally: Tally, account: str, file: Callable[[str], Path], options: tuple[str, ...]
) -> None:
    rows = "".join(f"I-{place},Customer {place % 3},2024-01-06,{place}.00\n" for place in range(2500))
    content, total = file(HEADER + rows), sum(range(2500)) * 100
    before = {*(tally.directory / "data" / "imports").glob("*")}
    server = tally.pids()["customers-http-1"]
    arguments = [
        "--config",
        str(tally.directory / "tally.toml"),
        "--account",
        account,
        *options,
        str(content),
    ]
    with subprocess.Popen([sys.executable, str(SUPERVISOR), "import", *arguments]) as process:
        note = eventually(lambda: {*(tally.directory / "data" / "imports").glob("*")} - before).pop()
        eventually(lambda: '"made":{"invoices"' in note.read_text() or process.poll() is not None)
        os.kill(server, signal.SIGSTOP)
        try:
            eventually(lambda: process.poll() is not None or _is_sending(note))
            process.kill()
            process.wait()
        finally:
            os.kill(server, signal.SIGCONT)
    done = _import(tally, account, content, *options)
    assert "bad" in done.stdout
    invoices = _all(tally, account)
    assert (len(invoices), sum(each["purchase_price_cents"] for each in invoices)) == (2500, total)
    assert len(_customers(tally, account)) == 3
    assert _total(tally, account) == total

    undone = _import(tally, account, content, "--undo")
    assert undone.stdout == "Taken back: 0 credits, 2,500 invoices, 3 customers.\n"
    assert _held(tally, account) == (0, 0, 0, 0)


def _is_sending(note: Path) -> bool:
    return "sending" in json.loads(note.read_text().splitlines()[-1])


def _all(tally: Tally, account: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = "0"
    while after:
        page = tally.customers.get(f"/invoices?account_id={account}&limit=1000&after={after}")
        found += page["invoices"]
        after = page["next"]
    return found


# Exported, and imported again


def test_what_is_exported_and_imported_elsewhere_gives_the_same(
    tally: Tally, account: str, tmp_path: Path, file: Callable[[str], Path]
) -> None:
    names = ["=1+1", 'Zoé \u2019 "x", y', "'=2", "Plain", "-5"]
    rows = [{"invoice": f"R{place}", "name": name} for place, name in enumerate(names)]
    for place, row in enumerate(rows):
        id = new_customer(tally.customers, account, row["name"])
        tally.customers.post("/invoices", invoice(id, 1000 + place) | {"reference": row["invoice"]})
        tally.customers.post("/credits", credit(id, 10 + place) | {"reference": f"C{place}"})
    with running(tmp_path / "elsewhere") as elsewhere:
        other = new_account(elsewhere.accounts)
        for what, options in (("invoices", ()), ("credits", ("--negative", "credit"))):
            arguments = ["--config", str(tally.directory / "tally.toml"), "--account", account]
            content = file(command("export", what, *arguments).stdout)
            for _ in range(2):
                _import(elsewhere, other, content, "--id-column", "reference", *options)
        assert _held(elsewhere, other) == _held(tally, account)
        assert sorted(_invoices(elsewhere, other)) == sorted(_invoices(tally, account))
        assert _total(elsewhere, other) == _total(tally, account)
