"""The numbers that rows get."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tally.events import Id
from tally.store import customers
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.ids import BLOCK, SPAN, begin_block, give, given, node_of, raise_ids
from tally.store.records import NewCustomer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(customers.open_database(tmp_path)) as database:
        yield database


def _give(database: Database, count: int = 1) -> list[Id]:
    with database.transaction():
        return give(database, "customer", count)


@pytest.mark.parametrize("number", [0, 1, 9006])
def test_a_node_counts_from_the_first_of_its_range_on(database: Database, number: int) -> None:
    with database.transaction():
        database.assign(number)
    store = Customers(database)
    for expected in (1, 2):
        with database.transaction():
            (id,) = store.create_customers([NewCustomer("c", Id(1))])
        assert id == number * SPAN + expected
        assert node_of(id) == number
    assert [tuple(each) for each in given(database, "customer")] == [(number * SPAN + 1, number * SPAN + 2)]


def test_the_ranges_of_nodes_meet_and_overlap_nowhere() -> None:
    assert [node_of(id) for id in (0, 1, SPAN, SPAN + 1, 2 * SPAN, 2 * SPAN + 1)] == [0, 0, 0, 1, 1, 2]


def test_a_block_that_is_full_is_left_for_another(database: Database) -> None:
    with database.transaction():
        begin_block(database)
    first = _give(database, BLOCK - 1)
    assert first[0] % BLOCK == 1
    (last,) = _give(database)
    assert last % BLOCK == 0
    (following,) = _give(database)
    assert following % BLOCK == 1
    assert following != last + 1


def test_what_does_not_fit_into_a_block_gets_another_whole(database: Database) -> None:
    with database.transaction():
        begin_block(database)
    _give(database, BLOCK - 5)
    many = _give(database, 10)
    assert many[0] % BLOCK == 1


@pytest.mark.parametrize("id", [7, SPAN + 7, 10**9 + 7])
def test_only_numbers_that_are_counted_here_raise_those_to_come(database: Database, id: int) -> None:
    with database.transaction():
        raise_ids(database, "customer", id)
    assert _give(database) == [8 if id == 7 else 1]
