"""Customers are found by the words of their names, in whatever script, and however many have them."""

import time
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import pytest

from tally.events import Id
from tally.store.customer_list import CustomerList, CustomerQuery
from tally.store.customers import Customers, open_database
from tally.store.database import Database
from tally.store.records import NewCustomer

NAMES = (
    *("Ade\u0329bayo Og\u0301un", "Андрей", "Андреи", "Μάρθα", "O'Brien", "Ǽthel", "佐藤 花子"),
    # In two forms each: with letters and marks in one, as they are typed, and apart, as macOS writes them.
    *(normalize(form, name) for name in ("йод", "한글") for form in ("NFC", "NFD")),
    *("\u0958\u0932\u092e", "\u0915\u093c\u0932\u092e"),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path)
    with database.transaction():
        Customers(database).create_customers([NewCustomer(name, Id(1)) for name in NAMES])
    yield database
    database.close()


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("Ade\u0329", {0}),  # Yoruba: there is no letter that has this mark
        ("ade\u0329ba og", {0}),
        ("Андреи", {2}),
        ("андрей", {1}),
        ("μάρ", {3}),
        ("obrien", {4}),
        ("Ǽ", {5}),
        ("花", {6}),
        *((name, {7, 8}) for name in ("й", *NAMES[7:9])),
        ("и", set()),
        *((name, {9, 10}) for name in ("한", *NAMES[9:11])),
        *((name, {11, 12}) for name in NAMES[11:13]),
        ("\u0329", set()),
    ],
)
@pytest.mark.parametrize("few", [0, 100])
def test_a_few_and_many_are_found_alike(database: Database, search: str, found: set[int], few: int) -> None:
    query = CustomerQuery(limit=10, order="name", search=search)
    page = CustomerList(database, few=few).page(query)
    assert {NAMES.index(each.name) for each in page} == found


def test_by_name_the_next_match_may_be_far_away(database: Database) -> None:
    """All customers up to there were read one by one: half a minute for a million."""
    with database.transaction():
        new = [NewCustomer(name, Id(1)) for name in ["Anna"] * 20_000 + ["Zora"] * 10]
        Customers(database).create_customers(new)
    customers = CustomerList(database, few=0)

    def seconds(search: str) -> float:
        began = time.thread_time()
        assert len(customers.page(CustomerQuery(limit=10, order="name", search=search))) == 10
        return time.thread_time() - began

    assert seconds("zora") < 5 * seconds("anna")
