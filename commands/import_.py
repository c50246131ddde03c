"""`import`: files of other programs, as they are."""

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from tally.commands import undoing
from tally.commands.command_line import FAILED, WRONG_USAGE, Failed
from tally.commands.import_job import Options
from tally.commands.importing import GO_ON, import_file
from tally.commands.shared import Command, faults_told, parsed, some_id, token_option
from tally.config import Settings
from tally.events import Id
from tally.importing.cells import date_format
from tally.importing.comparing import Identity
from tally.importing.tables import Reading


def _delimiter(value: str) -> str:
    value = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if len(value) != 1 or value in '"\r\n':
        raise ValueError("Expected one character, or tab")
    return value


def _encoding(value: str) -> str:
    try:
        "".encode(value)
        # As a file is read; those of domain names can't do that.
        codecs.getincrementaldecoder(value)("surrogateescape").decode(b"", final=True)
    except (LookupError, ValueError):
        raise ValueError("Expected an encoding, such as utf-8, cp1252 or utf-16-le") from None
    return value


def _where(_context: object, _parameter: object, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [(name.strip(), value.strip()) for name, _, value in (each.partition("=") for each in values)]
    if any("=" not in each for each in values):
        raise click.BadParameter("Expected COLUMN=VALUE")
    return tuple(pairs)


def _column(name: str, default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that names one of the columns that every file has."""
    names = (f"--{name}", f"--{name}-column", name)
    return click.option(*names, default=default, show_default=True, metavar="NAME", help="The column.")


@click.command("import", cls=Command, example="import purchases.csv --account 1")
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--account", "account_id", metavar="ID", callback=some_id, help="The account that all rows belong to."
)
@click.option(
    "--account-column", "account", metavar="NAME", help="The column with each row's account: its id, or name."
)
@_column("customer", default="customer")
@_column("date", default="purchase_date")
@_column("amount", default="amount")
@click.option(
    "--id-column",
    "id",
    metavar="NAME",
    help="The column with each row's own reference, by which it is known again.",
)
@click.option(
    "--date-format", metavar="FORMAT", callback=parsed(date_format), help="Such as %d.%m.%Y.  [default: ISO]"
)
@click.option(
    "--decimal", type=click.Choice([".", ","]), default=".", show_default=True, help="The decimal mark."
)
@click.option(
    "--encoding",
    metavar="NAME",
    callback=parsed(_encoding),
    help="Such as cp1252.  [default: UTF-8, or as a BOM says]",
)
@click.option(
    "--delimiter",
    callback=parsed(_delimiter),
    help="Between columns; by default the comma, semicolon or tab of the header.",
)
@click.option("--skip-lines", type=click.IntRange(0), default=0, metavar="N", help="Lines before the header.")
@click.option(
    "--no-header",
    "has_header",
    flag_value=False,
    default=True,
    help="There are no names: columns are numbers, from 1.",
)
@click.option("--round", "rounds", is_flag=True, help="Round parts of cents, half to even.")
@click.option(
    "--negative",
    type=click.Choice(["refuse", "credit"]),
    default="refuse",
    show_default=True,
    help="What becomes of a negative amount.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    callback=_where,
    help="Take only such rows; several times.",
)
@click.option(
    "--lines",
    type=click.Choice(["sum", "first"]),
    help="Rows that share an id are lines of one invoice: its amount.",
)
@click.option("--update", is_flag=True, help="With --id-column: change what is there to what the file has.")
@click.option("--overlapping", is_flag=True, help="Leave out what is there by customer, date and amount.")
@click.option("--new-customers", is_flag=True, help="Make every name a new customer, also one that is there.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave bad rows out; otherwise nothing is imported when there is one."
)
@click.option(
    "--rejects", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write bad rows there."
)
@click.option("--dry-run", is_flag=True, help="Record nothing; tell what would be.")
@click.option("--undo", is_flag=True, help="Take back what the imports of this file have recorded.")
@click.option(
    "--resend", is_flag=True, help="Send what was in doubt, after you have looked; you will be told."
)
@token_option
def import_(
    settings: Settings,
    source: BinaryIO,
    account_id: Id | None,
    update: bool,
    overlapping: bool,
    new_customers: bool,
    skip_bad: bool,
    rejects: Path | None,
    dry_run: bool,
    undo: bool,
    resend: bool,
    token: str | None,
    **how: Any,
) -> None:
    """Record the purchases of a CSV file in a running Tally, each exactly once.

    A row becomes an invoice of the customer with its name, who is made if the account has none. Nothing is
    guessed: dates are YYYY-MM-DD and amounts like 29.33, unless options say otherwise.

    Safe to run again: an interrupted import goes on where it was, and a finished one adds nothing. With
    --id-column or --overlapping this holds for each row: next month's file may repeat last month's rows.
    Without them it holds for the file as a whole: a file that was changed in any way is another import.
    """
    reading = Reading(**how)
    identity = Identity(overlapping, update, new_customers)
    _insist_on_sense(reading, identity, account_id, undo, dry_run)
    with faults_told(settings, where=source.name, interrupted=f"interrupted; {GO_ON}"):
        if undo:
            click.echo(undoing.undo_file(settings, source, account_id, token))
            return
        options = Options(reading, account_id, identity, skip_bad, resend, dry_run, rejects)
        report = import_file(settings, source, options, token)
        click.echo(str(report))
        if report.is_refused:
            raise SystemExit(FAILED)


def _insist_on_sense(
    reading: Reading, identity: Identity, account_id: Id | None, undo: bool, dry_run: bool
) -> None:
    """End the program if options exclude each other, or one needs another."""
    wrong = {
        "give either --account or --account-column": (
            not undo and (account_id is None) == (reading.account is None)
        ),
        "give either --id-column or --overlapping: rows are known by one of them": (
            identity.overlapping and reading.id
        ),
        "--new-customers goes neither with --id-column nor with --overlapping": (
            identity.new_customers and (identity.overlapping or reading.id)
        ),
        "--undo takes back for real: it does not go with --dry-run": undo and dry_run,
        "--lines needs --id-column": reading.lines and not reading.id,
        "--update needs --id-column": identity.update and not reading.id,
    }
    for message, is_so in wrong.items():
        if is_so:
            raise Failed(message, WRONG_USAGE)
