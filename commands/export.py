"""`export`: lists of a running Tally, as CSV."""

import sys
from contextlib import closing
from urllib.parse import urlencode

import click

from tally.commands.service_client import ServiceClient, insisting
from tally.commands.shared import Command, some_id, token_option
from tally.config import Settings
from tally.events import Id


@click.command(cls=Command, example="export invoices --from 2019-01-01 --to 2019-12-31")
@click.argument("what", type=click.Choice(["invoices", "credits", "customers", "accounts", "revenue"]))
@click.option("--account", metavar="ID", callback=some_id, help="Only what belongs to this account.")
@click.option("--from", "first", metavar="DATE", help="Only from this date, or month, on.")
@click.option("--to", "last", metavar="DATE", help="Only up to this date, or month.")
@click.option(
    "--by", type=click.Choice(["month", "quarter", "year"]), help="Periods of the revenue.  [default: month]"
)
@token_option
def export(
    settings: Settings,
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
    """
    asked = {"account_id": account, "from": first, "to": last, "by": by}
    path = f"/{what}"
    if what == "accounts" and account is not None:
        raise click.UsageError("--account does not go with accounts: all of them are listed")
    if what in ("accounts", "customers") and (first or last):
        raise click.UsageError(f"--from and --to do not go with {what}: these have no date of business")
    if what != "revenue" and by:
        raise click.UsageError(f"--by does not go with {what}, but with revenue")
    if what in ("accounts", "revenue"):
        service = ServiceClient("accounts", settings.accounts, token)
        del asked["account_id"]
        path = path if account is None else f"/accounts/{account}{path}"
    else:
        service = ServiceClient("customers", settings.customers, token)
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    with closing(service), insisting("what was written is not all"):
        service.download(f"{path}?{query}" if query else path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
