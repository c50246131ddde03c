"""Lists by day: the rows are those that sorting all of them would give, wherever the latest days stand."""

import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tally.events import AccountCreated, Id, now
from tally.store.customers import Customers, open_database
from tally.store.listing import Listing, ListQuery, Order
from tally.store.records import NewCustomer, NewInvoice

ROWS = 300


@pytest.mark.parametrize("near", [1, 7, 40, 10**6])
@pytest.mark.parametrize("days", ["rising", "falling", "mixed", "few", "one"])
def test_lists_by_day_have_the_rows_that_sorting_all_would_give(tmp_path: Path, days: str, near: int) -> None:
    chance = random.Random(f"{days} {near}")
    day_of = {
        "rising": lambda place: place // 3,
        "falling": lambda place: ROWS - place,
        "mixed": lambda _: chance.randrange(ROWS),
        "few": lambda _: chance.randrange(3),
        "one": lambda _: 0,
    }[days]
    ids = sorted(chance.sample(range(1, 10 * ROWS), ROWS))
    rows = [
        (date.fromordinal(730_000 + day_of(place)).isoformat(), id)  # type: ignore[no-untyped-call]
        for place, id in enumerate(ids)
    ]
    database = open_database(tmp_path)
    with database.transaction():
        Customers(database)
        database.executemany(
            "INSERT INTO invoice VALUES (?2, 1, 7, ?1, '2019-01-06T00:00:00Z', NULL, 0, NULL)", rows
        )
    listing = Listing(database, "invoice", near)
    orders: list[Order] = ["day", "-day"]
    for order in orders:
        for _ in range(20):
            after = chance.choice([None, chance.choice(rows)])
            lower, upper = sorted(chance.sample(rows, 2))
            first, last = chance.choice([(None, None), (lower, upper), (lower, None), (None, upper)])
            limit = chance.choice([1, 2, 26, ROWS])
            days_between: dict[str, Any] = {"first": _day(first), "last": _day(last)}
            found = listing.page(ListQuery(limit=limit, order=order, after=after, **days_between))
            wanted = sorted(rows, reverse=order == "-day")
            wanted = [each for each in wanted if not first or each[0] >= first[0]]
            wanted = [each for each in wanted if not last or each[0] <= last[0]]
            if after:
                wanted = [each for each in wanted if (each < after if order == "-day" else each > after)]
            assert [(day, id) for id, _, _, day, *_ in found] == wanted[:limit]
    database.close()


@pytest.mark.parametrize("order", ["id", "-id", "day", "-day"])
def test_a_user_s_list_reads_no_more_the_more_others_have(tmp_path: Path, order: Order) -> None:
    """SQLite made an index of all invoices for each page by day: seconds, for a user with a few."""
    database = open_database(tmp_path)
    customers, steps = Customers(database), 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    database._connection.set_progress_handler(count, 10)
    with database.transaction():
        customers.apply(
            AccountCreated(Id(id), "a", "", user, now()) for id, user in ((1, "alice"), (2, "bob"))
        )
        customers.create_customers([NewCustomer("Ada", Id(1)), NewCustomer("Bea", Id(2))])
    taken = []
    for customer in (1, 2):
        with database.transaction():
            customers.create_invoices([NewInvoice(Id(customer), date(2019, 1, 6), 1) for _ in range(1000)])
        before = steps
        assert len(customers.invoices(ListQuery(limit=10, order=order), "alice")) == 10
        taken.append(steps - before)
    assert taken[1] <= taken[0] + 10
    database.close()


def _day(row: tuple[str, int] | None) -> date | None:
    return row and date.fromisoformat(row[0])
