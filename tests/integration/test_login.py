"""Signing in: the answers of POST /auth/login, and how failures slow it down."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from argon2 import PasswordHasher
from integration.conftest import problem

from support import users
from support.tally import Client, Tally, running
from support.users import PASSWORD
from support.waiting import eventually
from tally.http.neighbours import LOGIN, SESSION
from tally.store import accounts
from tally.store.login_attempts import BY_ADDRESS, BY_USER, LoginAttempts
from tally.store.users import Users

PROXY = "127.0.0.1"


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally behind a proxy (these tests), so that each test can use addresses of its own."""
    auth = {"mode": "jwt", "trusted_proxy": PROXY}
    with running(tmp_path_factory.mktemp("login"), auth=auth, accounts={"processes": 2}) as tally:
        yield tally


@pytest.fixture
def name(tally: Tally, request: pytest.FixtureRequest) -> str:
    """A user for this test only."""
    user = request.node.name[:100]
    users.add(tally, user)
    return str(user)


def _login(
    client: Client, username: object, password: object = PASSWORD, address: str = "192.0.2.1", **headers: str
) -> urllib3.BaseHTTPResponse:
    content = {"username": username, "password": password}
    return client.request(
        "POST", "/auth/login", content, headers={"X-Forwarded-For": address, "Connection": "close", **headers}
    )


