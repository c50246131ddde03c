"""`demo`: accounts, customers and invoices to look at."""

from pathlib import Path

import click

from tally.commands.shared import FAILED, Command, config_option, end, load, token_option


@click.command(cls=Command)
@config_option
@token_option
def demo(file: Path | None, token: str | None) -> None:
    """Fill an empty, running Tally with accounts, customers and invoices to look at.

    They are invented, cover the last 24 months, and are the same each time but for the day. Where there are
    accounts or customers already, nothing is changed. Run it again when it was interrupted: it goes on. With
    users, it takes an admin's token.

    \b
    Example: python supervisor.py demo
    """
    from tally.commands import demo as making  # loads what retries; `run` does without
    from tally.commands.service_client import address
    from tally.store.demo_data import ACCOUNTS

    settings = load(file)
    try:
        made = making.make(settings, token)
    except making.CannotMake as error:
        end(FAILED, str(error))
    except KeyboardInterrupt:
        end(FAILED, "interrupted; run the same command again to go on")
    days = f"{made.invoices[0].day} to {made.invoices[-1].day}"
    click.echo(
        f"{len(ACCOUNTS)} accounts, {len(made.customers)} customers, {len(made.invoices):,} invoices and"
        f" {len(made.credits)} credits from {days}: {made.total_cents / 100:,.2f} in all"
    )
    click.echo(f"accounts and their revenue: {settings.node.url_accounts or address(settings.accounts)}/")
    click.echo(f"customers and invoices:     {settings.node.url_customers or address(settings.customers)}/")
