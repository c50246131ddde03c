"""Permissions on both services, over real sockets: section 10 of the contract.

RULES says for every route who may use it. A route without a rule fails a test.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
import redis
import urllib3
from integration.conftest import (
    credit,
    invoice,
    new_account,
    new_credit,
    new_customer,
    new_invoice,
    problem,
)

from support import users
from support.cli import command
from support.routes import routes, served
from support.tally import Client, Tally, running
from support.users import PASSWORD, SignedIn
from support.waiting import eventually
from tally.store import accounts

OPEN = "everybody"
SIGNED_IN = "whoever is signed in"
LISTS = "lists what is in one's own accounts"
OWN = "one's own, and all else is unknown"
CREATES = "creates in one's own accounts"
ADMINS = "admins"

RULES = {
    ("customers", "GET", "/customers"): LISTS,
    ("customers", "POST", "/customers"): CREATES,
    ("customers", "POST", "/customers/batch"): CREATES,
    ("customers", "GET", "/customers/{id}"): OWN,
    ("customers", "PATCH", "/customers/{id}"): OWN,
    ("customers", "GET", "/customers/{id}/history"): OWN,
    ("accounts", "GET", "/accounts/{id}/history"): OWN,
    ("customers", "DELETE", "/customers/{id}"): OWN,
    ("customers", "GET", "/invoices"): LISTS,
    ("customers", "POST", "/invoices"): CREATES,
    ("customers", "POST", "/invoices/batch"): CREATES,
    ("customers", "GET", "/invoices/{id}"): OWN,
    ("customers", "PATCH", "/invoices/{id}"): OWN,
    ("customers", "GET", "/invoices/{id}/history"): OWN,
    ("customers", "DELETE", "/invoices/{id}"): OWN,
    ("customers", "GET", "/credits"): LISTS,
    ("customers", "POST", "/credits"): CREATES,
    ("customers", "POST", "/credits/batch"): CREATES,
    ("customers", "GET", "/credits/{id}"): OWN,
    ("customers", "DELETE", "/credits/{id}"): OWN,
    ("customers", "GET", "/customers/search"): LISTS,
    ("customers", "GET", "/customers/{id}/summary"): OWN,
    ("customers", "GET", "/auth/session"): SIGNED_IN,
    ("customers", "POST", "/auth/session"): SIGNED_IN,
    ("customers", "DELETE", "/auth/session"): OPEN,
    ("customers", "GET", "/invoices/search"): LISTS,
    ("customers", "POST", "/imports"): CREATES,
    ("customers", "GET", "/"): OPEN,
    ("customers", "GET", "/static/{name}"): OPEN,
    ("customers", "GET", "/metrics"): SIGNED_IN,
    ("customers", "POST", "/demo"): ADMINS,
    ("customers", "GET", "/docs"): OPEN,
    ("customers", "GET", "/operations"): OPEN,
    ("customers", "GET", "/operations/minutes"): ADMINS,
    ("customers", "GET", "/operations/stream"): ADMINS,
    ("customers", "GET", "/operations/dead-letters"): ADMINS,
    ("customers", "GET", "/operations/dead-letters/{id}"): ADMINS,
    ("customers", "POST", "/operations/redrive"): ADMINS,
    ("customers", "POST", "/operations/edit"): ADMINS,
    ("customers", "POST", "/operations/discard"): ADMINS,
    ("customers", "GET", "/openapi.json"): SIGNED_IN,
    ("customers", "GET", "/asyncapi.json"): SIGNED_IN,
    ("customers", "GET", "/status"): SIGNED_IN,
    ("customers", "GET", "/health/live"): OPEN,
    ("customers", "GET", "/health/ready"): OPEN,
    ("customers", "GET", "/health/primary"): OPEN,
    ("accounts", "GET", "/accounts"): LISTS,
    ("accounts", "POST", "/accounts"): CREATES,
    ("accounts", "GET", "/accounts/{id}"): OWN,
    ("accounts", "PATCH", "/accounts/{id}"): OWN,
    ("accounts", "DELETE", "/accounts/{id}"): OWN,
    ("accounts", "GET", "/accounts/{id}/customers"): OWN,
    ("accounts", "GET", "/accounts/{id}/revenue"): OWN,
    ("accounts", "GET", "/accounts/{id}/customers/{customer}/revenue"): OWN,
    ("accounts", "GET", "/revenue"): LISTS,
    ("accounts", "GET", "/accounts/{id}/is-owned-by/{user:path}"): OWN,
    ("accounts", "POST", "/auth/login"): OPEN,
    ("accounts", "GET", "/auth/session"): SIGNED_IN,
    ("accounts", "POST", "/auth/session"): SIGNED_IN,
    ("accounts", "DELETE", "/auth/session"): OPEN,
    ("accounts", "GET", "/accounts/names"): LISTS,
    ("accounts", "GET", "/accounts/summary"): LISTS,
    ("accounts", "GET", "/accounts/{id}/summary"): OWN,
    ("accounts", "GET", "/"): OPEN,
    ("accounts", "GET", "/static/{name}"): OPEN,
    ("accounts", "GET", "/metrics"): SIGNED_IN,
    ("accounts", "POST", "/demo"): ADMINS,
    ("accounts", "GET", "/docs"): OPEN,
    ("accounts", "GET", "/operations"): OPEN,
    ("accounts", "GET", "/operations/minutes"): ADMINS,
    ("accounts", "GET", "/operations/stream"): ADMINS,
    ("accounts", "GET", "/operations/dead-letters"): ADMINS,
    ("accounts", "GET", "/operations/dead-letters/{id}"): ADMINS,
    ("accounts", "POST", "/operations/redrive"): ADMINS,
    ("accounts", "POST", "/operations/edit"): ADMINS,
    ("accounts", "POST", "/operations/discard"): ADMINS,
    ("accounts", "GET", "/openapi.json"): SIGNED_IN,
    ("accounts", "GET", "/asyncapi.json"): SIGNED_IN,
    ("accounts", "GET", "/status"): SIGNED_IN,
    ("accounts", "GET", "/health/live"): OPEN,
    ("accounts", "GET", "/health/ready"): OPEN,
    ("accounts", "GET", "/health/primary"): OPEN,
}
CLOSED = [route for route, rule in RULES.items() if rule != OPEN]
# The answers to admins: there is no such letter, and Tally is not empty.
REFUSED = {"/operations/dead-letters/{id}": 404, "/operations/edit": 404, "/demo": 409}
UNKNOWN = "4611686018427387904"
KINDS = ("accounts", "customers", "invoices", "credits")
_FILE = "customer=Name&date=Day&amount=Sum"


def _ruled(*rules: str) -> list[tuple[str, str, str]]:
    return [route for route, rule in RULES.items() if rule in rules]


def _name(route: object) -> str:
    return " ".join(route) if isinstance(route, tuple) else str(route)


class Things(NamedTuple):
    """A user's account, a customer in it, and that customer's invoice and credit."""

    account: str
    customer: str
    invoice: str
    credit: str


class World(NamedTuple):
    """A Tally where an admin, Alice and Bob are signed in. Alice and Bob each have some rows."""

    tally: Tally
    key: bytes
    admin: SignedIn
    alice: SignedIn
    bob: SignedIn
    of_alice: Things
    of_bob: Things


def _things(tally: Tally, user: SignedIn) -> Things:
    account = new_account(user.accounts, user.name)
    eventually(tally.settled)
    customer = new_customer(user.customers, account)
    bill = new_invoice(user.customers, customer)
    return Things(account, customer, bill, new_credit(user.customers, customer))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("auth"), auth={"mode": "jwt"}) as tally:
        for name in ("admin", "alice", "bob"):
            users.add(tally, name, admin=name == "admin")
        admin, alice, bob = (users.sign_in(tally, name) for name in ("admin", "alice", "bob"))
        tally.customers, tally.accounts = admin.customers, admin.accounts  # `settled` asks as the admin
        of_alice, of_bob = _things(tally, alice), _things(tally, bob)
        eventually(tally.settled)
        key = (tally.directory / "data" / "signing.key").read_bytes().strip()
        yield World(tally, key, admin, alice, bob, of_alice, of_bob)


def _path(template: str, things: Things) -> str:
    ids = dict(zip(KINDS, things, strict=True))
    return (
        template.replace("{id}", ids.get(template.split("/")[1], ""))
        .replace("{user:path}", "alice")
        .replace("{customer}", things.customer)
        .replace("{name}", "tally.css")
        .replace("/imports", f"/imports?{_FILE}&account_id={things.account}")
    )


def _body(template: str, things: Things) -> Any:
    """The body that this call needs, to create something in or for `things`."""
    customer = {"name": "New", "account_id": things.account}
    bodies: dict[str, Any] = {
        "/customers/{id}": {"name": "Another"},
        "/invoices/{id}": {"purchase_price_cents": 1},
        "/accounts/{id}": {"name": "Another"},
        "/customers": customer,
        "/customers/batch": [customer],
        "/invoices": invoice(things.customer),
        "/invoices/batch": [invoice(things.customer)],
        "/credits": credit(things.customer),
        "/credits/batch": [credit(things.customer)],
        "/accounts": {"name": "New", "owned_by": "alice"},
        "/auth/login": {"username": "alice", "password": "wrong password"},
        "/operations/redrive": {"ids": ["1-0"]},
        "/demo": {"accounts": ["1"] * 6},
        "/operations/edit": {"id": "1-0", "payload": "{}"},
        "/operations/discard": {"ids": ["1-0"]},
    }
    return bodies.get(template)


def _call(client: Client, method: str, template: str, things: Things) -> urllib3.BaseHTTPResponse:
    content = _body(template, things) if method in ("POST", "PATCH") else None
    file = b"Name,Day,Sum\nImported,2019-01-06,1.00\n" if template == "/imports" else None
    return client.request(method, _path(template, things), content, file)


def _client(user: SignedIn, service: str) -> Client:
    return user.customers if service == "customers" else user.accounts


def _pages(client: Client, path: str, key: str, limit: int) -> list[Any]:
    """All of a list, read page by page."""
    page = client.get(f"{path}limit={limit}")
    found: list[Any] = page[key]
    while page["next"] is not None:
        assert len(page[key]) == limit
        page = client.get(f"{path}limit={limit}&after={page['next']}")
        found += page[key]
    return found


def _everything(world: World) -> list[Any]:
    """All rows, as an admin sees them, once earlier changes have arrived everywhere."""
    eventually(world.tally.settled)
    lists = [_pages(world.admin.customers, f"/{key}?", key, 1000) for key in KINDS[1:]]
    return [*lists, world.admin.accounts.get("/accounts")]


# Every route has a rule


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_every_route_has_a_rule_and_every_rule_a_route(service: str, tmp_path: Path) -> None:
    app = served(service, tmp_path)
    found = {(service, *route) for route in routes(app)}
    assert found == {route for route in RULES if route[0] == service}
    assert (app.static_routes, app.sinks) == ([], [])


# Callers without a good token


def _token(world: World, key: bytes | None, algorithm: str = "HS256", **changes: Any) -> str:
    """The admin's token, changed and signed again."""
    claims = jwt.decode(world.admin.token, options={"verify_signature": False})
    return jwt.encode({**claims, **changes}, key, algorithm)


