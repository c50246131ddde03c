"""Invoices that are posted while faults happen, each with its Idempotency-Key until it is answered 201.

Afterwards every one of them must be found once: among the invoices, on the stream, in the account.
"""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, NamedTuple, Self

import redis

from support.load import PACE_SECONDS, invoices_of
from support.tally import Tally
from support.waiting import eventually

PAUSE_SECONDS = 0.02  # between a refusal and the next try


class Try(NamedTuple):
    """What came of a request: its status, or how it failed on which kind of connection."""

    status: int | None
    fault: str  # "", "refused", "unsent", "unanswered"
    kept: bool  # sent on a connection that had carried an answer before
    seconds: float
    retry_after: str | None
    content_type: str | None


class Invoice:
    """One invoice: what it is worth, which no other is, and all that was tried for it."""

    def __init__(self, number: int, customer: str) -> None:
        self.key = f"invoice-{customer}-{number}"
        self.cents = number
        self.body = json.dumps(
            {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": number}
        ).encode()
        self.tries: list[Try] = []
        self.id: str | None = None

    def __repr__(self) -> str:
        return f"<invoice {self.id} of {self.cents} cents, tried {self.tries}>"


class Connection:
    """A connection that is opened again when it is gone; or with `kept` False for each request."""

    def __init__(self, port: int, kept: bool = True, patience: float = 40) -> None:
        self._kept = kept
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)

    def post(self, invoice: Invoice) -> None:
        """Try once, and note what came of it."""
        kept = self._http.sock is not None
        began, fault, answer = time.monotonic(), "", None
        try:
            if not kept:
                fault = "refused"
                self._http.connect()
            fault = "unsent"
            self._http.request("POST", "/invoices", invoice.body, {"Idempotency-Key": invoice.key})
            fault = "unanswered"
            answer = self._http.getresponse()
            content = answer.read()
            fault = ""
        except (OSError, http.client.HTTPException):
            answer = None
            self._http.close()
        if not self._kept:
            self._http.close()
        if answer and answer.status == 201:
            invoice.id = json.loads(content)["id"]
        invoice.tries.append(
            Try(
                answer.status if answer else None,
                fault,
                kept,
                time.monotonic() - began,
                answer.headers["Retry-After"] if answer else None,
                answer.headers["Content-Type"] if answer else None,
            )
        )

    def close(self) -> None:
        self._http.close()


class Load:
    """Clients that post invoices to one customer of a Tally for as long as the context lasts."""

    def __init__(self, tally: Tally, clients: int = 4, kept: bool = True, patience: float = 40) -> None:
        self._tally = tally
        self._kept = kept
        self._patience = patience  # seconds that a client waits for an answer before it tries again
        self.account = str(tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"])
        self.customer = str(
            tally.customers.post("/customers", {"name": "c", "account_id": self.account})["id"]
        )
        self.invoices: list[Invoice] = []
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._clients = clients
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._over.clear()
        self._threads = [threading.Thread(target=self._work) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        connection = Connection(self._tally.customers.port, self._kept, self._patience)
        while not self._over.wait(PACE_SECONDS):
            invoice = Invoice(next(self._numbers), self.customer)
            self.invoices.append(invoice)
            connection.post(invoice)
            while not invoice.id and not self._over.wait(PAUSE_SECONDS):
                connection.post(invoice)
        connection.close()

    def tries(self) -> list[Try]:
        """All that was tried until now."""
        return [each for invoice in list(self.invoices) for each in list(invoice.tries)]

    def faults(self) -> Counter[tuple[str, bool]]:
        """How often requests failed, by how and by whether on a kept connection."""
        return Counter((each.fault, each.kept) for each in self.tries() if each.fault)

    def accepted(self) -> int:
        """How many invoices were answered with 201."""
        return sum(invoice.id is not None for invoice in list(self.invoices))

    def goes_on(self, count: int = 50, seconds: float = 20) -> None:
        """Wait until `count` more have been answered with 201."""
        before = self.accepted()
        eventually(lambda: self.accepted() >= before + count, seconds)

    def settle(self) -> None:
        """Try again what was not answered 201, with the same keys, until all are."""
        connection = Connection(self._tally.customers.port)
        for invoice in self.invoices:

            def again(invoice: Invoice = invoice) -> bool:
                if not invoice.id:
                    connection.post(invoice)
                return invoice.id is not None

            eventually(again)
        connection.close()

    def shown(self) -> int:
        """The total of the account."""
        return int(self._tally.accounts.get(f"/accounts/{self.account}")["total_revenue_cents"])

    def is_counted_once(self, seconds: float = 20) -> None:
        """Settle, and find each invoice once: its row, its event, its amount; and so for good."""
        self.settle()
        due = {invoice.id: invoice.cents for invoice in self.invoices}
        twice = [each for each in self.invoices if due[each.id] != each.cents]
        assert not twice, f"the ids of {twice} were given to others as well"
        assert self._rows() == due
        total = sum(due.values())
        eventually(lambda: self.shown() == total, seconds)
        eventually(self._tally.settled, seconds)
        assert self.shown() == total
        assert self._events() == Counter(due.items())

    def _rows(self) -> dict[str | None, int]:
        rows = invoices_of(self._tally, self.customer)
        return {row["id"]: row["purchase_price_cents"] for row in rows}

    def _events(self) -> Counter[tuple[str, int]]:
        with redis.Redis.from_url(self._tally.settings["redis"]["url"], protocol=2) as client:
            entries: Any = client.xrange("event-stream")
        told = (json.loads(fields[b"Payload"]) for _, fields in entries
                if fields[b"EventTypeName"] == b"InvoiceCreated")  # fmt: skip
        return Counter(
            (event["id"], event["purchase_price_cents"])
            for event in told
            if event["customer_id"] == self.customer
        )
