"""The stored totals always equal the sums of the customers that are shown."""

import tempfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tally.events import (
    AccountCreated,
    AccountDeleted,
    CustomerCreated,
    CustomerDeleted,
    Event,
    Id,
    InvoiceCreated,
    InvoiceDeleted,
)
from tally.store.account_totals import MOST_RECENT, AccountQuery, AccountTotals, Sort, Totals, fold
from tally.store.accounts import Accounts, NewAccount, open_database
from tally.store.errors import NotFound
from tally.store.months import Months
from tally.store.revenue import Cents, money

_THEN = datetime(2019, 3, 23, tzinfo=UTC)


def _apply(accounts: Accounts, *events: Event) -> None:
    with accounts.database.transaction():
        accounts.apply(events)


def _open(accounts: Accounts, *names: str, owner: str = "ana") -> None:
    with accounts.database.transaction():
        for name in names:
            accounts.create_account(NewAccount(name, owner))


def _earned(customer: int, account: int, *cents: int) -> list[Event]:
    created = CustomerCreated(Id(customer), Id(account), "n", _THEN)
    return [created, *(InvoiceCreated(Id(1), Id(customer), each, _THEN, date(2019, 1, 6)) for each in cents)]


def _names(accounts: Accounts, query: AccountQuery, owner: str | None = None) -> list[str]:
    return [row.name for row in AccountTotals(accounts.database, owner).page(query)]


def _kept(accounts: Accounts) -> dict[int, tuple[int, int]]:
    rows = AccountTotals(accounts.database).page(AccountQuery(limit=1000))
    return {int(row.id): (row.customers, int(row.total_revenue_cents)) for row in rows}


def _summed(accounts: Accounts) -> dict[int, tuple[int, int]]:
    customers = {
        int(account.id): accounts.customers_of(account.id) for account in accounts.accounts(-1, 1000)
    }
    return {
        id: (len(each), sum(customer.total_revenue_cents for customer in each))
        for id, each in customers.items()
    }


@pytest.mark.parametrize(
    "name", ["Ada", "", 'a"b\\c/d', "\0\x01\x1f\x7f\n", "é\u2028\N{ABACUS}", "[1],{", "null"]
)
def test_what_sqlite_shows_of_customers_is_what_they_are(accounts: Accounts, name: str) -> None:
    _open(accounts, "one")
    ids = (7, 2, 2**63 - 1)
    for id in ids:
        created = CustomerCreated(Id(id), Id(1), name, _THEN)
        _apply(accounts, created, *_earned(id, 1, 5, id % 100)[1:])
    _apply(accounts, InvoiceDeleted(Id(1), Id(2), 10**12, _THEN))  # its creation has not come yet

    shown = [accounts.show_customers_of(1, after, 2) for after in (-1, 7, 2**63 - 1)]
    listed = [accounts.customers_of(1, "id", (after, after), 2) for after in (-1, 7, 2**63 - 1)]

    assert [msgspec.json.decode(b"[%b]" % part.json) for part in shown] == [
        [
            {
                "customer_id": str(each.customer_id),
                "name": name,
                "total_revenue_cents": each.total_revenue_cents,
            }
            for each in part
        ]
        for part in listed
    ]
    assert [part.customers for part in shown] == [2, 1, 0]
    assert [part.last for part in shown] == [7, 2**63 - 1, None]
    assert [part.revenue_cents for part in shown] == [
        sum(each.total_revenue_cents for each in part) for part in listed
    ]


_ids = st.integers(1, 3).map(Id)
_dates = st.integers(0, 3).map(lambda seconds: _THEN + timedelta(seconds=seconds))
_cents = st.integers(0, 1000)
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(AccountCreated, _ids, st.sampled_from("ab"), st.just(""), st.sampled_from("uv"), _dates),
    st.builds(AccountDeleted, _ids, _dates),
    st.builds(CustomerCreated, _ids, _ids, st.sampled_from("xy"), _dates),
    st.builds(CustomerDeleted, _ids, _ids, _dates),
    st.builds(InvoiceCreated, _ids, _ids, _cents, _dates, st.just(date(2019, 1, 6))),
    st.builds(InvoiceDeleted, _ids, _ids, _cents, _dates),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_events, max_size=6), max_size=6))
