"""Lists of customers: found by the words of their names, in any order, a page at a time."""

from pathlib import Path
from typing import get_args

import pytest
from integration.conftest import new_account, new_customer, new_invoice, problem

from support.tally import Client, Tally
from support.waiting import eventually
from tally.events import Id
from tally.store import customer_list
from tally.store.customer_list import FEW, CustomerList, CustomerQuery
from tally.store.customers import Customers, open_database
from tally.store.records import NewCustomer

NAMES = [
    "Zoé O'Brien",
    "Jean-Pierre Ångström",
    "ada lovelace",
    "Ada Byron",
    "S.A. Müller & Söhne",
    "Бо́рис Иванов",
]


@pytest.fixture(scope="module")
def account(shared: Tally) -> str:
    """An account with one customer for each name."""
    account = new_account(shared.accounts)
    for name in NAMES:
        new_customer(shared.customers, account, name)
    return account


def _listed(customers: Client, query: str, limit: int = 100) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = customers.get(f"/customers?{query}&limit={limit}{after}")
        found += [each["name"] for each in page["customers"]]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


@pytest.mark.parametrize("few", [FEW, 1], ids=["few", "many"])
@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("ada", [2, 3]),
        ("ADA", [2, 3]),
        ("lov ada", [2]),
        ("ada byr", [3]),
        ("obrien", [0]),
        ("o'brien zoe", [0]),
        ("brien", [0]),
        ("jeanpierre", [1]),
        ("angstrom jean", [1]),
        ("Å", [1, 2, 3, 4]),
        ("muller", [4]),
        ("sa sohne", [4]),
        ("&", []),
        ("иван", [5]),
        ("борис", [5]),
        ("lovelace byron", []),
        ('"', []),
        ("ada*", [2, 3]),
        ("ada OR brien", []),
        ("name:ada", []),
    ],
)
def test_customers_are_found_by_the_beginnings_of_words(
    tmp_path: Path, few: int, text: str, places: list[int]
) -> None:
    database = open_database(tmp_path)
    with database.transaction():
        Customers(database).create_customers([NewCustomer(name, Id(1)) for name in NAMES])
    expected = [NAMES[place] for place in places]
    for order in get_args(customer_list.Order):
        listed = CustomerList(database, few=few).page(CustomerQuery(limit=100, order=order, search=text))
        assert sorted(each.name for each in listed) == sorted(expected), order
    database.close()


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_customers_are_listed_by_name_or_number_in_either_order(
    customers: Client, account: str, limit: int
) -> None:
    of, by_name = f"account_id={account}", sorted(NAMES, key=str.upper)
    assert _listed(customers, of, limit) == _listed(customers, f"{of}&order=id", limit) == NAMES
    assert _listed(customers, f"{of}&order=-id", limit) == NAMES[::-1]
    assert _listed(customers, f"{of}&order=name", limit) == by_name
    assert _listed(customers, f"{of}&order=-name", limit) == by_name[::-1]
    assert _listed(customers, f"{of}&order=-name&search=a", limit) == [
        name for name in by_name[::-1] if name in NAMES[1:5]
    ]
    every = [name for name in _listed(customers, "order=name", 1000) if name in NAMES]
    assert list(dict.fromkeys(every)) == by_name


def test_a_customer_is_found_under_the_name_that_it_has_now(customers: Client) -> None:
    account = "7" * 15
    id = new_customer(customers, account, "Before Marriage")
    customers.request("PATCH", f"/customers/{id}", {"name": "After Marriage"})
    assert _listed(customers, f"account_id={account}&search=before") == []
    assert _listed(customers, f"account_id={account}&search=after") == ["After Marriage"]
    customers.delete(f"/customers/{id}")
    assert _listed(customers, f"account_id={account}&search=after") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("order=revenue", "order"),
        ("order=name&after=zz-7", "after"),
        ("order=name&after=*", "after"),
        ("order=name&after=WzcsN10", "after"),
        (f"search={'x' * 201}", "search"),
    ],
)
def test_a_list_says_what_of_a_query_it_does_not_understand(
    customers: Client, query: str, field: str
) -> None:
    problem(customers.request("GET", f"/customers?{query}"), 422, field)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_an_account_s_customers_are_listed_by_number_name_or_revenue(
    customers: Client, accounts: Client, shared: Tally, limit: int
) -> None:
    account = new_account(accounts)
    cents = {"b": 30, "A": 200, "c": 30, "d": 0}
    for name, each in cents.items():
        new_invoice(customers, new_customer(customers, account, name), each)
    eventually(shared.settled)

    def listed(order: str) -> str:
        found, after = "", ""
        while True:
            page = accounts.get(f"/accounts/{account}/customers?order={order}&limit={limit}{after}")
            found += "".join(each["name"] for each in page["customers"])
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    assert [listed(order) for order in ("id", "-id", "name", "-name", "revenue", "-revenue")] == [
        "bAcd",
        "dcAb",
        "Abcd",
        "dcbA",
        "dbcA",
        "Acbd",
    ]
    for query, field in (
        ("order=owner", "order"),
        ("order=revenue&after=x", "after"),
    ):
        problem(accounts.request("GET", f"/accounts/{account}/customers?{query}"), 422, field)
