"""The index by which a customer's invoices and credits are found, in parts.

With an index by customer alone, nearly every new invoice would change another page, and each page is logged,
synced and copied. With parts of 262,144 ids each, new invoices change a few pages of the newest part. Finding
a customer's invoices takes a lookup in each part. There may be wide gaps between the parts: a database that
goes on under another name draws its numbers from blocks.

It saves 10 % from 100,000 invoices on (12.3 µs to record one of a batch, 13.6 by customer alone), and half at
1,000,000 (12 and 23): `python -m benchmarks.without parts`.
"""

from typing import Any, Literal

from tally.store.database import Database

Table = Literal["invoice", "credit"]
TABLES: tuple[Table, ...] = ("invoice", "credit")

_SHIFT = 18
_PART = f"id >> {_SHIFT}"


def schema(table: Table) -> str:
    """The statement that makes the index."""
    return f"CREATE INDEX {table}_by_customer ON {table} ({_PART}, customer_id);"


def put_off(draft: Database) -> None:
    """Drop these indexes in an empty draft, until `make_up`. An event then costs a seventh less."""
    for table in TABLES:
        draft.execute(f"DROP INDEX {table}_by_customer")


def make_up(draft: Database) -> None:
    """Make the indexes that were put off. May be repeated."""
    for table in TABLES:
        draft.execute(schema(table).replace("INDEX", "INDEX IF NOT EXISTS", 1))


def every_part(table: Table) -> str:
    """The clause to put before a query of `rows_of`."""
    return (
        f"WITH RECURSIVE part (number) AS (SELECT min(id) >> {_SHIFT} FROM {table} UNION ALL"
        f" SELECT (SELECT min(id) >> {_SHIFT} FROM {table} WHERE id >= (number + 1) << {_SHIFT})"
        " FROM part WHERE number IS NOT NULL)"
    )


def rows_of(table: Table) -> str:
    """Rows by their customers, unordered. "CROSS" keeps SQLite from swapping the join."""
    return f"part CROSS JOIN {joined(table)}"


def joined(table: Table) -> str:
    """The rows of a part, to join after `part` and after the tables that choose customers.

    Without "INDEXED BY", SQLite may make an index of the whole table for a query of few customers.
    """
    return f"{table} INDEXED BY {table}_by_customer ON {table}.{_PART} = part.number"


def ids_of(database: Database, table: Table, customer_id: int, most: int) -> list[int]:
    """The ids of up to `most` rows of a customer."""
    if database.is_draft:
        make_up(database)
    sql = f"{every_part(table)} SELECT {table}.id FROM {rows_of(table)} WHERE customer_id = ? LIMIT ?"
    return [id for (id,) in database.rows(sql, (customer_id, most))]


def in_part(table: Table) -> str:
    """A condition of a query for `page`."""
    return f"{table}.{_PART} = :part"


def page(
    database: Database,
    table: Table,
    sql: str,
    bindings: dict[str, Any],
    bound: int,
    limit: int,
    descending: bool = False,
) -> list[tuple[Any, ...]]:
    """Up to `limit` rows with ids beyond `bound`, in order, part by part.

    `sql` is a query for one part: it must use `in_part`, `:bound` and `:limit`.
    """
    following = f"SELECT max(id) >> {_SHIFT} FROM {table} WHERE id < ?"
    if not descending:
        following = f"SELECT min(id) >> {_SHIFT} FROM {table} WHERE id > ?"
    found: list[tuple[Any, ...]] = []
    at = bound
    while len(found) < limit and (part := database.value(following, (at,))) is not None:
        here = {**bindings, "part": part, "bound": bound, "limit": limit - len(found)}
        found += database.rows(sql, here)
        at = part << _SHIFT if descending else ((part + 1) << _SHIFT) - 1
    return found
