"""Load: clients that post invoices until each is answered, and the account of what was accepted."""

import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis
import urllib3
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from support.tally import Tally
from support.waiting import eventually
from tally.store.stream import connect

GIVE_UP_SECONDS = 60
PACE_SECONDS = 0.008  # from one answer to a client's next request: other tests need the processors, too


class Unavailable(Exception):
    """Answered 503: not now."""


class Load:
    """Invoices for a few customers of a few accounts of a running Tally, and what they must add up to.

    Whatever cuts a request off, it is sent again with the same Idempotency-Key until it is answered.
    So in the end every invoice has been accepted, and must be counted exactly once.
    """

    def __init__(self, tally: Tally, accounts: int = 3, customers: int = 3) -> None:
        self.tally = tally
        self.cents: Counter[str] = Counter()  # what was answered 201, by account
        self.invoices: list[str] = []  # their ids, as they were answered
        self._guard = threading.Lock()  # of the two above
        self._customers: list[tuple[str, str]] = []  # account, customer
        for _ in range(accounts):
            account = tally.accounts.post("/accounts", {"name": "Load", "owned_by": "tests"})["id"]
            for _ in range(customers):
                body = {"name": "John Adams", "account_id": account}
                self._customers.append((account, tally.customers.post("/customers", body)["id"]))

    @contextmanager
    def running(self, clients: int = 4, pace: float = PACE_SECONDS) -> Iterator[None]:
        """Have so many clients post one invoice after another; at the end each finishes its last."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(pace):
                self.post()

        with ThreadPoolExecutor(clients) as threads:
            working = [threads.submit(work) for _ in range(clients)]
            try:
                yield
            finally:
                over.set()
        for client in working:
            client.result()

    def post(self) -> float:
        """Post an invoice until it is answered; answer how many seconds that took."""
        account, customer = random.choice(self._customers)
        cents = random.randint(1, 1_000_000)
        body = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}
        started = time.monotonic()
        id = self._post(body, key=secrets.token_hex(8))
        seconds = time.monotonic() - started
        with self._guard:
            self.cents[account] += cents
            self.invoices.append(id)
        return seconds

    def post_batch(self, count: int) -> None:
        """Post so many invoices at once."""
        account, customer = self._customers[0]
        body = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        ids = self.tally.customers.post("/invoices/batch", [body] * count)["ids"]
        with self._guard:
            self.cents[account] += count
            self.invoices += ids

    @retry(
        retry=retry_if_exception_type((Unavailable, OSError, urllib3.exceptions.HTTPError)),
        wait=wait_fixed(0.02),
        stop=stop_after_delay(GIVE_UP_SECONDS),
        reraise=True,
    )
    def _post(self, body: dict[str, Any], key: str) -> str:
        response = self.tally.customers.request("POST", "/invoices", body, headers={"Idempotency-Key": key})
        if response.status == 503:
            raise Unavailable(response.data)
        assert response.status == 201, (response.status, response.data)
        return str(response.json()["id"])

    def accepted(self, more: int) -> None:
        """Wait until so many more invoices have been accepted."""
        enough = len(self.invoices) + more
        eventually(lambda: len(self.invoices) >= enough, GIVE_UP_SECONDS)

    def exact(
        self, once: bool = True, seconds: float = 30, others: Sequence["Load"] = (), on_stream: bool = True
    ) -> None:
        """Wait until all is published and applied; every account must then hold what was accepted, for good.

        With `once`, each event must be on the stream once and in its order: where Redis lost nothing,
        or lost the end. `others` have posted to the same Tally. Without `on_stream`, others have deleted
        entries.
        """
        eventually(self._counted, seconds)
        assert sorted(self._listed()) == sorted(self.invoices), "an invoice more, or less, than was answered"
        with connect(self.tally.settings["redis"]["url"], key="event-stream") as client:
            assert client.exists("{event-stream}:dead") == 0
            if on_stream:
                invoices = [id for load in (self, *others) for id in load.invoices]
                if once:
                    assert_published(client, invoices, once)
                else:  # Redis may lose its end again, as sentinels on a busy machine take another primary
                    eventually(lambda: assert_published(client, invoices, once), seconds)
            eventually(lambda: _all_acknowledged(client), seconds)
        eventually(self.tally.settled, seconds)  # what is given again is handed out a while later
        assert self.counted()

    def _counted(self) -> bool:
        assert self.tally.settled(), "not all is published, applied and acknowledged"
        return self.counted()

    def counted(self) -> bool:
        """Whether every account shows what was accepted; raises AssertionError while it does not."""
        accounts = {account for account, _ in self._customers}
        shown = {id: self.tally.accounts.get(f"/accounts/{id}")["total_revenue_cents"] for id in accounts}
        accepted = {id: self.cents[id] for id in accounts}
        assert shown == accepted, f"shown {shown}, accepted {accepted}"
        return True

    def _listed(self) -> Iterator[str]:
        """The invoices that the customers service holds for the customers of this load."""
        for _, customer in self._customers:
            yield from (invoice["id"] for invoice in invoices_of(self.tally, customer))


def invoices_of(tally: Tally, customer: str) -> Iterator[dict[str, Any]]:
    """All invoices of a customer, as the customers service lists them."""
    after: str | None = "0"
    while after is not None:
        page = tally.customers.get(f"/invoices?customer_id={customer}&limit=1000&after={after}")
        yield from page["invoices"]
        after = page["next"]


def _all_acknowledged(client: redis.Redis) -> bool:
    """Whether both groups are done with all; what was published again may be handed out a while later."""
    groups: Any = client.xinfo_groups("event-stream")
    assert [group["pending"] for group in groups] == [0, 0], groups
    return True


def assert_published(client: redis.Redis, invoices: list[str], once: bool) -> bool:
    """True: every invoice and no gap on the stream; with `once`, every event once and in its order."""
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
