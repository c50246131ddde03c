"""Permanent notes about a database for people, which are no faults: `status` shows them."""

import msgspec

from tally.store.database import Database

_NOTED = "renumbered"  # in meta, as JSON; named after the first kind of note


def note(database: Database, text: str) -> None:
    """Note a sentence, once. In the open transaction."""
    noted = told(database)
    if text not in noted:
        database.set_meta(_NOTED, msgspec.json.encode([*noted, text]).decode())


def told(database: Database) -> list[str]:
    """All notes, the oldest first."""
    return msgspec.json.decode(database.meta(_NOTED) or "[]", type=list[str])