BAD_TOKENS: dict[str, Callable[[World], str]] = {
    "another key's": lambda world: _token(world, b"x" * 64),
    "expired": lambda world: _token(world, world.key, exp=int(time.time()) - 60),
    "another algorithm's": lambda world: _token(world, world.key, "HS512"),
    "unsigned": lambda world: _token(world, None, "none"),
    "without an end": lambda world: _token(world, world.key, exp=None),
    "cut off": lambda world: world.admin.token[:-1],
    "nonsense": lambda world: "nonsense",
}


@pytest.mark.parametrize("route", CLOSED, ids=_name)
def test_without_a_token_a_call_is_refused_with_a_challenge_and_changes_nothing(
    world: World, route: tuple[str, str, str]
) -> None:
    service, method, template = route
    before = _everything(world)
    port = _client(world.alice, service).port
    answer = _call(Client(port), method, template, world.of_alice)
    problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tally"'
    assert _everything(world) == before


@pytest.mark.parametrize("kind", BAD_TOKENS)
@pytest.mark.parametrize("route", CLOSED, ids=_name)
def test_a_token_that_is_not_good_is_refused(world: World, route: tuple[str, str, str], kind: str) -> None:
    service, method, template = route
    client = Client(_client(world.alice, service).port, BAD_TOKENS[kind](world))
    answer = _call(client, method, template, world.of_alice)
    problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tally", error="invalid_token"'


