"""Lists as CSV: the whole list, in columns that `import` accepts, with nothing that a spreadsheet runs."""

import csv
import io
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from integration.conftest import credit, invoice, new_account, new_customer, problem

from support.cli import command
from support.program import SUPERVISOR
from support.tally import Client, Tally, running
from support.waiting import eventually
from tally.http.exports import harmless, meant

FORMULAS = ["=1+1", "+A1", "-A1", "@SUM(A1)", "'=1", "-1-1", "+49 123", "-", "=", "-1.5.2"]
FORMULAS += ["\uff1d1+1", "\uff0bA1", "\uff0d5", "\uff20SUM(A1)"]  # in their wide forms
PLAIN = ["-5", "+5.25", "5=5", "'quoted'", 'say "hi", twice', "Zoé; O'Brien", "1e5"]


def _rows(client: Client, path: str) -> list[dict[str, str]]:
    answer = client.request("GET", path, headers={"Accept": "text/csv"})
    assert answer.status == 200, answer.data
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    text = answer.data.decode()
    assert text.count("\n") == text.count("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module")
def account(shared: Tally) -> str:
    """An account whose customers have invoices and credits. Each reference is the customer's name."""
    account = new_account(shared.accounts)
    for place, name in enumerate(FORMULAS + PLAIN):
        customer = new_customer(shared.customers, account, name)
        row = invoice(customer, place) | {"reference": name, "purchase_date": f"2019-01-{30 - place}"}
        bill = shared.customers.post("/invoices", row)["id"]
        if place:
            more = {"reference": name, "invoice_id": bill}
            shared.customers.post("/credits", credit(customer, place, **more))
    eventually(shared.settled)
    return account


def test_invoices_and_credits_come_whole_and_harmless(customers: Client, account: str) -> None:
    names = [f"'{each}" for each in FORMULAS] + PLAIN
    rows = _rows(customers, f"/invoices?account_id={account}")
    assert [*rows[0]] == [
        "customer", "purchase_date", "amount", "reference", "id", "customer_id", "account_id",
    ]  # fmt: skip
    assert [each["customer"] for each in rows] == [each["reference"] for each in rows] == names
    assert [each["amount"] for each in rows] == [f"0.{place:02}" for place in range(len(names))]
    shown = customers.get(f"/invoices?account_id={account}")["invoices"]
    assert [(each["id"], each["customer_id"], each["purchase_date"]) for each in rows] == [
        (each["id"], each["customer_id"], each["purchase_date"]) for each in shown
    ]
    assert {each["account_id"] for each in rows} == {account}
    backwards = _rows(customers, f"/invoices?account_id={account}&order=purchase_date")
    assert backwards == rows[::-1]

    rows = _rows(customers, f"/credits?account_id={account}")
    assert [each["customer"] for each in rows] == [each["reference"] for each in rows] == names[1:]
    assert [each["amount"] for each in rows] == [f"-0.{place:02}" for place in range(1, len(names))]
    assert [each["invoice_id"] for each in rows] == [each["id"] for each in shown[1:]]


def test_what_is_in_many_pages_comes_once(tmp_path: Path) -> None:
    with running(tmp_path) as tally:  # the other tests list the first accounts of the shared Tally
        _list_many(tally, tally.customers, tally.accounts)


def _list_many(tally: Tally, customers: Client, accounts: Client) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account, "Many")
    days = [f"2019-01-{day:02}" for day in range(1, 32)]
    new = [invoice(customer, n) | {"purchase_date": days[n * 7 % 31]} for n in range(2_500)]
    ids = customers.post("/invoices/batch", new)["ids"]
    rows = customers.post(
        "/customers/batch", [{"name": f"n{n % 9}", "account_id": account} for n in range(2_500)]
    )
    for order in ("id", "-id", "purchase_date", "-purchase_date"):
        found = _rows(customers, f"/invoices?account_id={account}&order={order}")
        assert sorted((each["id"] for each in found), key=int) == ids, order
        assert sum(Decimal(each["amount"]) for each in found) == Decimal(sum(range(2_500))) / 100
    for order in ("id", "-id", "name", "-name"):
        found = _rows(customers, f"/customers?account_id={account}&order={order}")
        assert sorted((each["id"] for each in found), key=int) == [customer, *rows["ids"]], order
    eventually(tally.settled)
    found = _rows(accounts, f"/accounts/{account}/customers")
    assert [each["customer_id"] for each in found] == [customer, *rows["ids"]]
    assert found[0] == {"customer_id": customer, "customer": "Many", "revenue": "31237.50"}


def test_accounts_and_revenue_come_as_csv_too(customers: Client, accounts: Client, account: str) -> None:
    (row,) = [each for each in _rows(accounts, "/accounts") if each["id"] == account]
    assert (row["owned_by"], row["customers"], row["revenue"]) == ("user1", "21", "0.00")
    assert _rows(accounts, f"/accounts/{account}/revenue?by=quarter") == [
        {"quarter": "2019-Q1", "revenue": "0.00", "invoices": "21", "credits": "20"}
    ]
    months = _rows(accounts, f"/accounts/{account}/revenue")
    assert [(each["month"], each["revenue"]) for each in months] == [
        ("2019-01", "2.10"),
        ("2019-02", "-2.10"),
    ]
    assert _rows(accounts, "/revenue?by=year")


