"""Writes the bad rows to a file of their own, as they were, to be mended and imported alone."""

import csv
from pathlib import Path

from tally.importing.tables import Table


def write(path: Path, table: Table, bad: dict[int, str], has_header: bool) -> None:
    """Write the bad rows, by line, each with its line and what is wrong with it behind it, as UTF-8.

    It is read with the same options as the whole file, but for encoding and lines to skip. Raises OSError.
    """
    width = len(table.header)
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, delimiter=table.delimiter)
        if has_header:
            writer.writerow([*table.header, "line", "reason"])
        for line, cells in table.rows():
            if (reason := bad.get(line)) is not None:
                writer.writerow([*cells, *[""] * (width - len(cells)), line, reason])
