"""Own events that a database lost when it was put back: no other copy of them was left."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tally.store import ranges
from tally.store.database import Database
from tally.store.ranges import Range


class Noted(NamedTuple):
    """Own events of a kind, noted in the database by source. `key` is in meta."""

    key: str

    def of(self, database: Database) -> dict[str, list[Range]]:
        """The events, by source."""
        noted = msgspec.json.decode(database.meta(self.key) or "{}")
        return {source: ranges.parsed(text) for source, text in noted.items()}

    def add(self, database: Database, source: str, more: Sequence[Range]) -> None:
        """Note more of them, in the open transaction."""
        if more:
            noted = self.of(database)
            self._keep(database, noted | {source: ranges.merge([*noted.get(source, []), *more])})

    def remove(self, database: Database, source: str, found: Sequence[Range]) -> None:
        """Note that these are not among them any more, in the open transaction."""
        noted = self.of(database)
        self._keep(database, noted | {source: ranges.without(noted[source], found)})

    def _keep(self, database: Database, noted: Mapping[str, Sequence[Range]]) -> None:
        shown = {source: ranges.shown(each) for source, each in noted.items() if each}
        database.set_meta(self.key, msgspec.json.encode(shown).decode())


LACKING = Noted("not_taken_back")
"""Those that the database lacks since it was put back."""
LEFT_OUT = Noted("left_out")
"""Those that can't be applied: they follow from one that is lacking, or another row has their number."""


def told(database: Database) -> list[str]:
    """Both in words, a sentence for each source."""
    remedy = "; `rebuild accounts` leaves it out" if database.service == "customers" else ""
    file = database.path.name
    every = (
        (LACKING, f"are nowhere any more since {file} was put back"),
        (
            LEFT_OUT,
            f"can't be applied in {file}: they follow from some that are nowhere any more, or another row "
            "has their number",
        ),
    )
    return [
        f"{ranges.count(lost):,} events of {source} {what}: numbers {ranges.shown(lost[:5])}"
        f"{' and others' if lost[5:] else ''}. What they told still counts where it was applied{remedy}"
        for noted, what in every
        for source, lost in noted.of(database).items()
    ]
