"""The JSON that the services answer with, except for the store's own rows."""

from typing import Literal

from msgspec import Struct

from tally.events import Id
from tally.http.periods import PeriodRevenue
from tally.store.accounts import Account, CustomerRevenue
from tally.store.history import Happening
from tally.store.records import Credit, Customer, Invoice


class Made(Struct, frozen=True):
    """The id of what was made."""

    id: Id


class ManyMade(Struct, frozen=True):
    """The ids of what was made, in the order of what was sent."""

    ids: list[Id]


class CustomerPage(Struct, frozen=True):
    """Customers in the order asked for; `next` is the `after` of the next page, null on the last."""

    customers: list[Customer]
    next: str | None


class InvoicePage(Struct, frozen=True):
    """Invoices in the order asked for; `next` is the `after` of the next page, null on the last."""

    invoices: list[Invoice]
    next: str | None


class CreditPage(Struct, frozen=True):
    """Credits in the order asked for; `next` is the `after` of the next page, null on the last."""

    credits: list[Credit]
    next: str | None


class HistoryPage(Struct, frozen=True):
    """What was done to a row, oldest first; `next` is the `after` of the next page, null on the last."""

    history: list[Happening]
    next: Id | None


class AccountRevenue(Struct, frozen=True):
    """An account, its customers, and the sum of what they are shown with. Sent in parts."""

    account: Account
    customers: list[CustomerRevenue]
    total_revenue_cents: int


class CustomerRevenuePage(Struct, frozen=True):
    """An account's customers in the order asked for; `next` is the `after` of the next page, or null."""

    customers: list[CustomerRevenue]
    next: str | None


class RevenuePage(Struct, frozen=True):
    """Periods, ascending; none is left out between the first and the last."""

    revenue: list[PeriodRevenue]


class Ownership(Struct, frozen=True):
    """Whether the user owns the account."""

    ok: bool


class SignedIn(Struct, frozen=True):
    """A token for `Authorization: Bearer`, and until when it is good: RFC 3339 in UTC."""

    token: str
    expires_at: str


class Healthy(Struct, frozen=True):
    """The service is well."""

    status: Literal["ok"] = "ok"
