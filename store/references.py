"""References: names of invoices and credits in users' own systems. Unique by account and kind.

The code that records rows checks this in the same transaction. An SQLite index can't, because customers move
between accounts.
"""

from collections.abc import Sequence
from typing import get_args

from msgspec import UNSET

from tally.store import parts
from tally.store.database import Database, listed
from tally.store.errors import MoveRefused, ReferenceTaken, RepeatedReference
from tally.store.parts import Table
from tally.store.records import NewCredit, NewInvoice


def schema(table: Table) -> str:
    """The statement that makes the index of references; most rows have none."""
    return f"CREATE INDEX {table}_by_reference ON {table} (reference) WHERE reference IS NOT NULL;"


def insist_on_new(database: Database, table: Table, new: Sequence[NewInvoice | NewCredit]) -> None:
    """Check the references of new rows, before they are recorded.

    Raises ReferenceTaken, or RepeatedReference if two of them have the same.
    """
    named: dict[int, NewInvoice | NewCredit] = {
        index: each for index, each in enumerate(new) if each.reference is not UNSET
    }
    if not named:
        return
    asked = listed([index, int(each.customer_id), str(each.reference)] for index, each in named.items())
    [accounts, taken] = [database.rows(sql, (asked,)) for sql in (_ACCOUNTS, _taken(table))]
    account_of, first, repeated = dict(accounts), dict[tuple[int, object], int](), []
    for index, each in named.items():
        before = first.setdefault((account_of[index], each.reference), index)
        if before != index:
            repeated.append((index, before))
    if repeated:
        raise RepeatedReference(repeated)
    if taken:
        raise ReferenceTaken(table, [(index, reference, id) for index, reference, id in taken])


def holders(database: Database, table: Table, customer_id: int, reference: str) -> list[int]:
    """The ids of the rows with that reference in the customer's account."""
    asked = listed([[0, int(customer_id), reference]])
    return [id for *_, id in database.rows(_taken(table), (asked,))]


def insist_on_move(database: Database, customer_id: int, account_id: int) -> None:
    """Raise MoveRefused if another invoice or credit of the account has a reference of the customer's."""
    for table in get_args(Table):
        sql = (
            f"{parts.every_part(table)} SELECT other.reference, {table}.id, other.id"
            f" FROM {parts.rows_of(table)}"
            f" CROSS JOIN {table} AS other INDEXED BY {table}_by_reference"
            f" ON other.reference = {table}.reference"
            " JOIN customer ON customer.id = other.customer_id"
            f" WHERE {table}.customer_id = ? AND account_id = ? AND other.id <> {table}.id LIMIT 1"
        )
        for reference, own, other in database.rows(sql, (customer_id, account_id)):
            raise MoveRefused(
                f"The {table} {own} of the customer {customer_id} has the reference {reference!r}, and so"
                f" has the {table} {other} of the account {account_id}"
            )


_EACH = "SELECT value ->> 0 AS place, value ->> 1 AS customer, value ->> 2 AS reference FROM json_each(?)"
_ACCOUNTS = f"SELECT place, account_id FROM ({_EACH}) CROSS JOIN customer ON id = customer"


def _taken(table: Table) -> str:
    return (
        f"SELECT place, new.reference, known.id FROM ({_EACH}) AS new"
        f" CROSS JOIN {table} AS known INDEXED BY {table}_by_reference ON known.reference = new.reference"
        " JOIN customer AS theirs ON theirs.id = known.customer_id"
        " JOIN customer AS ours ON ours.id = new.customer AND ours.account_id = theirs.account_id"
        " ORDER BY place"
    )
