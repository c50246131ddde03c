"""What a file tells before its columns are chosen: what they are called, and how each could be read.

All is by the first rows. Nothing of it is taken for granted: a person sees it, and says how the file is read.
"""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import islice

from msgspec import Struct

from tally.importing.cells import Amounts, dates
from tally.importing.tables import Format, Table, plain

LOOKED_AT = 200  # rows

DATE_FORMATS = (
    *(f"%d{mark}%m{mark}{year}" for year in ("%Y", "%y") for mark in ".-/"),
    *(f"%m{mark}%d{mark}{year}" for year in ("%Y", "%y") for mark in "-/"),
    *("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
    *("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"),
)
MARKS = (".", ",")

# What the columns are called in files that other programs export, the likeliest first.
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
    """A column: the formats in which its cells are dates ("" is YYYY-MM-DD), and the marks of amounts."""

    name: str
    dates: list[str]
    decimals: list[str]


class Guess(Struct, frozen=True):
    """Which columns seem to be meant; "" for none."""

    customer: str = ""
    date: str = ""
    amount: str = ""
    id: str = ""


class Look(Struct, frozen=True):
    """What was found in a file. `date_formats` are all that there are to choose from, besides YYYY-MM-DD."""

    columns: list[Column]
    guess: Guess
    delimiter: str
    encoding: str
    date_formats: tuple[str, ...] = DATE_FORMATS


def look(content: bytes, encoding: str | None = None, delimiter: str | None = None) -> Look:
    """Look at a file. Raises NoTable."""
    table = Table(BytesIO(content), Format(encoding, delimiter), [*CUSTOMER, *DATE, *AMOUNT, *ID])
    rows = [row.cells for row in islice(table.rows(), LOOKED_AT) if len(row.cells) == len(table.header)]
    cells = {name: [row[place].strip() for row in rows] for place, name in enumerate(table.header) if name}
    columns = [_column(name, each) for name, each in cells.items()]
    full = [name for name, each in cells.items() if all(each)]
    return Look(columns, _guess(columns, full), table.delimiter, table.encoding)


def _column(name: str, cells: list[str]) -> Column:
    given = [*dict.fromkeys(cell for cell in cells if cell)]
    formats = {format: _read(dates(format or None), given) for format in ("", *DATE_FORMATS)}
    amounts = {mark: _read(Amounts(mark, rounds=True).cents, given) for mark in MARKS}
    marks = _fitting(amounts, len(given))
    if all(amounts[mark] == amounts[marks[0]] for mark in marks):  # it makes no difference
        marks = marks[:1]
    return Column(name, _fitting(formats, len(given)), marks)


def _read(parse: Callable[[str], object], cells: list[str]) -> dict[str, object]:
    """What can be read so, and as what."""
    found = {}
    for cell in cells:
        with suppress(ValueError):
            found[cell] = parse(cell)
    return found


def _fitting(found: dict[str, dict[str, object]], cells: int) -> list[str]:
    """The ways in which the most can be read, as the rest may be bad; none where that is less than half."""
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
    """The column that is called as most probably it would be; "" where none is."""
    names = {plain(name): name for name in reversed(columns)}
    return next((names[plain(name)] for name in known if plain(name) in names), "")
