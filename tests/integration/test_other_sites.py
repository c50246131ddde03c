"""With auth off, other sites' pages in a browser on this machine can neither read nor change anything."""

import pytest
from integration.conftest import Watch, invoice, new_account, new_customer, problem

from support.clients import answer, connect
from support.tally import Client, Tally

OTHERS_NAMES = [
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1.evil.example",
]
NO_ADDRESSES = ["[1:2]", "[:]", "[::1::]:{port}", "[12345::]"]
NO_NAMES = ["[::1", "a b", "localhost, evil.example", "@", "user@evil.example", ""]
OWN_NAMES = [
    "localhost:{port}",
    "127.0.0.1:{port}",
    "LocalHost",
    "tally.localhost:{port}",
    "[::1]:{port}",
    "192.168.1.7",
]
CROSS_ORIGIN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:{port}"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:{port}"},
    {"Sec-Fetch-Site": ""},
]
OWN_PAGES = [
    {},
    {"Origin": "http://localhost:{port}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:{port}"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"},
]
SIMPLE = {"Content-Type": "text/plain"}  # any site's form or script may send this without asking


def _client(shared: Tally, service: str) -> Client:
    return shared.customers if service == "customers" else shared.accounts


def _headers(client: Client, headers: dict[str, str]) -> dict[str, str]:
    with_host = {"Host": "localhost:{port}", **headers}
    return {name: value.replace("{port}", str(client.port)) for name, value in with_host.items()}


@pytest.mark.parametrize("host", NO_NAMES)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_under_what_is_no_name_nothing_is_answered(shared: Tally, service: str, host: str) -> None:
    client = _client(shared, service)
    problem(client.request("GET", f"/{service}", headers={"Host": host}), 400)


@pytest.mark.parametrize("host", OTHERS_NAMES)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_under_a_name_that_could_be_made_to_lead_here_nothing_is_answered(
    shared: Tally, service: str, host: str
) -> None:
    client = _client(shared, service)
    headers = _headers(client, {"Host": host})
    for path in (f"/{service}", "/status", "/health/live", "/nothing"):
        refused = problem(client.request("GET", path, headers=headers), 403)
        assert "localhost" in refused["detail"]
    problem(client.request("POST", f"/{service}", {}, headers=headers), 403)


@pytest.mark.parametrize("host", NO_ADDRESSES)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_under_what_is_no_address_nothing_is_answered_to_any_page(
    shared: Tally, service: str, host: str
) -> None:
    client = _client(shared, service)
    headers = _headers(client, {"Host": host, "Origin": "http://localhost:{port}"})
    for path in ("/", f"/{service}"):
        problem(client.request("GET", path, headers=headers), 403)


@pytest.mark.parametrize("host", OWN_NAMES)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_under_its_own_names_and_addresses_the_service_answers(
    shared: Tally, service: str, host: str
) -> None:
    client = _client(shared, service)
    assert client.request("GET", f"/{service}", headers=_headers(client, {"Host": host})).status == 200


def test_a_request_without_a_host_is_of_no_browser_and_answered(shared: Tally) -> None:
    with connect(shared.customers.port) as client:
        client.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert answer(client)[0] == 200


@pytest.mark.parametrize("headers", CROSS_ORIGIN, ids=str)
def test_another_site_s_page_changes_nothing(shared: Tally, watch: Watch, headers: dict[str, str]) -> None:
    customers, accounts = shared.customers, shared.accounts
    account = new_account(accounts)
    customer = new_customer(customers, account)
    row = {"name": "From elsewhere", "account_id": account}
    calls = [
        (customers, "POST", "/customers", row),
        (customers, "POST", "/customers/batch", [row]),
        (customers, "POST", "/invoices", invoice(customer)),
        (customers, "POST", "/invoices/batch", [invoice(customer)]),
        (customers, "DELETE", f"/customers/{customer}", None),
        (accounts, "POST", "/accounts", {"name": "From elsewhere", "owned_by": "evil"}),
        (accounts, "DELETE", f"/accounts/{account}?cascade=true", None),
    ]
    with watch.nothing_changes():
        for client, method, path, content in calls:
            sent = _headers(client, {**SIMPLE, **headers})
            problem(client.request(method, path, content, headers=sent), 403)


@pytest.mark.parametrize("headers", OWN_PAGES, ids=str)
def test_the_service_s_own_page_and_programs_change_what_they_like(
    shared: Tally, headers: dict[str, str]
) -> None:
    sent = _headers(shared.accounts, headers)
    made = shared.accounts.post("/accounts", {"name": "Own", "owned_by": "user1"}, sent)
    removed = shared.accounts.request("DELETE", f"/accounts/{made['id']}", headers=sent)
    assert removed.status == 204


@pytest.mark.parametrize("headers", CROSS_ORIGIN, ids=str)
def test_what_another_site_s_page_reads_its_browser_keeps_from_it(
    shared: Tally, headers: dict[str, str]
) -> None:
    for client, path in ((shared.customers, "/customers"), (shared.accounts, "/accounts")):
        seen = client.request("GET", path, headers=_headers(client, headers))
        assert seen.status == 200
        assert not [name for name in seen.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", ["/health/live", "/customers", "/nothing"])
def test_no_answer_is_framed_or_taken_for_another_type(shared: Tally, path: str) -> None:
    headers = shared.customers.request("GET", path).headers
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")


def test_there_is_no_login_while_auth_is_off(shared: Tally) -> None:
    problem(shared.accounts.request("POST", "/auth/login", {"username": "a", "password": "b"}), 404)
