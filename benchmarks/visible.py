"""How long after the answer to POST /invoices the revenue shows, at a steady rate."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import Unexpected, until
from benchmarks.report import paragraph, percentile, spread, table
from benchmarks.running import Running, running

TARGET = "median at most 6 ms"
RATE = 100  # invoices a second, all clients together
CLIENTS = 8
WARM_SECONDS = 2
SECONDS = 10


class Sample(NamedTuple):
    """One invoice, in milliseconds: behind its schedule, until answered, from there until shown."""

    late: float
    answered: float
    shown: float
    looks: int


def measure(runs: int, base: Path | None, say: Callable[[str], None]) -> str:
    """Post at RATE for SECONDS, `runs` times, each time on a Tally just started; answer a table in words."""
    samples = []
    for run in range(runs):
        say(f"visible: run {run + 1} of {runs}")
        with running(base) as tally:
            samples.append(post_steadily(tally))
    return f"{_table(samples)}\n\n{_NOTES}"


def post_steadily(tally: Running) -> list[Sample]:
    """What each invoice took, those of the first WARM_SECONDS left out."""
    clients = [Poster(tally) for _ in range(CLIENTS)]
    start = time.perf_counter() + 0.1
    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [
            threads.submit(client.post_on_schedule, start + number / RATE)
            for number, client in enumerate(clients)
        ]
        try:
            return [sample for done in running for sample in done.result()]
        finally:
            for client in clients:
                client.stopped = True


class Poster:
    """A client with an account of its own, and one customer in it."""

    def __init__(self, tally: Running) -> None:
        self._customers, self._accounts = tally.customers(), tally.accounts()
        account = self._accounts.post("/accounts", {"name": "Steady", "owned_by": "benchmark"})["id"]
        body = {"name": "Steady", "account_id": account}
        self._customer = self._customers.post("/customers", body)["id"]
        self._path = f"/accounts/{account}"
        self._revenue = 0
        self.stopped = False
        until(lambda: bool(self._accounts.get(self._path)["customers"]), pause=0.01)

    def post_on_schedule(self, start: float) -> list[Sample]:
        """Post every CLIENTS / RATE seconds from `start` on, whether or not the one before was on time."""
        count = (WARM_SECONDS + SECONDS) * RATE // CLIENTS
        samples = []
        with closing(self._customers), closing(self._accounts):
            for number in range(count):
                due = start + number * CLIENTS / RATE
                time.sleep(max(0.0, due - time.perf_counter()))
                if self.stopped:
                    break
                samples.append(self._post(due))
        return samples[WARM_SECONDS * RATE // CLIENTS :]

    def _post(self, due: float) -> Sample:
        self._revenue += 1
        body = {"customer_id": self._customer, "purchase_date": "1998-06-30", "purchase_price_cents": 1}
        sent = time.perf_counter()
        self._customers.post("/invoices", body)
        answered = time.perf_counter()
        looks = self._await_revenue(answered + 10)
        shown = time.perf_counter()
        return Sample((sent - due) * 1000, (answered - sent) * 1000, (shown - answered) * 1000, looks)

    def _await_revenue(self, deadline: float) -> int:
        """Look without a pause until the revenue shows; answer how often it took."""
        looks = 1
        while self._accounts.get(self._path)["total_revenue_cents"] != self._revenue:
            if time.perf_counter() > deadline:
                raise Unexpected(f"an invoice does not show in {self._path} after 10 s")
            looks += 1
        return looks


def _table(runs: Sequence[Sequence[Sample]]) -> str:
    def row(what: str, target: str, figure: Callable[[Sequence[Sample]], float], form: str) -> list[str]:
        return [what, target, spread([figure(samples) for samples in runs], form)]

    def part(pick: Callable[[Sample], float], share: float) -> Callable[[Sequence[Sample]], float]:
        return lambda samples: percentile([pick(sample) for sample in samples], share)

    return table(
        [
            ["of each run", "target", "median (min..max) of the runs"],
            row("answered to visible, median, ms", f"[{TARGET}]", part(lambda s: s.shown, 0.5), ".2f"),
            row("answered to visible, p99, ms", "", part(lambda s: s.shown, 0.99), ".2f"),
            row("answered to visible, longest, ms", "", part(lambda s: s.shown, 1), ".2f"),
            row("POST to its answer, median, ms", "", part(lambda s: s.answered, 0.5), ".2f"),
            row("POST to its answer, p99, ms", "", part(lambda s: s.answered, 0.99), ".2f"),
            row("GETs until visible, mean", "", lambda r: statistics.mean(s.looks for s in r), ".2f"),
            row("behind the schedule, p99, ms", "", part(lambda s: s.late, 0.99), ".2f"),
            row("invoices a second", "", lambda samples: len(samples) / SECONDS, ".0f"),
        ]
    )


_NOTES = paragraph(f"""
    {RATE} invoices a second on a fixed schedule (open loop) for {SECONDS} s after {WARM_SECONDS} s that
    don't count, default settings. {CLIENTS} threads of one process, each with its own account and the one
    customer in it: POST /invoices, then GET /accounts/{{id}} without a pause between, until the revenue is
    there. Measured from the answer to the POST to the answer to the GET that shows it, that last GET
    included. The threads share the cores with Tally.
""")
