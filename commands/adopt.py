"""`adopt`: from another system that publishes to the same stream, with its ids and dates."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from tally.actors.lock import DirectoryLock
from tally.commands.shared import Command, faults_told
from tally.config import Settings
from tally.events import MAX_CENTS, AccountCreated, CustomerCreated, Id, InvoiceCreated, rfc3339
from tally.http.values import Description, Name
from tally.recovery import first_start
from tally.recovery.adopting import Adopted, CannotAdopt, adopt_accounts, adopt_customers, adopt_invoices
from tally.store import accounts, customers, nodes

T = TypeVar("T", AccountCreated, CustomerCreated, InvoiceCreated)

_NEVER = datetime(1, 1, 1, tzinfo=UTC)  # what Go writes where there is no time


def _moment(raw: str) -> datetime:
    """A time as PostgreSQL or Go writes it, in UTC; none is Go's zero."""
    return datetime.fromisoformat(rfc3339(datetime.fromisoformat(raw))) if raw else _NEVER


def _day(raw: str) -> date:
    return datetime.fromisoformat(raw).date()


def _cents(raw: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", raw):
        raise ValueError("Expected a whole number of cents")
    cents = int(raw)
    if abs(cents) > MAX_CENTS:
        raise ValueError(f"Expected at most {MAX_CENTS} cents")
    return cents


Columns = dict[str, Callable[[str], Any]]
"""The columns of a file, and what reads each; it raises ValueError."""

ACCOUNTS: Columns = {
    "id": Id.parse,
    "name": Name.parse,
    "description": Description.parse,
    "owned_by": Name.parse,
    "created_date": _moment,
}
CUSTOMERS: Columns = {"id": Id.parse, "account_id": Id.parse, "name": Name.parse, "created_date": _moment}
INVOICES: Columns = {
    "id": Id.parse,
    "customer_id": Id.parse,
    "purchase_price_cents": _cents,
    "purchase_date": _day,
    "created_date": _moment,
}


def _file_option(what: str, columns: Columns) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(f"--{what}", f"{what}_file", type=click.File("rb"), help=", ".join(columns))


@click.command(cls=Command, example="adopt --customers customers.csv --invoices invoices.csv")
@_file_option("accounts", ACCOUNTS)
@_file_option("customers", CUSTOMERS)
@_file_option("invoices", INVOICES)
def adopt(settings: Settings, **files: BinaryIO | None) -> None:
    """Take over accounts, customers and invoices of another system, with their own ids and dates.

    For users of the program that Tally grew from, who keep its stream: accounts.db counts that program's
    events, so nothing is published for customers and invoices. The files are CSV; the first line names the
    columns below, as PostgreSQL's COPY … WITH (FORMAT csv, HEADER) writes it. Tally must be stopped. All rows
    are taken or none; may be repeated.
    """
    if not any(files.values()):
        raise click.UsageError("give at least one of --accounts, --customers and --invoices")
    with faults_told(settings):
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(DirectoryLock(settings.directory)):
            for told in [*_adopt(settings.directory, settings.node.number, **files)]:
                click.echo(told)


def _adopt(
    directory: Path,
    node: int,
    accounts_file: BinaryIO | None,
    customers_file: BinaryIO | None,
    invoices_file: BinaryIO | None,
) -> Iterator[str]:
    """Tell what was done. A fault in any of the files is found before anything is committed."""
    with ExitStack() as opened:
        if customers_file or invoices_file:
            if not (directory / customers.FILE).exists():
                first_start.make(directory, node)
            made = customers.open_database(directory, migrate=True, make=False)
            database = opened.enter_context(closing(made))
            nodes.assign(database, node)
            opened.enter_context(database.transaction())
            store = customers.Customers(database)
            if customers_file:
                rows = _rows(customers_file, CustomerCreated, CUSTOMERS)
                yield _told("customers", adopt_customers(store, rows))
            if invoices_file:
                invoices, credits = adopt_invoices(store, _rows(invoices_file, InvoiceCreated, INVOICES))
                yield _told("invoices", invoices)
                yield _told("credits, of negative amounts", credits)
        if accounts_file:
            database = opened.enter_context(closing(accounts.open_database(directory, migrate=True)))
            nodes.assign(database, node)
            created = _rows(accounts_file, AccountCreated, ACCOUNTS)
            yield _told("accounts", adopt_accounts(accounts.Accounts(database), created))


def _told(what: str, adopted: Adopted) -> str:
    return f"{adopted.new:,} {what}, and {adopted.known:,} that were there"


def _rows(file: BinaryIO, kind: type[T], columns: Columns) -> Iterator[T]:
    """What each row of a CSV file tells. Raises CannotAdopt with the line of one that can't be read."""
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        for name in columns:
            if (times := header.count(name)) != 1:
                fault = "twice the" if times else "no"
                raise CannotAdopt(f"{file.name}: there is {fault} column '{name}'")
        for cells in reader:
            if not cells:  # an empty line
                continue
            place = f"{file.name}, line {reader.line_num}"
            if len(cells) != len(header):
                raise CannotAdopt(f"{place}: Expected {len(header)} columns, got {len(cells)}")
            row, told = dict(zip(header, cells, strict=True)), dict[str, Any]()
            for name, parse in columns.items():
                try:
                    told[name] = parse(row[name])
                except ValueError as error:
                    raise CannotAdopt(f"{place}: {name}: {error}, got {row[name][:50]!r}") from None
            yield kind(**told)
    except (csv.Error, UnicodeDecodeError) as error:
        raise CannotAdopt(f"{file.name}, line {reader.line_num + 1}: can't be read: {error}") from None