def _lines(tally: Tally, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in tally.said().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_password_is_answered_with_a_token_and_its_end(tally: Tally, name: str) -> None:
    answer = _login(tally.accounts, name)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    content = answer.json()
    assert content.keys() == {"token", "expires_at"}
    assert content["expires_at"].endswith("Z")
    left = datetime.fromisoformat(content["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert Client(tally.customers.port, content["token"]).get("/customers") == {"customers": [], "next": None}


def test_the_name_is_trimmed_and_the_password_is_not(tally: Tally, name: str) -> None:
    assert _login(tally.accounts, f"  {name} ").status == 200
    problem(_login(tally.accounts, name, f" {PASSWORD}"), 401)


def test_a_wrong_password_and_a_wrong_name_are_answered_alike(tally: Tally, name: str) -> None:
    wrong, unknown = _login(tally.accounts, name, "wrong password"), _login(tally.accounts, "nobody")
    problem(wrong, 401)
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="tally"'
    dull = {"Date"}
    assert wrong.data == unknown.data
    assert {k: v for k, v in wrong.headers.items() if k not in dull} == {
        k: v for k, v in unknown.headers.items() if k not in dull
    }


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({}, ["username", "password"]),
        ({"username": "a"}, ["password"]),
        ({"username": "", "password": ""}, ["username", "password"]),
        ({"username": 1, "password": None}, ["username", "password"]),
        ({"username": "a", "password": ["secret-in-a-list"]}, ["password"]),
        ({"username": "a\x00b", "password": "x"}, ["username"]),
        ({"username": "a" * 201, "password": "x" * 1025}, ["username", "password"]),
        ({"username": "a", "password": "secret\ud800"}, ["password"]),
    ],
)
def test_a_body_that_does_not_hold_is_refused_and_no_password_is_shown(
    tally: Tally, content: dict[str, object], fields: list[str]
) -> None:
    answer = tally.accounts.request("POST", "/auth/login", content)
    problem(answer, 422, *fields)
    assert b"secret" not in answer.data


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"secret", b'{"username": "a", "password": "\xff"}', b'{"a": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_is_malformed(tally: Tally, body: bytes) -> None:
    answer = tally.accounts.request("POST", "/auth/login", body=body)
    assert answer.status in (400, 422)
    assert b"secret" not in answer.data


@pytest.mark.parametrize("password", ["\x00\x01", "p\u0000q" * 300, "🔑" * 1024, "a\nb"])
def test_any_characters_may_be_in_a_password_that_is_tried(tally: Tally, password: str) -> None:
    problem(_login(tally.accounts, f"with {len(password)}", password), 401)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_signs_in(tally: Tally, method: str) -> None:
    problem(tally.accounts.request(method, "/auth/login"), 405)


def test_the_customers_service_signs_nobody_in(tally: Tally) -> None:
    assert _login(tally.customers, "anybody").status == 404


def test_a_password_that_was_kept_at_a_lower_cost_is_kept_anew(tally: Tally, name: str) -> None:
    with closing(accounts.open_database(tally.directory / "data")) as database:
        everybody = Users(database)
        user = everybody.named(name)
        assert user
        cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        with database.transaction():
            everybody.give_password(user, cheap)
        problem(_login(tally.accounts, name, "wrong password"), 401)
        assert everybody.named(name) == type(user)(user.id, name, False, cheap, user.created_date)
        assert _login(tally.accounts, name).status == 200
        kept = everybody.named(name)
        assert kept
        assert kept.password.startswith("$argon2id$v=19$m=19456")
        with database.transaction():
            everybody.give_password(user, cheap)  # a login that began before the password changed
        assert everybody.named(name) == kept
    assert _login(tally.accounts, name).status == 200


def test_a_sign_in_under_way_when_the_user_is_removed_gives_no_good_token(tally: Tally, name: str) -> None:
    """Its password is checked already, which takes seconds here."""
    costly = PasswordHasher(time_cost=8, memory_cost=200_000, parallelism=1).hash(PASSWORD)
    with closing(accounts.open_database(tally.directory / "data")) as database, ThreadPoolExecutor() as pool:
        with database.transaction():
            user = Users(database).named(name)
            assert user
            Users(database).give_password(user, costly)
        signing_in = pool.submit(_login, tally.accounts, name)
        eventually(lambda: database.rows("SELECT 1 FROM login_attempt WHERE origin LIKE ?", (f"%{name}%",)))
        users.remove(tally, name)
        answer = signing_in.result()
    assert answer.status == 200
    signed_in = users.with_token(tally, name, answer.json()["token"])
    assert signed_in.customers.request("GET", "/customers").status == 401
    assert signed_in.accounts.request("GET", "/accounts").status == 401


# Failures


def _failed(tally: Tally, times: int, seconds_ago: float, username: str, address: str) -> None:
    """Record `times` failures, the way the services record them."""
    with closing(accounts.open_database(tally.directory / "data")) as database, database.transaction():
        for number in range(times):
            then = time.time() - seconds_ago - 60 * (times - number - 1)
            assert LoginAttempts(database, lambda: then).begin(username, address) == 0  # noqa: B023


def test_every_failure_is_counted_for_the_user_and_the_address_whichever_process_answers(
    tally: Tally, name: str
) -> None:
    address = "198.51.100.1"
    for _ in range(BY_USER.free):
        problem(_login(tally.accounts, name, "wrong password", address), 401)
    with closing(accounts.open_database(tally.directory / "data")) as database:
        counts = dict(database.rows("SELECT origin, failures FROM login_attempt"))
    assert (counts[f"user {name}"], counts[f"from {address}"]) == (BY_USER.free, BY_USER.free)


def test_a_user_with_failures_waits_with_the_right_password_too_and_from_anywhere(
    tally: Tally, name: str
) -> None:
    _failed(tally, 12, 0, name, "198.51.100.2")
    for number in range(10):
        answer = _login(tally.accounts, name, PASSWORD, f"198.51.100.{number}")
        problem(answer, 429)
        assert 1 <= int(answer.headers["Retry-After"]) <= BY_USER.longest


def test_whoever_has_waited_gets_in_and_is_counted_afresh(tally: Tally, name: str) -> None:
    _failed(tally, 12, BY_USER.longest, name, "198.51.100.3")
    assert _login(tally.accounts, name, PASSWORD, "198.51.100.3").status == 200
    for _ in range(BY_USER.free):
        problem(_login(tally.accounts, name, "wrong password", "198.51.100.3"), 401)


def test_an_address_with_failures_waits_whoever_it_tries_to_be(tally: Tally, name: str) -> None:
    for number in range(BY_ADDRESS.free + 8):
        _failed(tally, 1, 60 * (BY_ADDRESS.free + 8 - number), f"guess {number}", "198.51.100.4")
    _failed(tally, 1, 0, "one more", "198.51.100.4")
    problem(_login(tally.accounts, name, PASSWORD, "198.51.100.4"), 429)
    assert _login(tally.accounts, name, PASSWORD, "198.51.100.5").status == 200


def test_a_crowd_that_signs_in_holds_up_nothing_else(tally: Tally) -> None:
    with ThreadPoolExecutor(20) as pool:
        tries = [
            pool.submit(_login, tally.accounts, f"crowd {n}", "x", f"2001:db8:1:{n:x}::1") for n in range(20)
        ]
        assert tally.accounts.get("/health/ready") == {"status": "ok"}
        statuses = [each.result().status for each in tries]
    assert 401 in statuses
    assert set(statuses) <= {401, 429}


def test_who_guesses_from_a_whole_ipv6_site_keeps_nobody_else_out(tally: Tally, name: str) -> None:
    """Eight clients that changed their network for each guess used all turns. The right password got none."""
    over, guesses = threading.Event(), [0] * 8

    def guess(client: int) -> None:
        while not over.is_set():
            guesses[client] += 1
            number = guesses[client] % 4096
            _login(tally.accounts, f"{client} {number}", "x", f"2001:db8:7:{client:x}{number:03x}::1")

    with ThreadPoolExecutor(8) as pool:
        guessing = [pool.submit(guess, client) for client in range(8)]
        try:
            signed_in = 0
            while signed_in < 10 or sum(guesses) <= 100:
                eventually(lambda: _login(tally.accounts, name, PASSWORD, "192.0.2.42").status == 200, 10)
                signed_in += 1
        finally:
            over.set()
        for each in guessing:
            each.result()


def test_logins_are_logged_with_name_and_address_and_never_the_password(tally: Tally, name: str) -> None:
    address = "192.0.2.77"
    _login(tally.accounts, name, "a wrong one, of course", address)
    _login(tally.accounts, name, PASSWORD, address)
    (failed,) = [line for line in _lines(tally, "login_failed") if line["username"] == name]
    (succeeded,) = [line for line in _lines(tally, "login_succeeded") if line["username"] == name]
    assert (failed["address"], succeeded["address"]) == (address, address)
    assert "a wrong one" not in tally.said()
    assert PASSWORD not in tally.said()


# The pages: each may call the other service, and one sign-in is good for both


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "tally.example.org", "[::1]", "LOCALHOST"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("path", [LOGIN, SESSION, "/accounts"])
def test_the_customers_page_of_the_same_host_may_ask(tally: Tally, host: str, scheme: str, path: str) -> None:
    origin = f"{scheme}://{host.lower()}:{tally.customers.port}"
    headers = {"Host": f"{host}:{tally.accounts.port}", "Origin": origin, "X-Forwarded-Proto": scheme}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = tally.accounts.request("OPTIONS", path, headers={**headers, **asked})
    assert preflight.status == 204
    methods = "GET" if path == "/accounts" else "GET, POST, DELETE"
    assert preflight.headers["Access-Control-Allow-Methods"] == methods
    assert preflight.headers["Access-Control-Allow-Headers"] == "Authorization, Prefer, Tally-After"
    for answer in (preflight, tally.accounts.request("GET", path, headers=headers)):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("host", ["[1:2]", "[:]:80", "[12345::]"])
def test_at_a_host_that_is_no_address_the_page_leads_to_this_machine(tally: Tally, host: str) -> None:
    page = tally.accounts.request("GET", "/", headers={"Host": host, "Origin": "http://evil.example"})
    assert page.status == 200
    assert f'href="http://localhost:{tally.customers.port}/"' in page.data.decode()
    assert "Access-Control-Allow-Origin" not in page.headers


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:1",
        "https://localhost:{port}",
        "http://evil.example:{port}",
        "http://localhost.evil.example:{port}",
        "null",
        "",
        "http://localhost:{port}x",
        "http://[::1",
    ],
)
@pytest.mark.parametrize("path", [LOGIN, SESSION, "/accounts"])
def test_no_other_page_may(tally: Tally, origin: str, path: str) -> None:
    origin = origin.format(port=tally.customers.port)
    headers = {"Host": f"localhost:{tally.accounts.port}", "Origin": origin}
    for method in ("OPTIONS", "GET"):
        answer = tally.accounts.request(method, path, headers=headers)
        assert "Access-Control-Allow-Origin" not in answer.headers