def test_a_token_of_a_user_who_never_was_is_refused_by_the_service_that_knows_the_users(world: World) -> None:
    for changes in ({"uid": 99}, {"sub": "alice"}):
        client = Client(world.alice.accounts.port, _token(world, world.key, **changes))
        problem(client.request("GET", "/accounts"), 401)


@pytest.mark.parametrize("header", ["Basic YWxpY2U6c2VjcmV0", "Bearer", "{token}", "Token {token}", ""])
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_token_counts_only_as_a_bearer_s(world: World, service: str, header: str) -> None:
    value = header.format(token=world.admin.token)
    client = Client(_client(world.alice, service).port)
    assert client.request("GET", f"/{service}", headers={"Authorization": value}).status == 401
    assert client.request("GET", f"/{service}?access_token={world.admin.token}").status == 401


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_the_scheme_s_case_does_not_matter(world: World, service: str) -> None:
    client = Client(_client(world.alice, service).port)
    header = {"Authorization": f"bearer {world.admin.token}"}
    assert client.request("GET", f"/{service}", headers=header).status == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/health", "/health/", "/health/live/x", "/healthy/live", "/a/../health/live"]
)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_without_a_token_nobody_learns_which_paths_there_are(world: World, service: str, path: str) -> None:
    problem(Client(_client(world.alice, service).port).request("GET", path), 401)


