"""Real data over HTTP: the purchases of CDNOW's customers, in one account."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.client import Unexpected, post_all, until
from benchmarks.plan import Plan, Result
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running

FILE = Path(__file__).parents[1] / "tests" / "data" / "cdnow_sample.txt"
CUSTOMERS, INVOICES, CENTS = 2_357, 6_919, 24_409_194

CLIENTS = 16
CONSUMERS = 3
MOST_IN_BATCH = 10_000
_LOOK_SECONDS = 0.01  # between two polls of GET /accounts


class Purchase(NamedTuple):
    """One line of the file: the customer's number in the sample, the day as YYYY-MM-DD, the amount."""

    customer: str
    date: str
    cents: int


class Timing(NamedTuple):
    """How long each part took, in seconds; `cpu` is the client's processor time for the two posts."""

    customers: float
    invoices: float
    complete: float
    cpu: float


Post = Callable[[int, str, Sequence[Any]], list[str]]
"""Creates everything in a list by POST to a path of a port; answers the ids in order."""


def measure(plan: Plan) -> Result:
    """Load the file each way, each time into an empty Tally; return how long each took."""
    purchases = read(FILE)
    sections = []
    for title, post in (("One by one:", one_by_one), ("In batches:", in_batches)):
        timings = []
        for run in range(plan.runs):
            plan.say(f"cdnow: {title} run {run + 1} of {plan.runs}")
            with running(plan.base, consumers={"accounts": CONSUMERS}) as tally:
                timings.append(load(tally, purchases, post))
        sections.append(f"{title}\n\n{_table(timings, post is in_batches)}")
    return Result("\n\n".join([*sections, _NOTES]))


def read(file: Path) -> list[Purchase]:
    """Every purchase in the file, in the file's order. Raises Unexpected if it isn't the known file."""
    purchases = []
    for line in file.read_text(encoding="ascii").splitlines():
        _, customer, day, _, dollars = line.split()
        cents = (Decimal(dollars) * 100).to_integral_exact()
        purchases.append(Purchase(customer, f"{day[:4]}-{day[4:6]}-{day[6:]}", int(cents)))
    customers, total = len({purchase.customer for purchase in purchases}), sum(p.cents for p in purchases)
    if (customers, len(purchases), total) != (CUSTOMERS, INVOICES, CENTS):
        raise Unexpected(f"{file}: {customers} customers, {len(purchases)} invoices, {total} cents")
    return purchases


def load(tally: Running, purchases: Sequence[Purchase], post: Post) -> Timing:
    """Create an account, its customers and their invoices, and wait until GET /accounts shows all.

    Raises Unexpected if the final figures are different.
    """
    with closing(tally.accounts()) as accounts:
        account = accounts.post("/accounts", {"name": "CDNOW", "owned_by": "benchmark"})["id"]
        numbers = sorted({purchase.customer for purchase in purchases})
        customers = [{"name": f"CDNOW {number}", "account_id": account} for number in numbers]
        before, cpu = time.perf_counter(), time.process_time()
        ids = dict(zip(numbers, post(tally.customers_port, "/customers", customers), strict=True))
        invoices = [_invoice(ids[purchase.customer], purchase) for purchase in purchases]
        between = time.perf_counter()
        post(tally.customers_port, "/invoices", invoices)
        after, cpu = time.perf_counter(), time.process_time() - cpu
        until(lambda: _shown(accounts.get("/accounts")) == (CUSTOMERS, CENTS), _LOOK_SECONDS)
        complete = time.perf_counter()
        until(tally.settled, pause=0.05)
        if (shown := _shown(accounts.get("/accounts"))) != (CUSTOMERS, CENTS):
            raise Unexpected(f"GET /accounts shows {shown} once all has settled")
    return Timing(between - before, after - between, complete - after, cpu)


def one_by_one(port: int, path: str, contents: Sequence[Any]) -> list[str]:
    """Post each by its own request, over CLIENTS connections at once."""
    answers = post_all(port, path, [_encode(content) for content in contents], CLIENTS)
    return [answer["id"] for answer in answers]


def in_batches(port: int, path: str, contents: Sequence[Any]) -> list[str]:
    """Post all in as few requests as possible, one after another."""
    rest = iter(contents)
    batches = list(iter(partial(lambda: list(islice(rest, MOST_IN_BATCH))), []))
    answers = post_all(port, f"{path}/batch", [_encode(batch) for batch in batches], clients=1)
    return [id for answer in answers for id in answer["ids"]]


def _invoice(customer_id: str, purchase: Purchase) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "purchase_date": purchase.date,
        "purchase_price_cents": purchase.cents,
    }


def _encode(content: object) -> bytes:
    return json.dumps(content).encode()


def _shown(listed: Any) -> tuple[int, int]:
    """How many customers GET /accounts shows, and the revenue in cents; the total must be their sum."""
    [account] = listed
    total = sum(customer["total_revenue_cents"] for customer in account["customers"])
    if total != account["total_revenue_cents"]:
        raise Unexpected(f"the customers have {total} cents, the account {account['total_revenue_cents']}")
    return len(account["customers"]), total


def _table(timings: Sequence[Timing], batched: bool) -> str:
    def posted(what: str, count: int, seconds: list[float]) -> list[str]:
        requests = -(-count // MOST_IN_BATCH) if batched else count
        rate = spread([count / value for value in seconds], ",.0f")
        return [f"{count:,} {what} posted", f"{requests:,}", spread(seconds, ".2f"), rate]

    return table(
        [
            ["", "requests", "s, median (min..max)", "rows/s" if batched else "requests/s"],
            posted("customers", CUSTOMERS, [timing.customers for timing in timings]),
            posted("invoices", INVOICES, [timing.invoices for timing in timings]),
            ["last answer to complete", "", spread([timing.complete for timing in timings], ".2f"), ""],
            ["processor time of the client", "", spread([timing.cpu for timing in timings], ".2f"), ""],
        ]
    )


_NOTES = paragraph(f"""
    Each run on an empty Tally with {CONSUMERS} accounts consumers, otherwise default settings. One by one:
    {CLIENTS} threads of one process, each with a kept-alive http.client connection; they share the cores
    with Tally, and their processor time is shown. Complete: a GET /accounts that began after the last
    answer, repeated every {_LOOK_SECONDS * 1000:.0f} ms, has shown {CUSTOMERS:,} customers and {CENTS:,}
    cents; checked again once both services report that nothing is on its way.
""")
