"""What is there already, as a file is compared with it, and when a name is the same as another."""

import unicodedata
from collections.abc import Callable, Collection
from datetime import date
from typing import NamedTuple, Protocol

from tally.events import Id


class KnownRow(NamedTuple):
    """A recorded invoice, or a credit, whose cents are negative."""

    id: int
    customer_id: int
    date: date
    cents: int
    reference: str
    is_credit: bool


class Known(Protocol):
    """Looks up what is there."""

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """The ids of an account's customers that have one of these names, or differ only in case or blanks.

        By their names as they are compared (`normal`).
        """
        ...

    def rows(
        self,
        account_id: Id,
        is_wanted: Callable[[KnownRow], bool],
        first: date | None = None,
        last: date | None = None,
    ) -> list[KnownRow]:
        """The wanted ones of an account's invoices and credits between two days."""
        ...


def normal(name: str) -> str:
    """A name as it is compared: trimmed, and with one way of writing its accents (NFC)."""
    return unicodedata.normalize("NFC", name.strip())


def alike(name: str) -> str:
    """What names have in common that differ in case or blanks alone."""
    return "".join(name.split()).casefold()