def test_without_a_token_one_is_told_where_there_is_one_in_whole_sentences(
    world: World, tmp_path: Path
) -> None:
    detail = problem(Client(world.alice.accounts.port).request("GET", "/accounts"), 401)["detail"]
    assert "POST /auth/login of the accounts service" in detail
    assert "Bearer" in detail
    assert re.fullmatch(r"([A-Z][^.;]*(; [a-z][^.;]*)?\. ?)+", detail)

    (file := tmp_path / "purchases.csv").write_text("customer,purchase_date,amount\nAda,2019-01-06,1.00\n")
    config = world.tally.directory / "tally.toml"
    (line,) = command("import", "--config", config, "--account", "1", file).stderr.splitlines()
    assert line.endswith("Bearer; give a token with --token or TALLY_TOKEN (POST /auth/login has them)")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_without_a_token_no_other_method_helps(world: World, service: str, method: str) -> None:
    assert Client(_client(world.alice, service).port).request(method, f"/{service}").status == 401


@pytest.mark.parametrize("route", _ruled(OPEN), ids=_name)
def test_health_and_the_login_want_no_token(world: World, route: tuple[str, str, str]) -> None:
    service, method, template = route
    client = Client(_client(world.alice, service).port)
    answer = _call(client, method, template, world.of_alice)
    if template == "/auth/login" and method == "POST":
        problem(answer, 401)
        assert "password" in answer.json()["detail"]
    else:
        assert answer.status in (200, 204), answer.data


@pytest.mark.parametrize("route", _ruled(SIGNED_IN), ids=_name)
def test_whoever_is_signed_in_may_read_the_status(world: World, route: tuple[str, str, str]) -> None:
    service, method, template = route
    assert _call(_client(world.bob, service), method, template, world.of_alice).status in (200, 204)


@pytest.mark.parametrize("route", _ruled(ADMINS), ids=_name)
def test_operations_are_for_admins(world: World, route: tuple[str, str, str]) -> None:
    service, method, template = route
    refused = _call(_client(world.alice, service), method, template, world.of_alice)
    assert "for admins" in problem(refused, 403)["detail"]
    done = _call(_client(world.admin, service), method, template, world.of_alice)
    assert done.status == REFUSED.get(template, 200)


# Rows of another user


@pytest.mark.parametrize("route", _ruled(OWN), ids=_name)
def test_what_is_another_s_is_answered_exactly_as_what_does_not_exist(
    world: World, route: tuple[str, str, str]
) -> None:
    service, method, template = route
    before = _everything(world)
    client = _client(world.bob, service)
    answer = _call(client, method, template, world.of_alice)
    unknown = _call(client, method, template, Things(*[UNKNOWN] * len(KINDS)))
    if "is-owned-by" in template:
        assert (answer.status, answer.json()) == (200, {"ok": False})
    else:
        problem(answer, 404)
    thing = world.of_alice[KINDS.index(template.split("/")[1])]
    assert answer.data.replace(thing.encode(), b"ID") == unknown.data.replace(UNKNOWN.encode(), b"ID")
    dull = {"Date", "Content-Length"}
    assert {k: v for k, v in answer.headers.items() if k not in dull} == {
        k: v for k, v in unknown.headers.items() if k not in dull
    }
    assert _everything(world) == before


@pytest.mark.parametrize("query", ["", "?cascade=true"])
def test_another_s_account_is_not_deleted_however_one_asks(world: World, query: str) -> None:
    problem(world.bob.accounts.request("DELETE", f"/accounts/{world.of_alice.account}{query}"), 404)
    assert world.alice.accounts.get(f"/accounts/{world.of_alice.account}")


