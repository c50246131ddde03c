"""Which update of a customer or an account counts: in whatever order they come, the highest revision.

Of two with the same revision, made by two databases at once, it is the one with the greater payload: so all
agree. An update that comes before the creation that it belongs to is known by it already.
"""

from typing import Literal

from tally.store.database import Database

Kind = Literal["customer", "account"]

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
    """Whether an update counts, among all that came; from now on it does, if so. In the open transaction."""
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
