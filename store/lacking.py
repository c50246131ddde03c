"""Own events that a database lost when it was put back: no other copy of them was left."""

from collections.abc import Mapping, Sequence

import msgspec

from tally.store import ranges
from tally.store.database import Database
from tally.store.ranges import Range

_NOTED = "not_taken_back"  # in meta, by source


def lacking_of(database: Database) -> dict[str, list[Range]]:
    """By source: the own events that a database lacks since it was put back."""
    noted = database.meta(_NOTED) or "{}"
    return {source: ranges.parsed(text) for source, text in msgspec.json.decode(noted).items()}


def told(database: Database) -> list[str]:
    """The same in words, a sentence for each source."""
    remedy = "; `rebuild accounts` leaves it out" if database.service == "customers" else ""
    return [
        f"{ranges.count(lacking):,} events of {source} are nowhere any more since {database.path.name} was "
        f"put back: numbers {ranges.shown(lacking[:5])}{' and others' if lacking[5:] else ''}. What they "
        f"told still counts where it was applied{remedy}"
        for source, lacking in lacking_of(database).items()
    ]


def note_lacking(database: Database, source: str, lacking: Sequence[Range]) -> None:
    """Note more of them, in the open transaction."""
    if lacking:
        noted = lacking_of(database)
        noted[source] = ranges.merge([*noted.get(source, []), *lacking])
        _note(database, noted)


def note_found(database: Database, source: str, found: Sequence[Range]) -> bool:
    """Note that these are here now; answers whether any was lacking. In the open transaction."""
    noted = lacking_of(database)
    if not ranges.both(noted.get(source, []), found):
        return False
    noted[source] = ranges.without(noted[source], found)
    _note(database, {each: left for each, left in noted.items() if left})
    return True


def _note(database: Database, noted: Mapping[str, Sequence[Range]]) -> None:
    shown = {source: ranges.shown(lacking) for source, lacking in noted.items()}
    database.set_meta(_NOTED, msgspec.json.encode(shown).decode())
