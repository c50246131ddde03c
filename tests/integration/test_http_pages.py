"""The pages and the calls behind them, as an HTTP client sees them."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import credit, invoice, new_account, new_customer, new_invoice, problem

from support.tally import ROOT, Client, Tally, running
from support.waiting import eventually
from tally.events import now, rfc3339
from tally.http.account_views import first_order
from tally.store.customer_search import MOST_RANKED
from tally.version import VERSION

SERVICES = ["accounts", "customers"]
FILES = sorted(file.name for file in (ROOT / "http" / "static").iterdir() if file.suffix != ".html")


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("pages")) as tally:
        yield tally


def _client(tally: Tally, service: str) -> Client:
    client: Client = getattr(tally, service)
    return client


@pytest.mark.parametrize("accept", ["*/*", "text/html", "text/html,application/json;q=0.9", "image/png"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_root_is_a_page_for_whoever_does_not_prefer_json(tally: Tally, service: str, accept: str) -> None:
    response = _client(tally, service).request("GET", "/", headers={"Accept": accept})
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.data.startswith(b"<!doctype html>")


@pytest.mark.parametrize("service", SERVICES)
def test_the_root_tells_programs_where_to_go_from_here(tally: Tally, service: str) -> None:
    client = _client(tally, service)
    response = client.request("GET", "/", headers={"Accept": "application/json"})
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Vary"] == "Accept"
    told = response.json()
    assert told.pop("service") == service
    assert told.pop("version") == VERSION
    assert told
    for path in told.values():
        assert client.request("GET", f"/{path}").status == 200


@pytest.mark.parametrize("service", SERVICES)
def test_the_document_of_the_stream_is_the_one_among_the_documents(tally: Tally, service: str) -> None:
    response = _client(tally, service).request("GET", "/asyncapi.json")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert response.data == (ROOT / "docs" / "asyncapi.json").read_bytes()


def test_what_others_made_is_as_they_made_it() -> None:
    folder = ROOT / "http" / "vendor"
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("swagger*")}
    assert files == sums


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_page_allows_nothing_inline_and_nothing_of_others(tally: Tally, service: str, path: str) -> None:
    response = _client(tally, service).request("GET", path)
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    headers = response.headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    other = tally.accounts if service == "customers" else tally.customers
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": f"'self' http://127.0.0.1:{other.port}",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_with_its_type_and_is_not_sent_twice(tally: Tally, name: str) -> None:
    first = tally.accounts.request("GET", f"/static/{name}")
    types = {
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    assert first.headers["Content-Type"] == types[Path(name).suffix]
    assert first.headers["Cache-Control"] == "no-cache"
    assert first.data == (ROOT / "http" / "static" / name).read_bytes()
    again = tally.accounts.request("GET", f"/static/{name}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.data) == (304, b"")
    other = tally.accounts.request("GET", f"/static/{name}", headers={"If-None-Match": '"another"'})
    assert other.status == 200


def test_a_page_that_one_has_is_not_sent_again(tally: Tally) -> None:
    tag = tally.accounts.request("GET", "/").headers["ETag"]
    assert tally.accounts.request("GET", "/", headers={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize(
    "name",
    [
        "none.js",
        "accounts.html",
        "docs.html",
        "SHA256SUMS",
        "..%2Fpages.py",
        "%2E%2E%2Fpages.py",
        "../pages.py",
        "",
    ],
)
def test_what_is_no_file_of_the_pages_is_not_found(tally: Tally, name: str) -> None:
    problem(tally.accounts.request("GET", f"/static/{name}"), 404)


def test_a_page_is_only_read(tally: Tally) -> None:
    problem(tally.accounts.request("POST", "/", {}), 405)


@pytest.mark.parametrize("host", ['"><script>', "a b", "evil.example; script-src *", "x" * 300])
def test_a_host_that_can_be_none_gets_into_no_page_and_no_policy(tally: Tally, host: str) -> None:
    response = tally.customers.request("GET", "/", headers={"Host": host})
    if response.status == 200:
        assert host not in response.data.decode() + response.headers["Content-Security-Policy"]
        assert f"http://localhost:{tally.accounts.port}/" in response.data.decode()


def test_a_page_links_to_its_neighbour_under_the_host_it_was_asked_at(tally: Tally) -> None:
    page = tally.accounts.request("GET", "/", headers={"Host": "127.0.0.2:1234"}).data.decode()
    assert f'href="http://127.0.0.2:{tally.customers.port}/"' in page
    page = tally.customers.request("GET", "/", headers={"Host": "[::1]:1234"}).data.decode()
    assert f'href="http://[::1]:{tally.accounts.port}/"' in page


def test_no_page_holds_a_style_or_a_script_of_its_own(tally: Tally) -> None:
    for service in SERVICES:
        for path in ("/", "/docs"):
            page = _client(tally, service).request("GET", path).data.decode()
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)|javascript:", page)


def test_the_summary_shows_what_the_accounts_come_to(tally: Tally) -> None:
    account = new_account(tally.accounts, "Summa")
    customer = new_customer(tally.customers, account, "Ada")
    tally.customers.post("/invoices", invoice(customer, 2933))

    def seen() -> Any:
        return tally.accounts.get("/accounts/summary?search=summa&sort=revenue&order=desc")

    eventually(lambda: seen()["accounts"][0]["total_revenue_cents"] == "2933")
    listed = seen()["accounts"][0]
    assert listed.pop("months") == ["0"] * 12
    row = {
        "id": account,
        "name": "An account",
        "owned_by": "Summa",
        "customers": 1,
        "total_revenue_cents": "2933",
    }
    assert (listed, seen()["found"]) == (row, 1)
    everything = tally.accounts.get("/accounts")
    assert seen()["totals"] == {
        "accounts": len(everything),
        "customers": sum(len(each["customers"]) for each in everything),
        "total_revenue_cents": str(sum(each["total_revenue_cents"] for each in everything)),
    }
    largest = max(each["total_revenue_cents"] for each in everything)
    assert seen()["largest_revenue_cents"] == str(largest)
    opened = tally.accounts.get(f"/accounts/{account}")["account"]
    assert tally.accounts.get(f"/accounts/{account}/summary") == {
        "account": {**opened, **row},
        "customers": [{"id": customer, "name": "Ada", "total_revenue_cents": "2933"}],
        "order": "-revenue",
    }


def test_the_summary_tells_each_accounts_twelve_months_up_to_any(tally: Tally) -> None:
    account = new_account(tally.accounts, "Monthly")
    customer = new_customer(tally.customers, account)
    for day, cents in (("2018-03-31", 1), ("2018-04-01", 2), ("2019-03-31", 10**12), ("2019-04-01", 5)):
        new = {"customer_id": customer, "purchase_date": day, "purchase_price_cents": cents}
        tally.customers.post("/invoices", new)
    tally.customers.post("/credits", credit(customer, 300, credit_date="2018-12-24"))
    today = now().date().isoformat()
    tally.customers.post("/invoices", {**new, "purchase_date": today, "purchase_price_cents": 7})

    def months(query: str = "") -> Any:
        (row,) = tally.accounts.get(f"/accounts/summary?search=monthly{query}")["accounts"]
        return row["months"]

    eventually(lambda: tally.settled())
    assert months("&to=2019-03") == ["2", *["0"] * 7, "-300", "0", "0", str(10**12)]
    assert months("&to=2018-03") == [*["0"] * 11, "1"]
    assert months("&to=2019") == months("&to=2019-12") == ["0", "0", str(10**12), "5", *["0"] * 8]
    assert months() == [*["0"] * 11, "7"]
    assert months("&to=0000-01") == ["0"] * 12
    problem(tally.accounts.request("GET", "/accounts/summary?to=March"), 422, "to")


def test_who_is_found_by_the_number_comes_first_and_hides_nobody(tally: Tally) -> None:
    """Its place in the list was taken for where the next page begins: all before that were left out."""
    first = new_customer(tally.customers, "79")
    number = str(int(first) + 2)
    ids = [new_customer(tally.customers, "79", f"{number} Monkeys") for _ in range(3)]
    assert number == ids[1]
    for limit in (1, 2, 10):
        found, after = [], ""
        while after is not None:
            query = f"search={number}&account_id=79&limit={limit}{after and f'&after={after}'}"
            answer = tally.customers.get(f"/customers/search?{query}")
            found += [each["id"] for each in answer["customers"]]
            after = answer["next"]
        assert found == [ids[1], ids[0], ids[2]]


def test_a_customer_is_found_and_shown_with_its_invoices(tally: Tally) -> None:
    customer = new_customer(tally.customers, "77", "Finn Hollström")
    ids = [tally.customers.post("/invoices", invoice(customer, cents))["id"] for cents in (100, 10**12)]
    for query in ("search=HOLLSTR%C3%96M", f"search={customer}&account_id=77", "account_id=77"):
        found = tally.customers.get(f"/customers/search?{query}")
        assert [each["id"] for each in found["customers"]] == [customer]
    assert tally.customers.get("/customers/search?search=Hollstr&account_id=78")["customers"] == []
    credited = tally.customers.post("/credits", {**credit(customer, 40), "invoice_id": ids[0]})["id"]
    shown = tally.customers.get(f"/customers/{customer}/summary?limit=1")
    assert shown["customer"] == tally.customers.get(f"/customers/{customer}")
    assert shown["totals"] == {
        "invoices": 2,
        "credits": 1,
        "total_revenue_cents": str(10**12 + 60),
        "average_cents": str(5 * 10**11 + 50),
        "first_purchase": "2019-01-06",
        "last_purchase": "2019-01-06",
        "months": [{"month": "2019-01", "cents": str(10**12 + 100)}, {"month": "2019-02", "cents": "-40"}],
    }
    plain = {"reference": None, "revision": 0, "invoice_id": None, "credited_cents": "0"}
    assert shown["entries"] == [
        {**plain, "kind": "credit", "id": credited, "date": "2019-02-01", "cents": "40", "invoice_id": ids[0]}
    ]
    assert not shown["account_is_open"]
    rest = tally.customers.get(f"/customers/{customer}/summary?limit=9&offset=1")["entries"]
    day = {**plain, "kind": "invoice", "date": "2019-01-06"}
    assert rest == [
        {**day, "id": ids[1], "cents": str(10**12)},
        {**day, "id": ids[0], "cents": "100", "credited_cents": "40"},
    ]


def test_customers_are_sorted_by_what_they_spent_and_when_last(tally: Tally) -> None:
    days = {"2020-01-01": 5, "2022-01-01": 1, "2021-01-01": 9}
    ids = [new_customer(tally.customers, "88", f"Ranked {number}") for number in range(4)]
    for id, (day, cents) in zip(ids, days.items(), strict=False):
        tally.customers.post("/invoices", {**invoice(id, cents), "purchase_date": day})
    for rank, order in {"-revenue": [2, 0, 1, 3], "revenue": [3, 1, 0, 2], "-last": [1, 2, 0, 3]}.items():
        path = f"/customers/search?account_id=88&limit=3&rank={rank}"
        first = tally.customers.get(path)
        rest = tally.customers.get(f"{path}&after={first['next']}")
        assert [each["id"] for each in first["customers"] + rest["customers"]] == [ids[n] for n in order]
        assert (first["ranked"], len(first["customers"]), rest["next"]) == (True, 3, None)
    assert first["customers"][0]["total_revenue_cents"] == "1"
    assert rest["customers"][0]["last_purchase"] is None
    problem(tally.customers.request("GET", "/customers/search?rank=name"), 422, "rank")


def test_more_customers_than_are_sorted_at_once_come_sorted_a_moment_later(tally: Tally) -> None:
    rows = [{"name": f"Many {number}", "account_id": "93"} for number in range(MOST_RANKED)]
    ids = tally.customers.post("/customers/batch", rows)["ids"]
    ids += [new_customer(tally.customers, "93", "One more") for _ in range(2)]
    best = [ids[-1], ids[0], ids[5000]]
    tally.customers.post("/invoices/batch", [invoice(id, 9 - place) for place, id in enumerate(best)])
    path = "/customers/search?account_id=93&limit=2&rank=-revenue"
    asked = tally.customers.get(path)
    if not asked["ranked"]:  # the newest, until then
        assert ([each["id"] for each in asked["customers"]], asked["next"]) == (ids[:-3:-1], None)
    first = eventually(lambda: (answer := tally.customers.get(path))["ranked"] and answer)
    rest = tally.customers.get(f"{path}&after={first['next']}")
    shown = [(each["id"], each["total_revenue_cents"]) for each in first["customers"] + rest["customers"]]
    assert shown == [(best[0], "9"), (best[1], "8"), (best[2], "7"), (ids[-2], "0")]
    assert first["as_of"] == rest["as_of"] <= rfc3339(now())

    tally.customers.delete(f"/customers/{best[1]}")
    again = tally.customers.get(path)
    assert ([each["id"] for each in again["customers"]], again["next"]) == ([best[0]], first["next"])


def test_invoices_are_listed_with_whose_they_are(tally: Tally) -> None:
    customer = new_customer(tally.customers, "89", "Iris")
    tally.customers.post("/invoices", {**invoice(customer, 7), "reference": "R-1"})
    (found,) = tally.customers.get("/invoices/search?account_id=89&reference=R-1")["invoices"]
    assert (found["customer"], found["account_id"], found["purchase_price_cents"]) == ("Iris", "89", 7)
    new_invoice(tally.customers, customer)
    (newest, _) = tally.customers.get("/invoices/search?account_id=89&order=-id")["invoices"]
    assert newest["reference"] is None
    assert tally.customers.get("/invoices/search?account_id=89&to=2000-01-01")["invoices"] == []
    problem(tally.customers.request("GET", "/invoices/search?from=x&order=y"), 422, "from", "order")


def test_accounts_are_named_by_ids_or_found_by_a_part_of_the_name(tally: Tally) -> None:
    ids = [
        tally.accounts.post("/accounts", {"name": name, "owned_by": "ana"})["id"]
        for name in ("Ålesund Fisk", "bergen fisk", "Fisk")
    ]
    named = tally.accounts.get(f"/accounts/names?ids={ids[2]},{ids[0]},{ids[0]},999999")["accounts"]
    assert named == [{"id": ids[0], "name": "Ålesund Fisk"}, {"id": ids[2], "name": "Fisk"}]
    found = tally.accounts.get("/accounts/names?search=FISK&limit=2")["accounts"]
    assert [each["name"] for each in found] == ["bergen fisk", "Fisk"]
    assert {"id": ids[1], "name": "bergen fisk"} in tally.accounts.get(f"/accounts/names?search={ids[1]}")[
        "accounts"
    ]
    problem(tally.accounts.request("GET", "/accounts/names?ids=1,x"), 422, "ids")


def test_an_accounts_customers_come_in_any_order_from_anywhere_on(tally: Tally) -> None:
    account = new_account(tally.accounts)
    spent = {new_customer(tally.customers, account): cents for cents in (5, 700, 5, 30)}
    for customer, cents in spent.items():
        tally.customers.post("/invoices", invoice(customer, cents))
    path = f"/accounts/{account}/summary?order=-revenue&limit=3"
    eventually(lambda: tally.accounts.get(path)["account"]["total_revenue_cents"] == "740")
    first = tally.accounts.get(path)
    rest = tally.accounts.get(f"{path}&offset=3")
    order = sorted(spent, key=lambda customer: (-spent[customer], -int(customer)))
    assert [each["id"] for each in first["customers"] + rest["customers"]] == order
    assert len(first["customers"]) == 3
    by_id = tally.accounts.get(f"/accounts/{account}/summary?order=id&offset=2")["customers"]
    assert [each["id"] for each in by_id] == [*spent][2:]
    problem(tally.accounts.request("GET", f"/accounts/{account}/summary?order=size"), 422, "order")
    assert (first_order(100_000), first_order(100_001)) == ("-revenue", "id")


def test_a_customers_account_is_open_until_it_is_deleted(tally: Tally) -> None:
    account = new_account(tally.accounts)
    path = f"/customers/{new_customer(tally.customers, account)}/summary"
    eventually(lambda: tally.customers.get(path)["account_is_open"])
    tally.accounts.delete(f"/accounts/{account}?cascade=true")
    eventually(lambda: tally.customers.request("GET", path).status == 404)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=size", "sort"),
        ("order=up", "order"),
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("offset=one", "offset"),
        (f"search={'x' * 201}", "search"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(tally: Tally, query: str, field: str) -> None:
    problem(tally.accounts.request("GET", f"/accounts/summary?{query}"), 422, field)


@pytest.mark.parametrize("path", ["/accounts/999999/summary", "/accounts/x/summary"])
def test_an_unknown_account_has_no_summary(tally: Tally, path: str) -> None:
    problem(tally.accounts.request("GET", path), 404)


def test_an_unknown_customer_has_no_summary(tally: Tally) -> None:
    problem(tally.customers.request("GET", "/customers/999999/summary"), 404)
    problem(
        tally.customers.request("GET", "/customers/search?after=x&account_id=y"), 422, "after", "account_id"
    )


@pytest.mark.parametrize("service", SERVICES)
def test_status_tells_the_actors(tally: Tally, service: str) -> None:
    actors = _client(tally, service).get("/status")["actors"]
    assert {actor["name"] for actor in actors} == {name for name in tally.pids() if name.startswith(service)}
    assert {(actor["state"], actor["restarts"], actor["trouble"]) for actor in actors} == {
        ("running", 0, None)
    }
