"""Writes bad rows unchanged to another file, so that they can be corrected and imported alone.

Each row is followed by its line and its fault, in columns that replace such columns of the file.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tally.http.exports import harmless, meant
from tally.importing.tables import Table
from tally.store.copying import failures_of

_ADDED = ["line", "reason"]


def write(path: Path, table: Table, bad: dict[int, str]) -> None:
    """Write the bad rows, by line, as UTF-8.

    It can be read with the same options as the whole file, except encoding and lines to skip. Raises OSError.
    """
    with failures_of(path), path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, delimiter=table.delimiter).writerows(_rows(table, bad))


def text(table: Table, bad: dict[int, str], most: int) -> str | None:
    """The same as text; None if that has more than `most` characters.

    Formulas for a spreadsheet are made harmless. Bytes that could not be decoded become U+FFFD.
    """
    made = io.StringIO()
    writer = csv.writer(made, delimiter=table.delimiter)
    for row in _rows(table, bad):
        writer.writerow(harmless(meant(cell)) for cell in row)
        if made.tell() > most:
            return None
    return made.getvalue().encode(errors="surrogateescape").decode(errors="replace")


def _rows(table: Table, bad: dict[int, str]) -> Iterator[list[str]]:
    header = table.header
    width = len(header)
    if table.reading.has_header:
        if header[-2:] == _ADDED:
            width -= 2
        yield [*header[:width], *_ADDED]
    for line, cells in table.rows():
        if (reason := bad.get(line)) is not None:
            kept = cells[:width] if len(cells) == len(header) else cells
            yield [*kept, *[""] * (width - len(kept)), str(line), reason]
