"""What the services answer with, where it is no row of the store: the definitions that make the JSON."""

from typing import Literal

from msgspec import Struct

from tally.events import Id
from tally.store.accounts import Account, CustomerRevenue
from tally.store.customers import Customer, Invoice
from tally.store.history import Happening


class Made(Struct, frozen=True):
    """The id of what was made."""

    id: Id


class ManyMade(Struct, frozen=True):
    """The ids of what was made, in the order of what was sent."""

    ids: list[Id]


class CustomerPage(Struct, frozen=True):
    """Customers by ascending id; `next` is the `after` of the next page, null on the last."""

    customers: list[Customer]
    next: Id | None


class InvoicePage(Struct, frozen=True):
    """Invoices by ascending id; `next` is the `after` of the next page, null on the last."""

    invoices: list[Invoice]
    next: Id | None


class HistoryPage(Struct, frozen=True):
    """What became of something, oldest first; `next` is the `after` of the next page, null on the last."""

    history: list[Happening]
    next: Id | None


class AccountRevenue(Struct, frozen=True):
    """An account, its customers, and the sum of what they are shown with. Sent in parts."""

    account: Account
    customers: list[CustomerRevenue]
    total_revenue_cents: int


class CustomerRevenuePage(Struct, frozen=True):
    """An account's customers by ascending id; `next` is the `after` of the next page, null on the last."""

    customers: list[CustomerRevenue]
    next: Id | None


class Ownership(Struct, frozen=True):
    """Whether the user owns the account."""

    ok: bool


class SignedIn(Struct, frozen=True):
    """A token for `Authorization: Bearer`, and until when it is good: RFC 3339 in UTC."""

    token: str
    expires_at: str


class Healthy(Struct, frozen=True):
    """It is well."""

    status: Literal["ok"] = "ok"
