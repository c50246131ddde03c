"""`demo`: something to look at, in an empty Tally, over HTTP as any other client.

Every request has an Idempotency-Key that is the same each time, and the accounts tell on which day the demo
was begun. So an interrupted demo is finished by another: what is there already is not made twice.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime
from typing import Any

import click

from tally.commands.command_line import Failed
from tally.commands.service_client import (
    LIGHT,
    Refused,
    ServiceClient,
    Unavailable,
    address,
    insisting,
    is_forgotten,
    patient,
)
from tally.commands.shared import Command, faults_told, token_option
from tally.config import Settings
from tally.events import now
from tally.http.exports import meant
from tally.store.demo_data import ACCOUNTS, Demo, made_on

BATCH = 500  # rows a request

_TOLD = "Made by tally demo on "  # followed by the day: the description of every account
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
        made = fill(accounts, customers)
    days = f"{made.invoices[0].day} to {made.invoices[-1].day}"
    click.echo(
        f"{len(ACCOUNTS)} accounts, {len(made.customers)} customers, {len(made.invoices):,} invoices and"
        f" {len(made.credits)} credits from {days}: {made.total_cents / 100:,.2f} in all"
    )
    click.echo(f"accounts and their revenue: {settings.node.url_accounts or address(settings.accounts)}/")
    click.echo(f"customers and invoices:     {settings.node.url_customers or address(settings.customers)}/")


def fill(accounts: ServiceClient, customers: ServiceClient) -> Demo:
    """Make the demo in a running Tally that has no accounts and no customers; answer it once it is shown.

    May be repeated after an interruption: nothing is added twice. Raises Failed.
    """
    with insisting("is Tally running?"):
        day = _begun(accounts, customers) or now().date()
    try:
        with insisting("run the same command again to go on"):
            return _Maker(accounts, customers, day).make()
    except Refused as error:
        remedy = "; demo wants an admin's token" if error.http_status == 403 else ""
        raise Failed(f"{error}{remedy}") from error


def _begun(accounts: ServiceClient, customers: ServiceClient) -> date | None:
    """The day of an unfinished demo; None if there is nothing. Raises Failed."""
    there = [*accounts.rows("/accounts")]
    day = _day_of_unfinished(there) if there else None
    if day and not customers.get("/credits?limit=1")["credits"]:
        return day
    if there or customers.get("/customers?limit=1")["customers"]:
        what = "accounts" if there else "customers"
        raise Failed(
            f"this Tally has {what} already, and demo is for an empty one: nothing was changed. Give another"
            " folder, as in TALLY_DATA_DIRECTORY=/tmp/demo, to `run` and to `demo`"
        )
    return None


def _day_of_unfinished(there: Sequence[Sequence[str]]) -> date | None:
    """The day of the demo that these first accounts belong to, while its keys are still known."""
    _, _, told, _, created, *_ = there[0]
    expected = [[each.name, told, each.owned_by] for each in ACCOUNTS]
    if not told.startswith(_TOLD) or is_forgotten(datetime.fromisoformat(created)):
        return None
    if [[meant(cell) for cell in row[1:4]] for row in there] != expected[: len(there)]:
        return None
    return date.fromisoformat(told.removeprefix(_TOLD))


class _Maker:
    """Sends a whole demo, each part after those that it needs."""

    def __init__(self, accounts: ServiceClient, customers: ServiceClient, day: date) -> None:
        self._accounts = accounts
        self._customers = customers
        self._day = day
        self._patiently = patient()

    def make(self) -> Demo:
        demo = made_on(self._day)
        accounts = self._open_accounts()
        self._wait(self._customers, "/customers?limit=1", self._accounts)  # with users, it must know them
        customers = self._send(
            "customers",
            [{"name": each.name, "account_id": accounts[each.account]} for each in demo.customers],
        )
        invoices = self._send(
            "invoices",
            [
                {
                    "customer_id": customers[each.customer],
                    "purchase_date": each.day,
                    "purchase_price_cents": each.cents,
                }
                for each in demo.invoices
            ],
        )
        self._send(
            "credits",
            [
                {
                    "customer_id": customers[demo.invoices[each.invoice].customer],
                    "invoice_id": invoices[each.invoice],
                    "credit_date": each.day,
                    "credited_cents": each.cents,
                }
                for each in demo.credits
            ],
        )
        try:
            self._wait(self._accounts, LIGHT, self._customers)
        except Unavailable as error:
            raise Failed(f"all is recorded, but not shown yet: {error}; see `status`") from error
        return demo

    def _open_accounts(self) -> list[str]:
        told, ids = f"{_TOLD}{self._day}", list[str]()
        for place, each in enumerate(ACCOUNTS):
            account = {"name": each.name, "description": told, "owned_by": each.owned_by}
            ids += self._post(self._accounts, "/accounts", account, f"accounts-{place}")
        return ids

    def _send(self, kind: str, rows: list[dict[str, Any]]) -> list[str]:
        """Create rows in batches, each all or nothing; answer their ids."""
        ids: list[str] = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            ids += self._post(self._customers, f"/{kind}/batch", batch, f"{kind}-{start}")
        return ids

    def _post(self, service: ServiceClient, path: str, content: Any, key: str) -> list[str]:
        return self._patiently(service.post, path, content, f"demo-{self._day}-{key}")

    def _wait(self, reader: ServiceClient, path: str, writer: ServiceClient) -> None:
        """Wait until one service has applied the other's latest events."""
        if writer.events:
            self._patiently(reader.get_after, path, writer.events, _SHOWN_SECONDS)
