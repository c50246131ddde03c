"""The history of accounts, customers and invoices: who recorded and changed them, when, and their values.

Most customers and invoices never change, and are themselves the record of how they began. The first change
notes that here. Of accounts every event is noted, whatever node it came from.
"""

from typing import Any, Literal

import msgspec

from tally.events import Moment
from tally.store.database import Database

Kind = Literal["account", "customer", "invoice"]

# The user who recorded a row is in the row itself.
SCHEMA = """
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    event TEXT NOT NULL,
    at TEXT NOT NULL,
    by_user TEXT,
    before TEXT,
    after TEXT
) STRICT;
CREATE INDEX history_of ON history (row_id, kind);
"""


class Happening(msgspec.Struct, frozen=True):
    """Something that happened to a row: `event` is its type, `by` the signed-in user who did it.

    `before` and `after` are the row then, None where there was none.
    """

    event: str
    at: Moment
    by: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def note(database: Database, kind: Kind, id: int, beginning: Happening, change: Happening) -> None:
    """Note a change, and with the first one how the row began. In the open transaction."""
    is_known = database.value("SELECT 1 FROM history WHERE row_id = ? AND kind = ? LIMIT 1", (id, kind))
    every = [change] if is_known else [beginning, change]
    rows = [(kind, id, e.event, e.at, e.by, _text(e.before), _text(e.after)) for e in every]
    database.insert("history (kind, row_id, event, at, by_user, before, after)", rows)


def note_once(database: Database, kind: Kind, id: int, told: Happening) -> None:
    """Note what an event told of a row. Events may come in any order. In the open transaction.

    May be repeated, also without the user: then the one that was told counts. A row is deleted once: of
    several times the first counts.
    """
    text = _text(told.after)
    database.execute(
        "UPDATE history SET by_user = coalesce(by_user, ?1), at = min(at, ?2)"
        " WHERE row_id = ?3 AND kind = ?4 AND event = ?5 AND after IS ?6 AND (after IS NULL OR at = ?2)",
        (told.by, told.at, id, kind, told.event, text),
    )
    if not database.changes():
        row = (kind, id, told.event, told.at, told.by, text)
        database.insert("history (kind, row_id, event, at, by_user, after)", [row])


def of(database: Database, kind: Kind, id: int) -> list[Happening]:
    """The notes about a row, oldest first; empty for a row that never changed."""
    sql = "SELECT event, at, by_user, before, after FROM history WHERE row_id = ? AND kind = ? ORDER BY id"
    rows = database.rows(sql, (id, kind))
    return [Happening(event, at, by, _row(before), _row(after)) for event, at, by, before, after in rows]


def _text(row: dict[str, Any] | None) -> str | None:
    return None if row is None else msgspec.json.encode(row, enc_hook=str).decode()


def _row(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
