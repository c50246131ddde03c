"""A file of purchases, read and checked row by row before any of it is sent."""

import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from datetime import date
from functools import cache
from typing import Any, BinaryIO, NamedTuple

from msgspec import Struct

from tally.events import MAX_CENTS
from tally.http.exports import meant
from tally.http.values import Name, Reference
from tally.importing.cells import Amounts, dates
from tally.importing.tables import Reading, Row, Table

NEGATIVE = "An amount can't be negative. To take an invoice back, delete it"  # the same text as on the page

_ROWS_BETWEEN_TELLING = 1000
_CURRENCY = re.compile(r"currency|währung|waehrung|devise|moneda|valuta|\bccy\b", re.IGNORECASE)
_CODE = re.compile(  # of a currency, such as files of several have
    "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|NOK|NZD|PHP|PLN|RON|SEK|SGD|THB"
    "|TRY|TWD|USD|ZAR"
)


class Buyer(NamedTuple):
    """A customer in the file: the text of its account, if there is a column for that, and its name."""

    account: str
    name: str


class Purchase(NamedTuple):
    """An invoice in the file, or a credit, whose cents are negative.

    `buyer` is the index of its customer among the distinct ones, `line` its first line.
    """

    buyer: int
    date: date
    cents: int
    reference: str | None
    line: int


class Purchases:
    """The purchases of a file, in its order, some 32 bytes each; and each of its customers once.

    `cents` has the amount of each, and `lines` its first line in the file. `rows` has all lines of those that
    have several, by the first.
    """

    def __init__(self, with_references: bool = False) -> None:
        self.buyers: list[Buyer] = []
        self.references: list[str] | None = [] if with_references else None
        self.cents, self.lines = array("q"), array("q")
        self.rows: dict[int, list[int]] = {}
        self._buyer, self._day = array("q"), array("q")

    def __len__(self) -> int:
        return len(self.cents)

    def __getitem__(self, place: int) -> Purchase:
        reference = None if self.references is None else self.references[place]
        day, cents = date.fromordinal(self._day[place]), self.cents[place]
        return Purchase(self._buyer[place], day, cents, reference, self.lines[place])

    def __iter__(self) -> Iterator[Purchase]:
        return (self[place] for place in range(len(self)))

    def append(self, purchase: Purchase) -> None:
        """Take one more."""
        self._buyer.append(purchase.buyer)
        self._day.append(purchase.date.toordinal())
        self.cents.append(purchase.cents)
        self.lines.append(purchase.line)
        if self.references is not None:
            self.references.append(purchase.reference or "")

    def without(self, lines: Container[int]) -> "Purchases":
        """All purchases except those that begin in these lines, and the customers of the remaining ones."""
        kept = Purchases(self.references is not None)
        kept.rows = self.rows
        places: dict[int, int] = {}
        for each in self:
            if each.line in lines:
                continue
            place = places.setdefault(each.buyer, len(places))
            if place == len(kept.buyers):
                kept.buyers.append(self.buyers[each.buyer])
            kept.append(each._replace(buyer=place))
        return kept


class PurchaseFile(NamedTuple):
    """The findings in a file.

    `digest` is the SHA-256 of its bytes. Of its `rows`, those that weren't asked for were `passed_over`, and
    the `bad` ones have a reason, by line. `warnings` are for people to check.
    """

    digest: str
    delimiter: str
    rows: int
    passed_over: int
    purchases: Purchases
    bad: dict[int, str]
    warnings: list[str]


def read(file: BinaryIO, reading: Reading, on_rows: Callable[[int], object]) -> PurchaseFile:
    """Read to the end, telling `on_rows` of progress. Raises NoTable.

    The result depends only on the file, so it is always the same.
    """
    table = Table(file, reading)
    judge = _Judge(table, reading)
    count = 0
    for count, row in enumerate(table.rows(), 1):
        judge.take(row)
        if count % _ROWS_BETWEEN_TELLING == 0:
            on_rows(count)
    on_rows(count)
    purchases = judge.finish()
    return PurchaseFile(
        table.digest, table.delimiter, count, judge.passed_over, purchases, judge.bad, judge.warnings()
    )


