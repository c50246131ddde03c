"""The same rates with a million customers and ten million invoices in the files, and the memory."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from benchmarks import batches, consume, entries, load, posting, relay, statements
from benchmarks.apart import apart
from benchmarks.client import Unexpected
from benchmarks.costs import Peaks
from benchmarks.entries import STREAM
from benchmarks.filled import EACH, IN_ACCOUNT, Everyone, fill, fill_accounts, in_database
from benchmarks.plan import Plan, Result, Target, at_least, at_most, ratios
from benchmarks.private_redis import private_redis
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running, scratch
from benchmarks.scene import Scene
from benchmarks.spent import Pace
from benchmarks.spent import rates as paced
from tally.store import accounts, customers

OF_EMPTY = 0.8
MOST_MEMORY = 80.0  # MB, of any actor
FEW = 10_000  # customers on empty files: as many as fit in a batch
OFTENER = 3  # times as many runs of the figures that vary most with the machine's pace
MOST_GROWTH = 10.0  # MB, of the HTTP process while it shows everything


class Sizes(NamedTuple):
    """The sizes of the files, and of the measurements on them."""

    customers: int
    events: int
    batches: int
    seconds: float

    @property
    def invoices(self) -> int:
        """The number of invoices in the files."""
        return self.customers * EACH


def measure(plan: Plan) -> Result:
    """Fill the files once, and measure each rate on empty files and on copies of them in turn."""
    oftener = plan._replace(runs=plan.runs * OFTENER)
    sizes = plan.choose(Sizes(1_000_000, 200_000, 20, 5.0), Sizes(20_000, 20_000, 3, 1.0))
    with scratch(plan.base) as filled, scratch(plan.base) as few:
        plan.say(f"scale: filling the files with {sizes.invoices:,} invoices")
        apart(fill, filled, sizes.customers)
        apart(fill_accounts, few, FEW)
        rates, processor = _rates(oftener, sizes, few, filled)
        profile = _profile(plan, sizes, few, filled)
        memory = plan.alternate({"scale: memory": lambda: use_all(plan.base, sizes, filled)})["scale: memory"]
    shares = {what: ratios(full, empty) for what, (empty, full) in rates.items()}
    rows = [["a second, median (min..max)", "empty files", "filled files", "filled / empty"]]
    for what, (empty, full) in rates.items():
        rows.append([what, spread(empty, ",.0f"), spread(full, ",.0f"), spread(shares[what], ".2f")])
    targets = [at_least(f"scale: {what}, filled / empty", OF_EMPTY, share) for what, share in shares.items()]
    rows.append(["µs of processor for each", "", "", ""])
    for what, (empty, full) in processor.items():
        rows.append([what, spread(empty, ".1f"), spread(full, ".1f"), spread(ratios(full, empty), ".2f")])
    text = f"{table(rows)}\n\n{profile}\n\n{_memory_table(memory)}\n\n{_notes(sizes)}"
    return Result(text, [*targets, *_memory_targets(memory)])


Rates = dict[str, tuple[list[float], list[float]]]
"""On empty and on filled files, by what is counted."""


def _rates(plan: Plan, sizes: Sizes, few: Path, filled: Path) -> tuple[Rates, Rates]:
    """The rates a second; and, where one process does the work, its processor time in µs for each."""

    def prepare(directory: Path) -> None:
        relay.copy(filled, directory)

    alone = {
        "events consumed": _consume(plan, sizes, few, filled),
        "events published": _relay(plan, sizes, lambda to: relay.copy(filled, to, customers.FILE)),
    }
    found = {what: (paced(empty), paced(full)) for what, (empty, full) in alone.items()}
    found["POST /invoices"] = _post(plan, sizes, prepare)
    found["invoices in batches"] = _batches(plan, sizes, prepare)
    processor = {
        what: ([pace.cpu for pace in empty], [pace.cpu for pace in full])
        for what, (empty, full) in alone.items()
    }
    return found, processor


def _profile(plan: Plan, sizes: Sizes, few: Path, filled: Path) -> str:
    """The share of each kind of SQL statement in the difference between the rates of consuming."""

    def applied(files: Path, customers: int) -> dict[str, float]:
        with scratch(plan.base) as directory:
            relay.copy(files, directory, accounts.FILE)
            return apart(statements.profile, directory, customers, sizes.events)

    found = plan.alternate(
        {
            "empty files": lambda: applied(few, FEW),
            "filled files": lambda: applied(filled, sizes.customers),
        }
    )
    rows = [["applying events, µs for each", *found]]
    rows += [
        [kind, *(spread([each[kind] for each in runs], ".2f") for runs in found.values())]
        for kind in statements.KINDS
    ]
    return table(rows)


Prepare = Callable[[Path], None]


def _consume(plan: Plan, sizes: Sizes, few: Path, filled: Path) -> tuple[list[Pace], list[Pace]]:
    def consumed(url: str, files: Path) -> Pace:
        return consume.tally(plan.base, url, sizes.events, lambda to: relay.copy(files, to, accounts.FILE))

    with private_redis(plan.base, plan.server) as small, private_redis(plan.base, plan.server) as large:
        for url, among in ((small, FEW), (large, sizes.customers)):
            entries.publish(url, STREAM, (each.fields() for each in entries.invoices(sizes.events, among)))
        found = plan.alternate(
            {
                "scale, consume: empty": lambda: consumed(small, few),
                "scale, consume: filled": lambda: consumed(large, filled),
            }
        )
    empty, full = found.values()
    return empty, full


def _relay(plan: Plan, sizes: Sizes, prepare: Prepare) -> tuple[list[Pace], list[Pace]]:
    def fill_outbox(directory: Path) -> None:
        apart(relay.fill_outbox, directory, sizes.events)

    def fill_filled(directory: Path) -> None:
        prepare(directory)
        fill_outbox(directory)

    with private_redis(plan.base, plan.server) as url:
        found = plan.alternate(
            {
                "scale, relay: empty": lambda: relay.tally(plan.base, url, sizes.events, fill_outbox),
                "scale, relay: filled": lambda: relay.tally(plan.base, url, sizes.events, fill_filled),
            }
        )
    empty, full = found.values()
    return empty, full


def _post(plan: Plan, sizes: Sizes, prepare: Prepare) -> tuple[list[float], list[float]]:
    clients, seconds = posting.CLIENTS, sizes.seconds

    few, everyone = _scenes(sizes)
    found = plan.alternate(
        {
            "scale, post: empty": lambda: posting.tally(plan.base, clients, seconds, None, few).rate,
            "scale, post: filled": lambda: posting.tally(plan.base, clients, seconds, prepare, everyone).rate,
        }
    )
    empty, full = found.values()
    return empty, full


def _batches(plan: Plan, sizes: Sizes, prepare: Prepare) -> tuple[list[float], list[float]]:
    few, everyone = _scenes(sizes)
    found = plan.alternate(
        {
            "scale, batches: empty": lambda: batches.post(plan.base, sizes.batches, None, few).rate,
            "scale, batches: filled": lambda: batches.post(plan.base, sizes.batches, prepare, everyone).rate,
        }
    )
    empty, full = found.values()
    return empty, full


def _scenes(sizes: Sizes) -> tuple[Callable[[Running], Scene], Callable[[Running], Scene]]:
    """The scenes to post for: on empty files, and on filled ones."""
    return lambda tally: Scene(tally, FEW), lambda tally: Everyone(tally, sizes.customers)


class Memory(NamedTuple):
    """The peak of each process, and how much the HTTP process grew while it showed everything; MB."""

    peaks: dict[str, float]
    growth: float
    seconds: float

    def largest(self) -> float:
        """The highest peak of an actor; redis-server is no actor of ours."""
        return max(megabytes for name, megabytes in self.peaks.items() if name != "redis-server")


def use_all(base: Path | None, sizes: Sizes, filled: Path) -> Memory:
    """Post, post in batches, and show everything, while the memory of each process is watched."""
    with running(base, prepare=lambda directory: relay.copy(filled, directory)) as tally:
        scene = Everyone(tally, sizes.customers)
        with Peaks(tally) as peaks:
            single = scene.requests(5_000)
            found = apart(load.run, tally.customers_port, single, posting.CLIENTS, sizes.seconds)
            many = list(scene.batches(sizes.batches * 10_000))
            apart(load.send_each, tally.customers_port, many)
            scene.sent += found.weight + sum(request.weight for request in many)
            scene.insist()
        process = "accounts-http-1"
        with Peaks(tally) as first:
            _show_some(tally)
        with Peaks(tally) as showing:
            taken = _show_everything(tally, sizes.customers)
    highest = {name: max(peaks.megabytes[name], showing.megabytes[name]) for name in peaks.megabytes}
    return Memory(highest, showing.megabytes[process] - first.megabytes[process], taken)


def _show_some(tally: Running) -> None:
    """Read one page first, so that memory that is needed once is taken before."""
    with closing(tally.accounts()) as client:
        client.get("/accounts?limit=20")


def _show_everything(tally: Running, count: int) -> float:
    """Read GET /accounts to its end and add up the revenue; return the seconds."""
    began = time.monotonic()
    with closing(HTTPConnection("127.0.0.1", tally.accounts_port, timeout=600)) as connection:
        connection.request("GET", "/accounts")
        body = connection.getresponse().read()
    taken = time.monotonic() - began
    shown = body.count(b'"customer_id"')
    totals = sum(map(int, re.findall(rb'\],"total_revenue_cents":(\d+)}', body)))
    if shown != count or totals != in_database(tally):
        raise Unexpected(f"GET /accounts shows {shown} customers with {totals} cents")
    return taken


def _memory_table(memory: list[Memory]) -> str:
    rows = [["peak, filled files", "MB PSS, median (min..max)"]]
    rows += [[name, spread([each.peaks[name] for each in memory], ".1f")] for name in sorted(memory[0].peaks)]
    rows.append(["GET /accounts of all, growth", spread([each.growth for each in memory], ".1f")])
    rows.append(["GET /accounts of all, s", spread([each.seconds for each in memory], ".1f")])
    return table(rows)


def _memory_targets(memory: list[Memory]) -> list[Target]:
    largest, growth = [each.largest() for each in memory], [each.growth for each in memory]
    return [
        at_most("scale: largest actor, MB", MOST_MEMORY, largest, ".1f"),
        at_most("scale: growth while showing all accounts, MB", MOST_GROWTH, growth, ".1f"),
    ]


def _notes(sizes: Sizes) -> str:
    return paragraph(f"""
        Filled: {sizes.customers:,} customers in accounts of {IN_ACCOUNT:,}, with {sizes.invoices:,} invoices,
        made by SQL once and copied for each run; events and requests then are for customers all over the
        file. Empty: {FEW:,} customers, and no invoices; the requests and events are for all of them in turn.
        Otherwise measured as above, but the rates in {OFTENER} times as many runs, as these differ most. The
        files are in the page cache as far as they fit. Applying events: without Redis, {statements.AT_ONCE:,}
        to a transaction, by what SQLite measures for each statement. Memory: the highest of the looks every
        0.1 s while single invoices, then batches are posted and applied, then all accounts are listed;
        redis-server holds the stream and is no actor.
    """)
