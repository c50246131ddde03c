"""The customers service: the answer of every call, and the events it publishes."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from integration.conftest import Watch, invoice, new_account, new_customer, new_invoice, problem

from support.tally import Client, Tally, running
from support.waiting import eventually

NOW = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
NOBODY = str(2**63 - 1)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def account_id(accounts: Client) -> str:
    return new_account(accounts)


@pytest.fixture
def customer_id(customers: Client, account_id: str) -> str:
    return new_customer(customers, account_id)


def _walk(client: Client, path: str, kind: str) -> Iterator[list[Any]]:
    """The pages of a list, in order. Each is found through `next` of the page before."""
    separator = "&" if "?" in path else "?"
    page = client.get(path)
    yield page[kind]
    while (last := page["next"]) is not None:
        page = client.get(f"{path}{separator}after={last}")
        yield page[kind]
        assert page["next"] != last, "a page that leads to itself"


# Customers


def test_a_new_customer_is_answered_with_its_id_and_its_location(customers: Client) -> None:
    response = customers.request("POST", "/customers", {"name": "Ada", "account_id": "1"})

    assert (response.status, response.headers["Content-Type"]) == (201, "application/json")
    id = response.json()["id"]
    assert response.json() == {"id": id}
    assert re.fullmatch("[1-9][0-9]*", id)
    assert response.headers["Location"].endswith(f"/customers/{id}")
    assert customers.get(f"/customers/{id}")["id"] == id


def test_a_customer_is_shown_with_its_account_its_name_and_when_it_was_created(
    customers: Client, account_id: str
) -> None:
    id = new_customer(customers, account_id, "Ada")

    shown = customers.get(f"/customers/{id}")
    assert NOW.fullmatch(shown.pop("created_date"))
    assert shown == {"id": id, "account_id": account_id, "name": "Ada", "revision": 0}


def test_a_new_customer_is_published_with_what_is_shown_of_it(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    (event,) = watch.published("CustomerCreated", id=customer_id)

    assert event.payload | {"revision": 0} == customers.get(f"/customers/{customer_id}")
    assert list(event.payload) == ["id", "account_id", "name", "created_date"]
    assert re.fullmatch(r"customers@[0-9a-f]{8}:[1-9][0-9]*", event.event_id)


def test_the_account_of_a_customer_need_not_exist(customers: Client) -> None:
    assert customers.get(f"/customers/{new_customer(customers, NOBODY)}")["account_id"] == NOBODY


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/x-www-form-urlencoded", "text/plain", "application/xml", "x"],
)
def test_a_body_is_read_as_json_whatever_its_content_type_says(
    customers: Client, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else None
    response = customers.request(
        "POST", "/customers", body=b'{"name": "Ada", "account_id": "1"}', headers=headers
    )
    assert response.status == 201


def test_the_trace_context_of_a_request_goes_with_its_event(customers: Client, watch: Watch) -> None:
    id = customers.post("/customers", {"name": "Ada", "account_id": "1"}, {"traceparent": TRACE})["id"]
    assert [event.trace_parent for event in watch.published("CustomerCreated", id=id)] == [TRACE]


@pytest.mark.parametrize("trace", ["nonsense", TRACE.upper(), TRACE + "0", TRACE[:-1], ""])
def test_a_trace_context_that_is_none_is_left_out(customers: Client, watch: Watch, trace: str) -> None:
    id = customers.post("/customers", {"name": "Ada", "account_id": "1"}, {"traceparent": trace})["id"]
    assert [event.trace_parent for event in watch.published("CustomerCreated", id=id)] == [None]


def test_a_deleted_customer_is_gone_with_its_invoices(customers: Client, customer_id: str) -> None:
    invoices = [new_invoice(customers, customer_id) for _ in range(3)]

    response = customers.request("DELETE", f"/customers/{customer_id}")

    assert (response.status, response.data) == (204, b"")
    problem(customers.request("GET", f"/customers/{customer_id}"), 404)
    for id in invoices:
        problem(customers.request("GET", f"/invoices/{id}"), 404)
    assert customers.get(f"/invoices?customer_id={customer_id}") == {"invoices": [], "next": None}


def test_a_customers_deletion_is_published_once_and_not_that_of_its_invoices(
    customers: Client, watch: Watch, account_id: str, customer_id: str
) -> None:
    new_invoice(customers, customer_id)

    customers.delete(f"/customers/{customer_id}")

    (event,) = watch.published("CustomerDeleted", id=customer_id)
    assert list(event.payload) == ["id", "account_id", "deleted_date"]
    assert event.payload["account_id"] == account_id
    assert NOW.fullmatch(event.payload["deleted_date"])
    assert not watch.published("InvoiceDeleted", customer_id=customer_id)


def test_a_customer_is_deleted_once_only(customers: Client, watch: Watch, customer_id: str) -> None:
    customers.delete(f"/customers/{customer_id}")
    with watch.nothing_changes():
        problem(customers.request("DELETE", f"/customers/{customer_id}"), 404)


def test_a_deleted_customer_and_its_revenue_leave_the_account(
    customers: Client, accounts: Client, account_id: str
) -> None:
    gone, left = (new_customer(customers, account_id) for _ in range(2))
    new_invoice(customers, gone, 400)
    new_invoice(customers, left, 30)
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 430)

    customers.delete(f"/customers/{gone}")

    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 30)
    (shown,) = accounts.get(f"/accounts/{account_id}")["customers"]
    assert shown["customer_id"] == left


# Invoices


def test_a_new_invoice_is_answered_with_its_id_and_its_location(customers: Client, customer_id: str) -> None:
    response = customers.request("POST", "/invoices", invoice(customer_id))

    assert (response.status, response.headers["Content-Type"]) == (201, "application/json")
    id = response.json()["id"]
    assert response.json() == {"id": id}
    assert response.headers["Location"].endswith(f"/invoices/{id}")


def test_an_invoice_is_shown_with_its_customer_its_amount_and_both_dates(
    customers: Client, customer_id: str
) -> None:
    id = new_invoice(customers, customer_id, 1234)

    shown = customers.get(f"/invoices/{id}")
    assert NOW.fullmatch(shown.pop("created_date"))
    assert shown == {
        "id": id,
        "customer_id": customer_id,
        "purchase_price_cents": 1234,
        "purchase_date": "2019-01-06",
        "revision": 0,
    }


def test_a_new_invoice_is_published_with_what_is_shown_of_it(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    id = new_invoice(customers, customer_id)

    (event,) = watch.published("InvoiceCreated", id=id)
    assert event.payload | {"revision": 0} == customers.get(f"/invoices/{id}")
    assert list(event.payload) == [
        "id",
        "customer_id",
        "purchase_price_cents",
        "created_date",
        "purchase_date",
    ]


def test_a_deleted_invoice_is_gone_and_its_amount_leaves_the_account(
    customers: Client, accounts: Client, account_id: str, customer_id: str
) -> None:
    gone = new_invoice(customers, customer_id, 400)
    left = new_invoice(customers, customer_id, 30)
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 430)

    response = customers.request("DELETE", f"/invoices/{gone}")

    assert (response.status, response.data) == (204, b"")
    problem(customers.request("GET", f"/invoices/{gone}"), 404)
    assert [each["id"] for each in customers.get(f"/invoices?customer_id={customer_id}")["invoices"]] == [
        left
    ]
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 30)


def test_an_invoices_deletion_is_published_once_with_the_amount_it_had(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    id = new_invoice(customers, customer_id, 1234)
    customers.delete(f"/invoices/{id}")
    problem(customers.request("DELETE", f"/invoices/{id}"), 404)

    (event,) = watch.published("InvoiceDeleted", id=id)
    told = ["id", "customer_id", "purchase_price_cents", "deleted_date", "purchase_date"]
    assert list(event.payload) == told
    assert (event.payload["customer_id"], event.payload["purchase_price_cents"]) == (customer_id, 1234)
    assert NOW.fullmatch(event.payload["deleted_date"])


def test_an_invoice_for_a_customer_that_does_not_exist_is_refused(customers: Client, watch: Watch) -> None:
    with watch.nothing_changes():
        problem(customers.request("POST", "/invoices", invoice(NOBODY)), 422, "customer_id")


def test_an_invoice_for_a_customer_that_was_deleted_is_refused(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    customers.delete(f"/customers/{customer_id}")
    with watch.nothing_changes():
        problem(customers.request("POST", "/invoices", invoice(customer_id)), 422, "customer_id")


def test_the_id_of_what_was_deleted_is_not_given_again(customers: Client, customer_id: str) -> None:
    id = new_invoice(customers, customer_id)
    customers.delete(f"/invoices/{id}")
    assert int(new_invoice(customers, customer_id)) > int(id)
    customers.delete(f"/customers/{customer_id}")
    assert int(new_customer(customers)) > int(customer_id)


# Batches


def test_a_batch_of_customers_is_answered_with_their_ids_in_order(customers: Client, account_id: str) -> None:
    names = ["Zoe", "Ada", "Max", "Ada"]

    response = customers.request(
        "POST", "/customers/batch", [{"name": name, "account_id": account_id} for name in names]
    )

    assert (response.status, response.headers["Content-Type"]) == (201, "application/json")
    ids = response.json()["ids"]
    assert response.json() == {"ids": ids}
    assert [customers.get(f"/customers/{id}")["name"] for id in ids] == names


def test_a_batch_of_invoices_is_answered_with_their_ids_in_order(
    customers: Client, account_id: str, customer_id: str
) -> None:
    other = new_customer(customers, account_id)
    sent = [invoice(customer_id, 1), invoice(other, 2), invoice(customer_id, 3)]

    ids = customers.post("/invoices/batch", sent)["ids"]

    shown = [customers.get(f"/invoices/{id}") for id in ids]
    assert [{key: each[key] for key in sent[0]} for each in shown] == sent


def test_each_of_a_batch_is_published(customers: Client, watch: Watch, customer_id: str) -> None:
    ids = customers.post("/invoices/batch", [invoice(customer_id, cents) for cents in range(5)])["ids"]

    published = watch.published("InvoiceCreated", customer_id=customer_id)
    assert [(event.payload["id"], event.payload["purchase_price_cents"]) for event in published] == [
        (id, cents) for cents, id in enumerate(ids)
    ]


@pytest.mark.parametrize("path", ["/customers/batch", "/invoices/batch"])
def test_an_empty_batch_makes_nothing(customers: Client, watch: Watch, path: str) -> None:
    with watch.nothing_changes():
        assert customers.post(path, []) == {"ids": []}


def test_a_batch_of_10_000_is_taken_whole(customers: Client, accounts: Client, account_id: str) -> None:
    ids = customers.post("/customers/batch", [{"name": "Ada", "account_id": account_id}] * 10_000)["ids"]
    invoices = customers.post("/invoices/batch", [invoice(id, 7) for id in ids])["ids"]

    assert len(set(ids)) == len(set(invoices)) == 10_000
    assert sorted(ids, key=int) == ids
    listed = list(_walk(customers, f"/customers?account_id={account_id}&limit=1000", "customers"))
    assert [each["id"] for page in listed for each in page] == ids
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 70_000)


# Lists


def test_a_list_shows_what_the_single_call_shows(customers: Client, account_id: str) -> None:
    ids = [new_customer(customers, account_id, name) for name in ("Ada", "Max")]
    invoices = [new_invoice(customers, ids[0], cents) for cents in (1, 2)]

    assert customers.get(f"/customers?account_id={account_id}") == {
        "customers": [customers.get(f"/customers/{id}") for id in ids],
        "next": None,
    }
    assert customers.get(f"/invoices?customer_id={ids[0]}") == {
        "invoices": [customers.get(f"/invoices/{id}") for id in invoices],
        "next": None,
    }


def _many_customers(customers: Client, account_id: str, count: int) -> tuple[str, list[str]]:
    ids = customers.post("/customers/batch", [{"name": "Ada", "account_id": account_id}] * count)["ids"]
    return f"/customers?account_id={account_id}", ids


def _many_invoices(customers: Client, account_id: str, count: int) -> tuple[str, list[str]]:
    customer_id = new_customer(customers, account_id)
    ids = customers.post("/invoices/batch", [invoice(customer_id)] * count)["ids"]
    return f"/invoices?customer_id={customer_id}", ids


Many = Callable[[Client, str, int], tuple[str, list[str]]]
MANY = pytest.mark.parametrize(
    ("kind", "many"),
    [("customers", _many_customers), ("invoices", _many_invoices)],
    ids=["customers", "invoices"],
)


@MANY
def test_a_list_shows_100_when_no_limit_is_asked_for(
    customers: Client, account_id: str, kind: str, many: Many
) -> None:
    path, ids = many(customers, account_id, 101)

    pages = [[each["id"] for each in page] for page in _walk(customers, path, kind)]
    assert pages == [ids[:100], ids[100:]]


@MANY
@pytest.mark.parametrize(
    ("count", "limit", "sizes"),
    [(0, 5, [0]), (1, 1, [1]), (3, 1, [1, 1, 1]), (10, 5, [5, 5]), (11, 5, [5, 5, 1]), (10, 1000, [10])],
)
def test_following_next_visits_everything_once_in_ascending_order(
    customers: Client, account_id: str, kind: str, many: Many, count: int, limit: int, sizes: list[int]
) -> None:
    path, ids = many(customers, account_id, count)

    pages = [[each["id"] for each in page] for page in _walk(customers, f"{path}&limit={limit}", kind)]
    assert [len(page) for page in pages] == sizes
    assert [id for page in pages for id in page] == ids


@MANY
def test_a_list_shows_1000_at_most(customers: Client, account_id: str, kind: str, many: Many) -> None:
    path, _ = many(customers, account_id, 1001)
    assert [len(page) for page in _walk(customers, f"{path}&limit=1000", kind)] == [1000, 1]


@MANY
def test_after_starts_behind_an_id_that_need_not_be_there(
    customers: Client, account_id: str, kind: str, many: Many
) -> None:
    path, ids = many(customers, account_id, 3)
    customers.delete(f"/{kind}/{ids[1]}")

    def after(id: str) -> list[str]:
        return [each["id"] for each in customers.get(f"{path}&after={id}")[kind]]

    assert after("0") == [ids[0], ids[2]]
    assert after(ids[0]) == after(ids[1]) == [ids[2]]
    assert after(ids[2]) == after(NOBODY) == []


@MANY
def test_a_list_without_a_filter_shows_those_of_all(
    customers: Client, account_id: str, kind: str, many: Many
) -> None:
    _, ids = many(customers, account_id, 2)
    _, others = many(customers, NOBODY, 2)

    shown = {each["id"] for each in customers.get(f"/{kind}?limit=1000&after={int(ids[0]) - 1}")[kind]}
    assert {*ids, *others} <= shown


@MANY
def test_a_filter_that_nothing_meets_gives_an_empty_list(customers: Client, kind: str, many: Many) -> None:
    path, _ = many(customers, str(2**63 - 2), 0)
    assert customers.get(path) == {kind: [], "next": None}


# Health and status


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_healthy_service_says_so(shared: Tally, service: str, path: str) -> None:
    client: Client = getattr(shared, service)
    response = client.request("GET", path)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_the_status_tells_how_the_service_is(shared: Tally, watch: Watch, service: str) -> None:
    client: Client = getattr(shared, service)
    id = new_customer(shared.customers)
    (event,) = watch.published("CustomerCreated", id=id)

    status = client.get("/status")

    assert (status["status"], status["reasons"]) == ("ok", [])
    assert re.fullmatch("[0-9a-f]{8}", status["identity"])
    assert re.match(r"[0-9]+\.[0-9]+", status["version"])
    assert status["outbox_depth"] == 0
    assert status["redis"]["reachable"] is True
    assert (status["redis"]["pending"], status["redis"]["dead_letters"]) == (0, 0)
    assert status["redis"]["lag"][event.event_id.partition(":")[0]] == 0
    assert status["disk_free_bytes"] > 0
    assert re.match(r"3\.[0-9]+", status["sqlite_version"])


def test_the_services_have_identities_of_their_own(customers: Client, accounts: Client) -> None:
    assert customers.get("/status")["identity"] != accounts.get("/status")["identity"]


# With customers.require_account


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally that accepts customers of known accounts only."""
    with running(
        tmp_path_factory.mktemp("strict"),
        customers={"require_account": True},
        consumers={"accounts": 1},
    ) as tally:
        yield tally


