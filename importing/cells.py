"""Dates and amounts as other programs write them. Nothing is guessed: doubtful cells are refused."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache

from tally.events import MAX_CENTS
from tally.http.exports import meant

_TIME = r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?"
_ISO = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}){_TIME}", re.ASCII)
_SYMBOLS = "$€£"
_BLANKS = r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]"  # between thousands, or before a symbol
_SIGNED = re.compile(
    rf"(?P<before>[-\u2212]?){_BLANKS}*(?P<symbol>[{_SYMBOLS}]?){_BLANKS}*(?P<inner>[-\u2212]?)"
    rf"(?P<digits>[0-9](?:.*[0-9])?)"
    rf"{_BLANKS}*(?P<after>[-\u2212]?){_BLANKS}*(?P<last>[{_SYMBOLS}]?)"
)
_LONGEST = 50  # characters; in a longer text, the pattern would take minutes
_MOST_DIGITS = 15
_RUN_TOGETHER = re.compile("(?:%[dmyYj]){2,}")


def dates(format: str | None) -> Callable[[str], date]:
    """A function that reads dates in a format of strptime, or else of ISO 8601 with or without a time.

    It raises ValueError. Parts of a date without a mark between them need all their digits: of 01112024, a
    spreadsheet may leave 1112024.
    """
    together = _RUN_TOGETHER.search(format or "")
    expected = ", YYYY-MM-DD" if format is None else f" like {date(2024, 1, 31).strftime(format)}"

    @cache  # a file has many rows of few days
    def read(raw: str) -> date:
        try:
            if format is not None:
                found = datetime.strptime(raw, format).date()
                if together and found.strftime(together[0]) not in raw:
                    raise ValueError
                return found
            iso = _ISO.fullmatch(raw)
            return date.fromisoformat(iso[1] if iso else "")
        except ValueError:
            raise ValueError(f"Expected a date{expected}") from None

    return read


def date_format(format: str) -> str:
    """The format, if it has day, month and year, each once. Raises ValueError."""
    some = [date(2013, 11, 28), date(2024, 1, 2)]
    with suppress(ValueError, re.error):  # re.error if a part is there twice
        if all(datetime.strptime(each.strftime(format), format).date() == each for each in some):
            return format
    raise ValueError("Expected day, month and year, such as %d.%m.%Y or %m/%d/%y")


class Amounts:
    """Reads amounts with the decimal mark `decimal`; with `rounds`, even amounts with parts of cents."""

    def __init__(self, decimal: str = ".", rounds: bool = False) -> None:
        other = "," if decimal == "." else r"\."
        mark = re.escape(decimal)
        separator = rf"(?P<separator>{other}|{_BLANKS}|['\u2019])"
        thousands = rf"[1-9][0-9]{{0,2}}{separator}[0-9]{{3}}(?:(?P=separator)[0-9]{{3}})*"
        self._number = re.compile(rf"(?P<whole>{thousands}|[0-9]+)(?:{mark}(?P<part>[0-9]+))?", re.ASCII)
        self._plain = re.compile(rf"([0-9]{{1,9}})(?:{mark}([0-9]{{1,2}}))?", re.ASCII)
        self._rounds = rounds
        self._example = "29.33" if decimal == "." else "29,33"
        self.symbols: set[str] = set()
        """The currency symbols that were seen."""

    def cents(self, raw: str) -> int:
        """The amount in cents, perhaps negative. Raises ValueError."""
        if plain := self._plain.fullmatch(raw):  # nearly all are
            return int(plain[1]) * 100 + int((plain[2] or "0").ljust(2, "0"))
        if len(raw) > _LONGEST:
            raise self._none()
        negative, digits = self._unsigned(meant(raw))
        number = self._number.fullmatch(digits)
        if number is None:
            raise self._none()
        whole = re.sub("[^0-9]", "", number["whole"])
        part = (number["part"] or "").rstrip("0")
        if len(whole) + len(part) > _MOST_DIGITS:
            raise self._none()
        if len(part) > 2 and not self._rounds:
            raise ValueError("Expected at most two decimals (--round rounds them)")
        exact = Decimal(f"{whole}.{part or 0}") * 100
        cents = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))
        if cents > MAX_CENTS:
            raise self._none()
        return -cents if negative else cents

    def _unsigned(self, raw: str) -> tuple[bool, str]:
        """Whether it is negative, by a minus or parentheses; and its digits, without sign and symbol."""
        bare = raw
        in_parentheses = raw.startswith("(") and raw.endswith(")")
        if in_parentheses:
            bare = raw[1:-1].strip()
        elif (found := re.fullmatch(rf"([{_SYMBOLS}]){_BLANKS}*\((.+)\)", raw)) is not None:
            in_parentheses, bare = True, found[1] + found[2].strip()
        signed = _SIGNED.fullmatch(bare)
        if signed is None:
            raise self._none()
        minuses = sum(bool(signed[name]) for name in ("before", "inner", "after")) + in_parentheses
        symbols = signed["symbol"] + signed["last"]
        if minuses > 1 or len(symbols) > 1:
            raise self._none()
        self.symbols.update(symbols)
        return minuses == 1, signed["digits"]

    def _none(self) -> ValueError:
        return ValueError(f"Expected an amount such as {self._example}, at most {MAX_CENTS // 100}")