@pytest.mark.parametrize("route", _ruled(OWN), ids=_name)
def test_what_is_one_s_own_and_what_is_anybody_s_for_an_admin_is_there(
    world: World, route: tuple[str, str, str]
) -> None:
    service, method, template = route
    for user in (world.alice, world.admin):
        things = _things(world.tally, world.alice) if method == "DELETE" else world.of_alice
        if template == "/accounts/{id}" and method == "DELETE":
            eventually(world.tally.settled)
            user.accounts.delete(f"/accounts/{things.account}?cascade=true")
        else:
            assert _call(_client(user, service), method, template, things).status in (200, 204)


@pytest.mark.parametrize(
    "template", [*(f"/{kind}{batch}" for kind in KINDS[1:] for batch in ("", "/batch")), "/imports"]
)
def test_nothing_is_created_in_another_s_account_and_the_answer_is_as_if_it_did_not_exist(
    world: World, template: str
) -> None:
    before = _everything(world)
    kind = "account_id" if template.startswith(("/customers", "/imports")) else "customer_id"
    field = f"[0].{kind}" if template.endswith("/batch") else kind
    answer = _call(world.bob.customers, "POST", template, world.of_alice)
    unknown = _call(world.bob.customers, "POST", template, Things(*[UNKNOWN] * len(KINDS)))
    problem(answer, 422, field)
    thing = world.of_alice.account if kind == "account_id" else world.of_alice.customer
    assert answer.data.replace(f" {thing}".encode(), b" ID") == unknown.data.replace(UNKNOWN.encode(), b"ID")
    assert _everything(world) == before


def test_a_batch_with_a_row_in_another_s_account_creates_nothing_and_names_the_row(world: World) -> None:
    before = _everything(world)
    rows = [
        {"name": "Mine", "account_id": world.of_bob.account},
        {"name": "Not mine", "account_id": world.of_alice.account},
        {"name": "Nobody's", "account_id": UNKNOWN},
    ]
    answer = world.bob.customers.request("POST", "/customers/batch", rows)
    problem(answer, 422, "[1].account_id", "[2].account_id")
    bills = [invoice(world.of_bob.customer), invoice(UNKNOWN), invoice(world.of_alice.customer)]
    answer = world.bob.customers.request("POST", "/invoices/batch", bills)
    problem(answer, 422, "[1].customer_id", "[2].customer_id")
    credits = [
        credit(world.of_bob.customer),
        credit(world.of_bob.customer, invoice_id=world.of_alice.invoice),
    ]
    problem(world.bob.customers.request("POST", "/credits/batch", credits), 422, "[1].invoice_id")
    assert _everything(world) == before


@pytest.mark.parametrize("route", _ruled(CREATES), ids=_name)
def test_one_creates_in_one_s_own_accounts_and_an_admin_in_any(
    world: World, route: tuple[str, str, str]
) -> None:
    service, method, template = route
    for user in (world.alice, world.admin):
        assert _call(_client(user, service), method, template, world.of_alice).status == 201


def test_an_account_is_opened_for_oneself_and_by_an_admin_for_anybody(world: World) -> None:
    before = _everything(world)
    answer = world.bob.accounts.request("POST", "/accounts", {"name": "Theirs", "owned_by": "alice"})
    problem(answer, 403)
    assert _everything(world) == before
    assert world.bob.accounts.post("/accounts", {"name": "Mine", "owned_by": " bob "})
    assert world.admin.accounts.post("/accounts", {"name": "Carol's", "owned_by": "carol"})


def test_nobody_records_a_customer_in_an_account_that_is_not_there(world: World) -> None:
    """A user opened accounts up to a number that an admin had used, and could then delete the data there."""
    row = {"name": "Early", "account_id": UNKNOWN}
    for user in (world.alice, world.admin):
        answer = user.customers.request("POST", "/customers", row)
        problem(answer, 422, "account_id")
        said = f"There is no account {UNKNOWN}; if it was opened just now, try again in a second"
        assert answer.json()["errors"][0]["message"] == said
        problem(user.customers.request("POST", "/customers/batch", [row]), 422, "[0].account_id")


