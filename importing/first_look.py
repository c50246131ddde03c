"""Guesses from a file's first rows what its columns are, and how each could be read.

Nothing is imported by a guess: a person sees it first, and says how the file is read.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import islice

from msgspec import Struct

from tally.http.params import DATE_FORMATS
from tally.importing.cells import Amounts, dates
from tally.importing.tables import NoTable, Reading, Table, plain

LOOKED_AT = 1000  # cells; each is tried in every way, which takes 0.1 s
MOST_COLUMNS = 200

MARKS = (".", ",")

# Column names in files of other programs, the likeliest first.
CUSTOMER = (
    *("customer", "customer name", "client", "client name", "buyer", "bill to", "billing name"),
    *("company", "name"),
)
DATE = (
    *("purchase_date", "invoice date", "date", "date issued", "issue date", "issued"),
    *("paid at", "created at", "created"),
)
AMOUNT = (
    *("amount", "total", "total amount", "invoice total", "grand total"),
    *("gross", "revenue", "net", "price"),
)
ID = (
    *("reference", "invoice number", "invoice no", "invoice no.", "invoice #", "number"),
    *("invoice id", "invoice", "order id"),
)


class Column(Struct, frozen=True):
    """A column, the date formats that fit its cells ("" is YYYY-MM-DD), and the decimal marks that do."""

    name: str
    dates: list[str]
    decimals: list[str]


class Guess(Struct, frozen=True):
    """The likely column of each field; "" for none."""

    customer: str = ""
    date: str = ""
    amount: str = ""
    id: str = ""


class Look(Struct, frozen=True):
    """The findings in a file. `date_formats` are all formats to choose from, besides YYYY-MM-DD."""

    columns: list[Column]
    guess: Guess
    delimiter: str
    encoding: str
    date_formats: tuple[str, ...] = DATE_FORMATS


def look(content: bytes, reading: Reading) -> Look:
    """Look at a file, of which `reading` may tell the format. Raises NoTable."""
    table = Table(BytesIO(content), reading, [*CUSTOMER, *DATE, *AMOUNT, *ID])
    if (width := len(table.header)) > MOST_COLUMNS:
        raise NoTable(f"the file has {width:,} columns, more than {MOST_COLUMNS}; is it one of purchases?")
    most = max(LOOKED_AT // max(width, 1), 5)
    rows = [row.cells for row in islice(table.rows(), most) if len(row.cells) == width]
    cells = {name: [row[place].strip() for row in rows] for place, name in enumerate(table.header) if name}
    columns = _columns({name: [*dict.fromkeys(filter(None, each))] for name, each in cells.items()})
    full = [name for name, each in cells.items() if all(each)]
    return Look(columns, _guess(columns, full), table.delimiter, table.encoding)


def _columns(cells: dict[str, list[str]]) -> list[Column]:
    # Each format in turn for all columns: Python caches only a few compiled formats.
    every = {format: _readings(dates(format or None), cells) for format in ("", *DATE_FORMATS)}
    amounts = {mark: _readings(Amounts(mark, rounds=True).cents, cells) for mark in MARKS}
    return [
        Column(
            name,
            _fitting({format: read[name] for format, read in every.items()}, len(each)),
            _that_differ({mark: read[name] for mark, read in amounts.items()}, len(each)),
        )
        for name, each in cells.items()
    ]


_DIGIT = re.compile("[0-9]")
_Readings = dict[str, object]  # the readable cells of a column, and their values


def _readings(parse: Callable[[str], object], cells: dict[str, list[str]]) -> dict[str, _Readings]:
    found: dict[str, _Readings] = {name: {} for name in cells}
    for name, each in cells.items():
        for cell in each:
            if _DIGIT.search(cell):
                with suppress(ValueError):
                    found[name][cell] = parse(cell)
    return found


def _that_differ(found: dict[str, _Readings], cells: int) -> list[str]:
    """The ways that fit; only the first if all of them read the same values."""
    ways = _fitting(found, cells)
    return ways if any(found[way] != found[ways[0]] for way in ways) else ways[:1]


def _fitting(found: dict[str, _Readings], cells: int) -> list[str]:
    """The ways that read most cells, because some may be bad; none if that is less than half."""
    most = max(map(len, found.values()))
    return [way for way, read in found.items() if len(read) == most] if most and 2 * most >= cells else []


def _guess(columns: list[Column], full: list[str]) -> Guess:
    dated = [each.name for each in columns if each.dates]
    date = dated[0] if len(dated) == 1 else _named(DATE, dated)
    amount = _named(AMOUNT, [each.name for each in columns if each.decimals and each.name != date])
    others = [each.name for each in columns if each.name not in (date, amount)]
    return Guess(
        _named(CUSTOMER, others), date, amount, _named(ID, [name for name in others if name in full])
    )


def _named(known: tuple[str, ...], columns: list[str]) -> str:
    """The column with the likeliest of the known names; "" where no column has one."""
    names = {plain(name): name for name in reversed(columns)}
    return next((names[plain(name)] for name in known if plain(name) in names), "")
