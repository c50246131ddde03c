"""A CSV file of purchases, read and judged row by row before anything of it is sent anywhere."""

import csv
import hashlib
import re
from array import array
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import msgspec

from tally.actors.logs import printable
from tally.events import MAX_CENTS
from tally.http.exports import meant
from tally.http.values import Name

BAD_ROWS_SHOWN = 20
DELIMITERS = (",", ";", "\t")  # which of them is found out from the header line

_LONGEST_LINE = 1024 * 1024  # bytes; without it, any large file would be read as one line
_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,2})?", re.ASCII)
_ROWS_BETWEEN_TELLING = 1000


class NoPurchaseFile(Exception):
    """The file can't be read as purchases at all; the message says why, and in which line."""


class Columns(NamedTuple):
    """What the columns are called in the header line."""

    customer: str = "customer"
    date: str = "purchase_date"
    amount: str = "amount"


class BadRow(NamedTuple):
    """A row that can't be imported. `line` is the one it begins in, counted from 1."""

    line: int
    reason: str


class Purchase(NamedTuple):
    """One good row; `customer` is the index of its name among the distinct ones."""

    customer: int
    date: date
    cents: int


class Purchases:
    """The good rows in the file's order, and each distinct customer once; 24 bytes a row."""

    def __init__(self) -> None:
        self.customers: list[str] = []
        self._customer, self._day, self._cents = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._cents)

    def append(self, purchase: Purchase) -> None:
        """Take one more."""
        self._customer.append(purchase.customer)
        self._day.append(purchase.date.toordinal())
        self._cents.append(purchase.cents)

    def part(self, start: int, stop: int) -> list[Purchase]:
        """Those from `start` to before `stop`, or to the last one."""
        parts = (column[start:stop] for column in (self._customer, self._day, self._cents))
        return [
            Purchase(customer, date.fromordinal(day), cents)
            for customer, day, cents in zip(*parts, strict=True)
        ]


class PurchaseFile(NamedTuple):
    """What was found in a file: `digest` is the SHA-256 of its bytes, `bad` the first of `bad_count` rows."""

    digest: str
    delimiter: str
    purchases: Purchases
    bad: list[BadRow]
    bad_count: int


def read(
    file: BinaryIO, columns: Columns, delimiter: str | None, on_rows: Callable[[int], object]
) -> PurchaseFile:
    """Read to the end, telling `on_rows` of progress. Raises NoPurchaseFile.

    UTF-8, with a byte order mark or without; lines may end with CRLF.
    """
    digest = hashlib.sha256()
    lines = _lines(file, digest.update)
    header = next(lines, "").removeprefix("\ufeff")
    delimiter = delimiter or _delimiter(header, columns)
    reader = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
    judge = _Judge(next(reader, []), columns)
    bad: list[BadRow] = []
    bad_count = 0
    count = 0
    for count, (line, row) in enumerate(_rows(reader), 1):
        try:
            judge.take(row)
        except ValueError as error:
            bad_count += 1
            if len(bad) < BAD_ROWS_SHOWN:
                bad.append(BadRow(line, str(error)))
        if count % _ROWS_BETWEEN_TELLING == 0:
            on_rows(count)
    on_rows(count)
    return PurchaseFile(digest.hexdigest(), delimiter, judge.purchases, bad, bad_count)


def _lines(file: BinaryIO, on_bytes: Callable[[bytes], object]) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        if len(line) == _LONGEST_LINE:
            raise NoPurchaseFile(f"line {number}: is longer than {_LONGEST_LINE} bytes; is this a CSV file?")
        on_bytes(line)
        yield line.decode(errors="surrogateescape")  # what isn't UTF-8 makes a bad row, see _Judge


def _delimiter(header: str, columns: Columns) -> str:
    """The one that the header line has all columns with; there can't be two."""
    for delimiter in DELIMITERS:
        if set(columns) <= set(_header(next(csv.reader([header], delimiter=delimiter), []))):
            return delimiter
    return DELIMITERS[0]


def _header(row: list[str]) -> list[str]:
    return [name.strip() for name in row]


def _rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows with the number of the line that each begins in; empty lines are none."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:  # where the next row begins is anybody's guess
            raise NoPurchaseFile(f"line {line}: is no CSV from here on: {error}") from None
        if row is None:
            return
        if row:
            yield line, row


class _Judge:
    """Takes good rows in, and says what is wrong with the others."""

    def __init__(self, header: list[str], columns: Columns) -> None:
        names = _header(header)
        for column in columns:
            if names.count(column) != 1:
                problem = "twice" if column in names else "not"
                found = printable(", ".join(names))[:200] or "nothing"
                raise NoPurchaseFile(f"line 1: the column {column!r} is {problem} there; found: {found}")
        self._width = len(names)
        self._places = [names.index(column) for column in columns]
        self._columns = columns
        self._customers: dict[str, int] = {}
        self.purchases = Purchases()

    def take(self, row: list[str]) -> None:
        """Raises ValueError with all that is wrong with the row."""
        if len(row) != self._width:
            raise ValueError(f"Expected {self._width} columns, got {len(row)}")
        name, day, amount = (row[place].strip() for place in self._places)
        faults: list[str] = []
        known = self._customers.get(name)
        if known is None:
            name = _parsed(self._columns.customer, _name, name, faults)
        date = _parsed(self._columns.date, _date, day, faults)
        cents = _parsed(self._columns.amount, _cents, amount, faults)
        if faults:
            raise ValueError("; ".join(faults))
        if known is None:
            known = self._customers[name] = len(self._customers)
            self.purchases.customers.append(name)
        self.purchases.append(Purchase(known, date, cents))


def _parsed(column: str, parse: Callable[[str], Any], raw: str, faults: list[str]) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        faults.append(f"{column}: {error}, got {raw[:50]!r}")
        return None


def _name(raw: str) -> str:
    if any("\udc80" <= character <= "\udcff" for character in raw):
        raise ValueError("Expected UTF-8")
    return str(Name.parse(meant(raw)))


def _date(raw: str) -> date:
    try:
        return msgspec.convert(raw, date)
    except msgspec.ValidationError:
        raise ValueError("Expected a date, YYYY-MM-DD") from None


def _cents(raw: str) -> int:
    cents = Decimal(raw) * 100 if _AMOUNT.fullmatch(raw) else -1
    if not 0 <= cents <= MAX_CENTS:
        raise ValueError(f"Expected an amount such as 29.33, at most {MAX_CENTS // 100}")
    return int(cents)
