"""The index by which a customer's invoices are found, in parts.

An index of the customers' ids alone would have each new invoice change another page of a large file: to be
logged, synced and checkpointed, page by page. By parts of 262,144 ids each, all that is new goes to the few
pages of the newest part, and who looks for a customer's invoices looks into each part.
"""

from typing import Any

from tally.store.database import Database

_SHIFT = 18
_PART = f"id >> {_SHIFT}"

SCHEMA = f"CREATE INDEX invoice_by_customer ON invoice ({_PART}, customer_id);"

# To be put before a query of INVOICES.
EVERY_PART = (
    "WITH RECURSIVE part (number) AS (SELECT 0 UNION ALL"
    f" SELECT number + 1 FROM part WHERE number < (SELECT max(id) >> {_SHIFT} FROM invoice))"
)
# Invoices by their customers, in no order. "CROSS" keeps SQLite from turning the join round.
INVOICES = f"part CROSS JOIN invoice ON invoice.{_PART} = part.number"
IN_PART = f"invoice.{_PART} = :part"


def page(
    database: Database, sql: str, bindings: dict[str, Any], bound: int, limit: int, descending: bool = False
) -> list[tuple[Any, ...]]:
    """Up to `limit` rows with ids beyond `bound`, in order, part by part.

    `sql` asks for those of one part: it names IN_PART, and `:bound` and `:limit` as it should.
    """
    newest: int = database.value("SELECT max(id) FROM invoice") or 0
    parts = range(max(0, bound) >> _SHIFT, (newest >> _SHIFT) + 1)
    if descending:
        parts = range(min(bound, newest) >> _SHIFT, -1, -1)
    found: list[tuple[Any, ...]] = []
    for part in parts:
        here = {**bindings, "part": part, "bound": bound, "limit": limit - len(found)}
        found += database.rows(sql, here)
        if len(found) == limit:
            break
    return found
