"""The CDNOW sample as Tally's customers and invoices."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from support.tally import Tally

FILE = Path(__file__).parents[1] / "data" / "cdnow_sample.txt"

CUSTOMERS = 2_357
INVOICES = 6_919
CENTS = 24_409_194

_CLIENTS = 16


class Purchase(NamedTuple):
    """One line of the file."""

    customer: str
    date: str
    cents: int


def purchases() -> Iterator[Purchase]:
    """Every purchase in the file, in the file's order."""
    for line in FILE.read_text().splitlines():
        _, customer, day, _, dollars = line.split()
        yield Purchase(customer, f"{day[:4]}-{day[4:6]}-{day[6:]}", int(Decimal(dollars) * 100))


def post_customers(tally: Tally, account_id: str) -> dict[str, str]:
    """Create every customer of the file, one request each; return their ids."""
    names = sorted({purchase.customer for purchase in purchases()})

    def post(name: str) -> str:
        body = {"name": f"CDNOW {name}", "account_id": account_id}
        return str(tally.customers.post("/customers", body)["id"])

    with ThreadPoolExecutor(_CLIENTS) as clients:
        return dict(zip(names, clients.map(post, names), strict=True))


def post_invoices(tally: Tally, ids: dict[str, str]) -> Iterator[str]:
    """Create every invoice, one request each; yield the ids as they come."""

    def post(purchase: Purchase) -> str:
        body = {
            "customer_id": ids[purchase.customer],
            "purchase_date": purchase.date,
            "purchase_price_cents": purchase.cents,
        }
        return str(tally.customers.post("/invoices", body)["id"])

    with ThreadPoolExecutor(_CLIENTS) as clients:
        yield from clients.map(post, purchases())
