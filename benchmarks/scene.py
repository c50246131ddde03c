"""An account and its customers in a running Tally, and the requests that make invoices for them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

from benchmarks import entries
from benchmarks.client import Unexpected, until
from benchmarks.load import Request, post
from benchmarks.running import Running

MOST_IN_BATCH = 10_000


class Scene:
    """An account with `count` customers, and known revenue: `sent` cents have been accepted."""

    def __init__(self, tally: Running, customers: int) -> None:
        self.tally = tally
        self.sent = 0
        with closing(tally.accounts()) as accounts:
            self.account = accounts.post("/accounts", {"name": "Scene", "owned_by": "benchmark"})["id"]
        self.customers = create_customers(tally, self.account, customers)

    def requests(self, count: int) -> list[Request]:
        """`count` single invoices, each with its cents as its weight."""
        return requests(count, self.customers)

    def batches(self, count: int) -> Iterator[Request]:
        """`count` invoices in full batches, each with its cents as its weight."""
        for body, cents in self.bodies(count, MOST_IN_BATCH):
            yield Request(post("/invoices/batch", body), cents)

    def bodies(self, count: int, size: int) -> Iterator[tuple[bytes, int]]:
        """`count` invoices in batches of `size`, each as JSON and with its cents."""
        invoices = entries.invoices(count, len(self.customers))
        while chunk := list(islice(invoices, size)):
            body = json.dumps([_body(invoice, self.customers) for invoice in chunk]).encode()
            yield body, sum(invoice.cents for invoice in chunk)

    def revenue(self) -> int:
        """The cents that GET /accounts/{id} shows."""
        with closing(self.tally.accounts()) as accounts:
            return int(accounts.get(f"/accounts/{self.account}")["total_revenue_cents"])

    def shown(self) -> bool:
        """Whether GET /accounts/{id} shows all that was sent."""
        return self.revenue() == self.sent

    def insist(self, seconds: float = 120.0) -> None:
        """Wait until all that was sent is shown, and check that it stays so once nothing is on its way."""
        until(self.shown, pause=0.02, seconds=seconds)
        until(self.tally.settled, pause=0.05, seconds=seconds)
        if not self.shown():
            raise Unexpected("the revenue changed after it had been complete")


def create_customers(tally: Running, account: str, count: int) -> list[str]:
    """Create customers in batches; return their ids."""
    ids: list[str] = []
    with closing(tally.customers()) as customers:
        while len(ids) < count:
            some = min(MOST_IN_BATCH, count - len(ids))
            content = [{"name": f"Customer {n}", "account_id": account} for n in range(some)]
            ids += customers.post("/customers/batch", content)["ids"]
    return ids


def requests(count: int, customers: Sequence[str]) -> list[Request]:
    """`count` single invoices for customers with these ids, each with its cents as its weight."""
    return [
        Request(post("/invoices", json.dumps(_body(invoice, customers)).encode()), invoice.cents)
        for invoice in entries.invoices(count, len(customers))
    ]


def _body(invoice: entries.Invoice, customers: Sequence[str]) -> dict[str, object]:
    return {
        "customer_id": customers[invoice.customer - 1],
        "purchase_date": invoice.date,
        "purchase_price_cents": invoice.cents,
    }
