"""A client that records invoices at the current primary, and repeats each request until it is answered."""

import os
import random
import threading
from collections.abc import Sequence
from typing import Protocol

import urllib3

from support.load import PACE_SECONDS
from support.tally import Client

IS_SOAK = "TALLY_TEST_FAILOVERS" in os.environ  # then every case is tried, else one of each kind
MARK = 10**6  # an invoice is known by its amount in cents modulo this


class Machine(Protocol):
    """A place to record invoices: a Tally, or a proxy in front of several."""

    @property
    def customers(self) -> Client:
        """Its customers service."""

    @property
    def accounts(self) -> Client:
        """Its accounts service."""


class Working:
    """A thread that records one invoice after another, each with its own key; it changes and deletes some.

    It repeats a request with the same key at the other machine, until it is answered 201. By the invoices'
    marks: `answered` has the id from the answer; `amounts` the amounts that it may have; `gone` those surely
    deleted; `doubtful` those that may be deleted, as the request got no answer. For the marks in `repeated`,
    both machines may have answered: then one of the two counts.
    """

    def __init__(self, machines: Sequence[Machine], customer: str, seed: int) -> None:
        self._machines = list(machines)
        self._customer = customer
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.answered: dict[int, str] = {}
        self.amounts: dict[int, set[int]] = {}
        self.repeated: set[int] = set()
        self.gone: set[int] = set()
        self.doubtful: set[int] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Working":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an invoice was not answered within a minute"

    def _run(self) -> None:
        mark = 0
        while not self._stopping.is_set():
            mark += 1
            self._record(mark)
            if self._random.random() < 0.3:
                self._change(self._random.choice([*self.answered]))
            if self._random.random() < 0.1:
                self._delete(self._random.choice([*self.answered]))
            self._stopping.wait(PACE_SECONDS)

    def _record(self, mark: int) -> None:
        invoice = {
            "customer_id": self._customer,
            "purchase_date": "2019-01-06",
            "purchase_price_cents": mark,
        }
        headers = {"Idempotency-Key": f"invoice-{mark}"}
        while (answer := self._ask("POST", "/invoices", invoice, headers)) is None or answer.status != 201:
            self.repeated.add(mark)
            self._turn()
        self.answered[mark], self.amounts[mark] = answer.json()["id"], {mark}

    def _change(self, mark: int) -> None:
        cents = mark + MARK * self._random.randint(1, 1000)
        self.amounts[mark].add(cents)
        change = {"purchase_price_cents": cents}
        if self._ask("PATCH", f"/invoices/{self.answered[mark]}", change) is None:
            self._turn()

    def _delete(self, mark: int) -> None:
        answer = self._ask("DELETE", f"/invoices/{self.answered[mark]}")
        if answer is not None and answer.status == 204:
            self.gone.add(mark)
        elif answer is None or b"Not published" in answer.data:
            self.doubtful.add(mark)
            self._turn()

    def _ask(
        self, method: str, path: str, content: object = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse | None:
        """The machine's answer; None if it gives none, also none to the proxy in front of it."""
        client = self._machines[0].customers
        try:
            answer = client.request(method, path, content, headers=headers, timeout=1)
        except urllib3.exceptions.HTTPError:
            return None
        if answer.status in (502, 504):
            return None
        assert answer.status in (200, 201, 204, 404, 503), (answer.status, answer.data)
        return answer

    def _turn(self) -> None:
        self._machines.append(self._machines.pop(0))
        self._stopping.wait(0.01)