@pytest.mark.parametrize("path", ["/customers", "/invoices", "/credits"])
def test_csv_has_all_of_a_list_or_is_refused(customers: Client, path: str) -> None:
    asks = {"Accept": "text/csv"}
    problem(customers.request("GET", f"{path}?limit=10&after=3", headers=asks), 422, "limit", "after")
    problem(customers.request("GET", f"{path}?order=x", headers=asks), 422, "order")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/csv;q=0.5, application/json", "text/*;q=0.1, */*"]
)
def test_json_is_what_all_others_get(customers: Client, accept: str) -> None:
    answer = customers.request("GET", "/invoices?limit=1", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Vary"] == "Accept"


def test_a_link_asks_for_csv_by_its_query(customers: Client, accounts: Client) -> None:
    asks = {"Accept": "text/html,*/*"}
    for client, path in ((customers, "/customers"), (customers, "/invoices"), (accounts, "/accounts")):
        answer = client.request("GET", f"{path}?format=csv", headers=asks)
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert "attachment" in answer.headers["Content-Disposition"]
        json = client.request("GET", f"{path}?format=json", headers={"Accept": "text/csv"})
        assert json.headers["Content-Type"] == "application/json"
        problem(client.request("GET", f"{path}?format=csv&limit=1"), 422, "limit")
        problem(client.request("GET", f"{path}?format=xlsx"), 422, "format")


def test_the_next_page_of_accounts_is_json_too_where_its_client_prefers_csv(accounts: Client) -> None:
    for _ in range(2):
        new_account(accounts)
    asks = {"Accept": "text/csv"}
    first = accounts.request("GET", "/accounts?limit=1&format=json", headers=asks)
    following = first.headers["Link"].partition(">")[0].removeprefix("<")
    assert accounts.request("GET", following, headers=asks).status == 200


# The command


def test_export_writes_what_the_calls_answer(shared: Tally, account: str) -> None:
    config = shared.directory / "tally.toml"
    for path, *arguments in (
        (
            f"/invoices?account_id={account}&from=2019-01-20&to=2019-01-25",
            "invoices",
            "--from",
            "2019-01-20",
            "--to",
            "2019-01-25",
        ),
        (f"/credits?account_id={account}", "credits"),
        (f"/customers?account_id={account}", "customers"),
        (
            f"/accounts/{account}/revenue?by=quarter&from=2019-Q1",
            "revenue",
            "--by",
            "quarter",
            "--from",
            "2019-Q1",
        ),
        ("/accounts", "accounts"),
    ):
        client = shared.customers if arguments[0] in ("invoices", "credits", "customers") else shared.accounts
        expected = client.request("GET", path, headers={"Accept": "text/csv"}).data
        of_one = () if arguments == ["accounts"] else ("--account", account)
        done = command("export", *arguments, "--config", config, *of_one)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout == expected.decode().replace("\r\n", "\n"), arguments


def test_export_says_why_there_is_nothing(shared: Tally, tmp_path: Path) -> None:
    config = shared.directory / "tally.toml"
    done = command("export", "invoices", "--config", config, "--from", "1/2/2019")
    assert (done.returncode, done.stdout) == (1, "")
    assert "from: Expected a date, YYYY-MM-DD" in done.stderr
    nowhere = tmp_path / "tally.toml"
    nowhere.write_text("[customers]\nport = 1\n")
    done = command("export", "accounts", "--config", config, "--account", "3")
    assert (done.returncode, "all of them are listed" in done.stderr) == (2, True)
    for what, option, told in (
        ("customers", "--from=2019-01-01", "--from and --to do not go with customers"),
        ("accounts", "--to=2019", "--from and --to do not go with accounts"),
        ("invoices", "--by=year", "--by does not go with invoices"),
    ):
        done = command("export", what, "--config", config, option)
        assert (done.returncode, told in done.stderr) == (2, True)
    done = command("export", "invoices", "--config", nowhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not answer" in done.stderr


def test_a_reader_that_goes_ends_an_export_and_the_service_is_not_blamed(shared: Tally) -> None:
    account = new_account(shared.accounts)
    customer = new_customer(shared.customers, account, "Ada")
    shared.customers.post("/invoices/batch", [invoice(customer, 1)] * 1000)
    options = ["--config", str(shared.directory / "tally.toml"), "--account", account]
    arguments = [sys.executable, str(SUPERVISOR), "export", "invoices", *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (1, b"")


def test_what_is_exported_and_imported_is_the_same(
    customers: Client, accounts: Client, shared: Tally, account: str, tmp_path: Path
) -> None:
    config = shared.directory / "tally.toml"
    (file := tmp_path / "invoices.csv").write_text(
        command("export", "invoices", "--config", config, "--account", account).stdout
    )
    other = new_account(accounts)
    done = command("import", file, "--config", config, "--account", other)
    assert (done.returncode, done.stderr) == (0, "")
    eventually(shared.settled)

    def listed(of: str) -> list[tuple[str, str, str]]:
        rows = _rows(customers, f"/invoices?account_id={of}")
        return [(each["customer"], each["purchase_date"], each["amount"]) for each in rows]

    assert listed(other) == listed(account)


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, "'", "''", "''=", "", "a", "'a", "'-5", "\r=1", "\n=1"])
def test_what_was_made_harmless_is_understood(text: str) -> None:
    assert meant(harmless(text)) == text
    assert not harmless(text).startswith(("=", "@", "\r", "\n", "\uff1d"))
