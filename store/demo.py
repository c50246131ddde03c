"""The demo as recorded by the services. Each records its part, all or nothing, in an empty database."""

from collections.abc import Sequence

from tally.events import Id, now
from tally.store.accounts import Accounts, NewAccount
from tally.store.cause import UNKNOWN, Cause
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.demo_data import ACCOUNTS, made_on
from tally.store.errors import NotEmpty
from tally.store.records import NewCredit, NewCustomer, NewInvoice

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
    customers = store.create_customers(
        [NewCustomer(each.name, accounts[each.account]) for each in demo.customers], True, cause
    )
    invoices = store.create_invoices(
        [NewInvoice(customers[each.customer], each.day, each.cents) for each in demo.invoices], cause
    )
    store.credits.create(
        [
            NewCredit(
                customers[demo.invoices[each.invoice].customer], each.day, each.cents, invoices[each.invoice]
            )
            for each in demo.credits
        ],
        cause,
    )
    return customers
