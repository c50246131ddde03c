"""PATCH changes customers, invoices and accounts, and both services and the stream show the change."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from integration.conftest import Watch, new_account, new_customer, new_invoice, problem

from support.tally import Client, Tally
from support.waiting import eventually

NOBODY = str(2**63 - 1)


class Kind(NamedTuple):
    """Something that can be changed, and two changes of it."""

    path: str
    event: str
    first: dict[str, Any]
    second: dict[str, Any]
    fields: tuple[str, ...]
    new: Callable[[Tally], str]

    def client(self, tally: Tally) -> Client:
        """The service that stores the row."""
        return tally.accounts if self.path == "/accounts" else tally.customers

    def row(self, tally: Tally, id: str) -> dict[str, Any]:
        """The row, as it is now."""
        found: dict[str, Any] = self.client(tally).get(f"{self.path}/{id}")
        return found["account"] if self.path == "/accounts" else found


KINDS = [
    Kind(
        "/customers",
        "CustomerUpdated",
        {"name": "Ada"},
        {"name": "Bob", "account_id": "1"},
        ("name", "account_id"),
        lambda tally: new_customer(tally.customers),
    ),
    Kind(
        "/invoices",
        "InvoiceUpdated",
        {"purchase_price_cents": 1},
        {"purchase_price_cents": 2, "purchase_date": "2020-02-29"},
        ("purchase_date", "purchase_price_cents"),
        lambda tally: new_invoice(tally.customers, new_customer(tally.customers)),
    ),
    Kind(
        "/accounts",
        "AccountUpdated",
        {"name": "first"},
        {"owned_by": "bob", "description": ""},
        ("name", "owned_by", "description"),
        lambda tally: new_account(tally.accounts),
    ),
]
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)


def _change(tally: Tally, kind: Kind, id: str, change: object, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return kind.client(tally).request("PATCH", f"{kind.path}/{id}", change, headers=named)


@EACH
def test_a_change_is_answered_shown_and_published(shared: Tally, watch: Watch, kind: Kind) -> None:
    id = kind.new(shared)
    before = kind.row(shared, id)
    assert before["revision"] == 0
    for revision, change in enumerate((kind.first, kind.second), 1):
        answer = _change(shared, kind, id, change)
        before |= change | {"revision": revision}
        assert (answer.status, answer.json()) == (200, before)
        assert answer.headers["ETag"] == f'"{revision}"'
        assert kind.row(shared, id) == before
    first, second = watch.published(kind.event, id=id)
    assert (first.payload["revision"], second.payload["revision"]) == (1, 2)
    assert second.payload | kind.second == second.payload


@EACH
def test_a_change_of_nothing_is_no_change(shared: Tally, watch: Watch, kind: Kind) -> None:
    id = kind.new(shared)
    row = kind.row(shared, id)
    same = {field: row[field] for field in kind.fields}
    with watch.nothing_changes():
        answer = _change(shared, kind, id, same)
        assert (answer.status, answer.json()) == (200, row)
        for nothing in ({}, {"revision": 7, "colour": "red"}):
            problem(_change(shared, kind, id, nothing), 422, "")


@EACH
def test_what_is_not_there_or_not_acceptable_is_refused(shared: Tally, watch: Watch, kind: Kind) -> None:
    id = kind.new(shared)
    wrong: dict[str, Any] = dict.fromkeys(kind.fields, False)
    with watch.nothing_changes():
        problem(_change(shared, kind, NOBODY, kind.first), 404)
        problem(_change(shared, kind, "x", kind.first), 404)
        problem(_change(shared, kind, id, wrong), 422, *kind.fields)
        problem(_change(shared, kind, id, dict.fromkeys(kind.fields)), 422, *kind.fields)
        problem(_change(shared, kind, id, []), 400)


@EACH
def test_with_if_match_only_the_row_that_was_seen_is_changed(shared: Tally, watch: Watch, kind: Kind) -> None:
    id = kind.new(shared)
    seen = kind.client(shared).request("GET", f"{kind.path}/{id}").headers["ETag"]
    assert seen == '"0"'
    assert _change(shared, kind, id, kind.first, If_Match=f'"7", {seen}').status == 200
    with watch.nothing_changes():
        for other in (seen, 'W/"1"', '"x"', "nonsense", '"\N{SUPERSCRIPT ONE}"', f'"{"1" * 5000}"'):
            problem(_change(shared, kind, id, kind.second, If_Match=other), 412)
        for no_tags in ("", ",", "0, 7", "W/0,", '"*"', '*, "0"'):
            problem(_change(shared, kind, id, kind.second, If_Match=no_tags), 412)
    assert _change(shared, kind, id, kind.second, If_Match="*").status == 200


@EACH
def test_with_if_match_only_the_row_that_was_seen_is_deleted(shared: Tally, watch: Watch, kind: Kind) -> None:
    path = f"{kind.path}/{kind.new(shared)}{'?cascade=true' if kind.path == '/accounts' else ''}"
    with watch.nothing_changes():
        problem(kind.client(shared).request("DELETE", path, headers={"If-Match": '"7"'}), 412)
    assert kind.client(shared).request("DELETE", path, headers={"If-Match": '"0"'}).status == 204


@EACH
def test_of_two_changes_at_once_both_are_recorded_and_with_if_match_one(
    shared: Tally, watch: Watch, kind: Kind
) -> None:
    id = kind.new(shared)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(_change, shared, kind, id, change) for change in (kind.first, kind.second)]
        assert sorted(each.result().json()["revision"] for each in both) == [1, 2]
        assert len(watch.published(kind.event, id=id)) == 2
        again = (
            {**kind.first, kind.fields[0]: kind.row(shared, id)[kind.fields[0]]},
            kind.first,
            kind.second,
        )
        ones = [threads.submit(_change, shared, kind, id, each, If_Match='"2"') for each in again[1:]]
        statuses = sorted(each.result().status for each in ones)
    assert statuses in ([200, 200], [200, 412])  # one of them may change nothing
    assert kind.row(shared, id)["revision"] == 2 + (len(watch.published(kind.event, id=id)) - 2)


@EACH
def test_a_change_that_is_sent_again_is_answered_again_and_not_made(
    shared: Tally, watch: Watch, kind: Kind
) -> None:
    id = kind.new(shared)
    key = f"key-of-{kind.path}-{id}"
    first = _change(shared, kind, id, kind.first, Idempotency_Key=key)
    assert _change(shared, kind, id, kind.second).status == 200
    with watch.nothing_changes():
        again = _change(shared, kind, id, kind.first, Idempotency_Key=key)
        assert (again.status, again.data, again.headers["ETag"]) == (200, first.data, '"1"')
        problem(_change(shared, kind, id, kind.second, Idempotency_Key=key), 422, "Idempotency-Key")


def _customers(accounts: Client, account: str) -> dict[str, tuple[str, int]]:
    shown = accounts.get(f"/accounts/{account}")
    found = {each["customer_id"]: (each["name"], each["total_revenue_cents"]) for each in shown["customers"]}
    assert shown["total_revenue_cents"] == sum(cents for _, cents in found.values())
    return found


def test_a_customer_that_moves_takes_its_revenue_along(customers: Client, accounts: Client) -> None:
    old, new = new_account(accounts), new_account(accounts)
    customer = new_customer(customers, old)
    new_invoice(customers, customer, 500)
    eventually(lambda: _customers(accounts, old) == {customer: ("John Adams", 500)})
    customers.request("PATCH", f"/customers/{customer}", {"name": "Ada", "account_id": new})
    new_invoice(customers, customer, 20)
    eventually(lambda: _customers(accounts, new) == {customer: ("Ada", 520)})
    assert _customers(accounts, old) == {}
    assert [each["id"] for each in customers.get(f"/customers?account_id={new}")["customers"]] == [customer]


def test_an_invoice_counts_as_it_was_corrected_and_no_more_once_it_is_taken_back(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    invoice = new_invoice(customers, customer, 500)
    for cents in (450, 700):
        change = {"purchase_price_cents": cents, "purchase_date": f"2020-01-{cents // 50:02}"}
        assert customers.request("PATCH", f"/invoices/{invoice}", change).status == 200
    eventually(lambda: _customers(accounts, account) == {customer: ("John Adams", 700)})
    customers.delete(f"/invoices/{invoice}")
    eventually(lambda: _customers(accounts, account) == {customer: ("John Adams", 0)})
    first, second = watch.published("InvoiceUpdated", id=invoice)
    assert (first.payload["previous_price_cents"], first.payload["previous_date"]) == (500, "2019-01-06")
    assert (second.payload["previous_price_cents"], second.payload["previous_date"]) == (450, "2020-01-09")
    (deleted,) = watch.published("InvoiceDeleted", id=invoice)
    assert [*deleted.payload][3:] == ["deleted_date", "purchase_date", "last_price_cents", "last_date"]
    told = {"purchase_price_cents": 500, "purchase_date": "2019-01-06"}
    assert deleted.payload | told | {"last_price_cents": 700, "last_date": "2020-01-14"} == deleted.payload


def test_an_account_that_is_handed_over_is_the_other_s_on_both_services(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = new_account(accounts, "ana")
    assert accounts.request("PATCH", f"/accounts/{account}", {"owned_by": "bob"}).status == 200
    assert accounts.get(f"/accounts/{account}/is-owned-by/bob") == {"ok": True}
    assert accounts.get(f"/accounts/{account}/is-owned-by/ana") == {"ok": False}
    (told,) = watch.published("AccountUpdated", id=account)
    assert told.payload["owned_by"] == "bob"


def test_a_customer_that_moves_into_an_account_that_seemed_empty_when_it_was_deleted_stays(
    customers: Client, accounts: Client, shared: Tally
) -> None:
    """The deletion saw no customers, so the customers service must not delete any."""
    empty = new_account(accounts)
    customer = new_customer(customers, new_account(accounts))
    new_invoice(customers, customer, 500)
    accounts.delete(f"/accounts/{empty}")
    customers.request("PATCH", f"/customers/{customer}", {"account_id": empty})
    eventually(shared.settled)
    assert customers.get(f"/customers/{customer}")["account_id"] == empty
    assert len(customers.get(f"/invoices?customer_id={customer}")["invoices"]) == 1


def _history(customers: Client, path: str) -> list[tuple[str, Any, Any]]:
    found = customers.get(f"{path}/history")
    assert found["next"] is None
    assert [each["at"] for each in found["history"]] == sorted(each["at"] for each in found["history"])
    return [(each["event"], each["before"], each["after"]) for each in found["history"]]


def test_an_invoice_s_history_tells_what_it_was_also_when_it_is_gone(customers: Client) -> None:
    customer = new_customer(customers)
    id = new_invoice(customers, customer, 500)
    path, created = f"/invoices/{id}", customers.get(f"/invoices/{id}")
    assert _history(customers, path) == [("InvoiceCreated", None, created)]
    changed = customers.request("PATCH", path, {"purchase_price_cents": 450}).json()
    customers.delete(path)
    assert _history(customers, path) == [
        ("InvoiceCreated", None, created),
        ("InvoiceUpdated", created, changed),
        ("InvoiceDeleted", changed, None),
    ]
    problem(customers.request("GET", f"/invoices/{NOBODY}/history"), 404)


def test_the_history_of_an_invoice_ends_with_its_customer(customers: Client) -> None:
    customer = new_customer(customers)
    never, once = (new_invoice(customers, customer, cents) for cents in (500, 600))
    rows = [customers.get(f"/invoices/{id}") for id in (never, once)]
    changed = customers.request("PATCH", f"/invoices/{once}", {"purchase_price_cents": 7}).json()
    renamed = customers.request("PATCH", f"/customers/{customer}", {"name": "Ada"}).json()
    customers.delete(f"/customers/{customer}")
    assert _history(customers, f"/customers/{customer}")[1:] == [
        ("CustomerUpdated", renamed | {"name": "John Adams", "revision": 0}, renamed),
        ("CustomerDeleted", renamed, None),
    ]
    assert _history(customers, f"/invoices/{never}") == [
        ("InvoiceCreated", None, rows[0]),
        ("CustomerDeleted", rows[0], None),
    ]
    assert _history(customers, f"/invoices/{once}")[1:] == [
        ("InvoiceUpdated", rows[1], changed),
        ("CustomerDeleted", changed, None),
    ]


def test_an_account_s_history_tells_what_it_was_also_when_it_is_gone(accounts: Client) -> None:
    id = new_account(accounts, "ana")
    path = f"/accounts/{id}"
    created = accounts.get(path)["account"]
    changed = accounts.request("PATCH", path, {"owned_by": "bob", "description": "d"}).json()
    accounts.delete(f"{path}?cascade=true")
    assert _history(accounts, path) == [
        ("AccountCreated", None, created),
        ("AccountUpdated", created, changed),
        ("AccountDeleted", changed, None),
    ]
    problem(accounts.request("GET", f"/accounts/{NOBODY}/history"), 404)


def test_a_long_history_comes_in_pages(customers: Client) -> None:
    id = new_customer(customers)
    for number in range(5):
        customers.request("PATCH", f"/customers/{id}", {"name": f"Name {number}"})
    seen, after = [], "0"
    while after:
        page = customers.get(f"/customers/{id}/history?limit=2&after={after}")
        seen += [each["after"]["name"] for each in page["history"]]
        after = page["next"]
    assert seen == ["John Adams", *(f"Name {number}" for number in range(5))]


@EACH
def test_a_change_alone_is_done_with_at_once(shared: Tally, kind: Kind) -> None:
    """Its metric failed: the event was applied, reported as failed, and delivered again after 10 s."""
    id = kind.new(shared)
    eventually(shared.settled)
    failed = shared.said().count("event_failed")
    assert _change(shared, kind, id, kind.first).status == 200
    eventually(shared.settled, 5)
    assert shared.said().count("event_failed") == failed