def _cookie(answer: urllib3.BaseHTTPResponse) -> tuple[str, set[str]]:
    """The cookie for the browser to send back, and its attributes."""
    pair, *attributes = answer.headers["Set-Cookie"].split("; ")
    return pair, set(attributes)


def _kept(tally: Tally, name: str) -> str:
    token = _login(tally.accounts, name).json()["token"]
    return _cookie(Client(tally.accounts.port, token).request("POST", SESSION))[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_of_one_service_is_good_at_both_and_no_script_s(
    tally: Tally, name: str, scheme: str
) -> None:
    token = _login(tally.accounts, name).json()["token"]
    proxied = {"X-Forwarded-Proto": scheme}
    kept = Client(tally.customers.port, token).request("POST", SESSION, headers=proxied)
    assert kept.status == 204
    cookie, attributes = _cookie(kept)
    secure = {"Secure"} if scheme == "https" else set()
    assert attributes == {"HttpOnly", "Path=/", "SameSite=Strict", *secure}
    for client in (tally.accounts, tally.customers):
        found = client.request("GET", SESSION, headers={"Cookie": f"other=1; {cookie}"})
        assert (found.status, found.json()) == (200, {"username": name, "admin": False})
        assert found.headers["Cache-Control"] == "no-store"
        problem(client.request("GET", SESSION), 401)


def test_who_signs_out_sends_no_cookie_any_more_signed_in_or_not(tally: Tally, name: str) -> None:
    for headers in ({}, {"Cookie": _kept(tally, name)}):
        answer = tally.customers.request("DELETE", SESSION, headers=headers)
        assert answer.status == 204
        cookie, attributes = _cookie(answer)
        assert cookie.partition("=")[2].strip('"') == ""
        assert "Path=/" in attributes
        (expires,) = (each for each in attributes if each.startswith("expires="))
        assert parsedate_to_datetime(expires.partition("=")[2]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:{customers}"},
        {"Origin": "http://localhost:{customers}"},
    ],
    ids=str,
)
def test_a_browser_s_cookie_changes_nothing_for_another_page(
    tally: Tally, name: str, headers: dict[str, str]
) -> None:
    sent = {key: value.format(customers=tally.customers.port) for key, value in headers.items()}
    sent |= {"Host": f"localhost:{tally.accounts.port}", "Cookie": _kept(tally, name)}
    row = {"name": "From elsewhere", "owned_by": name}
    problem(tally.accounts.request("POST", "/accounts", row, headers=sent), 403)
    own = {"Host": sent["Host"], "Cookie": sent["Cookie"], "Origin": f"http://{sent['Host']}"}
    assert tally.accounts.request("POST", "/accounts", row, headers=own).status == 201


