"""Finds, by indexes, rows of an account that are like something to be recorded.

In the open transaction or snapshot. Rows are id, customer, day, cents and reference.
"""

from collections.abc import Collection
from datetime import date

from tally.store import parts
from tally.store.database import Database, listed, numbers
from tally.store.parts import Table
from tally.store.records import CENTS_AND_DAY

Row = tuple[int, int, str, int, str | None]


def customers_named(database: Database, account_id: int, names: Collection[str]) -> list[tuple[str, int]]:
    """Name and id of an account's customers with one of these names, ignoring the case of A to Z."""
    return database.rows(
        "SELECT DISTINCT name, customer.id FROM json_each(?) AS wanted CROSS JOIN customer"
        " INDEXED BY customer_by_name ON name = wanted.value COLLATE NOCASE"
        " WHERE account_id = ? ORDER BY customer.id",
        (listed(map(str, names)), account_id),
    )


def referenced(database: Database, table: Table, account_id: int, references: Collection[str]) -> list[Row]:
    """An account's invoices or credits that have one of these references."""
    return database.rows(
        f"SELECT {_columns(table)} FROM json_each(?) AS wanted CROSS JOIN {table}"
        f" INDEXED BY {table}_by_reference ON reference = wanted.value"
        " JOIN customer ON customer.id = customer_id WHERE account_id = ?",
        (listed(map(str, references)), account_id),
    )


def of_customers(
    database: Database, table: Table, customers: Collection[int], first: date, last: date
) -> list[Row]:
    """These customers' invoices or credits between two days, both included.

    Takes time in proportion to all of these customers' rows.
    """
    _, day = CENTS_AND_DAY[table]
    return database.rows(
        f"{parts.every_part(table)} SELECT {_columns(table)} FROM part CROSS JOIN carray(?) AS wanted"
        f" CROSS JOIN {parts.joined(table)} AND customer_id = wanted.value"
        f" WHERE {day} BETWEEN ? AND ?",
        (numbers(sorted(customers)), str(first), str(last)),
    )


def _columns(table: Table) -> str:
    cents, day = CENTS_AND_DAY[table]
    return f"{table}.id, customer_id, {day}, {cents}, reference"
