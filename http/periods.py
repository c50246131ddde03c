"""Revenue by month, quarter or year: the periods that a query asks for, and their sums."""

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from tally.store.months import Month

By = Literal["month", "quarter", "year"]


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

    @property
    def name(self) -> str | None:
        """The period."""
        return next(each for each in (self.month, self.quarter, self.year) if each is not UNSET)


PERIOD = "^[0-9]{4}(-(0[1-9]|1[0-2]|Q[1-4]))?$"

_PERIOD = re.compile(r"([0-9]{4})(?:-(?:Q([1-4])|(0[1-9]|1[0-2])))?")


class _Kind(NamedTuple):
    """A kind of period: how many months it has, and how it is written."""

    months: int
    shown: Callable[[int, int], str]


_KINDS: dict[str, _Kind] = {
    "month": _Kind(1, "{:04}-{:02}".format),
    "quarter": _Kind(3, "{:04}-Q{}".format),
    "year": _Kind(12, lambda year, _: f"{year:04}"),
}


class PeriodQuery:
    """The periods from that of one month to that of another; None where there is no bound."""

    def __init__(self, by: By, first: int | None, last: int | None) -> None:
        self.by = by
        self._kind = _KINDS[by]
        self._first, self._last = (
            None if month is None else month // self._kind.months for month in (first, last)
        )

    def answer(self, months: Iterable[Month]) -> list[PeriodRevenue]:
        """The periods asked for, ascending, none left out between the first and the last.

        Revenue without a month comes last. It is left out if a beginning or an end is asked for.
        """
        sums: dict[int, tuple[int, int, int]] = {}
        rest = []
        for month, *figures in months:
            if month is None:
                rest.append(self._period(None, *figures))
                continue
            number = self._number(*divmod(month, 100))
            cents, invoices, credits = sums.get(number, (0, 0, 0))
            sums[number] = cents + figures[0], invoices + figures[1], credits + figures[2]
        if not sums:
            return [] if self._is_bounded else rest
        first = min(sums) if self._first is None else self._first
        last = max(sums) if self._last is None else self._last
        periods = [self._period(number, *sums.get(number, (0, 0, 0))) for number in range(first, last + 1)]
        return periods if self._is_bounded else periods + rest

    @property
    def _is_bounded(self) -> bool:
        return self._first is not None or self._last is not None

    def _number(self, year: int, month: int) -> int:
        """The number of the period that has that month."""
        return (year * 12 + month - 1) // self._kind.months

    def _period(self, number: int | None, cents: int, invoices: int, credits: int) -> PeriodRevenue:
        if number is None:
            name = None
        else:
            year, place = divmod(number, 12 // self._kind.months)
            name = self._kind.shown(year, place + 1)
        return PeriodRevenue(cents, invoices, credits, **{self.by: name})


def first_month_of(raw: str) -> int:
    """The first month of a period, counted from the year 0 on. Raises ValueError for what is no period."""
    return _months_of(raw)[0]


def last_month_of(raw: str) -> int:
    """The last month of a period, counted from the year 0. Raises ValueError if it is no period."""
    return _months_of(raw)[1]


def _months_of(raw: str) -> tuple[int, int]:
    found = _PERIOD.fullmatch(raw)
    if found is None:
        raise ValueError("Expected a month, a quarter or a year, such as 1997-03, 1997-Q1 or 1997")
    year, quarter, month = found.groups()
    first = int(year) * 12
    if month:
        return first + int(month) - 1, first + int(month) - 1
    if quarter:
        return first + int(quarter) * 3 - 3, first + int(quarter) * 3 - 1
    return first, first + 11
