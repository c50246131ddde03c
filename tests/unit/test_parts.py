"""A customer's invoices are found in all parts of the table that hold some."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from msgspec import structs

from tally.events import Id
from tally.store.customer_list import CustomerQuery
from tally.store.customer_search import CustomerSearch, CustomerSums, MonthSum, Rank
from tally.store.customers import Customers, open_database
from tally.store.listing import ListQuery
from tally.store.records import NewCredit, NewCustomer, NewInvoice
from tally.store.revenue import Cents

PART = 2**18
MINE, YOURS = 1, 2
IDS = [1, 5, PART - 1, PART, PART + 7, 3 * PART - 1, 3 * PART, 9 * PART + 1, 10**12]  # as in a block of ids


@pytest.fixture
def customers(tmp_path: Path) -> Iterator[Customers]:
    """Two customers with invoices in ten parts and more. The first one's amounts equal the ids, in cents."""
    customers = Customers(open_database(tmp_path))
    with customers.database.transaction():
        customers.create_customers([NewCustomer("n", Id(1)), NewCustomer("n", Id(2))])
        customers.database.executemany(
            "INSERT INTO invoice VALUES (?, ?, ?, '2019-01-06', '2019-01-06T00:00:00Z', NULL, 0, NULL)",
            [(id, MINE, id) for id in IDS] + [(id + 1_000, YOURS, 1) for id in IDS],
        )
    yield customers
    customers.database.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("after", [-1, 0, 1, 5, PART - 2, PART - 1, PART, 3 * PART, 9 * PART + 1, 2**63 - 1])
def test_pages_go_through_all_parts_in_order(customers: Customers, after: int, limit: int) -> None:
    found = [
        int(each.id)
        for each in customers.invoices(ListQuery(customer_id=MINE, after=("", after), limit=limit))
    ]
    assert found == [id for id in IDS if id > after][:limit]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("offset", [0, 1, 5, 8, 9, 100])
def test_all_that_a_customer_has_is_found_in_all_parts(customers: Customers, offset: int, limit: int) -> None:
    search = CustomerSearch(customers.database)
    found = [int(each.id) for each in search.entries(MINE, offset, limit)]
    assert found == IDS[::-1][offset : offset + limit]


def test_sums_are_of_all_parts(customers: Customers) -> None:
    search = CustomerSearch(customers.database)
    mean, day = Cents((2 * sum(IDS) + len(IDS)) // (2 * len(IDS))), "2019-01-06"
    january = MonthSum("2019-01", Cents(sum(IDS)))
    assert search.sums(MINE) == CustomerSums(len(IDS), 0, Cents(sum(IDS)), mean, day, day, [january])
    assert search.sums(3) == CustomerSums(0, 0, Cents(0))


def test_a_customer_is_deleted_in_all_parts_and_another_in_none(customers: Customers) -> None:
    with customers.database.transaction():
        customers.delete_customer(MINE)
    assert [each.customer_id for each in customers.invoices(ListQuery(limit=100))] == [YOURS] * len(IDS)


def test_without_any_invoice_there_is_nothing_to_find(tmp_path: Path) -> None:
    customers = Customers(open_database(tmp_path))
    with customers.database.transaction():
        (id,) = customers.create_customers([NewCustomer("n", Id(1))])
    search = CustomerSearch(customers.database)
    assert (customers.invoices(ListQuery(customer_id=id, limit=10)), search.entries(id, 0, 10)) == (
        [],
        [],
    )
    assert search.sums(id) == CustomerSums(0, 0, Cents(0))


def test_customers_are_ranked_over_all_parts_unless_they_are_too_many(customers: Customers) -> None:
    everybody = CustomerQuery(limit=10)
    ranked = CustomerSearch(customers.database).ranked(everybody, "-revenue", 0)
    assert ranked is not None
    assert [(each.id, each.total_revenue_cents, each.last_purchase) for each in ranked] == [
        (MINE, sum(IDS), "2019-01-06"),
        (YOURS, len(IDS), "2019-01-06"),
    ]
    assert CustomerSearch(customers.database, most=1).ranked(everybody, "-revenue", 0) is None


@pytest.mark.parametrize("rank", ["revenue", "-revenue", "last", "-last"])
@pytest.mark.parametrize(
    "query",
    [
        CustomerQuery(limit=1),
        CustomerQuery(limit=1, account_id=2),
        CustomerQuery(limit=1, search="an"),
        CustomerQuery(limit=1, search="!"),
    ],
)
@pytest.mark.parametrize("owner", [None, "ann"])
def test_very_many_are_in_the_same_order_as_few(
    tmp_path: Path, rank: Rank, query: CustomerQuery, owner: str | None
) -> None:
    customers = Customers(open_database(tmp_path))
    amounts = [2**62, 2**62, 7, 2**62, 2**62, 2**62, 0, 7]  # the first customer's sum needs more than 64 bits
    with customers.database.transaction():
        customers.database.executemany(
            "INSERT INTO known_account VALUES (?, ?, '2019-01-01T00:00:00Z', FALSE)", [(1, "ann"), (2, "bob")]
        )
        names = ["Ann", "Anton", "Bea"] * 2
        ids = customers.create_customers(
            [NewCustomer(name, Id(1 + number % 2)) for number, name in enumerate(names)]
        )
        days = [date(2020 + number % 3, 1, 1) for number in range(len(amounts))]
        invoices = customers.create_invoices(
            [
                NewInvoice(ids[number % 5], day, cents)
                for number, (cents, day) in enumerate(zip(amounts, days, strict=True))
            ]
        )
        customers.credits.create([NewCredit(ids[1], date(2023, 1, 1), 2**61, invoices[1])])
    search = CustomerSearch(customers.database, owner)
    ranked = search.ranked(structs.replace(query, limit=100), rank, 0)
    assert ranked is not None
    assert [*search.in_order(query, rank)] == [each.id for each in ranked]
    assert search.those(search.in_order(query, rank)[:2]) == ranked[:2]
    customers.database.close()
