"""Own events that a database lost when it was put back: no other copy of them was left."""

from collections.abc import Mapping, Sequence

import msgspec

from tally.store import ranges
from tally.store.database import Database
from tally.store.ranges import Range

_NOTED = "not_taken_back"  # in meta, by source
_LEFT_OUT = "left_out"  # in meta, by source


def lacking_of(database: Database, key: str = _NOTED) -> dict[str, list[Range]]:
    """By source: the own events that a database lacks since it was put back."""
    noted = database.meta(key) or "{}"
    return {source: ranges.parsed(text) for source, text in msgspec.json.decode(noted).items()}


def left_out_of(database: Database) -> dict[str, list[Range]]:
    """By source: the own events that can't be applied, as they follow from one that is lacking."""
    return lacking_of(database, _LEFT_OUT)


def note_left_out(database: Database, source: str, left_out: Sequence[Range]) -> None:
    """Note the events of a source that are left out: these, and no others. In the open transaction."""
    noted = left_out_of(database)
    if left_out or source in noted:
        _note(database, {**noted, source: left_out}, _LEFT_OUT)


def told(database: Database) -> list[str]:
    """The same in words, a sentence for each source."""
    remedy = "; `rebuild accounts` leaves it out" if database.service == "customers" else ""
    file = database.path.name
    every = (
        (lacking_of(database), f"are nowhere any more since {file} was put back"),
        (
            left_out_of(database),
            f"can't be applied in {file}: they follow from some that are nowhere any more",
        ),
    )
    return [
        f"{ranges.count(lost):,} events of {source} {what}: numbers {ranges.shown(lost[:5])}"
        f"{' and others' if lost[5:] else ''}. What they told still counts where it was applied{remedy}"
        for noted, what in every
        for source, lost in noted.items()
    ]


def note_lacking(database: Database, source: str, lacking: Sequence[Range]) -> None:
    """Note more of them, in the open transaction."""
    if lacking:
        noted = lacking_of(database)
        noted[source] = ranges.merge([*noted.get(source, []), *lacking])
        _note(database, noted)


def note_found(database: Database, source: str, found: Sequence[Range]) -> None:
    """Note that these are here now. In the open transaction."""
    noted = lacking_of(database)
    noted[source] = ranges.without(noted[source], found)
    _note(database, noted)


def _note(database: Database, noted: Mapping[str, Sequence[Range]], key: str = _NOTED) -> None:
    shown = {source: ranges.shown(lacking) for source, lacking in noted.items() if lacking}
    database.set_meta(key, msgspec.json.encode(shown).decode())
