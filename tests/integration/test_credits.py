"""Credits: refunds and credit notes, for a customer or one of its invoices; never more than the invoice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from integration.conftest import (
    Watch,
    credit,
    invoice,
    new_account,
    new_credit,
    new_customer,
    new_invoice,
    problem,
)

from support.tally import Client, Tally
from support.waiting import eventually

NOBODY = str(2**63 - 1)


def _revenue(accounts: Client, account: str) -> int:
    total: int = accounts.get(f"/accounts/{account}")["total_revenue_cents"]
    return total


def test_a_credit_is_answered_shown_published_and_counted(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    bill = new_invoice(customers, customer, 500)
    answer = customers.request("POST", "/credits", credit(customer, 200, invoice_id=bill, reference=" CN-1 "))
    id = answer.json()["id"]
    assert (answer.status, answer.headers["Location"]) == (201, f"/credits/{id}")
    shown = customers.get(f"/credits/{id}")
    created = shown.pop("created_date")
    assert shown == {
        "id": id,
        "customer_id": customer,
        "invoice_id": bill,
        "credited_cents": 200,
        "credit_date": "2019-02-01",
        "reference": "CN-1",
    }
    (told,) = watch.published("CreditCreated", id=id)
    assert [*told.payload] == [
        "id", "customer_id", "credited_cents", "created_date", "credit_date", "invoice_id", "reference",
    ]  # fmt: skip
    assert told.payload == {**shown, "created_date": created}
    eventually(lambda: _revenue(accounts, account) == 300)

    customers.delete(f"/credits/{id}")
    problem(customers.request("GET", f"/credits/{id}"), 404)
    problem(customers.request("DELETE", f"/credits/{id}"), 404)
    (told,) = watch.published("CreditDeleted", id=id)
    assert [*told.payload] == ["id", "customer_id", "credited_cents", "deleted_date", "credit_date"]
    eventually(lambda: _revenue(accounts, account) == 500)


def test_a_credit_for_no_invoice_may_take_a_total_below_zero_and_it_is_shown_so(
    customers: Client, accounts: Client, watch: Watch
) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    id = new_credit(customers, customer, 250)
    (told,) = watch.published("CreditCreated", id=id)
    assert [*told.payload][-1] == "credit_date"
    eventually(lambda: _revenue(accounts, account) == -250)
    assert accounts.get(f"/accounts/{account}")["customers"] == [
        {"customer_id": customer, "name": "John Adams", "total_revenue_cents": -250}
    ]


def test_what_is_no_credit_is_refused(customers: Client, watch: Watch) -> None:
    customer, other = new_customer(customers), new_customer(customers)
    bill = new_invoice(customers, customer, 500)
    with watch.nothing_changes():
        for cents in (0, -1, 1.5, "1", True, 10**12 + 1):
            problem(_post(customers, credit(customer) | {"credited_cents": cents}), 422, "credited_cents")
        problem(_post(customers, {}), 422, "customer_id", "credit_date", "credited_cents")
        problem(_post(customers, credit(NOBODY)), 422, "customer_id")
        for wrong in (NOBODY, 7, None, ""):
            problem(_post(customers, credit(customer) | {"invoice_id": wrong}), 422, "invoice_id")
        problem(_post(customers, credit(other, invoice_id=bill)), 422, "invoice_id")
        both = [credit(customer, invoice_id=bill), credit(other, invoice_id=bill)]
        problem(customers.request("POST", "/credits/batch", both), 422, "[1].invoice_id")
        for wrong in ("", "  ", "x" * 101, "a\nb", 7, None):
            problem(_post(customers, credit(customer) | {"reference": wrong}), 422, "reference")


def _post(customers: Client, row: object) -> Any:
    return customers.request("POST", "/credits", row)


def test_all_credits_of_an_invoice_never_exceed_it(customers: Client, watch: Watch) -> None:
    customer = new_customer(customers)
    bill = new_invoice(customers, customer, 500)
    first = new_credit(customers, customer, 300, invoice_id=bill)
    with watch.nothing_changes():
        told = problem(_post(customers, credit(customer, 201, invoice_id=bill)), 422, "credited_cents")
        assert "200 cents are left" in told["errors"][0]["message"]
        rows = [
            credit(customer, 150, invoice_id=bill),
            credit(customer),
            credit(customer, 51, invoice_id=bill),
        ]
        problem(customers.request("POST", "/credits/batch", rows), 422, "[2].credited_cents")
    new_credit(customers, customer, 200, invoice_id=bill)
    new_credit(customers, customer, 10**6)  # a credit for no invoice has no limit
    customers.delete(f"/credits/{first}")
    new_credit(customers, customer, 300, invoice_id=bill)


def test_an_invoice_with_credits_is_neither_deleted_nor_made_smaller_than_they_are(
    customers: Client, watch: Watch
) -> None:
    customer = new_customer(customers)
    bill = new_invoice(customers, customer, 500)
    id = new_credit(customers, customer, 300, invoice_id=bill)
    with watch.nothing_changes():
        assert id in problem(customers.request("DELETE", f"/invoices/{bill}"), 409)["detail"]
        change = {"purchase_price_cents": 299}
        answer = customers.request("PATCH", f"/invoices/{bill}", change)
        assert "300 cents" in problem(answer, 422, "purchase_price_cents")["errors"][0]["message"]
    assert customers.request("PATCH", f"/invoices/{bill}", {"purchase_price_cents": 300}).status == 200
    customers.delete(f"/credits/{id}")
    customers.delete(f"/invoices/{bill}")


def test_whatever_comes_at_once_an_invoice_is_never_credited_by_more_than_its_amount(
    customers: Client, accounts: Client, shared: Tally
) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    bills = [new_invoice(customers, customer, 100) for _ in range(8)]

    def meddle(number: int) -> None:
        bill = bills[number % len(bills)]
        kind = number // len(bills) % 4
        if kind == 3:
            customers.request("DELETE", f"/invoices/{bill}")
        elif kind == 2:
            customers.request("PATCH", f"/invoices/{bill}", {"purchase_price_cents": 60})
        else:
            _post(customers, credit(customer, 40, invoice_id=bill))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(meddle, range(8 * len(bills))))
    left = {row["id"]: row["purchase_price_cents"] for row in _all(customers, "invoices", customer)}
    credits = _all(customers, "credits", customer)
    for row in credits:
        left[row["invoice_id"]] -= row["credited_cents"]
    assert all(cents >= 0 for cents in left.values()), left
    eventually(shared.settled)
    assert _revenue(accounts, account) == sum(left.values())


def _all(customers: Client, kind: str, customer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = customers.get(f"/{kind}?customer_id={customer}&limit=1000")[kind]
    return found


def test_a_customer_s_credits_go_with_it(customers: Client, accounts: Client) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    id = new_credit(customers, customer, 300, invoice_id=new_invoice(customers, customer, 500))
    eventually(lambda: _revenue(accounts, account) == 200)
    customers.delete(f"/customers/{customer}")
    problem(customers.request("GET", f"/credits/{id}"), 404)
    assert _all(customers, "credits", customer) == []
    eventually(lambda: _revenue(accounts, account) == 0)


def test_a_credit_comes_once_however_often_its_request_does(customers: Client, watch: Watch) -> None:
    customer = new_customer(customers)
    for path, body in (("/credits", credit(customer)), ("/credits/batch", [credit(customer)] * 3)):
        key = {"Idempotency-Key": f"{path}-{customer}"}
        first = customers.post(path, body, key)
        with watch.nothing_changes():
            assert customers.post(path, body, key) == first


def test_credits_stand_in_the_history_of_their_invoice_or_else_of_their_customer(customers: Client) -> None:
    customer = new_customer(customers)
    bill = new_invoice(customers, customer, 500)
    for path, more in ((f"/invoices/{bill}", {"invoice_id": bill}), (f"/customers/{customer}", {})):
        id = new_credit(customers, customer, 300, **more)
        row = customers.get(f"/credits/{id}")
        customers.delete(f"/credits/{id}")
        created, *happened = customers.get(f"{path}/history")["history"]
        assert created["after"] == customers.get(path)
        assert [(each["event"], each["before"], each["after"]) for each in happened] == [
            ("CreditCreated", None, row),
            ("CreditDeleted", row, None),
        ]
    last = customers.get(f"/invoices/{bill}")
    customers.delete(f"/customers/{customer}")
    gone = customers.get(f"/invoices/{bill}/history")["history"]
    assert [each["event"] for each in gone] == [
        "InvoiceCreated",
        "CreditCreated",
        "CreditDeleted",
        "CustomerDeleted",
    ]
    assert gone[-1]["before"] == last


# The names that users' own systems give to invoices and credits


@pytest.mark.parametrize("kind", ["invoice", "credit"])
def test_a_reference_is_unique_in_its_account_and_a_second_is_told_who_has_it(
    customers: Client, accounts: Client, watch: Watch, kind: str
) -> None:
    here, there = new_account(accounts), new_account(accounts)
    one, two, far = (new_customer(customers, account) for account in (here, here, there))
    row = {"invoice": invoice, "credit": credit}[kind]
    named = {"reference": f"R {one}"}
    id = customers.post(f"/{kind}s", row(one) | named)["id"]
    assert customers.get(f"/{kind}s/{id}")["reference"] == f"R {one}"
    (told,) = watch.published(f"{kind.title()}Created", id=id)
    assert told.payload["reference"] == f"R {one}"
    with watch.nothing_changes():
        for again in (one, two):
            refused = problem(customers.request("POST", f"/{kind}s", row(again) | named), 409, "reference")
            assert refused["errors"][0]["id"] == id
        rows = [row(two) | {"reference": "other"}, row(far) | named, row(two) | named]
        refused = problem(customers.request("POST", f"/{kind}s/batch", rows), 409, "[2].reference")
        assert refused["errors"][0]["id"] == id
        rows = [row(far) | {"reference": "twice"}, row(two) | {"reference": "twice"}] * 2
        problem(customers.request("POST", f"/{kind}s/batch", rows), 422, "[2].reference", "[3].reference")
    customers.post(f"/{kind}s", row(far) | named)
    assert [
        each["id"] for each in customers.get(f"/{kind}s?account_id={here}&reference=R%20{one}")[f"{kind}s"]
    ] == [id]
    customers.delete(f"/{kind}s/{id}")
    customers.post(f"/{kind}s", row(two) | named)


@pytest.mark.parametrize("kind", ["invoice", "credit"])
def test_a_customer_does_not_move_where_one_of_its_references_is_taken(
    customers: Client, accounts: Client, watch: Watch, kind: str
) -> None:
    here, there = new_account(accounts), new_account(accounts)
    one, other = new_customer(customers, here), new_customer(customers, there)
    row = {"invoice": invoice, "credit": credit}[kind]
    ids = [customers.post(f"/{kind}s", row(each) | {"reference": "R-7"})["id"] for each in (one, other)]
    with watch.nothing_changes():
        move = customers.request("PATCH", f"/customers/{one}", {"account_id": there})
        detail = problem(move, 409)["detail"]
        assert all(f"{kind} {id}" in detail for id in ids)
    customers.delete(f"/{kind}s/{ids[1]}")
    assert customers.request("PATCH", f"/customers/{one}", {"account_id": there}).status == 200


# Lists


@pytest.mark.parametrize("kind", ["invoice", "credit"])
def test_lists_are_filtered_ordered_and_paged(customers: Client, accounts: Client, kind: str) -> None:
    account = new_account(accounts)
    one, two = new_customer(customers, account), new_customer(customers, account)
    day = "purchase_date" if kind == "invoice" else "credit_date"
    row = {"invoice": invoice, "credit": credit}[kind]
    days = ["2019-03-01", "2019-01-01", "2019-02-28", "2019-01-01", "2020-02-29", "2018-12-31"]
    rows = [row(customer) | {day: each} for each, customer in zip(days, (one, two) * 3, strict=True)]
    ids = customers.post(f"/{kind}s/batch", rows)["ids"]
    made = dict(zip(ids, rows, strict=True))

    def listed(query: str, limit: int) -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            page = customers.get(f"/{kind}s?{query}&limit={limit}{after}")
            found += [each["id"] for each in page[f"{kind}s"]]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    def by_day(id: str) -> tuple[str, int]:
        return str(made[id][day]), int(id)

    for limit in (1, 2, 6, 100):
        for of, mine in ((f"account_id={account}", ids), (f"customer_id={one}", ids[::2])):
            assert listed(of, limit) == listed(f"{of}&order=id", limit) == mine
            assert listed(f"{of}&order=-id", limit) == mine[::-1]
            assert listed(f"{of}&order={day}", limit) == sorted(mine, key=by_day)
            assert listed(f"{of}&order=-{day}", limit) == sorted(mine, key=by_day, reverse=True)
            some = [id for id in mine if "2019-01-01" <= made[id][day] <= "2019-02-28"]
            assert listed(f"{of}&from=2019-01-01&to=2019-02-28", limit) == some
        everything = [id for id in listed("from=2019-01-01&to=2019-03-01&order=id", 1000) if id in made]
        assert everything == ids[:4]
        assert [id for id in listed(f"order=-{day}", 1000) if id in made] == sorted(ids, key=by_day)[::-1]
    assert listed(f"account_id={account}&customer_id={NOBODY}", 10) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("order=name", "order"),
        ("order=purchase_date&after=x", "after"),
        ("after=2019-01-06-x", "after"),
        ("order=-purchase_date&after=323-7", "after"),
        ("from=2019-02-30", "from"),
        ("to=20190101", "to"),
        ("reference=", "reference"),
        ("account_id=x", "account_id"),
    ],
)
def test_a_list_says_what_of_a_query_it_does_not_understand(
    customers: Client, query: str, field: str
) -> None:
    problem(customers.request("GET", f"/invoices?{query}"), 422, field)