def _is_taken(tally: Tally, account_id: str) -> bool:
    sent = {"name": "Ada", "account_id": account_id}
    return tally.customers.request("POST", "/customers", sent).status == 201


def test_where_accounts_are_required_a_customer_of_an_unknown_one_is_refused(strict: Tally) -> None:
    with Watch(strict).nothing_changes():
        response = strict.customers.request("POST", "/customers", {"name": "Ada", "account_id": NOBODY})
        problem(response, 422, "account_id")


def test_where_accounts_are_required_a_customer_is_taken_once_its_account_is_known(strict: Tally) -> None:
    account_id = new_account(strict.accounts)

    eventually(lambda: _is_taken(strict, account_id))

    (shown,) = strict.customers.get(f"/customers?account_id={account_id}")["customers"]
    assert shown["name"] == "Ada"


def test_where_accounts_are_required_a_customer_of_a_deleted_one_is_refused_again(strict: Tally) -> None:
    account_id = new_account(strict.accounts)
    eventually(lambda: _is_taken(strict, account_id))

    strict.accounts.delete(f"/accounts/{account_id}?cascade=true")

    eventually(lambda: not _is_taken(strict, account_id))
    eventually(lambda: strict.customers.get(f"/customers?account_id={account_id}")["customers"] == [])
    with Watch(strict).nothing_changes():
        response = strict.customers.request("POST", "/customers", {"name": "Ada", "account_id": account_id})
        problem(response, 422, "account_id")


def test_where_accounts_are_required_a_batch_is_refused_naming_each_customer_of_an_unknown_one(
    strict: Tally,
) -> None:
    known = new_account(strict.accounts)
    eventually(lambda: _is_taken(strict, known))
    sent = [{"name": "Ada", "account_id": id} for id in (known, NOBODY, known, NOBODY)]

    with Watch(strict).nothing_changes():
        response = strict.customers.request("POST", "/customers/batch", sent)
        problem(response, 422, "[1].account_id", "[3].account_id")
    assert len(strict.customers.post("/customers/batch", sent[::2])["ids"]) == 2
