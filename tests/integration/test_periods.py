"""Revenue by month, quarter and year: of all accounts, of one, of a customer."""

import pytest
from integration.conftest import credit, invoice, new_account, new_customer, problem

from support.tally import Client, Tally
from support.waiting import eventually

NOBODY = str(2**63 - 1)


def _bill(customers: Client, customer: str, day: str, cents: int) -> str:
    id: str = customers.post("/invoices", invoice(customer, cents) | {"purchase_date": day})["id"]
    return id


def _months(accounts: Client, path: str) -> list[tuple[str | None, int, int, int]]:
    found = accounts.get(f"{path}/revenue")["revenue"]
    assert all([*each] == ["revenue_cents", "invoices", "credits", "month"] for each in found)
    return [(each["month"], each["revenue_cents"], each["invoices"], each["credits"]) for each in found]


def test_changes_credits_deletions_and_moves_put_each_month_right(
    customers: Client, accounts: Client, shared: Tally
) -> None:
    here, there = new_account(accounts), new_account(accounts)
    customer = new_customer(customers, here)
    of_customer = f"/accounts/{here}/customers/{customer}"
    eventually(shared.settled)
    assert _months(accounts, f"/accounts/{here}") == _months(accounts, of_customer) == []
    first, second = (
        _bill(customers, customer, "1997-03-31", 500),
        _bill(customers, customer, "1997-05-01", 70),
    )
    customers.post("/credits", credit(customer, 30) | {"credit_date": "1997-06-01", "invoice_id": second})
    eventually(shared.settled)
    expected: list[tuple[str | None, int, int, int]] = [
        ("1997-03", 500, 1, 0),
        ("1997-04", 0, 0, 0),
        ("1997-05", 70, 1, 0),
        ("1997-06", -30, 0, 1),
    ]
    assert _months(accounts, f"/accounts/{here}") == _months(accounts, of_customer) == expected

    customers.request(
        "PATCH", f"/invoices/{first}", {"purchase_date": "1997-04-02", "purchase_price_cents": 9}
    )
    eventually(shared.settled)
    expected = [("1997-04", 9, 1, 0), *expected[2:]]
    assert _months(accounts, f"/accounts/{here}") == expected

    customers.request("PATCH", f"/customers/{customer}", {"account_id": there})
    eventually(shared.settled)
    assert _months(accounts, f"/accounts/{here}") == []
    assert _months(accounts, f"/accounts/{there}") == expected
    assert _months(accounts, f"/accounts/{there}/customers/{customer}") == expected
    problem(accounts.request("GET", f"{of_customer}/revenue"), 404)

    customers.delete(f"/invoices/{first}")
    eventually(shared.settled)
    assert _months(accounts, f"/accounts/{there}") == expected[1:]
    customers.delete(f"/customers/{customer}")
    eventually(shared.settled)
    assert _months(accounts, f"/accounts/{there}") == []


def test_periods_are_months_quarters_or_years_and_none_is_left_out(
    customers: Client, accounts: Client, shared: Tally
) -> None:
    account = new_account(accounts)
    customer = new_customer(customers, account)
    for day, cents in (("1996-12-31", 1), ("1997-01-01", 20), ("1997-12-31", 300), ("1999-07-04", 4000)):
        _bill(customers, customer, day, cents)
    eventually(shared.settled)

    def shown(query: str) -> dict[str, int]:
        found = accounts.get(f"/accounts/{account}/revenue?{query}")["revenue"]
        (by,) = {*found[0]} - {"revenue_cents", "invoices", "credits"} if found else {""}
        return {each[by]: each["revenue_cents"] for each in found}

    assert shown("by=year") == {"1996": 1, "1997": 320, "1998": 0, "1999": 4000}
    quarters = shown("by=quarter")
    assert (min(quarters), max(quarters), len(quarters)) == ("1996-Q4", "1999-Q3", 12)
    assert {name: cents for name, cents in quarters.items() if cents} == {
        "1996-Q4": 1,
        "1997-Q1": 20,
        "1997-Q4": 300,
        "1999-Q3": 4000,
    }
    months = shown("")
    assert (min(months), max(months), len(months)) == ("1996-12", "1999-07", 32)
    assert sum(months.values()) == sum(quarters.values()) == 4321
    assert shown("from=1997-12&to=1998-02") == {"1997-12": 300, "1998-01": 0, "1998-02": 0}
    assert shown("by=quarter&to=1997-Q1") == {"1996-Q4": 1, "1997-Q1": 20}
    assert shown("by=year&from=1999") == shown("by=year&from=1999-03&to=1999-Q2") == {"1999": 4000}
    assert [*shown("from=1997-Q4&to=1997")] == ["1997-10", "1997-11", "1997-12"]
    assert shown("by=year&from=2000&to=1999") == {}


def test_all_accounts_come_to_what_they_come_to(customers: Client, accounts: Client, shared: Tally) -> None:
    for cents in (5, 7):
        customer = new_customer(customers, new_account(accounts))
        _bill(customers, customer, "1901-02-03", cents)
        customers.post("/credits", credit(customer, 1) | {"credit_date": "1901-02-04"})
    gone = new_account(accounts)
    _bill(customers, new_customer(customers, gone), "1901-02-03", 11)
    accounts.delete(f"/accounts/{gone}?cascade=true")
    eventually(shared.settled)
    found = accounts.get("/revenue?from=1901-01&to=1901-03")["revenue"]
    assert [(each["revenue_cents"], each["invoices"], each["credits"]) for each in found] == [
        (0, 0, 0),
        (10, 2, 2),
        (0, 0, 0),
    ]
    total = sum(each["total_revenue_cents"] for each in accounts.get("/accounts"))
    assert sum(each["revenue_cents"] for each in accounts.get("/revenue")["revenue"]) == total


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("by=week", ["by"]),
        ("from=1997-", ["from"]),
        ("from=1997-13&to=x", ["from", "to"]),
        ("by=quarter&from=1997-Q5", ["from"]),
        ("by=year&to=%D9%A1%D9%A9%D9%A9%D9%A7", ["to"]),
        ("month=1997-01", ["month"]),
    ],
)
def test_what_is_no_period_is_refused(accounts: Client, query: str, fields: list[str]) -> None:
    problem(accounts.request("GET", f"/revenue?{query}"), 422, *fields)


def test_what_is_not_there_has_no_revenue(customers: Client, accounts: Client, shared: Tally) -> None:
    account = new_account(accounts)
    stranger = new_customer(customers, new_account(accounts))
    eventually(shared.settled)
    for path in (
        f"/accounts/{NOBODY}",
        "/accounts/x",
        f"/accounts/{account}/customers/{NOBODY}",
        f"/accounts/{account}/customers/x",
        f"/accounts/{account}/customers/{stranger}",
    ):
        problem(accounts.request("GET", f"{path}/revenue"), 404)