def test_whatever_happens_in_whatever_order_the_totals_are_the_sums(batches: list[list[Event]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        accounts = Accounts(open_database(Path(directory)))
        for batch in batches:
            _apply(accounts, *batch)
            assert _kept(accounts) == _summed(accounts)
        accounts.database.close()


def test_all_accounts_added_up_are_exact_beyond_what_64_bits_hold(accounts: Accounts) -> None:
    _open(accounts, "one", "two", "three")
    most = 2**63 - 1
    with accounts.database.transaction():
        accounts.database.executemany(
            "INSERT INTO customer (id, account_id, revenue_cents) VALUES (?, ?, ?)",
            [(1, 1, most), (2, 2, most), (3, 3, -5)],
        )
    assert AccountTotals(accounts.database).sums() == Totals(3, 3, Cents(2 * most - 5))


@pytest.mark.parametrize(
    ("sort", "rising"),
    [
        ("id", ["beta", "Alpha", "gamma"]),
        ("name", ["Alpha", "beta", "gamma"]),
        ("owner", ["gamma", "Alpha", "beta"]),
        ("customers", ["beta", "Alpha", "gamma"]),
        ("revenue", ["gamma", "Alpha", "beta"]),
    ],
)
def test_accounts_are_sorted_both_ways(accounts: Accounts, sort: Sort, rising: list[str]) -> None:
    _open(accounts, "beta", owner="Zoe")
    _open(accounts, "Alpha", owner="bob")
    _open(accounts, "gamma", owner="Ana")
    _apply(accounts, *_earned(1, 1, 900), *_earned(2, 2, 100), *_earned(3, 3, 50), *_earned(4, 3))
    assert _names(accounts, AccountQuery(sort=sort)) == rising
    assert _names(accounts, AccountQuery(sort=sort, descending=True)) == rising[::-1]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("ÖRESUND", ["Öresund"]),
        ("öre", ["Öresund"]),
        ("o\u0308re", ["Öresund"]),
        ("sjö", ["Sjo\u0308berg"]),
        ("ana", ["Öresund", "100% Wool"]),
        ("2", ["100% Wool"]),
        ("%", ["100% Wool"]),
        ("_", []),
        ("wool", ["100% Wool"]),
    ],
)
def test_accounts_are_found_by_a_part_of_name_or_owner_or_by_id(
    accounts: Accounts, search: str, found: list[str]
) -> None:
    _open(accounts, "Öresund", "100% Wool", owner="Ana")
    _open(accounts, "Sjo\u0308berg", owner="bob")  # decomposed, as macOS writes names
    assert _names(accounts, AccountQuery(search=search)) == found
    assert AccountTotals(accounts.database).sums(search).accounts == len(found)


def test_an_owner_sees_no_other_accounts(accounts: Accounts) -> None:
    _open(accounts, "mine", owner="ana")
    _open(accounts, "theirs", owner="bob")
    _apply(accounts, *_earned(7, 1, 500), *_earned(8, 2, 20))
    ana = AccountTotals(accounts.database, owner="ana")
    assert _names(accounts, AccountQuery(), "ana") == ["mine"]
    assert _names(accounts, AccountQuery(search="theirs"), "ana") == []
    assert ana.sums() == Totals(1, 1, Cents(500))
    with pytest.raises(NotFound):
        ana.one(2)


def _recent(accounts: Accounts) -> int:
    return int(accounts.database.value("SELECT count(*) FROM recent_account_month"))


def test_the_months_are_the_same_before_and_after_they_are_gathered(accounts: Accounts) -> None:
    _open(accounts, "one", "two")
    _apply(accounts, *(CustomerCreated(Id(id), Id(1 + id % 2), "n", _THEN) for id in range(100)))
    bought = [
        InvoiceCreated(
            Id(place), Id(place % 100), place, _THEN, date(2000 + place // 1200, 1 + place // 100 % 12, 1)
        )
        for place in range(MOST_RECENT + 500)
    ]
    expected: Counter[tuple[int, int]] = Counter()
    for start in range(0, len(bought), 500):
        batch = bought[start : start + 500]
        _apply(accounts, *batch)
        for event in batch:
            month = event.purchase_date.year * 100 + event.purchase_date.month
            expected[1 + event.customer_id % 2, month] += event.purchase_price_cents
        assert _recent(accounts) <= MOST_RECENT
        for account in (1, 2):
            found = Months(accounts.database).of_account(account)
            wanted = {month: cents for (of, month), cents in expected.items() if of == account}
            assert {each.month: each.cents for each in found} == wanted
    assert _recent(accounts) < MOST_RECENT, "nothing was gathered"


def test_where_a_month_is_so_large_that_more_might_not_fit_it_is_added_at_once(accounts: Accounts) -> None:
    """An overflow is then the fault of the batch that causes it."""
    _open(accounts, "one")
    _apply(accounts, *_earned(1, 1, 5))
    assert _recent(accounts) == 1
    with accounts.database.transaction():
        fold(accounts.database)
        accounts.database.execute("UPDATE account_month SET cents = ?", (2**62,))
    _apply(accounts, *_earned(2, 1, 7))
    assert _recent(accounts) == 0
    months = Months(accounts.database).of_account(1)
    assert months[0].cents == 2**62 + 7


@pytest.mark.parametrize(
    ("cents", "told"), [(0, "0.00"), (-150, "-1.50"), (5, "0.05"), (2**70, "11,805,916,207,174,113,034.24")]
)
def test_cents_are_told_as_an_amount(cents: int, told: str) -> None:
    assert money(cents) == told


def test_what_has_no_known_month_is_in_none_of_the_months(accounts: Accounts) -> None:
    opened = AccountCreated(Id(1), "a", "", "u", _THEN)
    created = CustomerCreated(Id(1), Id(1), "c", _THEN)
    _apply(accounts, opened, created, InvoiceDeleted(Id(1), Id(1), 5, _THEN))
    for last in range(12):  # of the year 0
        assert Months(accounts.database).of_each([1], last, 12) == {1: [0] * 12}
