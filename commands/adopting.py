"""`adopt`: from another system that publishes to the same stream, with its ids and dates."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.commands.shared import Command, config_option, faults_told, load
from tally.events import MAX_CENTS, AccountCreated, CustomerCreated, Id, InvoiceCreated
from tally.http.values import Description, Name
from tally.recovery import adopting, first_start
from tally.recovery.adopting import Adopted, Adopting, CannotAdopt
from tally.store import accounts, customers, nodes

T = TypeVar("T")

_NEVER = datetime(1, 1, 1, tzinfo=UTC)  # what Go writes where there is no time


@click.command(cls=Command)
@config_option
@click.option(
    "--accounts", "accounts_file", type=click.File("rb"), help="id, name, description, owned_by, created_date"
)
@click.option(
    "--customers", "customers_file", type=click.File("rb"), help="id, account_id, name, created_date"
)
@click.option(
    "--invoices",
    "invoices_file",
    type=click.File("rb"),
    help="id, customer_id, purchase_price_cents, purchase_date, created_date",
)
def adopt(
    file: Path | None,
    accounts_file: BinaryIO | None,
    customers_file: BinaryIO | None,
    invoices_file: BinaryIO | None,
) -> None:
    """Take over accounts, customers and invoices of another system, with their own ids and dates.

    For those who come from the program that Tally grew from, and keep its stream: accounts.db counts that
    program's events, so nothing is published for customers and invoices. The files are CSV with the columns
    named above in the first line, as PostgreSQL's COPY … WITH (FORMAT csv, HEADER) writes them. While Tally
    is stopped; all of it or nothing; may be repeated.

    \b
    Example: python supervisor.py adopt --customers customers.csv --invoices invoices.csv
    """
    settings = load(file)
    with faults_told(settings, AlreadyRunning, CannotAdopt):
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(settings.directory)
        try:
            for told in _adopt(
                settings.directory, settings.node.number, accounts_file, customers_file, invoices_file
            ):
                click.echo(told)
        finally:
            lock.release()


def _adopt(
    directory: Path,
    node: int,
    accounts_file: BinaryIO | None,
    customers_file: BinaryIO | None,
    invoices_file: BinaryIO | None,
) -> list[str]:
    """Answer what was done. A fault in any of the files is found before anything is committed."""
    told = []
    with ExitStack() as opened:
        if customers_file or invoices_file:
            if not (directory / customers.FILE).exists():
                first_start.make(directory, node)
            database = opened.enter_context(closing(customers.open_database(directory, migrate=True)))
            nodes.assign(database, node)
            opened.enter_context(database.transaction())
            taken = Adopting(customers.Customers(database))
            if customers_file:
                told.append(_told("customers", taken.customers(_rows(customers_file, _customer))))
            if invoices_file:
                invoices, credits = taken.invoices(_rows(invoices_file, _invoice))
                told += [_told("invoices", invoices), _told("credits, of negative amounts", credits)]
        if accounts_file:
            told.append(_told("accounts", _adopt_accounts(directory, node, accounts_file)))
    return told


def _adopt_accounts(directory: Path, node: int, file: BinaryIO) -> Adopted:
    with closing(accounts.open_database(directory, migrate=True)) as database:
        nodes.assign(database, node)
        return adopting.adopt_accounts(accounts.Accounts(database), _rows(file, _account))


def _told(what: str, adopted: Adopted) -> str:
    return f"{adopted.new:,} {what}, and {adopted.known:,} that were there"


def _rows(file: BinaryIO, made: Callable[[dict[str, str]], T]) -> Iterator[T]:
    """What each row of a CSV file tells. Raises CannotAdopt with the line of one that can't be read."""
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            try:
                yield made({name: value or "" for name, value in row.items()})
            except KeyError as error:
                raise CannotAdopt(f"{file.name}: there is no column {error}") from None
            except (ValueError, TypeError) as error:
                raise CannotAdopt(f"{file.name}, line {reader.line_num}: {error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CannotAdopt(f"{file.name}, line {reader.line_num + 1}: can't be read: {error}") from None


def _customer(row: dict[str, str]) -> CustomerCreated:
    return CustomerCreated(
        _parsed("id", Id.parse, row),
        _parsed("account_id", Id.parse, row),
        _parsed("name", Name.parse, row),
        _parsed("created_date", _moment, row),
    )


def _invoice(row: dict[str, str]) -> InvoiceCreated:
    return InvoiceCreated(
        _parsed("id", Id.parse, row),
        _parsed("customer_id", Id.parse, row),
        _parsed("purchase_price_cents", _cents, row),
        _parsed("created_date", _moment, row),
        _parsed("purchase_date", _day, row),
    )


def _account(row: dict[str, str]) -> AccountCreated:
    return AccountCreated(
        _parsed("id", Id.parse, row),
        _parsed("name", Name.parse, row),
        _parsed("description", Description.parse, row),
        _parsed("owned_by", Name.parse, row),
        _parsed("created_date", _moment, row),
    )


def _parsed(column: str, parse: Callable[[str], Any], row: dict[str, str]) -> Any:
    raw = row[column]
    try:
        return parse(raw)
    except ValueError as error:
        raise ValueError(f"{column}: {error}, got {raw[:50]!r}") from None


def _moment(raw: str) -> datetime:
    """A time as PostgreSQL or Go writes it; none is Go's zero."""
    if not raw:
        return _NEVER
    found = datetime.fromisoformat(raw)
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC)
    except OverflowError:
        return _NEVER


def _day(raw: str) -> date:
    return datetime.fromisoformat(raw).date()


def _cents(raw: str) -> int:
    cents = int(raw)
    if abs(cents) > MAX_CENTS:
        raise ValueError(f"Expected at most {MAX_CENTS} cents")
    return cents
