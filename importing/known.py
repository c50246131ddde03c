"""What is there already, as a file is compared with it, and when a name is the same as another."""

import unicodedata
from collections.abc import Collection
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


Content = tuple[int, date, int]  # customer, day, and cents, which are negative for a credit


class Known(Protocol):
    """Looks up what is there."""

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """The ids of an account's customers that have one of these names, or differ only in case or blanks.

        By their names as they are compared (`normal`).
        """
        ...

    def referenced(self, account_id: Id, references: Collection[str]) -> list[KnownRow]:
        """The account's invoices and credits that have one of these references."""
        ...

    def like(self, account_id: Id, wanted: Collection[Content]) -> list[KnownRow]:
        """The account's invoices and credits that have one of these contents."""
        ...


def normal(name: str) -> str:
    """A name as it is compared: trimmed, and with one way of writing its accents (NFC)."""
    return unicodedata.normalize("NFC", name.strip())


def alike(name: str) -> str:
    """What names have in common that differ in case or blanks alone."""
    return "".join(name.split()).casefold()
