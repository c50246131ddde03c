"""How long it takes from starting the supervisor until everything is ready."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running

TARGET = "at most 2 s"


def measure(runs: int, base: Path | None, say: Callable[[str], None]) -> str:
    """Start Tally `runs` times, each time on an empty data directory; answer a table in words."""
    ready, used = [], []
    for run in range(runs):
        say(f"start: run {run + 1} of {runs}")
        with running(base) as tally:
            ready.append(tally.start_seconds)
            used.append(tally.start_seconds + _use(tally))
    rows = [
        ["from starting the process", "target", "s, median (min..max)"],
        ["to the line `ready after`", f"[{TARGET}]", spread(ready, ".2f")],
        ["to the first customer created", "", spread(used, ".2f")],
    ]
    return f"{table(rows)}\n\n{_NOTES}"


def _use(tally: Running) -> float:
    """Open the first account and create a customer in it; answer the seconds that it took."""
    started = time.perf_counter()
    with closing(tally.accounts()) as accounts, closing(tally.customers()) as customers:
        account = accounts.post("/accounts", {"name": "First", "owned_by": "benchmark"})["id"]
        customers.post("/customers", {"name": "First", "account_id": account})
    return time.perf_counter() - started


_NOTES = paragraph("""
    Default settings, an empty data directory, a private redis-server; the files of Python and Redis are in
    the page cache from the second run on. The second line adds one POST /accounts and one POST /customers.
""")
