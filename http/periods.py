"""Revenue by month, quarter or year: the periods that a query asks for, and their sums."""

import re
from collections.abc import Iterable
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tally.store.months import Month

By = Literal["month", "quarter", "year"]
PERIOD = "^[0-9]{4}(-(0[1-9]|1[0-2]|Q[1-4]))?$"


class PeriodRevenue(Struct, frozen=True):
    """Revenue of a month (`1997-03`), a quarter (`1997-Q1`) or a year (`1997`), whichever was asked for.

    The period is null for revenue without a known month. `invoices` and `credits` are counts.
    """

    revenue_cents: int
    invoices: int
    credits: int
    month: str | UnsetType | None = UNSET
    quarter: str | UnsetType | None = UNSET
    year: str | UnsetType | None = UNSET


_KINDS: dict[By, tuple[int, str]] = {
    "month": (1, "{:04}-{:02}"),
    "quarter": (3, "{:04}-Q{}"),
    "year": (12, "{:04}"),
}
"""How many months a period has, and how it is written."""


def periods_of(months: Iterable[Month], by: By, first: int | None, last: int | None) -> list[PeriodRevenue]:
    """The periods from that of the month `first` to that of `last`, ascending; None where there is no bound.

    All between them are there. Revenue without a month comes last, and is left out if there is a bound.
    """
    length, form = _KINDS[by]
    sums: dict[int, tuple[int, int, int]] = {}
    rest = []
    for month, cents, invoices, credits in months:
        if month is not None:
            year, place = divmod(month, 100)
            number = (year * 12 + place - 1) // length
            before = sums.get(number, (0, 0, 0))
            sums[number] = before[0] + cents, before[1] + invoices, before[2] + credits
        elif first is None and last is None:
            rest.append(PeriodRevenue(cents, invoices, credits, **{by: None}))
    if not sums:
        return rest
    begin = min(sums) if first is None else first // length
    end = max(sums) if last is None else last // length
    found = []
    for number in range(begin, end + 1):
        year, place = divmod(number, 12 // length)
        cents, invoices, credits = sums.get(number, (0, 0, 0))
        found.append(PeriodRevenue(cents, invoices, credits, **{by: form.format(year, place + 1)}))
    return found + rest


def months_of(raw: str) -> tuple[int, int]:
    """The first and the last month of a period, counted from the year 0. Raises ValueError if it is none."""
    if not re.fullmatch(PERIOD, raw):
        raise ValueError("Expected a month, a quarter or a year, such as 1997-03, 1997-Q1 or 1997")
    year, _, part = raw.partition("-")
    length = 3 if part.startswith("Q") else 1 if part else 12
    first = int(year) * 12 + (int(part.removeprefix("Q") or 1) - 1) * length
    return first, first + length - 1
