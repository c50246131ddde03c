"""`events`: prints the stream."""

from collections.abc import Collection
from contextlib import closing
from datetime import timedelta

import click

from tally.commands import event_listing
from tally.commands.command_line import say
from tally.commands.event_choice import Choice, ago
from tally.commands.shared import Command, parsed, printing, some_id, stream_of
from tally.config import Settings
from tally.events import EVENT_TYPES, Id
from tally.store.accounts import Accounts
from tally.store.accounts import open_database as open_accounts
from tally.store.errors import StoreError
from tally.store.stream import is_entry_id


def _stream_id(value: str) -> str:
    if value == event_listing.NEW or is_entry_id(value if "-" in value else f"{value}-0"):
        return value
    raise ValueError("Expected the id of an event, such as 1553318690326-0")


@click.command(cls=Command, example="events --since 10m --follow --type InvoiceCreated")
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option(
    "--from",
    "start",
    metavar="ID",
    callback=parsed(_stream_id),
    help=f"Begin with this id; {event_listing.NEW} begins with those that come.",
)
@click.option(
    "--since", callback=parsed(ago), metavar="AGO", help="Begin so long ago: 10m, 90s, 2h, 1d, 1h30m."
)
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(list(EVENT_TYPES)),
    help="Only events of this type; may be given several times.",
)
@click.option("--customer", metavar="ID", callback=some_id, help="Only what concerns this customer.")
@click.option(
    "--account", metavar="ID", callback=some_id, help="Only what concerns this account or its customers."
)
@click.option("--json", "form", flag_value="json", help="One JSON object a line, with every field.")
@click.option("--raw", "form", flag_value="raw", help="Every field as Redis has it, as redis-cli shows them.")
def events(
    settings: Settings,
    follow: bool,
    start: str | None,
    since: timedelta | None,
    types: tuple[str, ...],
    customer: Id | None,
    account: Id | None,
    form: event_listing.Form | None,
) -> None:
    """Print the stream: id, time, type and payload of each event.

    An event is printed if it matches all given options of --type, --customer and --account. An account's
    events include those of its customers, invoices and credits.
    """
    if start and since is not None:
        raise click.UsageError("give --from or --since, not both")
    customers = [] if account is None else _customers_of(settings, account)
    listing = event_listing.Listing(Choice(types, customer, account, customers), form or "line")
    first = start or ("0" if since is None else since)
    with stream_of(settings) as stream, printing():
        for page in event_listing.pages(stream, first, follow):
            listing.print(page)


def _customers_of(settings: Settings, account: Id) -> Collection[int]:
    """The account's customers by accounts.db. If that can't be read, this says so, and the stream must do."""
    try:
        with closing(open_accounts(settings.directory, make=False)) as database:
            return Accounts(database).ids_of_customers(account)
    except StoreError as error:
        say(f"{error}: the stream alone tells whose invoices and credits are the account's")
        return []