def test_a_number_that_customers_were_recorded_under_is_passed_over_where_a_user_opens_an_account(
    world: World,
) -> None:
    def opened(user: SignedIn) -> int:
        return int(user.accounts.post("/accounts", {"name": "a", "owned_by": "alice"})["id"])

    last = opened(world.alice)
    _record_elsewhere(world, last + 1, last + 2)
    with closing(accounts.open_database(world.tally.directory / "data", make=False)) as database:
        asked = "SELECT count(*) FROM customer WHERE account_id > ?"
        eventually(lambda: database.value(asked, (last,)) == 2)
    assert opened(world.alice) == last + 3


def _record_elsewhere(world: World, *account_ids: int) -> None:
    """Let another program record a customer in each of these accounts."""
    with closing(redis.Redis.from_url(world.tally.redis_url)) as client:
        for account in account_ids:
            payload = {
                "id": str(10**6 + account),
                "account_id": str(account),
                "name": "another program's",
                "created_date": "2019-01-06T00:00:00Z",
            }
            event = {"EventTypeName": "CustomerCreated", "Payload": json.dumps(payload)}
            client.xadd("event-stream", event)  # type: ignore[arg-type]


def test_revenue_that_no_account_shows_is_told_to_admins_alone(world: World) -> None:
    _record_elsewhere(world, 10**6)
    eventually(lambda: "is shown nowhere" in str(world.admin.accounts.get("/status")["notes"]))
    assert world.alice.accounts.get("/status")["notes"] == []


def test_only_an_admin_hands_an_account_to_another_and_its_customers_are_the_other_s_then(
    world: World,
) -> None:
    things = _things(world.tally, world.alice)
    path = f"/accounts/{things.account}"
    problem(world.alice.accounts.request("PATCH", path, {"owned_by": "bob"}), 403)
    assert world.alice.accounts.request("PATCH", path, {"owned_by": "alice", "name": "Ours"}).status == 200
    problem(world.bob.accounts.request("PATCH", path, {"name": "Theirs"}), 404)
    assert world.admin.accounts.request("PATCH", path, {"owned_by": "bob"}).status == 200
    eventually(lambda: world.bob.customers.request("GET", f"/customers/{things.customer}").status == 200)
    problem(world.alice.customers.request("GET", f"/invoices/{things.invoice}"), 404)
    assert world.bob.customers.get(f"/invoices/{things.invoice}/history")["history"]


def test_a_customer_moves_into_one_s_own_accounts_only(world: World) -> None:
    things = _things(world.tally, world.alice)
    path = f"/customers/{things.customer}"
    for account in (world.of_bob.account, UNKNOWN):
        answer = world.alice.customers.request("PATCH", path, {"account_id": account})
        problem(answer, 422, "account_id")
    problem(world.admin.customers.request("PATCH", path, {"account_id": UNKNOWN}), 422, "account_id")
    assert world.alice.customers.get(path)["account_id"] == things.account


def test_an_account_s_history_tells_who_did_it_and_only_its_owner(world: World) -> None:
    account = world.alice.accounts.post("/accounts", {"name": "a", "owned_by": "alice"})["id"]
    path = f"/accounts/{account}"
    assert world.admin.accounts.request("PATCH", path, {"name": "b"}).status == 200
    world.alice.accounts.delete(path)
    eventually(world.tally.settled)
    history = world.alice.accounts.get(f"{path}/history")["history"]
    assert [each["by"] for each in history] == ["alice", "admin", "alice"]
    problem(world.bob.accounts.request("GET", f"{path}/history"), 404)


def test_history_and_stream_tell_who_did_it(world: World) -> None:
    things = _things(world.tally, world.alice)
    path = f"/invoices/{things.invoice}"
    assert world.admin.customers.request("PATCH", path, {"purchase_price_cents": 1}).status == 200
    world.alice.customers.delete(path)
    history = world.alice.customers.get(f"{path}/history")["history"]
    assert [each["by"] for each in history] == ["alice", "admin", "alice"]
    problem(world.bob.customers.request("GET", f"{path}/history"), 404)
    world.alice.customers.delete(f"/customers/{things.customer}")
    assert world.alice.customers.get(f"{path}/history")["history"] == history
    problem(world.bob.customers.request("GET", f"/customers/{things.customer}/history"), 404)
    eventually(world.tally.settled)
    with closing(redis.Redis.from_url(world.tally.redis_url)) as client:
        told: Any = client.xrevrange("event-stream", count=50)
    by = [
        fields[b"By"]
        for _, fields in reversed(told)
        if json.loads(fields[b"Payload"])["id"] == things.invoice and b"Invoice" in fields[b"EventTypeName"]
    ]
    assert by == [b"alice", b"admin", b"alice"]


