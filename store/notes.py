"""What people should know of a database for good, that is no fault: `status` tells it."""

import msgspec

from tally.store.database import Database

_NOTED = "renumbered"  # in meta, as JSON: the first thing that was noted so


def note(database: Database, text: str) -> None:
    """Note a sentence, once. In the transaction that is open."""
    noted = told(database)
    if text not in noted:
        database.set_meta(_NOTED, msgspec.json.encode([*noted, text]).decode())


def told(database: Database) -> list[str]:
    """All that was noted, the oldest first."""
    return msgspec.json.decode(database.meta(_NOTED) or "[]", type=list[str])
