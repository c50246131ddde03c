"""The data of `demo`. It is invented, and the same each time; only its last day differs."""

import random
from datetime import date, timedelta
from itertools import accumulate
from typing import NamedTuple

from tally.events import Id
from tally.store.records import NewCustomer, NewInvoice

DAYS = 730
CUSTOMERS = 120
INVOICES = 3_000
CREDITS = 24

_SEED = 20190106
# By month, January first: a shop sells more before the holidays, and less in summer.
_SEASONS = (0.75, 0.8, 0.95, 1.0, 1.05, 1.0, 0.85, 0.75, 1.05, 1.15, 1.4, 1.7)
_GROWTH = 1.2  # how much more the last day sells than the first, as a factor of it
_WEEKEND = 0.4  # as a part of a weekday's sales


class Account(NamedTuple):
    """An account, and the usual amount of its invoices, in cents."""

    name: str
    owned_by: str
    usual_cents: int


class Credit(NamedTuple):
    """A credit of cents, for the invoice at this place."""

    invoice: int
    day: date
    cents: int


class Demo(NamedTuple):
    """All data, each list in the order in which it is sent.

    In place of the ids, which are given later, a customer has the place of its account in ACCOUNTS, and an
    invoice that of its customer.
    """

    customers: list[NewCustomer]
    invoices: list[NewInvoice]
    credits: list[Credit]


ACCOUNTS = (
    Account("Harbour Coffee", "maria", 4_800),
    Account("Northwind Bicycles", "tom", 32_000),
    Account("Paper & Ink", "maria", 2_600),
    Account("Greenhouse Supplies", "aisha", 11_500),
    Account("Atlas Tools", "tom", 18_000),
    Account("Studio Lumen", "jun", 64_000),
)

_FIRST = (
    "Ada", "Alan", "Amir", "Anna", "Ben", "Carla", "Chen", "Clara",
    "David", "Elena", "Emil", "Fatima", "Felix", "Grace", "Hana", "Hugo",
    "Ines", "Ivan", "Jonas", "Julia", "Kofi", "Lars", "Leila", "Lucia",
    "Marta", "Mateo", "Maya", "Nadia", "Niels", "Noor",
)  # fmt: skip
_LAST = (
    "Adams", "Ahmed", "Almeida", "Andersen", "Bauer", "Becker", "Brown", "Castro",
    "Costa", "Dubois", "Evans", "Fischer", "Garcia", "Haddad", "Hansen", "Hughes",
    "Ito", "Jensen", "Kaya", "Keller", "Khan", "Kim", "Laurent", "Lopez",
    "Mensah", "Meyer", "Moreau", "Novak", "Okafor", "Patel", "Rossi", "Santos",
    "Silva", "Singh", "Tanaka", "Walker", "Wilson", "Yilmaz",
)  # fmt: skip


def made_on(today: date) -> Demo:
    """The demo whose last day is `today`."""
    chance = random.Random(_SEED)
    names = chance.sample([f"{first} {last}" for first in _FIRST for last in _LAST], CUSTOMERS)
    customers = [NewCustomer(name, Id(chance.randrange(len(ACCOUNTS)))) for name in names]
    invoices = _invoices(chance, customers, today)
    return Demo(customers, invoices, _credits(chance, invoices, today))


def _invoices(chance: random.Random, customers: list[NewCustomer], today: date) -> list[NewInvoice]:
    days = [today - timedelta(DAYS - 1 - place) for place in range(DAYS)]
    busy = list(accumulate(_busy(day, place / DAYS) for place, day in enumerate(days)))
    loyal = list(accumulate(chance.lognormvariate(0, 0.8) for _ in customers))
    dated = sorted(chance.choices(days, cum_weights=busy, k=INVOICES))
    buyers = chance.choices(range(len(customers)), cum_weights=loyal, k=INVOICES)
    return [
        NewInvoice(Id(buyer), day, _amount(chance, ACCOUNTS[customers[buyer].account_id].usual_cents))
        for buyer, day in zip(buyers, dated, strict=True)
    ]


def _busy(day: date, passed: float) -> float:
    weekday = _WEEKEND if day.weekday() >= 5 else 1
    return _SEASONS[day.month - 1] * (1 + _GROWTH * passed) * weekday


def _amount(chance: random.Random, usual_cents: int) -> int:
    return max(1, round(usual_cents * chance.lognormvariate(0, 0.6) / 5)) * 5


def _credits(chance: random.Random, invoices: list[NewInvoice], today: date) -> list[Credit]:
    credits = []
    for place in sorted(chance.sample(range(len(invoices)), CREDITS)):
        day, cents = invoices[place].purchase_date, invoices[place].purchase_price_cents
        day = min(today, day + timedelta(chance.randint(1, 20)))
        credits.append(Credit(place, day, cents if chance.random() < 0.5 else (cents + 1) // 2))
    return credits