class _Judge:
    """Takes good rows, and notes the faults of the others."""

    def __init__(self, table: Table, reading: Reading) -> None:
        self._reading = reading
        self._width = len(table.header)
        self._places = [table.place(each) for each in (reading.customer, reading.date, reading.amount)]
        self._account_place = None if reading.account is None else table.place(reading.account)
        self._id_place = None if reading.id is None else table.place(reading.id)
        self._wanted: defaultdict[int, set[str]] = defaultdict(set)
        for name, value in reading.where:
            self._wanted[table.place(name)].add(value.strip())
        self._date = dates(reading.date_format)
        self._amounts = Amounts(reading.decimal, reading.rounds)
        self._names = _names(table.encoding)
        self._buyers: dict[Buyer, int] = {}
        self._purchases = Purchases(with_references=reading.id is not None)
        self._rows_of: dict[tuple[str, str], _Rows] = {}  # by account and reference
        self._doubtful: set[str] = set()  # has the references of bad rows that can't be found there
        self._watch = _Watch(table.header, self._id_place, reading)
        self.passed_over = 0
        self.bad: dict[int, str] = {}

    def take(self, row: Row) -> None:
        """Check one more row."""
        line, cells = row
        if len(cells) != self._width:
            self.bad[line] = f"Expected {self._width} columns, got {len(cells)}"
            self._doubtful.update(meant(cell.strip()) for cell in cells)
        elif all(cells[place].strip() in values for place, values in self._wanted.items()):
            self._watch.see(cells)
            if faults := self._take(line, cells):
                self.bad[line] = "; ".join(faults)
        else:
            self.passed_over += 1

    def finish(self) -> Purchases:
        """The file's purchases, once all rows were taken."""
        for (_, reference), rows in self._rows_of.items():
            if why := self._fault_of(reference, rows):
                self.bad |= {line: why for line in rows.lines if line not in self.bad}
            elif len(rows.lines) > 1:
                self._purchases.rows[rows.lines[0]] = rows.lines
        self.bad = dict(sorted(self.bad.items()))
        return self._purchases.without(self.bad) if self._rows_of else self._purchases

    def warnings(self) -> list[str]:
        """Warnings for people to check."""
        found = [*self._watch.warnings()]
        if len(self._amounts.symbols) > 1:
            found.append(f"amounts have several currencies: {' '.join(sorted(self._amounts.symbols))}")
        return found

    def _take(self, line: int, cells: list[str]) -> list[str]:
        """Take a row; answers all its faults."""
        reading, faults = self._reading, list[str]()
        account: Any = ""
        reference = rows = None
        if self._account_place is not None:
            account = _parsed(reading.account, self._names, cells[self._account_place], faults)
        if self._id_place is not None:
            reference = _parsed(reading.id, _reference, cells[self._id_place], faults)
            if faults:
                self._doubtful.add(reference)
            else:
                if rows := self._rows_of.get((account, reference)):
                    rows.lines.append(line)
                else:
                    rows = self._rows_of[account, reference] = _Rows([line])
        goes_on = reading.lines == "first" and rows is not None and rows.place is not None
        name, day, amount = (cells[place].strip() for place in self._places)
        buyer: Any = None if goes_on and not name else _parsed(reading.customer, self._names, name, faults)
        bought: Any = None if goes_on and not day else _parsed(reading.date, self._date, day, faults)
        cents: Any = None if goes_on and not amount else _parsed(reading.amount, self._cents, amount, faults)
        if faults:
            if rows:
                rows.is_spoiled = True
        elif rows is None or rows.place is None:
            if rows:
                rows.place = len(self._purchases)
            self._purchases.append(
                Purchase(self._buyer(Buyer(account, buyer)), bought, cents, reference, line)
            )
        else:
            faults += self._join(rows, buyer, bought, cents)
        return faults

    def _join(self, rows: "_Rows", name: str | None, day: date | None, cents: int | None) -> Iterator[str]:
        """Take a further row of an invoice; tells its differences from the first."""
        if self._reading.lines is None or rows.place is None:
            return
        before = self._purchases[rows.place]
        given = {self._reading.customer: name, self._reading.date: day, self._reading.amount: cents}
        had: list[Any] = [self._purchases.buyers[before.buyer].name, before.date, before.cents]
        if self._reading.lines == "sum":
            had[2] = cents
            self._purchases.cents[rows.place] += cents or 0
        for (column, value), first in zip(given.items(), had, strict=True):
            if value not in (None, first):
                rows.is_spoiled = True
                yield f"{column}: Expected what the first row of {before.reference} has (line {before.line})"

    def _fault_of(self, reference: str, rows: "_Rows") -> str | None:
        """The fault of an invoice's rows together, if any."""
        count, reading = len(rows.lines), self._reading
        if count > 1 and reading.lines is None:
            return (
                f"{reading.id}: Expected one row for each, got {count} for {reference!r}; --lines takes them "
                "for one invoice"
            )
        if rows.is_spoiled or (reading.lines and reference in self._doubtful):
            return f"{reading.id}: Another row of {reference!r} is bad"
        if reading.lines == "sum" and rows.place is not None:
            try:
                self._in_range(self._purchases[rows.place].cents)
            except ValueError as error:
                return f"{reading.amount}: {error}, got the sum of {count} rows of {reference!r}"
        return None

    def _buyer(self, buyer: Buyer) -> int:
        place = self._buyers.setdefault(buyer, len(self._buyers))
        if place == len(self._purchases.buyers):
            self._purchases.buyers.append(buyer)
        return place

    def _cents(self, raw: str) -> int:
        cents = self._amounts.cents(raw)
        return cents if self._reading.lines == "sum" else self._in_range(cents)

    def _in_range(self, cents: int) -> int:
        if cents < 0 and self._reading.negative == "refuse":
            raise ValueError(f"{NEGATIVE} (--negative credit records a credit)")
        if abs(cents) > MAX_CENTS:
            raise ValueError(f"Expected at most {MAX_CENTS // 100}")
        return cents