def test_a_header_comes_before_a_cookie(tally: Tally, name: str) -> None:
    headers = {"Cookie": _kept(tally, name), "Authorization": "Bearer none"}
    problem(tally.accounts.request("GET", SESSION, headers=headers), 401)


def test_a_cookie_is_taken_with_a_large_body_too(tally: Tally, name: str) -> None:
    """The user is checked before the body is read."""
    rows = [{"name": "x" * 200, "account_id": "1"}] * 1000
    answer = tally.customers.request("POST", "/customers/batch", rows, headers={"Cookie": _kept(tally, name)})
    assert answer.status == 422, "there is no such account"
    problem(tally.customers.request("POST", "/customers/batch", rows), 401)


def test_the_addresses_behind_a_proxy_are_the_settings(tmp_path: Path) -> None:
    addresses = {
        "customers_url": "https://shop.example/tally/c",
        "accounts_url": "https://shop.example:444/a/",
    }
    with running(tmp_path, pages={**addresses, "currency": "EUR"}) as tally:
        page = tally.accounts.request("GET", "/")
        assert 'content="https://shop.example/tally/c/"' in page.data.decode()
        assert 'content="https://shop.example:444/a/"' in page.data.decode()
        assert "connect-src 'self' https://shop.example;" in page.headers["Content-Security-Policy"]
        other = tally.accounts.request("GET", "/accounts", headers={"Origin": "https://shop.example"})
        assert other.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert tally.accounts.request("GET", SESSION).json() == {"username": "", "admin": True}
        problem(tally.accounts.request("POST", SESSION), 405)
