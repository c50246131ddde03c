"""Files of rows from other programs: their encoding, lines and cells."""

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, Literal, NamedTuple

from msgspec import Struct

from tally.http.visible import printable

DELIMITERS = (",", ";", "\t")  # the header line tells which one it is

_LONGEST_LINE = 1024 * 1024  # characters; without it, any large file would be read as one line
_LOOKED_AT = 4096  # bytes, to see what kind of file it is
_BOMS = {  # of UTF-32 first: they begin as those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_SAVE_AS_CSV = "open it in the program that made it and save it as CSV (UTF-8)"
_KINDS = {
    b"PK\x03\x04": f"is a workbook of Excel or another packed file, no CSV: {_SAVE_AS_CSV}, or unpack it",
    b"\xd0\xcf\x11\xe0": f"is an old workbook of Excel, no CSV: {_SAVE_AS_CSV}",
    b"\x1f\x8b": "is packed by gzip: unpack it first (`gunzip -c FILE | tally import … -`)",
    b"%PDF": f"is a PDF, no CSV: {_SAVE_AS_CSV}",
    b"BZh": "is packed by bzip2: unpack it first",
    b"\xfd7zXZ": "is packed by xz: unpack it first",
    b"(\xb5/\xfd": "is packed by zstd: unpack it first",
}
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)


class NoTable(Exception):
    """The file can't be read as rows at all; the message says why, and in which line."""


class Reading(Struct, frozen=True, omit_defaults=True):
    """How to read rows: the columns by name, or by number if there are no names.

    `account` is the column with each row's own account, `id` the one with its own reference. `where` has
    columns and values: a row is taken if it has one of the values in each of these columns. Rows that share
    an `id` are `lines` of one invoice: their amounts are summed, or the first counts. Without a `delimiter`,
    the header tells it.
    """

    customer: str = "customer"
    date: str = "purchase_date"
    amount: str = "amount"
    account: str | None = None
    id: str | None = None
    date_format: str | None = None
    decimal: str = "."
    encoding: str | None = None
    skip_lines: int = 0
    has_header: bool = True
    rounds: bool = False
    negative: Literal["refuse", "credit"] = "refuse"
    where: tuple[tuple[str, str], ...] = ()
    lines: Literal["sum", "first"] | None = None
    delimiter: str | None = None

    def columns(self) -> list[str]:
        """All columns that the file must have."""
        named = [self.customer, self.date, self.amount, self.account, self.id]
        named += [name for name, _ in self.where]
        return [name for name in named if name is not None]


class Row(NamedTuple):
    """The cells of a row, and the line that it begins in, counted from 1."""

    line: int
    cells: list[str]


