"""Each call knows its parameters. It refuses any other, instead of answering a different question."""

from pathlib import Path

import pytest
from integration.conftest import Watch, new_account, new_customer, new_invoice, problem

from support.clients import answer, connect
from support.routes import routes, served
from support.tally import Client, Tally
from support.waiting import eventually
from tally.http.calls import ACCOUNTS, ACCOUNTS_PAGE, CUSTOMERS, CUSTOMERS_PAGE
from tally.http.params import Parameter

EVERY_QUERY = [
    (service, method, path, query)
    for service, calls, page in (
        ("customers", CUSTOMERS, CUSTOMERS_PAGE),
        ("accounts", ACCOUNTS, ACCOUNTS_PAGE),
    )
    for (method, path), query in {**{(each.method, each.path): each.query for each in calls}, **page}.items()
    if query and method != "POST"  # POST needs a file as well
]

# Values for `{…}` in a route.
PARTS = {"id": "1", "customer": "1", "user:path": "user1", "name": "tally.css"}


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_no_call_takes_a_parameter_that_it_does_not_know(
    shared: Tally, watch: Watch, tmp_path: Path, service: str
) -> None:
    client: Client = getattr(shared, service)
    with watch.nothing_changes():
        for method, template in sorted(routes(served(service, tmp_path))):
            if template == "/auth/login":
                continue  # exists only with tokens
            path = template
            for name, text in PARTS.items():
                path = path.replace(f"{{{name}}}", text)
            for query in (
                "nothing=1",
                "nothing",
                "limit=1&nothing=",
                "Limit=1",
                "limit%20=1",
                "=",
                "=1",
                "é",
            ):
                response = client.request(method, f"{path}?{query}")
                assert response.status == 422, f"{method} {path}?{query}: {response.status}"


@pytest.mark.parametrize(
    ("service", "path", "unknown"),
    [
        ("customers", "/customers?customer_id=1", ["customer_id"]),
        ("customers", "/invoices?owned_by=user1", ["owned_by"]),
        ("customers", "/customers?from=2019-01-01&to=2019-02-01&limit=5", ["from", "to"]),
        ("customers", "/invoices?customer%5Fid=1&Customer_id=1", ["Customer_id"]),
        ("customers", "/customers/search?offset=5", ["offset"]),
        ("customers", "/customers/search?before=5", ["before"]),
        ("accounts", "/accounts?owned_by=user1", ["owned_by"]),
        ("accounts", "/accounts?limit=1&Limit=x&=", ["", "Limit"]),
        ("accounts", "/accounts/summary?order=asc&by=name", ["by"]),
        ("accounts", "/accounts/{account}/customers?account_id=1", ["account_id"]),
        ("accounts", "/accounts/{account}?cascade=true", ["cascade"]),
        ("accounts", "/health/live?verbose", ["verbose"]),
        ("accounts", "/metrics?name%5B%5D=tally_up", ["name[]"]),
        ("accounts", "/openapi.json?pretty=1", ["pretty"]),
        ("accounts", "/?utm_source=mail", ["utm_source"]),
        ("accounts", "/static/tally.css?v=2", ["v"]),
    ],
)
def test_each_unknown_parameter_is_named(shared: Tally, service: str, path: str, unknown: list[str]) -> None:
    path = path.format(account=new_account(shared.accounts))
    problem(getattr(shared, service).request("GET", path), 422, *unknown)


@pytest.mark.parametrize(
    ("service", "method", "path", "query"),
    EVERY_QUERY,
    ids=[f"{method} {path}" for _, method, path, _ in EVERY_QUERY],
)
def test_a_call_takes_what_it_is_declared_with_each_alone_and_all_together(
    shared: Tally, service: str, method: str, path: str, query: tuple[Parameter, ...]
) -> None:
    ids = {"account": new_account(shared.accounts)}
    ids["customer"] = new_customer(shared.customers, ids["account"])
    ids["invoice"] = new_invoice(shared.customers, ids["customer"])
    eventually(shared.settled)
    fields = [f"{each.name}={str(each.example).lower()}" for each in query]
    client: Client = getattr(shared, service)
    for text in (*fields, "&".join(fields)):
        if method == "DELETE":
            ids["account"] = new_account(shared.accounts)
            ids["customer"] = new_customer(shared.customers, ids["account"])
        id = ids[path.split("/")[1].removesuffix("s")] if "{id}" in path else ""
        filled = path.replace("{id}", id).replace("{customer}", ids["customer"])
        response = client.request(method, f"{filled}?{text}")
        assert response.status in (200, 204), response.data


def test_head_is_held_to_what_get_knows(customers: Client) -> None:
    assert customers.request("HEAD", "/invoices?limit=1").status == 200
    assert customers.request("HEAD", "/invoices?account=1").status == 422


def test_what_would_be_deleted_stays(shared: Tally, watch: Watch) -> None:
    account, customer = new_account(shared.accounts), new_customer(shared.customers)
    with watch.nothing_changes():
        response = shared.accounts.request("DELETE", f"/accounts/{account}?Cascade=true")
        problem(response, 422, "Cascade")
        problem(shared.customers.request("DELETE", f"/customers/{customer}?dry_run=true"), 422, "dry_run")
    shared.accounts.delete(f"/accounts/{account}?cascade=false")


@pytest.mark.parametrize(
    ("service", "query", "twice"),
    [
        ("customers", "limit=1&limit=1", ["limit"]),
        ("customers", "limit=1&limit=2", ["limit"]),
        ("customers", "account_id=1&limit=1&account%5fid=2", ["account_id"]),
        ("customers", "limit=&limit", ["limit"]),
        ("accounts", "after=1&limit=1&limit=2&after=2", ["after", "limit"]),
        ("accounts", "limit=1&limit=1&x=1&x=2", ["limit", "x"]),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(
    shared: Tally, service: str, query: str, twice: list[str]
) -> None:
    problem(getattr(shared, service).request("GET", f"/{service}?{query}"), 422, *twice)


@pytest.mark.parametrize(
    "day", ["2019-W01-1", "20190106", "2019-1-6", "2019-01-06T00:00:00", "2019-02-29", ""]
)
def test_a_day_is_given_as_one_and_in_no_other_form(customers: Client, day: str) -> None:
    found = problem(customers.request("GET", f"/invoices?from={day}"), 422, "from")
    assert found["errors"][0]["message"] == "Expected a date, YYYY-MM-DD"


@pytest.mark.parametrize("query", ["?", "?&", "?limit=5&", "?&&limit=5"])
def test_ampersands_between_nothing_are_nothing(customers: Client, query: str) -> None:
    assert customers.request("GET", f"/customers{query}").status == 200


def test_a_flood_of_parameters_is_answered_shortly(customers: Client) -> None:
    with connect(customers.port) as client:
        query = "&".join(f"{number:x}" for number in range(5000)).encode()
        client.sendall(b"GET /customers?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % query)
        status, _, body = answer(client)
    assert (status, len(body) < 20_000) == (422, True)


def test_a_path_that_is_not_there_and_a_method_that_is_not_offered_stay_what_they_are(shared: Tally) -> None:
    problem(shared.customers.request("GET", "/nothing?x=1"), 404)
    problem(shared.customers.request("PUT", "/customers?x=1", {}), 405)
