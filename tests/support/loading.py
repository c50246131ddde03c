"""Somebody who records invoices at whichever machine is the primary, until each is answered."""

import threading
from collections.abc import Sequence

import urllib3

from support.tally import Tally


class Recording:
    """A thread that records one invoice after the other, each of another amount, under a key of its own.

    `answered` has the id that each amount got. What is not answered 201 is asked again, with its key, at
    whoever else there is.
    """

    def __init__(self, machines: Sequence[Tally], customer: str, first_cents: int = 1) -> None:
        self._machines = list(machines)
        self._customer = customer
        self._next = first_cents
        self._stopping = threading.Event()
        self.answered: dict[int, str] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Recording":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an invoice was not answered within a minute"

    def _run(self) -> None:
        while not self._stopping.is_set():
            cents, self._next = self._next, self._next + 1
            self._record(cents)

    def _record(self, cents: int) -> None:
        invoice = {
            "customer_id": self._customer,
            "purchase_date": "2019-01-06",
            "purchase_price_cents": cents,
        }
        while True:
            machine = self._machines[0]
            try:
                answer = machine.customers.request(
                    "POST", "/invoices", invoice, headers={"Idempotency-Key": f"invoice-{cents}"}, timeout=1
                )
            except urllib3.exceptions.HTTPError:
                pass
            else:
                if answer.status == 201:
                    self.answered[cents] = answer.json()["id"]
                    return
                assert answer.status == 503, (answer.status, answer.data)
            self._machines.append(self._machines.pop(0))
            self._stopping.wait(0.01)
