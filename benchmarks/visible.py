"""The time from the answer to POST /invoices until the revenue shows, at a steady rate."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from benchmarks.client import Unexpected, until
from benchmarks.plan import Plan, Result, Target, at_most
from benchmarks.report import paragraph, percentile, spread, table
from benchmarks.running import Running, running

CLIENTS = 8
WARM_SECONDS = 2
LOOK_SECONDS = 0.001


class Rate(NamedTuple):
    """Invoices a second of all clients together, and the limits of median and p99, in ms."""

    a_second: int
    median: float
    p99: float | None = None


RATES = (Rate(100, median=5.0), Rate(200, median=4.0, p99=20.0))


class Sample(NamedTuple):
    """One invoice, in milliseconds: behind its schedule, until answered, and from the answer until shown."""

    late: float
    answered: float
    shown: float
    looks: int


def measure(plan: Plan) -> Result:
    """Post at each rate, each time to a new Tally; return how long invoices took to show."""
    seconds = plan.choose(10, 3)
    found = plan.alternate({f"visible at {rate.a_second}/s": _at(plan, rate, seconds) for rate in RATES})
    parts, targets = [], []
    for rate, samples in zip(RATES, found.values(), strict=True):
        parts.append(_table(rate, seconds, samples))
        targets += _targets(rate, samples)
    return Result("\n\n".join([*parts, _notes(seconds)]), targets)


def _at(plan: Plan, rate: Rate, seconds: int) -> Callable[[], list[Sample]]:
    def measure() -> list[Sample]:
        with running(plan.base) as tally:
            return post_steadily(tally, rate.a_second, seconds)

    return measure


def post_steadily(tally: Running, rate: int, seconds: int) -> list[Sample]:
    """The times of each invoice at `rate` a second, without those of the first WARM_SECONDS."""
    clients = [Poster(tally) for _ in range(CLIENTS)]
    start = time.perf_counter() + 0.1
    warm, count = WARM_SECONDS * rate // CLIENTS, (WARM_SECONDS + seconds) * rate // CLIENTS
    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [
            threads.submit(client.post_on_schedule, start + number / rate, CLIENTS / rate, count)
            for number, client in enumerate(clients)
        ]
        try:
            return [sample for done in running for sample in done.result()[warm:]]
        finally:
            for client in clients:
                client.stopped = True


class Poster:
    """A client with its own account, and one customer in it."""

    def __init__(self, tally: Running) -> None:
        self._customers, self._accounts = tally.customers(), tally.accounts()
        account = self._accounts.post("/accounts", {"name": "Steady", "owned_by": "benchmark"})["id"]
        body = {"name": "Steady", "account_id": account}
        self._customer = self._customers.post("/customers", body)["id"]
        self._path = f"/accounts/{account}"
        self._revenue = 0
        self.stopped = False
        until(lambda: bool(self._accounts.get(self._path)["customers"]), pause=0.01)

    def post_on_schedule(self, start: float, pause: float, count: int) -> list[Sample]:
        """Post every `pause` seconds from `start` on, even if the one before was late."""
        samples = []
        with closing(self._customers), closing(self._accounts):
            for number in range(count):
                due = start + number * pause
                time.sleep(max(0.0, due - time.perf_counter()))
                if self.stopped:
                    break
                samples.append(self._post(due))
        return samples

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
        """Poll every millisecond until the revenue shows; return the number of polls."""
        looks = 1
        while self._accounts.get(self._path)["total_revenue_cents"] != self._revenue:
            if time.perf_counter() > deadline:
                raise Unexpected(f"an invoice does not show in {self._path} after 10 s")
            looks += 1
            time.sleep(LOOK_SECONDS)
        return looks


def _part(runs: Sequence[Sequence[Sample]], pick: Callable[[Sample], float], share: float) -> list[float]:
    return [percentile([pick(sample) for sample in samples], share) for samples in runs]


def _targets(rate: Rate, runs: Sequence[Sequence[Sample]]) -> list[Target]:
    what = f"visible at {rate.a_second}/s"
    targets = [at_most(f"{what}: median, ms", rate.median, _part(runs, lambda s: s.shown, 0.5))]
    if rate.p99:
        targets.append(at_most(f"{what}: p99, ms", rate.p99, _part(runs, lambda s: s.shown, 0.99)))
    return targets


def _table(rate: Rate, seconds: int, runs: Sequence[Sequence[Sample]]) -> str:
    def row(what: str, pick: Callable[[Sample], float], share: float) -> list[str]:
        return [what, spread(_part(runs, pick, share), ".2f")]

    return table(
        [
            [f"at {rate.a_second} invoices/s", "median (min..max) of the runs"],
            row("answered to visible, median, ms", lambda s: s.shown, 0.5),
            row("answered to visible, p99, ms", lambda s: s.shown, 0.99),
            row("answered to visible, longest, ms", lambda s: s.shown, 1),
            row("POST to its answer, median, ms", lambda s: s.answered, 0.5),
            row("POST to its answer, p99, ms", lambda s: s.answered, 0.99),
            ["GETs until visible, mean", spread([statistics.mean(s.looks for s in r) for r in runs], ".2f")],
            row("behind the schedule, p99, ms", lambda s: s.late, 0.99),
            ["invoices a second", spread([len(samples) / seconds for samples in runs], ".0f")],
        ]
    )


def _notes(seconds: int) -> str:
    return paragraph(f"""
        Invoices on a fixed schedule (open loop) for {seconds} s after {WARM_SECONDS} s that don't
        count, default settings. {CLIENTS} threads of one process, each with its own account and the one
        customer in it: POST /invoices, then GET /accounts/{{id}} with a millisecond between, until the
        revenue is there. Measured from the answer to the POST to the answer to the GET that shows it,
        that last GET included. The threads share the cores with Tally.
    """)