# Lists


@pytest.mark.parametrize("limit", [1, 2, 1000])
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_lists_hold_what_is_in_one_s_own_accounts_page_by_page(world: World, name: str, limit: int) -> None:
    user: SignedIn = getattr(world, name)
    own = {
        each["account"]["id"]
        for each in world.admin.accounts.get("/accounts")
        if each["account"]["owned_by"] == name
    }
    everybody = _pages(world.admin.customers, "/customers?", "customers", 1000)
    customers = [each for each in everybody if each["account_id"] in own]
    of_own = {each["id"] for each in customers}
    bills = [
        each
        for each in _pages(world.admin.customers, "/invoices?", "invoices", 1000)
        if each["customer_id"] in of_own
    ]
    assert customers
    assert bills
    assert len(everybody) > len(customers)
    assert _pages(user.customers, "/customers?", "customers", limit) == customers
    assert _pages(user.customers, "/invoices?", "invoices", limit) == bills


def test_the_list_of_accounts_holds_one_s_own_streamed_and_page_by_page(world: World) -> None:
    everything = world.admin.accounts.get("/accounts")
    for user in (world.alice, world.bob):
        own = [each for each in everything if each["account"]["owned_by"] == user.name]
        assert 0 < len(own) < len(everything)
        assert user.accounts.get("/accounts") == own
        answer = user.accounts.request("GET", "/accounts?limit=1")
        assert answer.json() == own[:1]
        last = user.accounts.request("GET", f"/accounts?limit=1000&after={own[-1]['account']['id']}")
        assert (last.json(), last.headers.get("Link")) == ([], None)


def test_filtering_for_what_is_another_s_finds_nothing_as_for_what_does_not_exist(world: World) -> None:
    for path, key, mine, theirs in (
        ("/customers?account_id=", "customers", world.of_bob.account, world.of_alice.account),
        ("/invoices?customer_id=", "invoices", world.of_bob.customer, world.of_alice.customer),
    ):
        client = world.bob.customers
        assert client.get(f"{path}{mine}")[key]
        assert client.get(f"{path}{theirs}") == client.get(f"{path}{UNKNOWN}") == {key: [], "next": None}
        assert world.admin.customers.get(f"{path}{theirs}")[key]


# Changes over time


def test_the_events_of_users_are_counted_like_anybody_s(world: World) -> None:
    things = _things(world.tally, world.alice)
    eventually(world.tally.settled)
    account = world.alice.accounts.get(f"/accounts/{things.account}")
    assert account["total_revenue_cents"] == 10_000 - 2_500
    assert world.bob.accounts.request("GET", f"/accounts/{things.account}").status == 404


def test_a_deleted_account_s_customers_are_gone_for_its_owner_at_once(world: World) -> None:
    things = _things(world.tally, world.alice)
    eventually(world.tally.settled)
    world.alice.accounts.delete(f"/accounts/{things.account}?cascade=true")
    eventually(world.tally.settled)
    problem(world.alice.customers.request("GET", f"/customers/{things.customer}"), 404)
    problem(
        world.alice.customers.request("POST", "/customers", _body("/customers", things)), 422, "account_id"
    )


@pytest.mark.parametrize("template", ["/customers", "/customers/batch", "/invoices", "/invoices/batch"])
def test_one_user_s_idempotency_key_says_nothing_to_another(world: World, template: str) -> None:
    header = {"Idempotency-Key": f"the-same-for{template}"}
    mine, theirs = (_body(template, things) for things in (world.of_bob, world.of_alice))
    first = world.alice.customers.post(template, theirs, header)
    assert world.alice.customers.post(template, theirs, header) == first
    replayed = world.bob.customers.request("POST", template, theirs, headers=header)
    assert replayed.status == 422
    assert replayed.data == world.bob.customers.request("POST", template, theirs).data
    second = world.bob.customers.post(template, mine, header)
    assert second != first
    assert world.bob.customers.post(template, mine, header) == second
    assert world.alice.customers.post(template, theirs, header) == first


def test_an_admin_s_key_and_a_user_s_are_two_also_for_accounts(world: World) -> None:
    header, body = {"Idempotency-Key": "accounts-key"}, {"name": "Once", "owned_by": "alice"}
    first = world.alice.accounts.post("/accounts", body, header)
    assert world.alice.accounts.post("/accounts", body, header) == first
    assert world.admin.accounts.post("/accounts", body, header) != first


