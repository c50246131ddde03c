"""The time from starting the supervisor until everything is ready."""

import time
from contextlib import closing

from benchmarks.plan import Plan, Result, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running

MOST_SECONDS = 1.5


def measure(plan: Plan) -> Result:
    """Start Tally, each time on an empty data directory; return how long it took."""
    ready, used = [], []
    for run in range(plan.runs):
        plan.say(f"start: run {run + 1} of {plan.runs}")
        with running(plan.base) as tally:
            ready.append(tally.start_seconds)
            used.append(tally.start_seconds + _use(tally))
    rows = [
        ["from starting the process", "s, median (min..max)"],
        ["to the line `ready after`", spread(ready, ".2f")],
        ["to the first customer created", spread(used, ".2f")],
    ]
    target = at_most("start: to ready, s", MOST_SECONDS, ready)
    return Result(f"{table(rows)}\n\n{_NOTES}", [target])


def _use(tally: Running) -> float:
    """Open the first account and create a customer in it; return the seconds that it took."""
    started = time.perf_counter()
    with closing(tally.accounts()) as accounts, closing(tally.customers()) as customers:
        account = accounts.post("/accounts", {"name": "First", "owned_by": "benchmark"})["id"]
        customers.post("/customers", {"name": "First", "account_id": account})
    return time.perf_counter() - started


_NOTES = paragraph("""
    Default settings, an empty data directory, a private redis-server; the files of Python and Redis are in
    the page cache from the second run on. The second line adds one POST /accounts and one POST /customers.
""")
