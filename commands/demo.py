"""`demo`: something to look at, in an empty Tally. Each service records its own part, as for the pages."""

import secrets
from contextlib import closing

import click

from tally.commands.command_line import Failed
from tally.commands.service_client import Refused, ServiceClient, Unavailable, address, insisting, patient
from tally.commands.shared import Command, faults_told, token_option
from tally.config import Settings
from tally.store.demo import TOLD
from tally.store.demo_data import ACCOUNTS, CUSTOMERS

_SHOWN_SECONDS = 30  # how long to wait until recorded rows are shown


@click.command(cls=Command, example="demo")
@token_option
def demo(settings: Settings, token: str | None) -> None:
    """Fill an empty, running Tally with accounts, customers and invoices to look at.

    They are invented, cover the last 24 months, and are the same each time except for the day. A Tally that
    has accounts or customers is left as it is. Run it again after an interruption: it goes on. With users,
    it needs an admin's token.
    """
    with (
        faults_told(settings, interrupted="interrupted; run the same command again to go on"),
        closing(ServiceClient("accounts", settings.accounts, token)) as accounts,
        closing(ServiceClient("customers", settings.customers, token)) as customers,
    ):
        click.echo(fill(accounts, customers))
    click.echo(f"accounts and their revenue: {settings.node.url_accounts or address(settings.accounts)}/")
    click.echo(f"customers and invoices:     {settings.node.url_customers or address(settings.customers)}/")


def fill(accounts: ServiceClient, customers: ServiceClient) -> str:
    """Make the demo in a running Tally that has no accounts and no customers; tell of it once it is shown.

    May be repeated after an interruption, on any day: nothing is added twice. Raises Failed.
    """
    with insisting("is Tally running?"):
        ids = _opened(accounts, customers)
    key = secrets.token_hex(16)  # of this run, for attempts that get no answer
    try:
        with insisting("run the same command again to go on"):
            ids = ids or patient()(accounts.post, "/demo", None, key)
            patient()(customers.post, "/demo", {"accounts": ids}, key)  # 503 until it knows the accounts
    except Refused as error:
        remedy = "; demo wants an admin's token" if error.http_status == 403 else ""
        raise Failed(f"{error}{remedy}") from error
    try:
        if customers.events:
            patient()(accounts.await_events, customers.events, _SHOWN_SECONDS)
        return _told(customers)
    except Unavailable as error:
        raise Failed(f"all is recorded, but not shown yet: {error}; see `status`") from error


def _opened(accounts: ServiceClient, customers: ServiceClient) -> list[str]:
    """The accounts of an unfinished demo; none if nothing is there. Raises Failed for anything else."""
    there = [*accounts.rows("/accounts")]
    is_begun = len(there) == len(ACCOUNTS) and all(told.startswith(TOLD) for _, _, told, *_ in there)
    if customers.get("/customers?limit=1")["customers"] or (there and not is_begun):
        raise Failed(
            f"this Tally has {'accounts' if there else 'customers'} already, and demo is for an empty one:"
            " nothing was changed. Give another folder, as in TALLY_DATA_DIRECTORY=/tmp/demo, to `run` and to"
            " `demo`"
        )
    return [id for id, *_ in there]


def _told(customers: ServiceClient) -> str:
    """What is recorded, on one line."""
    invoices, credits = ([*customers.rows(path)] for path in ("/invoices", "/credits"))
    cents = sum(int(amount.replace(".", "")) for _, _, amount, *_ in (*invoices, *credits))
    return (
        f"{len(ACCOUNTS)} accounts, {CUSTOMERS} customers, {len(invoices):,} invoices and"
        f" {len(credits)} credits from {invoices[0][1]} to {invoices[-1][1]}: {cents / 100:,.2f} in all"
    )