def test_a_removed_user_s_token_ends_at_once_on_both_services(world: World) -> None:
    """The customers service used to accept it until it expired: up to a year."""
    users.add(world.tally, "dora")
    dora = users.sign_in(world.tally, "dora")
    assert dora.accounts.get("/accounts") == []
    users.remove(world.tally, "dora")
    problem(dora.accounts.request("GET", "/accounts"), 401)
    problem(dora.customers.request("GET", "/customers"), 401)
    large = dora.customers.request("POST", "/customers/batch", body=b" " * 100_000)
    assert large.status == 401
    users.add(world.tally, "dora")
    problem(dora.accounts.request("GET", "/accounts"), 401)  # she is another user now
    problem(dora.customers.request("GET", "/customers"), 401)
    again = users.sign_in(world.tally, "dora")
    assert again.customers.get("/customers")["customers"] == []


def test_an_expired_token_is_refused_by_both_services(world: World) -> None:
    soon = int(time.time()) - 60
    claims = {**jwt.decode(world.alice.token, options={"verify_signature": False}), "exp": soon}
    expired = users.with_token(world.tally, "alice", jwt.encode(claims, world.key, "HS256"))
    problem(expired.customers.request("GET", "/customers"), 401)
    problem(expired.accounts.request("GET", "/accounts"), 401)


def test_a_token_holds_nothing_but_who_it_is_for_and_until_when(world: World) -> None:
    claims = jwt.decode(world.alice.token, world.key, ["HS256"], issuer="tally")
    assert claims.keys() == {"iss", "sub", "uid", "admin", "iat", "exp"}
    assert (claims["sub"], claims["admin"], claims["exp"] - claims["iat"]) == ("alice", False, 3600)


def test_an_address_that_a_client_claims_for_itself_is_not_believed(world: World) -> None:
    content = {"username": "liar", "password": "wrong password"}
    claimed = {"X-Forwarded-For": "192.0.2.99", "Forwarded": "for=192.0.2.99"}
    problem(world.tally.accounts.request("POST", "/auth/login", content, headers=claimed), 401)
    (line,) = [line for line in world.tally.said().splitlines() if '"liar"' in line]
    assert json.loads(line)["address"] == "127.0.0.1"


def test_no_password_no_key_and_no_token_was_logged(world: World) -> None:
    written = world.tally.said()
    assert "login_succeeded" in written
    for secret in (PASSWORD, world.key.decode(), world.alice.token):
        assert secret not in written


# The calls of the pages


def test_the_pages_show_a_user_what_is_in_its_own_accounts(world: World) -> None:
    summary = world.alice.accounts.get("/accounts/summary")
    assert {row["owned_by"] for row in summary["accounts"]} == {"alice"}
    assert summary["totals"]["accounts"] == summary["found"] == len(summary["accounts"])
    found = world.alice.customers.get("/customers/search?limit=1000")["customers"]
    mine = {row["id"] for row in summary["accounts"]}
    assert found
    assert {customer["account_id"] for customer in found} <= mine
    for sought in (world.of_bob.customer, "o"):
        found = world.alice.customers.get(f"/customers/search?search={sought}")["customers"]
        assert {customer["account_id"] for customer in found} <= mine
    assert world.alice.accounts.get("/accounts/summary?search=bob")["accounts"] == []
    theirs = f"{world.of_alice.account},{world.of_bob.account}"
    for asked in (f"ids={theirs}", "search=account&limit=1000", f"search={world.of_bob.account}"):
        names = world.alice.accounts.get(f"/accounts/names?{asked}")["accounts"]
        assert {each["id"] for each in names} <= mine, asked
    assert world.alice.accounts.get(f"/accounts/names?ids={theirs}")["accounts"]
    invoices = world.alice.customers.get("/invoices/search?limit=1000")["invoices"]
    assert invoices
    assert {each["account_id"] for each in invoices} <= mine
    ranked = world.alice.customers.get("/customers/search?rank=-revenue")
    assert ranked["ranked"]
    assert {each["account_id"] for each in ranked["customers"]} <= mine


def test_the_pages_show_an_admin_everything(world: World) -> None:
    owners = {row["owned_by"] for row in world.admin.accounts.get("/accounts/summary")["accounts"]}
    assert {"alice", "bob"} <= owners
