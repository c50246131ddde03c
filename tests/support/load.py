"""Load: clients post invoices while faults happen. Each request has a key, and is repeated until a 201.

Afterwards each invoice must be found once: among the invoices, on the stream, in the account.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import redis

from support.tally import Tally
from support.waiting import PATIENCE, eventually
from tally.store.stream import connect

PACE_SECONDS = 0.02  # from an answer to the client's next request: other tests need the processors, too
PAUSE_SECONDS = 0.02  # between a refusal and the next try


class Try(NamedTuple):
    """The result of a request: its status, or how it failed on which kind of connection."""

    status: int | None
    fault: str  # "", "refused", "unsent", "unanswered"
    kept: bool  # sent on a connection that had carried an answer before
    seconds: float
    retry_after: str | None
    content_type: str | None


class Invoice:
    """One invoice: its amount, which is unique within its load, and all tries to post it."""

    def __init__(self, number: int, account: str, customer: str) -> None:
        self.key = f"invoice-{customer}-{number}"
        self.account = account
        self.cents = number
        self.body = json.dumps(
            {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": number}
        ).encode()
        self.tries: list[Try] = []
        self.id: str | None = None

    def __repr__(self) -> str:
        return f"<invoice {self.id} of {self.cents} cents, tried {self.tries}>"


class Connection:
    """A connection that is opened again when it is closed; or, with `kept` False, for each request."""

    def __init__(self, port: int, kept: bool = True, patience: float = 40) -> None:
        self._kept = kept
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)

    def post(self, invoice: Invoice) -> None:
        """Try once, and note the result."""
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
    """Clients that post invoices to a Tally for as long as the context lasts.

    The invoices are for `spread` accounts, with as many customers each. A client tries again after `patience`
    seconds without an answer, and waits for `pace` seconds after an answer.
    """

    def __init__(
        self,
        tally: Tally,
        clients: int = 4,
        kept: bool = True,
        patience: float = 40,
        spread: int = 1,
        pace: float = PACE_SECONDS,
    ) -> None:
        self.tally = tally
        self._kept = kept
        self._patience = patience
        self._pace = pace
        self._customers: list[tuple[str, str]] = []  # account, customer
        for _ in range(spread):
            account = str(tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"])
            for _ in range(spread):
                body = {"name": "c", "account_id": account}
                self._customers.append((account, str(tally.customers.post("/customers", body)["id"])))
        self.account, self.customer = self._customers[0]
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
        connection = self._connection()
        while not self._over.wait(self._pace):
            invoice = self._next()
            connection.post(invoice)
            while not invoice.id and not self._over.wait(PAUSE_SECONDS):
                connection.post(invoice)
        connection.close()

    def _connection(self) -> Connection:
        return Connection(self.tally.customers.port, self._kept, self._patience)

    def _next(self) -> Invoice:
        invoice = Invoice(next(self._numbers), *random.choice(self._customers))
        self.invoices.append(invoice)
        return invoice

    def post(self) -> float:
        """Post one more until it is answered 201; return how many seconds that took."""
        invoice, connection, began = self._next(), self._connection(), time.monotonic()
        connection.post(invoice)
        while not invoice.id:
            assert time.monotonic() < began + PATIENCE, invoice
            time.sleep(PAUSE_SECONDS)
            connection.post(invoice)
        connection.close()
        return time.monotonic() - began

    def post_batch(self, count: int) -> None:
        """Post `count` more in one request."""
        batch = [self._next() for _ in range(count)]
        answer = self.tally.customers.post("/invoices/batch", [json.loads(each.body) for each in batch])
        for invoice, id in zip(batch, answer["ids"], strict=True):
            invoice.id = id

    def tries(self) -> list[Try]:
        """All tries until now."""
        return [each for invoice in list(self.invoices) for each in list(invoice.tries)]

    def faults(self) -> Counter[tuple[str, bool]]:
        """How often requests failed, by kind of failure and whether on a kept connection."""
        return Counter((each.fault, each.kept) for each in self.tries() if each.fault)

    def ids(self) -> list[str]:
        """The ids of the invoices that were answered with 201."""
        return [invoice.id for invoice in list(self.invoices) if invoice.id]

    def accepted(self) -> int:
        """How many invoices were answered with 201."""
        return len(self.ids())

    def goes_on(self, count: int = 50) -> None:
        """Wait until `count` more have been answered with 201."""
        before = self.accepted()
        eventually(lambda: self.accepted() >= before + count)

    def settle(self) -> None:
        """Repeat each request that was not answered 201, with the same key, until all are."""
        connection = Connection(self.tally.customers.port)
        for invoice in self.invoices:

            def again(invoice: Invoice = invoice) -> bool:
                if not invoice.id:
                    connection.post(invoice)
                return invoice.id is not None

            eventually(again)
        connection.close()

    def shown(self) -> int:
        """The total of the accounts."""
        return sum(self._revenue().values())

    def _revenue(self) -> dict[str, int]:
        accounts = {account for account, _ in self._customers}
        return {id: self.tally.accounts.get(f"/accounts/{id}")["total_revenue_cents"] for id in accounts}

    def counted(self) -> bool:
        """Whether every account shows all invoices answered with 201; raises AssertionError while not."""
        due = dict.fromkeys((account for account, _ in self._customers), 0)
        for invoice in self.invoices:
            due[invoice.account] += invoice.cents if invoice.id else 0
        assert self._revenue() == due
        return True

    def rows(self) -> dict[str, int]:
        """The cents of each invoice that the customers service has for this load's customers."""
        rows = (row for _, customer in self._customers for row in invoices_of(self.tally, customer))
        return {row["id"]: row["purchase_price_cents"] for row in rows}

    def is_counted_once(self) -> None:
        """Settle, and find each invoice once: its row, its event, its amount. It must stay so."""
        self._is_counted()
        assert self._events() == Counter((invoice.id, invoice.cents) for invoice in self.invoices)

    def exact(self, once: bool = True, others: Sequence["Load"] = (), on_stream: bool = True) -> None:
        """Settle, and find each invoice once. The stream has no other invoices, and all is acknowledged.

        With `once`, each event must be on the stream once and in order: for faults where Redis lost nothing,
        or only the end. `others` have posted to the same Tally. Without `on_stream`, other programs have
        deleted entries.
        """
        self._is_counted()
        assert {each.status for each in self.tries()} <= {201, 503, None}
        with self._redis() as client:
            assert client.exists("{event-stream}:dead") == 0
            if on_stream:
                invoices = [id for load in (self, *others) for id in load.ids()]
                if once:
                    assert_published(client, invoices, once)
                else:  # Redis may lose its end again, if sentinels on a busy machine choose another primary
                    eventually(lambda: assert_published(client, invoices, once))
            eventually(lambda: _all_acknowledged(client))
        eventually(self.tally.settled)  # entries published again are handed out a while later
        assert self.counted()

    def _is_counted(self) -> None:
        self.settle()
        due = {invoice.id: invoice.cents for invoice in self.invoices}
        twice = [each for each in self.invoices if due[each.id] != each.cents]
        assert not twice, f"the ids of {twice} were given to others as well"
        assert self.rows() == due
        eventually(self.counted)
        eventually(self.tally.settled)
        assert self.counted()

    def _redis(self) -> redis.Redis:
        """A client of Tally's Redis that finds the stream's server."""
        return connect(self.tally.settings["redis"]["url"], key="event-stream")

    def _events(self) -> Counter[tuple[str, int]]:
        with self._redis() as client:
            entries: Any = client.xrange("event-stream")
        customers = {customer for _, customer in self._customers}
        told = (json.loads(fields[b"Payload"]) for _, fields in entries
                if fields[b"EventTypeName"] == b"InvoiceCreated")  # fmt: skip
        return Counter(
            (event["id"], event["purchase_price_cents"])
            for event in told
            if event["customer_id"] in customers
        )


