"""The demo as recorded by the services. Each records its part, all or nothing, in an empty database."""

from collections.abc import Sequence

from msgspec.structs import replace

from tally.events import Id, now
from tally.store.accounts import Accounts, NewAccount
from tally.store.cause import UNKNOWN, Cause
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.demo_data import ACCOUNTS, made_on
from tally.store.errors import NotEmpty
from tally.store.records import NewCredit

TOLD = "Made by the demo on "  # followed by the day: the description of its accounts


def is_empty(store: Accounts) -> bool:
    """Whether no account is open, and no customer without an account is known."""
    return not store.accounts(after=-1, limit=1) and not store.database.value(
        "SELECT EXISTS (SELECT 1 FROM customer WHERE NOT deleted)"
    )


def open_accounts(store: Accounts, cause: Cause = UNKNOWN) -> list[Id]:
    """Open the accounts, and answer their ids in order. Raises NotEmpty."""
    if not is_empty(store):
        raise NotEmpty("accounts or customers")
    told = f"{TOLD}{now().date()}"
    return [store.create_account(NewAccount(each.name, each.owned_by, told), cause) for each in ACCOUNTS]


def record_customers(store: Customers, accounts: Sequence[Id], cause: Cause = UNKNOWN) -> list[Id]:
    """Record the customers of these accounts, with their invoices and credits; answer the customers' ids.

    Raises NotEmpty, and UnknownReference for an account that isn't known yet.
    """
    if store.customers(CustomerQuery(limit=1)):
        raise NotEmpty("customers")
    demo = made_on(now().date())
    buyers = [replace(each, account_id=accounts[each.account_id]) for each in demo.customers]
    customers = store.create_customers(buyers, True, cause)
    sold = [replace(each, customer_id=customers[each.customer_id]) for each in demo.invoices]
    invoices = store.create_invoices(sold, cause)
    credits = [
        NewCredit(sold[each.invoice].customer_id, each.day, each.cents, invoices[each.invoice])
        for each in demo.credits
    ]
    store.credits.create(credits, cause)
    return customers
