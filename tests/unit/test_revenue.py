"""The customers' revenue: recent changes are stored apart, and they count all the same."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.figures import revenue_by_customer
from tally.events import Id
from tally.store.accounts import open_database
from tally.store.database import Database
from tally.store.revenue import LARGE_IDS, Revenue, Row, invoiced

MOST, AT_ONCE = 10, 4
MONTH = 199703
_BY_MONTH = (
    "SELECT customer_id, month, sum(cents) FROM"
    " (SELECT * FROM customer_month UNION ALL SELECT * FROM recent_month) GROUP BY 1, 2"
)
HIGHEST = 2**63 - 1


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An accounts.db with the customers 0 to 99, ten in each account: customer 37 is in account 3."""
    database = open_database(tmp_path)
    database.executemany(
        "INSERT INTO customer (id, account_id) VALUES (?, ?)", [(id, id // 10) for id in range(100)]
    )
    yield database
    database.close()


def _recent(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM recent_month"))


def _earned(cents: Mapping[int, int], month: int = MONTH) -> list[Row]:
    day = date(month // 100, month % 100, 1)
    return [invoiced(customer, day, each, 1) for customer, each in cents.items()]


def _added(
    database: Database, revenue: Revenue, cents: Mapping[int, int], month: int = MONTH
) -> dict[int, int]:
    with database.transaction():
        rows = revenue.add(_earned(cents, month))
    assert {row[1] for row in rows} <= {month}
    by_account: Counter[int] = Counter()
    for account, _, each, *_ in rows:
        by_account[account] += each
    return dict(by_account)


def test_what_is_added_is_told_by_account(database: Database) -> None:
    database.execute("UPDATE customer SET deleted = TRUE WHERE id = 12")
    added = _added(database, Revenue(database), {Id(5): 7, Id(9): 3, Id(12): 50, Id(25): -4, Id(777): 1})
    assert added == {0: 10, 2: -4}


_amounts = st.integers(-(10**12), 10**12) | st.integers(-HIGHEST, HIGHEST)
_batches = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 60).map(Id), _amounts, max_size=12),
        st.sampled_from([199701, 199712, 199801]),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(_batches)
def test_in_whatever_stretches_it_is_settled_nothing_is_lost_or_counted_twice(
    batches: list[tuple[dict[int, int], int]],
) -> None:
    expected: Counter[int] = Counter()
    months: Counter[tuple[int, int]] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        database = open_database(Path(directory))
        revenue = Revenue(database, MOST, AT_ONCE, recent_per_page=0)
        for batch, month in batches:
            if any(
                max(abs(expected[id] + cents), abs(months[id, month] + cents)) > HIGHEST
                for id, cents in batch.items()
            ):
                with pytest.raises(OverflowError):
                    _added(database, revenue, batch, month)
            else:
                _added(database, revenue, batch, month)
                expected.update(batch)
                months.update({(id, month): cents for id, cents in batch.items()})
            found = revenue_by_customer(database)
            assert {id: found.get(id, 0) for id in expected} == dict(expected)
            rows = database.rows(_BY_MONTH)
            assert {(id, month): cents for id, month, cents in rows if cents} == {
                key: cents for key, cents in months.items() if cents
            }
        database.close()


@pytest.mark.parametrize("sign", [1, -1])
def test_many_large_amounts_are_exact_to_the_last_cent(database: Database, sign: int) -> None:
    revenue = Revenue(database)
    for part in (2**61, 2**61, 2**61 + 1, 2**61 - 2):
        _added(database, revenue, {Id(5): sign * part})
    assert revenue_by_customer(database)[5] == sign * HIGHEST
    with pytest.raises(OverflowError):
        _added(database, revenue, {Id(5): sign})


def test_a_batch_is_not_paid_for_by_all_that_is_recent(database: Database) -> None:
    plan = [str(row[-1]) for row in database.rows(f"EXPLAIN QUERY PLAN {LARGE_IDS}")]
    assert [step for step in plan if step.startswith("SCAN")] == [
        "SCAN recent_month USING INDEX large_recent_month",
        "SCAN customer_month USING INDEX huge_customer_month",
    ]


def test_what_is_recent_stays_small_however_much_comes(database: Database) -> None:
    revenue = Revenue(database, MOST, AT_ONCE, recent_per_page=0)
    for turn in range(300):
        _added(database, revenue, {Id(turn * 37 % 100): 1, Id(turn * 53 % 100): 1})
        assert _recent(database) <= MOST + AT_ONCE
    assert sum(revenue_by_customer(database).values()) == sum(
        2 if turn * 37 % 100 != turn * 53 % 100 else 1 for turn in range(300)
    )


def test_another_s_round_or_one_that_was_undone_does_no_harm(database: Database) -> None:
    one, other = (Revenue(database, MOST, AT_ONCE, recent_per_page=0) for _ in range(2))
    for turn in range(100):
        _added(database, one if turn % 3 else other, {Id(turn): 1})
        with pytest.raises(KeyError), database.transaction():
            one.add(_earned({Id(turn): 1}))
            raise KeyError
    assert revenue_by_customer(database) == dict.fromkeys(range(100), 1)


def test_a_settled_customer_has_all_in_its_row(database: Database) -> None:
    revenue = Revenue(database)
    _added(database, revenue, {Id(4): 5, Id(5): 6, Id(6): 7})
    with database.transaction():
        revenue.settle(5)
        revenue.settle(5)
    assert database.rows("SELECT id, revenue_cents FROM customer WHERE revenue_cents <> 0") == [(5, 6)]
    assert _recent(database) == 2


@pytest.mark.parametrize(("recent", "more"), [(0, 8), (7, 1), (-1, 9)])
def test_a_revenue_beyond_64_bits_is_refused_and_changes_nothing(
    database: Database, recent: int, more: int
) -> None:
    revenue = Revenue(database)
    database.execute("UPDATE customer SET revenue_cents = ? WHERE id = 5", (2**63 - 8,))
    _added(database, revenue, {Id(5): recent})
    with pytest.raises(OverflowError, match="the revenue of the customer 5 "):
        _added(database, revenue, {Id(4): 1, Id(5): more})
    assert revenue_by_customer(database)[5] == 2**63 - 8 + recent
    assert revenue_by_customer(database)[4] == 0
