"""`export` and `rebuild`: what comes out of the databases, and out of the stream."""

import sys
from pathlib import Path
from urllib.parse import urlencode

import click

from tally.actors import logs
from tally.actors.lock import AlreadyRunning
from tally.commands.shared import (
    ALONE,
    FAILED,
    Command,
    Group,
    config_option,
    confirmed,
    end,
    faults_told,
    load,
    some_id,
    token_option,
)
from tally.events import Id
from tally.recovery.rebuilding import CannotRebuild


@click.command(cls=Command)
@config_option
@click.argument("what", type=click.Choice(["invoices", "credits", "customers", "accounts", "revenue"]))
@click.option("--account", metavar="ID", callback=some_id, help="Only what belongs to this account.")
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
    with faults_told(
        settings,
        CannotRebuild,
        AlreadyRunning,
        without_redis=ALONE,
        interrupted="interrupted; run the same command again to go on",
    ):
        click.echo(rebuilding.rebuild_accounts(settings, lambda told: confirmed(told, yes)))
