"""The costs of all processes together while Tally gets no requests."""

import time

from benchmarks import cdnow, costs
from benchmarks.plan import Plan, Result, at_most
from benchmarks.report import paragraph
from benchmarks.running import running

MOST_CPU = 2.0  # per cent of one core
MOST_MEMORY = 250.0  # MB
CALM_SECONDS = 3.0


def measure(plan: Plan) -> Result:
    """Watch an idle Tally, each time a new one; return its costs."""
    window = plan.choose(20.0, 5.0)
    purchases = cdnow.read(cdnow.FILE)
    windows = []
    for run in range(plan.runs):
        plan.say(f"idle: run {run + 1} of {plan.runs}")
        with running(plan.base) as tally:
            cdnow.load(tally, purchases, cdnow.in_batches)
            time.sleep(CALM_SECONDS)
            windows.append(costs.watch(tally, lambda: time.sleep(window)))
    targets = [
        at_most("idle: processor, % of one core", MOST_CPU, costs.cpu(windows)),
        at_most("idle: memory, MB", MOST_MEMORY, costs.memory(windows), ".1f"),
    ]
    return Result(f"{costs.tabled(windows)}\n\n{_notes(window)}", targets)


def _notes(window: float) -> str:
    return paragraph(f"""
        Default settings, {window:.0f} s of user and system time, beginning {CALM_SECONDS:.0f} s after
        the CDNOW data was loaded in batches: idle after work, not fresh. Proportional set size: what
        processes share is divided among them. MB is 10^6 bytes. The kernel counts processor time in
        steps of 10 ms, {1 / window:.2f} % of the window for each process.
    """)
