"""Lists as CSV (RFC 4180): a whole list, made while it is sent."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import falcon

from tally.http import params
from tally.http.auth import principal
from tally.http.long_lists import LongLists
from tally.http.problems import FieldError, WrongFields
from tally.store.records import FORMULA_BEGINS

CSV = "text/csv"
AT_ONCE = 1000  # rows that are read in one snapshot
SORTED_AT_ONCE = 20_000  # if all are sorted or searched each time; some 1.6 MB

_FORMULA = re.compile(f"'*[{FORMULA_BEGINS}]")
_HARMLESS = re.compile(f"'+[{FORMULA_BEGINS}]")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def wants_csv(req: falcon.Request, resp: falcon.Response) -> bool:
    """Whether a request asks for CSV: by `format`, or else by Accept. So `resp` gets "Vary: Accept".

    Raises WrongFields for one that wants only a part of the list.
    """
    resp.append_header("Vary", "Accept")
    format = params.FORMAT.of(req)
    if format == "json" or not (format or req.client_prefers((falcon.MEDIA_JSON, CSV)) == CSV):
        return False
    parts = [name for name in ("limit", "after") if req.has_param(name)]
    if parts:
        raise WrongFields([FieldError(name, "CSV has all of the list: leave it out") for name in parts])
    return True


def send(
    req: falcon.Request, resp: falcon.Response, lists: LongLists, header: str, lines: Iterable[str]
) -> None:
    """Answer with these lines, after the header, as a file named for the path's end. Raises Refusal."""
    pieces = chain([f"{header}\r\n"], lines)
    resp.content_type = f"{CSV}; charset=utf-8; header=present"
    resp.downloadable_as = f"{req.path.rpartition('/')[2]}.csv"
    resp.stream = lists.begin(principal(req).name, (piece.encode() for piece in pieces))


def paged(read: Callable[[Any], Sequence[tuple[Any, ...]]], most: int) -> Iterator[str]:
    """The lines of all pages, a page at a time.

    `read` answers up to `most` rows after a position, each as a line and its position.
    """
    after, is_last = None, False
    while not is_last:
        rows = read(after)
        is_last = len(rows) < most
        piece = "".join(line for line, *_ in rows)
        after = rows[-1][1:] if rows else None
        del rows  # free them: the client may take long to ask for more
        if piece:
            yield piece


def written(*cells: object) -> str:
    """A line of these cells; texts that a spreadsheet would run as formulas are made harmless."""
    line = io.StringIO()
    csv.writer(line).writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return line.getvalue()


def harmless(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def meant(cell: str) -> str:
    """The original text of a cell made by `harmless`."""
    return cell[1:] if _HARMLESS.match(cell) else cell


def amount(cents: int) -> str:
    """An amount in cents as decimal currency."""
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"
