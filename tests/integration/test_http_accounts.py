"""The accounts service: the answer of every call, and the events it publishes."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from integration.conftest import Watch, invoice, new_account, new_customer, new_invoice, problem

from support.cli import command
from support.tally import Client, running
from support.waiting import eventually

NOW = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
NOBODY = str(2**63 - 1)


@pytest.fixture
def account_id(accounts: Client) -> str:
    return new_account(accounts)


def _lists(accounts: Client, account_id: str, count: int) -> Any:
    """The account, once it lists `count` customers."""

    def listed() -> Any:
        shown = accounts.get(f"/accounts/{account_id}")
        assert len(shown["customers"]) == count
        return shown

    return eventually(listed)


# Opening and showing


def test_a_new_account_is_answered_with_its_id_and_its_location(accounts: Client) -> None:
    response = accounts.request("POST", "/accounts", {"name": "one", "owned_by": "user1"})

    assert (response.status, response.headers["Content-Type"]) == (201, "application/json")
    id = response.json()["id"]
    assert response.json() == {"id": id}
    assert re.fullmatch("[1-9][0-9]*", id)
    assert response.headers["Location"].endswith(f"/accounts/{id}")


def test_a_new_account_is_shown_without_customers_and_without_revenue(accounts: Client) -> None:
    id = accounts.post("/accounts", {"name": "one", "owned_by": "user1", "description": "the first"})["id"]

    shown = accounts.get(f"/accounts/{id}")

    assert NOW.fullmatch(shown["account"].pop("created_date"))
    assert shown == {
        "account": {
            "id": id,
            "name": "one",
            "description": "the first",
            "owned_by": "user1",
            "revision": 0,
        },
        "customers": [],
        "total_revenue_cents": 0,
    }


def test_a_new_account_is_published_with_what_is_shown_of_it(
    accounts: Client, watch: Watch, account_id: str
) -> None:
    (event,) = watch.published("AccountCreated", id=account_id)

    shown = accounts.get(f"/accounts/{account_id}")["account"]
    assert event.payload | {"revision": 0} == shown
    assert list(event.payload) == ["id", "name", "description", "owned_by", "created_date"]
    assert re.fullmatch(r"accounts@[0-9a-f]{8}:[1-9][0-9]*", event.event_id)


def test_an_account_shows_the_revenue_of_each_customer_and_their_sum(
    customers: Client, accounts: Client, account_id: str
) -> None:
    ada, max, zoe = (new_customer(customers, account_id, name) for name in ("Ada", "Max", "Zoe"))
    new_customer(customers, new_account(accounts))
    customers.post("/invoices/batch", [invoice(ada, 1), invoice(ada, 10**12), invoice(max, 20)])

    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 10**12 + 21)
    assert _lists(accounts, account_id, 3)["customers"] == [
        {"customer_id": ada, "name": "Ada", "total_revenue_cents": 10**12 + 1},
        {"customer_id": max, "name": "Max", "total_revenue_cents": 20},
        {"customer_id": zoe, "name": "Zoe", "total_revenue_cents": 0},
    ]


def test_an_account_with_thousands_of_customers_is_shown_whole(
    customers: Client, accounts: Client, account_id: str
) -> None:
    sent = [{"name": f"Customer {number}", "account_id": account_id} for number in range(2500)]
    ids = customers.post("/customers/batch", sent)["ids"]
    customers.post("/invoices/batch", [invoice(id, number) for number, id in enumerate(ids)])
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == sum(range(2500)))

    assert accounts.get(f"/accounts/{account_id}")["customers"] == [
        {"customer_id": id, "name": f"Customer {number}", "total_revenue_cents": number}
        for number, id in enumerate(ids)
    ]


# The list


@pytest.fixture(scope="module")
def many(accounts: Client) -> list[str]:
    """The ids of more accounts than one read returns."""
    with ThreadPoolExecutor(16) as threads:
        return sorted(threads.map(lambda _: new_account(accounts), range(205)), key=int)


def _ids(listed: list[Any]) -> list[str]:
    return [each["account"]["id"] for each in listed]


def _pages(accounts: Client, path: str | None) -> Iterator[list[Any]]:
    """The pages of the list. Each is found through the `Link` of the page before."""
    while path is not None:
        response = accounts.request("GET", path)
        assert response.status == 200
        yield response.json()
        following = re.fullmatch(r'<([^>]+)>; rel="?next"?', response.headers.get("Link", ""))
        assert following is None or following[1] != path, "a page that leads to itself"
        path = following[1] if following else None


def test_without_a_limit_all_accounts_are_listed_in_ascending_order(
    accounts: Client, many: list[str]
) -> None:
    response = accounts.request("GET", "/accounts")

    listed = _ids(response.json())
    assert sorted(listed, key=int) == listed
    assert len(set(listed)) == len(listed)
    assert set(many) <= set(listed)
    assert "Link" not in response.headers


def test_the_whole_list_is_streamed(accounts: Client, many: list[str]) -> None:
    response = accounts.request("GET", "/accounts")

    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in response.headers


def test_the_list_shows_what_the_single_call_shows(
    customers: Client, accounts: Client, account_id: str
) -> None:
    new_invoice(customers, new_customer(customers, account_id), 50)
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 50)

    shown = accounts.get(f"/accounts/{account_id}")
    assert shown in accounts.get("/accounts")
    assert accounts.get(f"/accounts?limit=1&after={int(account_id) - 1}") == [shown]


@pytest.mark.parametrize("limit", [1, 50, 100, 204, 205, 1000])
def test_following_the_links_visits_every_account_once_in_ascending_order(
    accounts: Client, many: list[str], limit: int
) -> None:
    # Five pages of one account prove as much as 205 would.
    start = many[0] if limit > 1 else many[-5]
    expected = [id for id in _ids(accounts.get("/accounts")) if int(id) >= int(start)]

    pages = [_ids(page) for page in _pages(accounts, f"/accounts?limit={limit}&after={int(start) - 1}")]

    assert [id for page in pages for id in page] == expected
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert 1 <= len(pages[-1]) <= limit


def test_the_link_to_the_next_page_is_written_as_the_contract_shows_it(
    accounts: Client, many: list[str]
) -> None:
    response = accounts.request("GET", f"/accounts?limit=2&after={many[0]}")
    assert re.fullmatch(r'<[^>]+>; rel="next"', response.headers["Link"]), response.headers["Link"]


def test_the_last_page_has_no_link(accounts: Client, many: list[str]) -> None:
    newest = _ids(accounts.get("/accounts"))[-1]

    response = accounts.request("GET", f"/accounts?limit=1&after={int(newest) - 1}")

    assert _ids(response.json()) == [newest]
    assert "Link" not in response.headers


def test_without_a_limit_after_skips_the_accounts_up_to_it(accounts: Client, many: list[str]) -> None:
    listed = _ids(accounts.get("/accounts"))
    assert _ids(accounts.get(f"/accounts?after={many[2]}")) == listed[listed.index(many[2]) + 1 :]


def test_after_the_highest_id_nothing_is_listed(accounts: Client) -> None:
    assert accounts.get(f"/accounts?after={NOBODY}") == []
    assert accounts.get(f"/accounts?limit=5&after={NOBODY}") == []


# An account's customers


def test_the_customers_of_an_account_are_listed_by_ascending_id(
    customers: Client, accounts: Client, account_id: str
) -> None:
    ids = [new_customer(customers, account_id, name) for name in ("Zoe", "Ada")]
    new_invoice(customers, ids[1], 50)
    eventually(lambda: accounts.get(f"/accounts/{account_id}")["total_revenue_cents"] == 50)
    shown = _lists(accounts, account_id, 2)["customers"]

    listed = accounts.get(f"/accounts/{account_id}/customers")

    assert listed == {"customers": shown, "next": None}
    assert [each["customer_id"] for each in shown] == ids


def test_an_account_without_customers_has_an_empty_list(accounts: Client, account_id: str) -> None:
    assert accounts.get(f"/accounts/{account_id}/customers") == {"customers": [], "next": None}


@pytest.mark.parametrize(
    ("query", "limit", "sizes"),
    [
        ("", 100, [100, 1]),
        ("limit=50", 50, [50, 50, 1]),
        ("limit=101", 101, [101]),
        ("limit=1000", 1000, [101]),
    ],
)
def test_following_next_visits_every_customer_of_the_account_once(
    customers: Client, accounts: Client, account_id: str, query: str, limit: int, sizes: list[int]
) -> None:
    ids = customers.post("/customers/batch", [{"name": "Ada", "account_id": account_id}] * 101)["ids"]
    _lists(accounts, account_id, 101)

    path = f"/accounts/{account_id}/customers?{query}"
    pages = [accounts.get(path)]
    while (last := pages[-1]["next"]) is not None:
        pages.append(accounts.get(f"{path}&after={last}"))
        assert pages[-1]["next"] != last, "a page that leads to itself"

    assert [len(page["customers"]) for page in pages] == sizes
    assert [each["customer_id"] for page in pages for each in page["customers"]] == ids


# Ownership


@pytest.mark.parametrize(
    ("user", "owns"),
    [("user1", True), ("user2", False), ("user", False), ("user11", False), ("USER1", False), ("%20", False)],
)
def test_an_account_is_owned_by_the_user_that_it_was_opened_for(
    accounts: Client, account_id: str, user: str, owns: bool
) -> None:
    assert accounts.get(f"/accounts/{account_id}/is-owned-by/{user}") == {"ok": owns}


@pytest.mark.parametrize(
    "owner",
    [
        "Ada Lovelace",
        "ada@example.org",
        "Zoë",
        "😀",
        "100%",
        "a+b",
        "a?b=c&d",
        "a#b",
        "..",
        "%41",
        "a/b",
        "a/",
    ],
)
def test_an_owner_may_have_any_name_that_can_be_given(accounts: Client, owner: str) -> None:
    id = new_account(accounts, owner)
    assert accounts.get(f"/accounts/{id}")["account"]["owned_by"] == owner
    assert accounts.get(f"/accounts/{id}/is-owned-by/{quote(owner, safe='')}") == {"ok": True}


# Deleting


def test_a_deleted_account_is_gone_from_every_call(accounts: Client, account_id: str) -> None:
    response = accounts.request("DELETE", f"/accounts/{account_id}")

    assert (response.status, response.data) == (204, b"")
    for path in ("", "/customers"):
        problem(accounts.request("GET", f"/accounts/{account_id}{path}"), 404)
    assert accounts.get(f"/accounts/{account_id}/is-owned-by/user1") == {"ok": False}
    problem(accounts.request("DELETE", f"/accounts/{account_id}"), 404)
    assert account_id not in _ids(accounts.get("/accounts"))
    assert account_id not in _ids(accounts.get(f"/accounts?limit=1&after={int(account_id) - 1}"))


def test_an_accounts_deletion_is_published_once(accounts: Client, watch: Watch, account_id: str) -> None:
    accounts.delete(f"/accounts/{account_id}")
    problem(accounts.request("DELETE", f"/accounts/{account_id}?cascade=true"), 404)

    (event,) = watch.published("AccountDeleted", id=account_id)
    assert list(event.payload) == ["id", "deleted_date", "cascade"]
    assert event.payload["cascade"] is False
    assert NOW.fullmatch(event.payload["deleted_date"])


def test_the_id_of_a_deleted_account_is_not_given_again(accounts: Client, account_id: str) -> None:
    accounts.delete(f"/accounts/{account_id}")
    assert int(new_account(accounts)) > int(account_id)


@pytest.mark.parametrize("query", ["", "?cascade=false"])
def test_an_account_that_lists_customers_is_not_deleted(
    customers: Client, accounts: Client, watch: Watch, account_id: str, query: str
) -> None:
    new_customer(customers, account_id)
    shown = _lists(accounts, account_id, 1)

    with watch.nothing_changes():
        problem(accounts.request("DELETE", f"/accounts/{account_id}{query}"), 409)
    assert accounts.get(f"/accounts/{account_id}") == shown


def test_an_account_can_be_deleted_once_its_customers_are(
    customers: Client, accounts: Client, account_id: str
) -> None:
    customer_id = new_customer(customers, account_id)
    _lists(accounts, account_id, 1)
    customers.delete(f"/customers/{customer_id}")
    _lists(accounts, account_id, 0)

    accounts.delete(f"/accounts/{account_id}")


def test_with_cascade_an_account_goes_with_its_customers_and_their_invoices(
    customers: Client, accounts: Client, watch: Watch, account_id: str
) -> None:
    ids = [new_customer(customers, account_id) for _ in range(3)]
    invoice_id = new_invoice(customers, ids[0])
    _lists(accounts, account_id, 3)

    accounts.delete(f"/accounts/{account_id}?cascade=true")

    problem(accounts.request("GET", f"/accounts/{account_id}"), 404)
    eventually(lambda: customers.get(f"/customers?account_id={account_id}")["customers"] == [])
    problem(customers.request("GET", f"/customers/{ids[0]}"), 404)
    problem(customers.request("GET", f"/invoices/{invoice_id}"), 404)
    deleted = watch.published("CustomerDeleted", account_id=account_id)
    assert sorted(event.payload["id"] for event in deleted) == sorted(ids)


def test_with_cascade_the_customers_of_other_accounts_stay(
    customers: Client, accounts: Client, watch: Watch, account_id: str
) -> None:
    other = new_account(accounts)
    gone, left = new_customer(customers, account_id), new_customer(customers, other)
    _lists(accounts, account_id, 1)

    accounts.delete(f"/accounts/{account_id}?cascade=true")

    eventually(lambda: watch.published("CustomerDeleted", id=gone))
    assert customers.get(f"/customers/{left}")["id"] == left
    assert [each["customer_id"] for each in _lists(accounts, other, 1)["customers"]] == [left]


def test_an_account_without_customers_can_be_deleted_with_cascade_too(
    accounts: Client, account_id: str
) -> None:
    accounts.delete(f"/accounts/{account_id}?cascade=true")


@pytest.mark.parametrize("value", ["", "yes", "1", "2", "maybe"])
def test_a_cascade_that_is_neither_true_nor_false_deletes_nothing(
    accounts: Client, watch: Watch, account_id: str, value: str
) -> None:
    with watch.nothing_changes():
        response = accounts.request("DELETE", f"/accounts/{account_id}?cascade={value}")
        problem(response, 422, "cascade")
    assert _ids(accounts.get(f"/accounts?limit=1&after={int(account_id) - 1}")) == [account_id]


def test_revenue_in_accounts_that_nobody_has_opened_is_told(tmp_path: Path) -> None:
    """It used to be shown nowhere, and nothing said so."""
    with running(tmp_path) as tally:
        customer = new_customer(tally.customers, "7")
        new_invoice(tally.customers, customer, 123_456)
        new_customer(tally.customers, "8")
        eventually(tally.settled)
        report = tally.accounts.get("/status")
        assert (report["status"], report["reasons"]) == ("ok", [])
        (note,) = report["notes"]
        assert note.startswith("1,234.56 of revenue, of 2 customers")
        assert tally.customers.get("/status")["notes"] == []
        told = command("status", "--config", tally.directory / "tally.toml").stdout
        assert f"note: {note}" in told
        for _ in range(8):
            new_account(tally.accounts)
        eventually(lambda: tally.accounts.get("/status")["notes"] == [])