class Table:
    """The rows of a file, which is read once, from its present position.

    `header` has the names of the columns; without names, their numbers, from 1. The `wanted` columns tell the
    delimiter, by default those of `reading`. Raises NoTable, even while rows are read.
    """

    def __init__(self, file: BinaryIO, reading: Reading, wanted: list[str] | None = None) -> None:
        self._hash = hashlib.sha256()
        self.reading = reading
        raw: Any = _Hashed(file, self._hash.update)
        buffered = io.BufferedReader(raw, 64 * 1024)
        head = buffered.peek(_LOOKED_AT)[:_LOOKED_AT]
        self.encoding = _encoding(head, reading.encoding)
        errors = "replace" if self.encoding.startswith("utf-16") else "surrogateescape"
        text = io.TextIOWrapper(buffered, self.encoding, errors, newline="")
        self._before = 0  # lines before the rows
        lines = self._lines(text)
        told, first = self._skip(lines)
        self.delimiter = reading.delimiter or told or self._found_out(first, wanted or reading.columns())
        self._reader = csv.reader(
            chain([first] if first else [], lines), delimiter=self.delimiter, strict=True
        )
        self._first: list[Row] = []
        self.header = self._header()

    @property
    def digest(self) -> str:
        """The SHA-256 of all bytes, once all rows were read."""
        return self._hash.hexdigest()

    def place(self, column: str) -> int:
        """The place of a column. Raises NoTable unless it is there once."""
        if (count := self.header.count(column)) == 1:
            return self.header.index(column)
        if not self.reading.has_header:
            raise self._no_column(column, f"has no number from 1 to {len(self.header)}, as --no-header wants")
        if count > 1:
            raise self._no_column(column, "is twice there")
        alike = [name for name in self.header if plain(name) == plain(column)]
        raise self._no_column(column, "is not there", alike)

    def rows(self) -> Iterator[Row]:
        """The rows in order, without empty lines. Call it once."""
        yield from self._first
        yield from self._rest()

    def _no_column(self, column: str, why: str, alike: list[str] | None = None) -> NoTable:
        found = printable(", ".join(self.header))[:200] or "nothing"
        hint = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
        return NoTable(f"line {self._before + 1}: the column {column!r} {why}; found: {found}{hint}")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            try:
                line = text.readline(_LONGEST_LINE)
            except UnicodeError as error:
                raise NoTable(f"line {number}: can't be read as {self.encoding}: {error}") from None
            if len(line) >= _LONGEST_LINE:
                raise NoTable(
                    f"line {number}: is longer than {_LONGEST_LINE} characters; is this a CSV file?"
                )
            if not line:
                return
            yield line

    def _skip(self, lines: Iterator[str]) -> tuple[str | None, str]:
        """Skip the lines before the table. Answers the delimiter, if it is named there, and the next line."""
        told, line = None, next(lines, "")
        while (
            (separator := _SEPARATOR_LINE.fullmatch(line))
            or self._before < self.reading.skip_lines
            or line in ("\n", "\r", "\r\n")
        ):
            told = separator[1] if separator else told
            self._before += 1
            line = next(lines, "")
        return told, line

    def _found_out(self, first: str, wanted: list[str]) -> str:
        """The delimiter that yields the most wanted columns in the header line, and then the most columns."""
        if not self.reading.has_header:
            return DELIMITERS[0]
        names = {plain(name) for name in wanted}
        cells = {each: [*map(plain, _cells(first, each))] for each in DELIMITERS}
        return max(DELIMITERS, key=lambda each: (len(names & {*cells[each]}), len(cells[each])))

    def _header(self) -> list[str]:
        first = next(self._rest(), None)
        if self.reading.has_header:
            return [name.strip() for name in first.cells] if first else []
        self._first = [first] if first else []
        return [str(number) for number in range(1, 1 + len(first.cells if first else []))]

    def _rest(self) -> Iterator[Row]:
        while True:
            line = self._before + self._reader.line_num + 1
            try:
                cells = next(self._reader, None)
            except csv.Error as error:  # the start of the next row is unknown
                raise NoTable(f"line {line}: is no CSV from here on: {error}") from None
            if cells is None:
                return
            if cells:
                yield Row(line, cells)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def plain(name: str) -> str:
    """A key that is the same for names that differ only in case or blanks."""
    return "".join(name.split()).casefold()


def _encoding(head: bytes, told: str | None) -> str:
    """The encoding of a file's text. Raises NoTable for a file of another kind."""
    for beginning, is_what in _KINDS.items():
        if head.startswith(beginning):
            raise NoTable(f"the file {is_what}")
    name = codecs.lookup(told).name if told else ""
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            family = encoding.removesuffix("-sig")
            if told and not name.startswith(family):
                raise NoTable(f"the file has the mark of {family.upper()}, not of {told}: give no --encoding")
            return encoding
    if told:
        return "utf-8-sig" if name == "utf-8" else told
    if b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > len(head) // 4:
            name = "utf-16-le" if odd > even else "utf-16-be"
            raise NoTable(f"the file is UTF-16 without a byte order mark: give --encoding {name}")
        raise NoTable(f"the file is no text: {_SAVE_AS_CSV}")
    return "utf-8"


class _Hashed(io.RawIOBase):
    """A file that passes its bytes to `on_bytes` as they are read."""

    def __init__(self, file: BinaryIO, on_bytes: Any) -> None:
        super().__init__()
        self._file = file
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self._on_bytes(content)
        return len(content)
