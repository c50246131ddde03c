"""`import`: files of other programs, as they are."""

from pathlib import Path
from typing import Any, BinaryIO

import click

from tally.commands.shared import (
    FAILED,
    WRONG_USAGE,
    Command,
    config_option,
    end,
    load,
    some_id,
    token_option,
)
from tally.events import Id
from tally.store.errors import StoreError


def _delimiter(_context: object, _parameter: object, value: str | None) -> str | None:
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("Expected one character, or tab")
    return value


def _encoding(_context: object, _parameter: object, value: str | None) -> str | None:
    try:
        "".encode(value or "utf-8")
    except LookupError:
        raise click.BadParameter("Expected an encoding, such as utf-8, cp1252 or utf-16-le") from None
    return value


def _date_format(_context: object, _parameter: object, value: str | None) -> str | None:
    from tally.importing.cells import is_date_format

    if value is not None and not is_date_format(value):
        raise click.BadParameter("Expected day, month and year, such as %d.%m.%Y or %m/%d/%y")
    return value


def _where(_context: object, _parameter: object, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [(name.strip(), value.strip()) for name, _, value in (each.partition("=") for each in values)]
    if any("=" not in each for each in values):
        raise click.BadParameter("Expected COLUMN=VALUE")
    return tuple(pairs)


@click.command("import", cls=Command)
@config_option
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--account",
    "account_id",
    metavar="ID",
    callback=some_id,
    help="The account that all rows belong to.",
)
@click.option(
    "--account-column", "account", metavar="NAME", help="The column with each row's account: its id, or name."
)
@click.option(
    "--customer",
    "--customer-column",
    "customer",
    default="customer",
    show_default=True,
    metavar="NAME",
    help="The column.",
)
@click.option(
    "--date",
    "--date-column",
    "date",
    default="purchase_date",
    show_default=True,
    metavar="NAME",
    help="The column.",
)
@click.option(
    "--amount",
    "--amount-column",
    "amount",
    default="amount",
    show_default=True,
    metavar="NAME",
    help="The column.",
)
@click.option(
    "--id-column",
    "id",
    metavar="NAME",
    help="The column with each row's own reference, by which it is known again.",
)
@click.option(
    "--date-format", metavar="FORMAT", callback=_date_format, help="Such as %d.%m.%Y.  [default: ISO]"
)
@click.option(
    "--decimal", type=click.Choice([".", ","]), default=".", show_default=True, help="The decimal mark."
)
@click.option(
    "--encoding",
    metavar="NAME",
    callback=_encoding,
    help="Such as cp1252.  [default: UTF-8, or as a BOM says]",
)
@click.option(
    "--delimiter",
    callback=_delimiter,
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
    file: Path | None,
    source: BinaryIO,
    account_id: Id | None,
    delimiter: str | None,
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

    A row becomes an invoice of the customer of its name, who is made where the account has none. Nothing is
    guessed: dates are YYYY-MM-DD and amounts like 29.33, unless options say otherwise.

    Safe to run again: an import that was interrupted goes on where it was, one that is done adds nothing.
    With --id-column, or --overlapping, that holds for each row, so that next month's file may have last
    month's rows too. Without, it holds for the file: one that was changed in any way is another import.

    \b
    Example: python supervisor.py import purchases.csv --account 1
    """
    from tally.commands import importing, undoing  # what shows progress takes 0.1 s to load
    from tally.importing.comparing import Identity
    from tally.importing.purchase_file import Reading

    reading, identity = Reading(**how), Identity(overlapping, update, new_customers)
    if (account_id is None) == (reading.account is None) and not undo:
        end(WRONG_USAGE, "give either --account or --account-column")
    if overlapping and reading.id:
        end(WRONG_USAGE, "give either --id-column or --overlapping: rows are known by one of them")
    if new_customers and (overlapping or reading.id):
        end(WRONG_USAGE, "--new-customers goes neither with --id-column nor with --overlapping")
    for option, value in (("--lines", reading.lines), ("--update", update)):
        if value and not reading.id:
            end(WRONG_USAGE, f"{option} needs --id-column")
    options = importing.Options(reading, delimiter, account_id, identity, skip_bad, resend, dry_run, rejects)
    try:
        if undo:
            click.echo(undoing.undo_file(load(file), source, account_id, token))
            return
        report = importing.import_file(load(file), source, options, token)
        click.echo(str(report))
        if report.is_refused:
            raise SystemExit(FAILED)
    except (importing.CannotImport, StoreError) as error:
        end(FAILED, str(error))
    except importing.Interrupted as error:
        end(FAILED, f"interrupted: {error}; run the same command again to go on")
    except KeyboardInterrupt:
        end(FAILED, "interrupted; run the same command again to go on")
    except OSError as error:
        end(FAILED, f"{error.filename or source.name}: {error.strerror or error}")
