"""Updates of customers and accounts: the highest revision counts, in whatever order they come.

Two databases may give the same revision at once. Then the greater payload counts everywhere. An update may
come before its creation.
"""

from collections.abc import Collection
from datetime import date
from typing import Literal, TypeVar

from msgspec import UNSET, Struct, structs

from tally.store.database import Database
from tally.store.errors import Changed

Kind = Literal["customer", "account"]
Revisions = Collection[int] | None
"""The revisions that a row may have for a change to be made to it; None: any."""

SCHEMA = """
CREATE TABLE updated (
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
"""


def is_newest(database: Database, kind: Kind, id: int, revision: int, payload: bytes) -> bool:
    """Note an update if it is the newest so far, and answer whether it is. In the open transaction."""
    database.execute(
        "INSERT INTO updated VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET revision = excluded.revision, payload = excluded.payload"
        " WHERE (excluded.revision, excluded.payload) > (revision, payload)",
        (kind, id, revision, payload),
    )
    return bool(database.changes())


def is_updated(database: Database, kind: Kind, id: int) -> bool:
    """Whether an update of that row has come."""
    found = database.value("SELECT 1 FROM updated WHERE kind = ? AND id = ?", (kind, id))
    return found is not None


Row = TypeVar("Row", bound=Struct)


def insist_on_revision(kind: str, id: int, revision: int, wanted: Revisions) -> None:
    """Raise Changed unless the row's revision is one of the `wanted` ones, if any are given."""
    if wanted is not None and revision not in wanted:
        raise Changed(kind, id, revision)


def told(row: Row, by: Struct) -> Row:
    """The row with what an event or a change tells of its fields. UNSET tells nothing."""
    values = {n: v for n, v in structs.asdict(by).items() if n in row.__struct_fields__ and v is not UNSET}
    days = {name: str(value) for name, value in values.items() if isinstance(value, date)}
    return structs.replace(row, **values | days)


def changed(row: Row, change: Struct, revision: int) -> Row:
    """The row with the change and the next revision; the same row if nothing differs."""
    after = told(row, change)
    return row if after == row else structs.replace(after, revision=revision + 1)