class _Rows(Struct):
    """The lines of an invoice's rows, the place of its first good row, and whether one of them is bad."""

    lines: list[int]
    place: int | None = None
    is_spoiled: bool = False


class _Watch:
    """Finds columns which show that amounts are misleading: currencies, repeated totals."""

    def __init__(self, header: list[str], id_place: int | None, reading: Reading) -> None:
        self._header = header
        self._id_place = id_place
        self._codes: dict[int, set[str]] = {
            place: set() for place, name in enumerate(header) if _CURRENCY.search(name)
        }
        self._totals = [place for place, name in enumerate(header) if "total" in name.casefold()]
        if reading.lines == "first":
            self._totals = [place for place in self._totals if header[place] != reading.amount]
        self._last: list[str] = []
        self._repeated: dict[int, str] = {}

    def see(self, cells: list[str]) -> None:
        """Look at one more row."""
        if not self._last:
            self._codes |= {place: set() for place, cell in enumerate(cells) if _CODE.fullmatch(cell.strip())}
        for place, seen in self._codes.items():
            if len(seen) < 5 and (cell := cells[place].strip()):
                seen.add(cell)
        id = self._id_place
        if self._last and id is not None and self._last[id] == cells[id]:
            for place in self._totals:
                if cells[place].strip() and cells[place] == self._last[place]:
                    self._repeated.setdefault(place, cells[id].strip())
        self._last = cells

    def warnings(self) -> Iterator[str]:
        """What was found."""
        for place, reference in self._repeated.items():
            name = self._header[place]
            yield (
                f"the column {name!r} has the same in several rows of {reference!r}: where it is the whole "
                f"invoice's, take --amount {name!r} --lines first"
            )
        for place, seen in self._codes.items():
            if len(seen) > 1:
                shown = ", ".join(sorted(seen))
                yield (
                    f"the column {self._header[place]!r} looks like a currency and has several: {shown}; "
                    "they are added up as if they were one (--where takes the rows of one)"
                )


def _parsed(column: str | None, parse: Callable[[str], Any], raw: str, faults: list[str]) -> Any:
    try:
        return parse(raw.strip())
    except ValueError as error:
        faults.append(f"{column}: {error}, got {raw.strip()[:50]!r}")
        return None


def _reference(raw: str) -> str:
    return str(Reference.parse(meant(raw)))


def _names(encoding: str) -> Callable[[str], str]:
    """A function that reads a name; it raises ValueError for one that is invalid or in another encoding."""
    told = encoding.removesuffix("-sig").upper()

    @cache
    def name(raw: str) -> str:
        if _BROKEN.search(raw) or (encoding.startswith("utf-16") and "\ufffd" in raw):
            raise ValueError(f"Expected {told} (--encoding tells another)")
        return str(Name.parse(unicodedata.normalize("NFC", meant(raw))))

    return name


_BROKEN = re.compile("[\udc80-\udcff]")  # Python reads bytes outside the encoding as these
