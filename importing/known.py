"""The recorded rows that a file is compared with, and the comparison of names."""

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

    @property
    def is_credit(self) -> bool:
        """Whether it is a credit, which has at least 1 cent."""
        return self.cents < 0


Content = tuple[int, date, int]  # customer, day, and cents, which are negative for a credit


class Known(Protocol):
    """Looks up what is recorded."""

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """The ids of an account's customers with one of these names, or one that differs in case or blanks.

        The keys are the names in the form for comparing (`normal`).
        """
        ...

    def referenced(self, account_id: Id, references: Collection[str]) -> list[KnownRow]:
        """The account's invoices and credits that have one of these references."""
        ...

    def like(self, account_id: Id, wanted: Collection[Content]) -> list[KnownRow]:
        """The account's invoices and credits that have one of these contents; `wanted` isn't empty."""
        ...


def normal(name: str) -> str:
    """A name in the form for comparing: trimmed, and with one form of its accents (NFC)."""
    return unicodedata.normalize("NFC", name.strip())


def listed(ids: Collection[int]) -> str:
    """Several ids, as text for a sentence."""
    *others, last = map(str, ids)
    return f"{', '.join(others)} and {last}"
