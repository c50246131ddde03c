"""`import`, `export` and `rebuild`: what goes into the databases, and out of them."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import click

from tally.actors import logs
from tally.actors.lock import AlreadyRunning
from tally.commands.purchase_file import Columns
from tally.commands.shared import FAILED, Command, Group, config_option, confirmed, end, load
from tally.events import Id
from tally.recovery.rebuilding import CannotRebuild
from tally.store.errors import StoreError
from tally.store.stream import RedisError


def _account_id(_context: object, _parameter: object, value: str) -> Id:
    try:
        return Id.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _delimiter(_context: object, _parameter: object, value: str | None) -> str | None:
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("Expected one character, or tab")
    return value


def _token(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[!-~]+", value):
        raise click.BadParameter("Expected visible ASCII characters")
    return value


def _some_account(_context: object, _parameter: object, value: str | None) -> Id | None:
    return None if value is None else _account_id(_context, _parameter, value)


def token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--token TOKEN`."""
    return click.option(
        "--token",
        envvar="TALLY_TOKEN",
        show_envvar=True,
        callback=_token,
        help="Of POST /auth/login, where auth.mode is not off.",
    )(command)


@click.command("import", cls=Command)
@config_option
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--account", required=True, metavar="ID", callback=_account_id, help="The account they belong to."
)
@click.option("--customer-column", default="customer", show_default=True, metavar="NAME")
@click.option("--date-column", default="purchase_date", show_default=True, metavar="NAME")
@click.option("--amount-column", default="amount", show_default=True, metavar="NAME")
@click.option(
    "--delimiter",
    callback=_delimiter,
    help="Between columns; by default the comma, semicolon or tab of the header.",
)
@click.option(
    "--skip-bad", is_flag=True, help="Leave bad rows out; otherwise nothing is imported when there is one."
)
@click.option(
    "--resend", is_flag=True, help="Send what was in doubt, after you have looked; you will be told."
)
@token_option
def import_(
    file: Path | None,
    source: BinaryIO,
    account: Id,
    customer_column: str,
    date_column: str,
    amount_column: str,
    delimiter: str | None,
    skip_bad: bool,
    resend: bool,
    token: str | None,
) -> None:
    """Import customers and their invoices from a CSV file into a running Tally; - is standard input.

    Each distinct customer is created once, and an invoice for each row, with an amount in decimal
    currency such as 29.33. The file is UTF-8 and begins with the names of its columns.

    Safe to run again: an import that was interrupted goes on where it was, one that is done adds
    nothing. One that was killed while a batch was on its way, and is run again only after 24 hours,
    asks you to look first. A file that was changed in any way is another import.

    \b
    Example: python supervisor.py import purchases.csv --account 1
    """
    from tally.commands import importing  # what shows progress takes 0.1 s to load; `run` does without

    columns = Columns(customer_column, date_column, amount_column)
    options = importing.Options(columns, delimiter, skip_bad, resend)
    try:
        click.echo(importing.import_file(load(file), source, account, options, token))
    except (importing.CannotImport, StoreError) as error:
        end(FAILED, str(error))
    except importing.Interrupted as error:
        end(FAILED, f"interrupted: {error}; run the same command again to go on")
    except KeyboardInterrupt:
        end(FAILED, "interrupted; run the same command again to go on")
    except OSError as error:
        end(FAILED, f"{error.filename or source.name}: {error.strerror or error}")


@click.command(cls=Command)
@config_option
@click.argument("what", type=click.Choice(["invoices", "credits", "customers", "accounts", "revenue"]))
@click.option("--account", metavar="ID", callback=_some_account, help="Only what belongs to this account.")
@click.option("--from", "first", metavar="DATE", help="Only from this date, or month, on.")
@click.option("--to", "last", metavar="DATE", help="Only up to this date, or month.")
@click.option(
    "--by", type=click.Choice(["month", "quarter", "year"]), help="Periods of the revenue.  [default: month]"
)
@token_option
def export(
    file: Path | None,
    what: str,
    account: Id | None,
    first: str | None,
    last: str | None,
    by: str | None,
    token: str | None,
) -> None:
    """Write a list of a running Tally to standard output, as CSV.

    Invoices and credits have the columns that `import` takes. Dates are YYYY-MM-DD; for the revenue, months
    such as 1997-03, or as `--by` has it.

    \b
    Example: python supervisor.py export invoices --from 2019-01-01 --to 2019-12-31
    """
    from tally.commands.service_client import Refused, ServiceClient, Unavailable

    asked = {"account_id": account, "from": first, "to": last, "by": by}
    path = f"/{what}"
    if what in ("accounts", "revenue"):
        del asked["account_id"]
        path = f"/accounts/{account}{path}" if account is not None and what == "revenue" else path
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    settings = load(file)
    served_by = settings.accounts if what in ("accounts", "revenue") else settings.customers
    client = ServiceClient("accounts" if served_by is settings.accounts else "customers", served_by, token)
    try:
        client.download(f"{path}?{query}" if query else path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except Refused as error:
        end(FAILED, str(error))
    except Unavailable as error:
        end(FAILED, f"{error}; what was written is not all")
    finally:
        client.close()


@click.group(cls=Group)
def rebuild() -> None:
    """Build anew what can be built from something else.

    \b
    Example: python supervisor.py rebuild accounts
    """


@rebuild.command("accounts")
@config_option
@click.option("--yes", is_flag=True, help="Don't ask, whatever is lost; you will be told.")
def rebuild_accounts(file: Path | None, yes: bool) -> None:
    """Build the customers and revenue in accounts.db again, while Tally runs or only Redis does.

    From the stream when it still holds everything, else from what customers.db holds now. The old
    figures are shown until the new ones are complete. Run it again when it was interrupted: it goes
    on.

    \b
    Example: python supervisor.py rebuild accounts
    """
    from tally.commands import rebuilding  # what shows progress takes 0.1 s to load; `run` does without

    settings = load(file)
    logs.configure(settings.log, "rebuild")
    try:
        click.echo(rebuilding.rebuild_accounts(settings, lambda told: confirmed(told, yes)))
    except RedisError as error:
        end(FAILED, f"Redis at {settings.redis.address}: {error} (a private one alone: `run --only redis`)")
    except (CannotRebuild, AlreadyRunning, StoreError) as error:
        end(FAILED, str(error))
    except OSError as error:
        end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")
    except KeyboardInterrupt:
        end(FAILED, "interrupted; run the same command again to go on")
