"""POST /invoices/batch: how fast invoices are accepted in bulk, and whether the stream keeps up."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import costs
from benchmarks.apart import apart
from benchmarks.client import until
from benchmarks.load import Request, send_each
from benchmarks.plan import Plan, Result, at_least, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running
from benchmarks.scene import MOST_IN_BATCH, Scene

RATE, KEEPS_UP = 65_000, 1.75
CUSTOMERS = 1_000
_SHOWN = 5  # processes; the others take hardly anything
_LOOK_SECONDS = 0.1


class Timing(NamedTuple):
    """Seconds from the first request to the last answer, and until all of it is shown.

    `cpu` is each process's processor time until then, in seconds, by name.
    """

    invoices: int
    posted: float
    shown: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Invoices accepted a second."""
        return self.invoices / self.posted


def measure(plan: Plan) -> Result:
    """Post batches, each time to a new Tally; return both times."""
    batches = plan.choose(30, 4)
    timings = plan.alternate({"batches": lambda: post(plan.base, batches)})["batches"]
    shares = [timing.shown / timing.posted for timing in timings]
    rows = [
        [f"{batches} x {MOST_IN_BATCH:,} invoices", "median (min..max)"],
        ["accepted and durable, invoices/s", spread([timing.rate for timing in timings], ",.0f")],
        ["first request to last answer, s", spread([timing.posted for timing in timings], ".2f")],
        ["first request to all visible, s", spread([timing.shown for timing in timings], ".2f")],
        ["visible by answered", spread(shares, ".2f")],
    ]
    targets = [
        at_least("batches: invoices/s", RATE, [timing.rate for timing in timings], ",.0f"),
        at_most("batches: all visible / all answered", KEEPS_UP, shares),
    ]
    return Result(f"{table(rows)}\n\n{_profile(timings)}\n\n{_NOTES}", targets)


def _profile(timings: Sequence[Timing]) -> str:
    """The processor time of each invoice, by process, and the used share of the cores."""

    def row(what: str, seconds: Callable[[Timing], float]) -> list[str]:
        return [what, spread([seconds(timing) / timing.invoices * 1e6 for timing in timings], ".1f")]

    names = sorted(timings[0].cpu, key=lambda name: -timings[0].cpu[name])
    rows = [["µs of processor for each invoice", "median (min..max)"]]
    rows += [row(name, partial(_cpu_of, name)) for name in names[:_SHOWN]]
    rows.append(row("the others", lambda timing: sum(timing.cpu[name] for name in names[_SHOWN:])))
    rows.append(row("all of Tally", lambda timing: sum(timing.cpu.values())))
    cores = [sum(timing.cpu.values()) / timing.shown for timing in timings]
    rows.append(["cores in use until all is visible", spread(cores, ".2f")])
    return table(rows)


def _cpu_of(name: str, timing: Timing) -> float:
    return timing.cpu[name]


def post(
    base: Path | None,
    batches: int,
    prepare: Callable[[Path], None] | None = None,
    set_up: Callable[[Running], Scene] = lambda tally: Scene(tally, CUSTOMERS),
) -> Timing:
    """Post so many batches, one after another, to a Tally on the data from `prepare`."""
    count = batches * MOST_IN_BATCH
    with running(base, prepare=prepare) as tally:
        scene = set_up(tally)
        until(tally.settled, pause=0.02)
        requests: list[Request] = list(scene.batches(count))
        scene.sent += sum(request.weight for request in requests)
        times: list[float] = []

        def post() -> None:
            times.extend(apart(send_each, tally.customers_port, requests))
            until(scene.shown, pause=_LOOK_SECONDS, seconds=300)
            times.append(time.monotonic())

        cpu = costs.spent(tally, post)
        scene.insist()
    began, answered, shown = times
    return Timing(count, answered - began, shown - began, cpu)


_NOTES = paragraph(f"""
    One client over one connection, the bodies made beforehand, {MOST_IN_BATCH:,} invoices in each, to a
    whole Tally at default settings (one HTTP process, two accounts consumers) that starts empty each
    time; for {CUSTOMERS:,} customers of one account. Visible: GET /accounts/{{id}}, repeated every
    {_LOOK_SECONDS * 1000:.0f} ms once all is answered, shows the cents of all. The HTTP process, the
    relay, Redis and the consumers share the cores, so the rate accepted is what the consuming leaves of
    them.
""")