def invoices_of(tally: Tally, customer: str) -> Iterator[dict[str, Any]]:
    """All invoices of a customer, from the customers service."""
    after: str | None = "0"
    while after is not None:
        page = tally.customers.get(f"/invoices?customer_id={customer}&limit=1000&after={after}")
        yield from page["invoices"]
        after = page["next"]


def _all_acknowledged(client: redis.Redis) -> bool:
    """Whether both groups have acknowledged all; events published again may be handed out a while later."""
    groups: Any = client.xinfo_groups("event-stream")
    assert [group["pending"] for group in groups] == [0, 0], groups
    return True


def assert_published(client: redis.Redis, invoices: list[str], once: bool) -> bool:
    """Check that every invoice is on the stream without gaps; with `once`, each event once and in order."""
    entries: Any = client.xrange("event-stream")
    sequences: dict[bytes, list[int]] = {}
    seen = []
    for _, fields in entries:
        source, _, sequence = fields[b"EventId"].rpartition(b":")
        sequences.setdefault(source, []).append(int(sequence))
        if fields[b"EventTypeName"] == b"InvoiceCreated":
            seen.append(json.loads(fields[b"Payload"])["id"])
    for source, found in sequences.items():
        found = found if once else sorted(set(found))
        wrong = [(n, each) for n, each in enumerate(found, 1) if n != each][:3]
        assert not wrong, (
            f"{source.decode()}: of {len(found)} sequences these are not in their place: {wrong}"
        )
    assert sorted(seen if once else set(seen)) == sorted(invoices), "the stream has not exactly the invoices"
    return True
