"""Reads of a million customers and ten million invoices: search, months, and lists as CSV."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import relay
from benchmarks.apart import apart
from benchmarks.client import Unexpected
from benchmarks.filled import EACH, IN_ACCOUNT, fill, first_name, last_name
from benchmarks.plan import Plan, Result, Target, at_least, at_most
from benchmarks.report import paragraph, percentile, spread, table
from benchmarks.running import Running, running, scratch

SEARCH_MS, YEAR_MS = 50.0, 10.0  # at the 99th percentile
ROWS = 400_000.0  # a second, of CSV
MOST_GROWTH = 10.0  # MB, of the HTTP process while it writes a million rows
KINDS = ("a first name", "a last name", "both", "a letter", "two letters, by name", "nobody")

_MB = 1_000_000


class Found(NamedTuple):
    """The results of one run. Times are ms, at the 99th percentile."""

    searches: dict[str, float]
    year: float
    rows: float  # of CSV, a second
    growth: float  # MB, meanwhile


def measure(plan: Plan) -> Result:
    """Ask a Tally on filled files, over HTTP."""
    customers, asked = plan.choose(1_000_000, 20_000), plan.choose(300, 30)
    with scratch(plan.base) as filled:
        plan.say(f"find: filling the files with {customers * EACH:,} invoices")
        apart(fill, filled, customers)
        runs = plan.alternate({"find": lambda: _ask(plan.base, filled, customers, asked)})["find"]
    searches = {kind: [each.searches[kind] for each in runs] for kind in KINDS}
    rows = [["p99, ms", "median (min..max)"]]
    rows += [[f"search: {kind}", spread(found, ".1f")] for kind, found in searches.items()]
    rows.append(["a year of an account", spread([each.year for each in runs], ".1f")])
    rows.append(["CSV, rows a second", spread([each.rows for each in runs], ",.0f")])
    rows.append(["CSV, growth, MB", spread([each.growth for each in runs], ".1f")])
    targets: list[Target] = [
        at_most(f"find: {kind}, p99, ms", SEARCH_MS, found, ".1f") for kind, found in searches.items()
    ]
    targets += [
        at_most("find: a year of an account, p99, ms", YEAR_MS, [each.year for each in runs], ".1f"),
        at_least("find: CSV, rows a second", ROWS, [each.rows for each in runs], ",.0f"),
        at_most("find: CSV, growth, MB", MOST_GROWTH, [each.growth for each in runs], ".1f"),
    ]
    return Result(f"{table(rows)}\n\n{_notes(customers, asked)}", targets)


def _ask(base: Path | None, filled: Path, customers: int, asked: int) -> Found:
    with running(base, prepare=lambda directory: relay.copy(filled, directory)) as tally:
        queries = _queries(customers)
        searches = {kind: _percentile(tally.customers_port, queries[kind], asked) for kind in KINDS}
        accounts = customers // IN_ACCOUNT
        year = _percentile(
            tally.accounts_port,
            lambda: f"/accounts/{random.randint(1, accounts)}/revenue?from=1997-01&to=1997-12",
            asked,
        )
        rows, growth = _csv(tally, min(1_000_000, customers * EACH - 1))
    return Found(searches, year, rows, growth)


def _queries(customers: int) -> dict[str, Callable[[], str]]:
    """A query of each kind, a different one each time."""

    def number() -> int:
        return random.randint(1, customers)

    return {
        "a first name": lambda: f"/customers?search={first_name(number())}",
        "a last name": lambda: f"/customers?search={last_name(number())}",
        "both": lambda: f"/customers?search={last_name(n := number())}%20{first_name(n)}",
        "a letter": lambda: f"/customers?search={first_name(number())[0]}&order=-id",
        "two letters, by name": lambda: f"/customers?search={first_name(number())[:2]}&order=name",
        "nobody": lambda: f"/customers?search=zzz{number()}",
    }


def _percentile(port: int, path: Callable[[], str], asked: int) -> float:
    """The 99th percentile of the answers' times, in ms; each request is sent after the last answer."""
    took = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as client:
        for _ in range(asked):
            query = path()
            began = time.perf_counter()
            client.request("GET", query)
            answer = client.getresponse()
            answer.read()
            took.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise Unexpected(f"GET {query} answers {answer.status}")
    return percentile(took, 0.99)


def _csv(tally: Running, wanted: int) -> tuple[float, float]:
    """Read `wanted` invoices as CSV; return the rate a second, and the process's growth in MB."""
    process = tally.processes()["customers-http-1"]
    with closing(HTTPConnection("127.0.0.1", tally.customers_port, timeout=60)) as client:
        _read_csv(client, 10_000, process)  # so memory that is needed once is taken before
        before = process.memory_info().rss
        began = time.monotonic()
        most = _read_csv(client, wanted, process)
        taken = time.monotonic() - began
    return wanted / taken, max(0, most - before) / _MB


def _read_csv(client: HTTPConnection, wanted: int, process: psutil.Process) -> int:
    """Read `wanted` lines, then close; return the highest memory of the process."""
    client.request("GET", "/invoices", headers={"Accept": "text/csv"})
    answer = client.getresponse()
    if answer.status != 200:
        raise Unexpected(f"GET /invoices as CSV answers {answer.status}")
    lines = most = pieces = 0
    while lines <= wanted and (piece := answer.read(256 * 1024)):
        lines += piece.count(b"\n")
        pieces += 1
        if pieces % 10 == 0:
            most = max(most, process.memory_info().rss)
    client.close()
    if lines <= wanted:
        raise Unexpected(f"the list as CSV has {lines - 1:,} rows")
    return max(most, process.memory_info().rss)


def _notes(customers: int, asked: int) -> str:
    return paragraph(f"""
        Over HTTP, one request at a time, {asked} of each kind, another one each time: customers by the
        beginnings of words of their names, 100 to a page; the twelve months of an account of {IN_ACCOUNT:,}
        customers. CSV: a million invoices of all that there are, read as fast as they come. {customers:,}
        customers with {customers * EACH:,} invoices over 18 months; first names are shared by 7,700 of a
        million, last names by 57. Growth: of the HTTP process, beyond what it had after a short list.
    """)
