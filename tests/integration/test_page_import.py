"""The customers page's import, as an HTTP client sees it: a file is inspected, tried, and recorded."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
import urllib3
from integration.conftest import Watch, invoice, new_customer, problem

from support.tally import Client, Tally
from support.waiting import eventually

FILE = b"""Client,Invoice Date,Total,Invoice Number
Ada Byron,2024-01-31,"1,200.50",A-1
Bo Ek,2024-02-01,12.00,A-2
Ada Byron,2024-02-29,29.33,A-3
"""
COLUMNS: dict[str, Any] = {"customer": "Client", "date": "Invoice Date", "amount": "Total"}
BY_ID = {**COLUMNS, "id": "Invoice Number"}


def _send(
    customers: Client, file: bytes, headers: dict[str, str] | None = None, **query: Any
) -> urllib3.BaseHTTPResponse:
    return customers.request("POST", f"/imports?{urlencode(query)}", body=file, headers=headers)


def _try(customers: Client, file: bytes, **query: Any) -> Any:
    answer = _send(customers, file, dry_run="true", **query)
    assert answer.status == 200, answer.data
    return answer.json()


def _record(customers: Client, file: bytes, **query: Any) -> Any:
    answer = _send(customers, file, **query)
    assert answer.status == 201, answer.data
    return answer.json()


def _refused(answer: urllib3.BaseHTTPResponse, field: str, said: str) -> None:
    assert said in problem(answer, 422, field)["detail"]


def _account(accounts: Client) -> str:
    id: str = accounts.post("/accounts", {"name": "Imported", "owned_by": "ana"})["id"]
    return id


def _amounts(customers: Client, account: str, kind: str = "invoices") -> list[int]:
    cents = {"invoices": "purchase_price_cents", "credits": "credited_cents"}[kind]
    return [each[cents] for each in customers.get(f"/{kind}?account_id={account}&limit=1000")[kind]]


def test_a_file_is_looked_at_before_its_columns_are_chosen(customers: Client) -> None:
    found = _try(customers, FILE)
    assert found["preview"] is None
    look = found["look"]
    assert (look["delimiter"], look["encoding"]) == (",", "utf-8")
    assert [column["name"] for column in look["columns"]] == [*BY_ID.values()]
    assert look["guess"] == {**COLUMNS, "id": "Invoice Number"}
    assert [column["dates"] for column in look["columns"]] == [[], [""], [], []]
    assert [column["decimals"] for column in look["columns"]] == [[], [], ["."], []]


@pytest.mark.parametrize(
    ("cells", "marks"),
    [
        (["12", "$5"], ["."]),
        (["12.50", "1,234"], ["."]),
        (["12,50"], [","]),
        (["1.234", "12"], [".", ","]),
        (["twelve"], []),
    ],
)
def test_the_marks_are_told_with_which_amounts_can_be_read(
    customers: Client, cells: list[str], marks: list[str]
) -> None:
    file = "".join(["name;sum\n", *(f"Ada;{cell}\n" for cell in cells)])
    assert _try(customers, file.encode())["look"]["columns"][1]["decimals"] == marks


@pytest.mark.parametrize(
    ("cells", "formats"),
    [
        (["31.01.2024", "01.02.2024"], ["%d.%m.%Y"]),
        (["01/02/2024", "03/04/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["01/02/2024", "03/14/2024"], ["%m/%d/%Y"]),
        (["Jan 31, 2024", ""], ["%b %d, %Y"]),
        (["2024-01-31T10:00:00Z"], [""]),
        (["31.01.2024", "01.02.2024", "soon"], ["%d.%m.%Y"]),
        (["soon", "31.01.2024", "later"], []),
        ([""], []),
    ],
)
def test_the_formats_are_told_that_dates_may_have(
    customers: Client, cells: list[str], formats: list[str]
) -> None:
    file = "".join(["name;day\n", *(f"Ada;{cell}\n" for cell in cells)])
    assert _try(customers, file.encode())["look"]["columns"][1]["dates"] == formats


def test_columns_that_are_not_there_are_to_be_chosen_anew(customers: Client, accounts: Client) -> None:
    account = _account(accounts)
    assert _try(customers, FILE, account_id=account, **{**COLUMNS, "date": "Day"})["preview"] is None
    wrong = _send(customers, FILE, account_id=account, **{**COLUMNS, "date": "Day"})
    _refused(wrong, "file", "line 1: the column 'Day' is not there")
    problem(_send(customers, FILE, account_id=account), 422, "customer", "date", "amount")


def test_a_trial_tells_what_an_import_would_do_and_records_nothing(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = _account(accounts)
    new_customer(customers, account, "Ada Byron")
    with watch.nothing_changes():
        preview = _try(customers, FILE + b"Cy,soon,x,A-4\n", account_id=account, **BY_ID)["preview"]
    reasons = "Invoice Date: Expected a date, YYYY-MM-DD, got 'soon'; Total: Expected an amount such as 29.33"
    assert preview.pop("bad")[0]["reason"].startswith(reasons)
    assert [(each["count"], each["reason"]) for each in preview.pop("reasons")] == [
        (1, "Invoice Date: Expected a date, YYYY-MM-DD")
    ]
    none = {"count": 0, "cents": "0"}
    assert preview.pop("sample")[0] == {
        "line": 2,
        "customer": "Ada Byron",
        "date": "2024-01-31",
        "cents": "120050",
        "reference": "A-1",
    }
    assert preview == {
        "rows": 4,
        "new_customers": 1,
        "known_customers": 1,
        "new_invoices": {"count": 3, "cents": "124183"},
        "known_invoices": none,
        "new_credits": none,
        "known_credits": none,
        "first": "2024-01-31",
        "last": "2024-02-29",
        "warnings": [],
        "bad_rows": 1,
    }


def test_a_file_is_recorded_and_counts(shared: Tally, customers: Client, accounts: Client) -> None:
    account = _account(accounts)
    answer = _send(customers, FILE, account_id=account, **BY_ID)
    assert answer.status == 201
    assert answer.json()["new_invoices"] == {"count": 3, "cents": "124183"}
    events = answer.headers["Tally-Event-Id"]
    waiting = {"Tally-After": events, "Prefer": "wait=9"}
    shown = accounts.request("GET", f"/accounts/{account}", headers=waiting)
    assert shown.json()["total_revenue_cents"] == 124183
    names = [each["name"] for each in customers.get(f"/customers?account_id={account}")["customers"]]
    assert names == ["Ada Byron", "Bo Ek"]
    (second,) = customers.get(f"/invoices?account_id={account}&reference=A-2")["invoices"]
    assert (second["purchase_date"], second["purchase_price_cents"]) == ("2024-02-01", 1200)


def test_what_is_there_is_known_by_its_reference(customers: Client, accounts: Client) -> None:
    account = _account(accounts)
    _record(customers, FILE, account_id=account, **BY_ID)
    again = _record(customers, FILE + b"Cy,2024-03-01,5,A-4\n", account_id=account, **BY_ID)
    assert (again["new_invoices"]["count"], again["known_invoices"]["count"]) == (1, 3)
    assert _amounts(customers, account) == [120050, 1200, 2933, 500]
    other = FILE.replace(b"12.00", b"13.00")
    preview = _try(customers, other, account_id=account, **BY_ID)["preview"]
    (bad,) = preview["bad"]
    assert bad["line"] == 3
    assert "with it is of 2024-02-01, 12.00, got 'A-2'" in bad["reason"]
    assert "--" not in bad["reason"]


def test_without_a_reference_what_is_there_is_known_by_its_content(
    customers: Client, accounts: Client
) -> None:
    account = _account(accounts)
    file = FILE + b"Bo Ek,2024-02-01,12.00,\n"  # two equal rows are two purchases
    assert _record(customers, file, account_id=account, **COLUMNS)["new_invoices"]["count"] == 4
    again = _record(customers, file + b"Bo Ek,2024-02-01,12.00,\n", account_id=account, **COLUMNS)
    assert (again["new_invoices"]["count"], again["known_invoices"]["count"]) == (1, 4)
    assert sorted(_amounts(customers, account)) == [1200, 1200, 1200, 2933, 120050]


@pytest.mark.parametrize("written", ["Zoe\u0308 Ek", "Zo\u00eb Ek", " Zo\u00eb Ek "])
def test_a_customer_is_found_by_its_name_however_its_accents_are_written(
    customers: Client, accounts: Client, written: str
) -> None:
    account = _account(accounts)
    id = new_customer(customers, account, written)
    file = "customer,purchase_date,amount\nZo\u00eb Ek,2024-01-31,1.00\n".encode()
    query: dict[str, Any] = {"customer": "customer", "date": "purchase_date", "amount": "amount"}
    query["account_id"] = account
    assert _record(customers, file, **query)["known_customers"] == 1
    (made,) = customers.get(f"/invoices?account_id={account}")["invoices"]
    assert made["customer_id"] == id
    other = _try(customers, file.replace(b"Ek", b"EK"), **query)["preview"]
    assert other["new_customers"] == 1
    assert "differ in case or blanks alone" in other["warnings"][0]


def test_bad_rows_keep_everything_out_until_they_are_left_out(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = _account(accounts)
    file = FILE + b"Cy,2024-03-01,-5,A-4\n,2024-03-01,5,A-5\n"
    with watch.nothing_changes():
        _refused(_send(customers, file, account_id=account, **BY_ID), "skip_bad", "2 rows are bad")
    assert _record(customers, file, account_id=account, skip_bad="true", **BY_ID)["bad_rows"] == 2
    assert len(_amounts(customers, account)) == 3
    every = FILE.splitlines(keepends=True)[0] + b"Cy,2024-03-01,x,A-4\n"
    _refused(
        _send(customers, every, account_id=account, skip_bad="true", **BY_ID), "file", "Every row is bad"
    )


def test_a_trial_tells_the_bad_rows_as_a_file_that_can_be_mended_and_imported_alone(
    customers: Client, accounts: Client
) -> None:
    account = _account(accounts)
    assert _try(customers, FILE, account_id=account, **BY_ID)["rejects"] is None
    file = FILE + b"Cy,2024-03-01,-5,A-4\n=Di,soon,7,A-5\n"
    query = {"account_id": account, **BY_ID}
    _record(customers, file, skip_bad="true", **query)
    apart = _try(customers, file, **query)["rejects"]
    header, negative, dateless = apart.splitlines()
    assert header == "Client,Invoice Date,Total,Invoice Number,line,reason"
    assert negative.startswith("Cy,2024-03-01,-5,A-4,5,\"Total: An amount can't be negative")
    assert "--" not in negative  # the page has no such options
    assert dateless.startswith("'=Di,soon,7,A-5,6,\"Invoice Date: Expected a date")
    mended = apart.replace(",-5,", ",5,").replace("soon", "2024-03-02").encode()
    found = _try(customers, mended, account_id=account)["look"]
    assert found["guess"] == {**COLUMNS, "id": "Invoice Number"}
    assert _record(customers, mended, **query)["new_invoices"] == {"count": 2, "cents": "1200"}
    assert _amounts(customers, account)[3:] == [500, 700]
    names = [each["name"] for each in customers.get(f"/customers?account_id={account}")["customers"]]
    assert "=Di" in names


def test_negative_amounts_become_credits_where_that_is_asked_for(customers: Client, accounts: Client) -> None:
    account = _account(accounts)
    file = FILE + b"Bo Ek,2024-03-01,-5,A-4\n"
    preview = _try(customers, file, account_id=account, **BY_ID)["preview"]
    assert preview["bad"][0]["reason"].startswith("Total: An amount can't be negative")
    recorded = _record(customers, file, account_id=account, negative="credit", **BY_ID)
    assert recorded["new_credits"] == {"count": 1, "cents": "-500"}
    assert _amounts(customers, account, "credits") == [500]
    again = _record(customers, file, account_id=account, negative="credit", **BY_ID)
    assert (again["new_credits"]["count"], again["known_credits"]["count"]) == (0, 1)


def test_a_file_is_read_as_one_says(customers: Client, accounts: Client) -> None:
    file = "Kunde;Datum;Betrag;Nr\nJörg;31.01.2024;1.200,50;1\nJörg;31.01.2024;0,50;1\n".encode("cp1252")
    query: dict[str, Any] = {
        "customer": "Kunde",
        "date": "Datum",
        "amount": "Betrag",
        "id": "Nr",
        "date_format": "%d.%m.%Y",
        "decimal": ",",
        "encoding": "cp1252",
        "lines": "sum",
        "account_id": _account(accounts),
    }
    assert _record(customers, file, **query)["new_invoices"] == {"count": 1, "cents": "120100"}
    broken = _try(customers, file, **{**query, "encoding": "utf-8"})["preview"]["bad"]
    assert broken[0]["reason"].startswith("Kunde: Expected UTF-8, got")
    marked = _send(customers, "\ufeffx".encode(), dry_run="true", encoding="cp1252")
    _refused(marked, "file", "the mark of UTF-8, not of cp1252: choose the encoding that it tells")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"PK\x03\x04...", "is a workbook of Excel"),
        (b"a\0b\0c\0d\0", "UTF-16 without a byte order mark: choose the encoding utf-16-le"),
        (b"\x00\x01\x02\x03\xff", "is no text"),
        (b"a," * 201 + b"a\n", "has 202 columns"),
    ],
)
def test_what_a_file_is_not_is_said(customers: Client, file: bytes, said: str) -> None:
    _refused(_send(customers, file, dry_run="true"), "file", said)


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_file_without_a_row_or_with_too_many_is_refused(
    customers: Client, accounts: Client, dry_run: str
) -> None:
    account = _account(accounts)
    header, *rows = FILE.splitlines(keepends=True)
    for file, said in ((header, "There is no row"), (header + rows[1] * 10_001, "`tally import` takes any")):
        answer = _send(customers, file, account_id=account, dry_run=dry_run, **COLUMNS)
        _refused(answer, "file", said)
    problem(_send(customers, b"x" * (16 * 1024**2 + 1), account_id=account), 413)


@pytest.mark.parametrize(
    "query",
    [
        {"account_id": "x"},
        {"encoding": "undefined"},
        {"delimiter": "x"},
        {"date_format": "%d"},
        {"decimal": "'"},
        {"negative": "yes"},
        {"dry_run": "yes"},
    ],
)
def test_what_makes_no_sense_is_refused(customers: Client, query: dict[str, Any]) -> None:
    problem(_send(customers, FILE, **query), 422, *query)


def test_a_file_without_an_account_is_refused(customers: Client) -> None:
    problem(_send(customers, FILE, **COLUMNS), 422, "account_id")


def test_a_file_that_is_sent_again_with_its_key_is_answered_as_it_was(
    customers: Client, accounts: Client
) -> None:
    account = _account(accounts)
    key = {"Idempotency-Key": f"import-{account}"}
    first, again = (_send(customers, FILE, key, account_id=account, **COLUMNS) for _ in range(2))
    assert (first.status, first.data) == (again.status, again.data)
    assert first.headers["Tally-Event-Id"] == again.headers["Tally-Event-Id"]
    assert len(_amounts(customers, account)) == 3
    for answer in (
        _send(customers, FILE + b"x", key, account_id=account, **COLUMNS),
        _send(customers, FILE, key, account_id=account, **BY_ID),
    ):
        problem(answer, 422, "Idempotency-Key" if answer.status == 422 else "")


def test_what_others_record_meanwhile_is_known_when_it_is_recorded(
    customers: Client, accounts: Client
) -> None:
    account = _account(accounts)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: _record(customers, FILE, account_id=account, **COLUMNS), range(4)))
    assert sorted(each["new_invoices"]["count"] for each in answers) == [0, 0, 0, 3]
    assert len(_amounts(customers, account)) == 3
    assert len(customers.get(f"/customers?account_id={account}")["customers"]) == 2


def test_the_events_of_a_file_tell_of_its_request_part_by_part(
    shared: Tally, customers: Client, accounts: Client
) -> None:
    """Each part is a batch of its own. One recorded part doesn't prove that the whole file was."""
    account = _account(accounts)
    new_customer(customers, account, "Bo Ek")
    key = {"Idempotency-Key": f"parts-{account}"}
    events = _send(customers, FILE, key, account_id=account, **COLUMNS).headers["Tally-Event-Id"]
    eventually(shared.settled)
    source, _, numbers = events.partition(":")
    first, _, last = numbers.partition("-")
    wanted = [f"{source}:{number}".encode() for number in range(int(first), int(last) + 1)]
    with closing(redis.Redis.from_url(shared.redis_url)) as client:
        every: Any = client.xrange("event-stream")
    entries = [fields for _, fields in every if fields[b"EventId"] in wanted]
    told_keys = [entry[b"RequestKey"].decode().split(":") for entry in entries]
    assert [entry[b"EventTypeName"] for entry in entries] == [b"CustomerCreated", *[b"InvoiceCreated"] * 3]
    assert [each[2] for each in told_keys] == ["batch-1", *["batch-3"] * 3]
    assert len({each[0] for each in told_keys}) == 2
    assert json.loads(entries[1][b"Payload"])["purchase_price_cents"] == 120050


def test_an_invoice_that_was_recorded_by_hand_is_known(customers: Client, accounts: Client) -> None:
    account = _account(accounts)
    bo = new_customer(customers, account, "Bo Ek")
    customers.post("/invoices", {**invoice(bo, 1200), "purchase_date": "2024-02-01"})
    preview = _try(customers, FILE, account_id=account, **COLUMNS)["preview"]
    assert preview["known_invoices"] == {"count": 1, "cents": "1200"}
