"""A standby: how soon it takes over from its primary, how far it lags behind, and its costs."""

import json
import os
import random
import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks import costs
from benchmarks.apart import apart
from benchmarks.client import Client, Unexpected, until
from benchmarks.plan import Plan, Result, Target, at_most
from benchmarks.private_redis import private_redis, processor_seconds
from benchmarks.report import paragraph, percentile, spread, table
from benchmarks.running import Running, running, scratch
from benchmarks.scene import Scene
from tally.recovery import joining
from tally.store import accounts, customers
from tally.store.copying import copy_database

FAILOVER_SECONDS = 3
MOST_SECONDS = FAILOVER_SECONDS + 2.0  # from the kill to the first 201
RATE, LOW_RATE, AT_ONCE = 20_000, 5_000, 1_000  # invoices a second, and in each batch
MOST_BEHIND_MS = 100.0
CUSTOMERS = 1_000
CALM_SECONDS = 2.0  # of recording before the kill
WARM_SECONDS = 2  # of posting, which don't count for the lag
_PAUSE_SECONDS = 0.01  # between two requests of a recording client
_LOOK_SECONDS = 0.001  # between two looks at the standby's invoices
_NODE = {"failover_seconds": FAILOVER_SECONDS}
_SHOWN = 4  # the standby's processes; the others take hardly anything


class Failover(NamedTuple):
    """Seconds to the standby's first 201, from the kill and from the primary's last 201.

    `behind` counts the invoices that the primary had answered and the standby lacks, of `answered`.
    """

    since_killed: float
    since_answered: float
    answered: int
    behind: int


class Steady(NamedTuple):
    """The reached rate in invoices a second, and processor time in µs for each invoice.

    `behind` has the milliseconds from a batch's answer until the standby showed it; `standby` the time of
    its processes by their names. Both are empty without a standby.
    """

    rate: float
    answered: Sequence[float]
    behind: Sequence[float]
    redis: float
    primary: float
    standby: dict[str, float]


class Posted(NamedTuple):
    """A batch: when it was sent and answered, on the monotonic clock, and the id of its last invoice."""

    sent: float
    answered: float
    last: int


def measure(plan: Plan) -> Result:
    """Kill primaries; and post steadily to one with a standby and to one without, in turn."""
    failovers = plan.alternate({"the primary is killed": lambda: fail_over(plan)})
    seconds = plan.choose(10, 3)
    steady = plan.alternate(
        {
            f"without a standby, {LOW_RATE:,}/s": lambda: post_alone(plan, LOW_RATE, seconds),
            f"with a standby, {LOW_RATE:,}/s": lambda: post_followed(plan, LOW_RATE, seconds),
            f"with a standby, {RATE:,}/s": lambda: post_followed(plan, RATE, seconds),
        }
    )
    _, low, followed = steady.values()
    [killed] = failovers.values()
    text = [_killed(killed), _behind(low, followed), _cost(steady), _NOTES, _notes(seconds)]
    return Result("\n\n".join(text), _targets(killed, low, followed))


def fail_over(plan: Plan) -> Failover:
    """Kill all processes of a primary while invoices are recorded; return how soon its standby took over."""
    with private_redis(plan.base, plan.server) as url, scratch(plan.base) as directory:
        primary = Running(directory, {"redis": _redis(url), "node": _NODE})
        try:
            scene = Scene(primary, CUSTOMERS)
            until(primary.settled, pause=0.02)
            with _standby(plan, url, primary) as standby, Recording(scene, primary, standby) as recording:
                # Each time at another moment between two renewals of the primary's lease.
                time.sleep(CALM_SECONDS + random.uniform(0, FAILOVER_SECONDS))
                killed = time.monotonic()
                primary.kill()
                until(lambda: bool(recording.by_standby), pause=_PAUSE_SECONDS, seconds=10 * MOST_SECONDS)
                before = recording.by_primary
                lacking = {id for _, id in before} - _ids(standby)
                first = recording.by_standby[0][0]
        finally:
            primary.kill()
    return Failover(first - killed, first - before[-1][0], len(before), len(lacking))


def post_alone(plan: Plan, rate: int, seconds: int) -> Steady:
    """Post so many invoices a second to a Tally without a standby."""
    with private_redis(plan.base, plan.server) as url, _primary(plan, url) as primary:
        scene = Scene(primary, CUSTOMERS)
        until(primary.settled, pause=0.02)
        work = _Work(scene, rate, seconds)
        before = processor_seconds(url)
        spent = costs.spent(primary, work.post)
        return work.steady([], processor_seconds(url) - before, spent, {})


def post_followed(plan: Plan, rate: int, seconds: int) -> Steady:
    """Post so many invoices a second to a primary; return also how far its standby was behind."""
    with private_redis(plan.base, plan.server) as url, _primary(plan, url) as primary:
        scene = Scene(primary, CUSTOMERS)
        until(primary.settled, pause=0.02)
        with _standby(plan, url, primary) as standby:
            work = _Work(scene, rate, seconds)
            own: dict[str, float] = {}

            def post_and_follow() -> None:
                work.post()
                until(lambda: len(_ids(standby)) == work.count, pause=0.1)
                until(standby.settled, pause=0.02)

            def post_to_both() -> None:
                own.update(costs.spent(standby, post_and_follow))

            before = processor_seconds(url)
            with Sight(standby.directory / customers.FILE) as sight:
                spent = costs.spent(primary, post_to_both)
            redis = processor_seconds(url) - before
            _insist_on_revenue(standby, scene)
    behind = [(sight.showed(each.last) - each.answered) * 1000 for each in work.posted[work.warm :]]
    return work.steady(behind, redis, spent, own)


def post_steadily(port: int, bodies: Sequence[bytes], pause: float) -> list[Posted]:
    """Post each batch once, `pause` seconds apart, or one after another if that is too fast."""
    posted = []
    with closing(Client(port)) as client:
        start = time.monotonic() + 0.1
        for number, body in enumerate(bodies):
            time.sleep(max(0.0, start + number * pause - time.monotonic()))
            sent = time.monotonic()
            ids = client.post_encoded("/invoices/batch", body)["ids"]
            posted.append(Posted(sent, time.monotonic(), int(ids[-1])))
    return posted


class Recording:
    """A client that records invoices, while this is entered, at the one of two Tallys that answers 201.

    For each Tally it keeps the answers: the time on the monotonic clock, and the invoice's id.
    """

    def __init__(self, scene: Scene, primary: Running, standby: Running) -> None:
        self.by_primary: list[tuple[float, int]] = []
        self.by_standby: list[tuple[float, int]] = []
        self._sides = [(primary, self.by_primary), (standby, self.by_standby)]
        customer = scene.customers[0]
        invoice = {"customer_id": customer, "purchase_date": "1998-06-30", "purchase_price_cents": 1}
        self._body = json.dumps(invoice).encode()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _record(self) -> None:
        while not self._done.wait(_PAUSE_SECONDS):
            tally, answered = self._sides[0]
            if (id := self._post(tally)) is None:
                self._sides.reverse()
            else:
                answered.append((time.monotonic(), id))

    def _post(self, tally: Running) -> int | None:
        """Record one on a new connection; return its id, or None if it isn't recorded."""
        with closing(tally.customers()) as client:
            try:
                status, content = client.request("POST", "/invoices", self._body)
            except (OSError, HTTPException, json.JSONDecodeError):
                return None
        return int(content["id"]) if status == 201 else None


class Sight:
    """The invoices seen in a customers.db while this is entered, and when each was first seen.

    They must come in the order of their ids.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._times: list[float] = []
        self._newest: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def showed(self, id: int) -> float:
        """When an invoice was first seen, on the monotonic clock. Raises Unexpected if it wasn't."""
        place = bisect_left(self._newest, id)
        if place == len(self._newest):
            raise Unexpected(f"{self._file} was not seen to have invoice {id}")
        return self._times[place]

    def _look(self) -> None:
        newest = 0
        with closing(_read_only(self._file)) as connection:
            while not self._done.wait(_LOOK_SECONDS):
                [(found,)] = connection.execute("SELECT max(id) FROM invoice").fetchall()
                if found and found > newest:
                    newest = found
                    self._times.append(time.monotonic())
                    self._newest.append(found)


class _Work:
    """Batches to post at a steady rate, and their results."""

    def __init__(self, scene: Scene, rate: int, seconds: int) -> None:
        self._scene, self._pause = scene, AT_ONCE / rate
        self.count = rate * (WARM_SECONDS + seconds)
        self.warm = rate * WARM_SECONDS // AT_ONCE  # batches
        bodies = list(scene.bodies(self.count, AT_ONCE))
        self._bodies = [body for body, _ in bodies]
        self._cents = sum(cents for _, cents in bodies)
        self.posted: list[Posted] = []

    def post(self) -> None:
        """Post all, and wait until the Tally shows all."""
        port = self._scene.tally.customers_port
        self.posted = apart(post_steadily, port, self._bodies, self._pause)
        self._scene.sent += self._cents
        self._scene.insist()

    def steady(
        self, behind: Sequence[float], redis: float, primary: dict[str, float], standby: dict[str, float]
    ) -> Steady:
        """The figures; processor time is given in seconds."""
        each = 1e6 / self.count
        taken = self.posted[-1].answered - self.posted[self.warm].sent
        rate = (self.count - self.warm * AT_ONCE) / taken
        answered = [(batch.answered - batch.sent) * 1000 for batch in self.posted[self.warm :]]
        own = {name: seconds * each for name, seconds in standby.items()}
        return Steady(rate, answered, behind, redis * each, sum(primary.values()) * each, own)


@contextmanager
def _primary(plan: Plan, url: str) -> Iterator[Running]:
    with running(plan.base, redis=_redis(url), node=_NODE) as primary:
        yield primary


def _redis(url: str) -> dict[str, str]:
    return {"url": url, "embedded": "never"}


@contextmanager
def _standby(plan: Plan, url: str, primary: Running) -> Iterator[Running]:
    """Run a standby of a Tally; it begins from a copy, and is yielded once it has all the primary's data."""
    node = {**_NODE, "standby": True}
    begin = partial(_begin, primary)
    with running(plan.base, prepare=begin, redis=_redis(url), node=node) as standby:
        until(standby.settled, pause=0.02)
        until(lambda: _newest(standby) == _newest(primary), pause=0.02)
        yield standby


def _begin(primary: Running, data: Path) -> None:
    """Make a standby's databases, as `backup` and `join` do."""
    copies = data.with_name("copies")
    copies.mkdir()
    for file in (accounts.FILE, customers.FILE):
        copy_database(primary.directory / file, copies / file, lambda done: None)
    joining.follow(data, copies, 0)


def _newest(tally: Running) -> list[int]:
    return sorted(_ids(tally))[-1:]


def _ids(tally: Running) -> set[int]:
    """The ids of all its invoices."""
    with closing(_read_only(tally.directory / customers.FILE)) as connection:
        return {id for (id,) in connection.execute("SELECT id FROM invoice")}


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True, check_same_thread=False)


def _insist_on_revenue(standby: Running, scene: Scene) -> None:
    with closing(standby.accounts()) as client:
        revenue = client.get(f"/accounts/{scene.account}")["total_revenue_cents"]
    if revenue != scene.sent:
        raise Unexpected(f"the standby shows {revenue} cents of {scene.sent}")


def _killed(runs: Sequence[Failover]) -> str:
    return table(
        [
            ["the primary's processes are killed", "median (min..max)"],
            ["killed to the standby's first 201, s", spread([run.since_killed for run in runs], ".2f")],
            ["last 201 to the standby's first, s", spread([run.since_answered for run in runs], ".2f")],
            ["answered by the primary", spread([run.answered for run in runs], ".0f")],
            ["of these, not at the standby yet", spread([run.behind for run in runs], ".0f")],
        ]
    )


def _behind(low: Sequence[Steady], high: Sequence[Steady]) -> str:
    def row(what: str, pick: Callable[[Steady], float], form: str = ".1f") -> list[str]:
        return [what, *(spread([pick(run) for run in runs], form) for runs in (low, high))]

    return table(
        [
            [f"batches of {AT_ONCE:,}", f"at {LOW_RATE:,} invoices/s", f"at {RATE:,} invoices/s"],
            row("invoices/s reached", lambda run: run.rate, ",.0f"),
            row("answered to visible at the standby, median, ms", lambda run: percentile(run.behind, 0.5)),
            row("answered to visible at the standby, p99, ms", lambda run: percentile(run.behind, 0.99)),
            row("answered to visible at the standby, longest, ms", lambda run: max(run.behind)),
            row("POST to its answer, median, ms", lambda run: percentile(run.answered, 0.5)),
            row("POST to its answer, p99, ms", lambda run: percentile(run.answered, 0.99)),
        ]
    )


def _cost(sides: Mapping[str, Sequence[Steady]]) -> str:
    def row(what: str, pick: Callable[[Steady], float]) -> list[str]:
        return [what, *(spread([pick(run) for run in runs], ".1f") for runs in sides.values())]

    def own(what: str, pick: Callable[[dict[str, float]], float]) -> list[str]:
        every = [[pick(run.standby) for run in runs if run.standby] for runs in sides.values()]
        return [what, *(spread(spent, ".1f") if spent else "" for spent in every)]

    found = [*sides.values()][-1][0].standby
    names = sorted(found, key=lambda name: -found[name])
    return table(
        [
            ["µs of processor for each invoice", *sides],
            row("Redis", lambda run: run.redis),
            row("the primary's processes", lambda run: run.primary),
            own("the standby's processes", lambda spent: sum(spent.values())),
            *(own(f"  {name}", partial(_of, name)) for name in names[:_SHOWN]),
            own("  the others", lambda spent: sum(spent[name] for name in names[_SHOWN:])),
        ]
    )


def _of(name: str, spent: dict[str, float]) -> float:
    return spent[name]


def _targets(killed: Sequence[Failover], low: Sequence[Steady], high: Sequence[Steady]) -> list[Target]:
    taken = [run.since_killed for run in killed]
    targets = [at_most("standby: killed to its first 201, s", MOST_SECONDS, taken)]
    for rate, runs in ((LOW_RATE, low), (RATE, high)):
        behind = [percentile(run.behind, 0.5) for run in runs]
        what = f"standby: behind at {rate:,} invoices/s, median, ms"
        targets.append(at_most(what, MOST_BEHIND_MS, behind, ".1f"))
    return targets


_NOTES = paragraph(f"""
    Killed: two Tallys on one Redis, a primary and its standby, both with `failover_seconds =
    {FAILOVER_SECONDS}`. Somebody records an invoice on a new connection every {_PAUSE_SECONDS * 1000:.0f}
    ms, at the other one wherever that is refused. All processes of the primary get SIGKILL at any time
    between two renewals of its lease; Redis goes on. Its port refuses connections then, at once: where a
    machine dies, those who wait for it need a time limit of their own. What the primary had answered and
    not published is handed over when it is back.
""")


def _notes(seconds: int) -> str:
    return paragraph(f"""
        Behind: one client over one connection, a batch at fixed times, or as fast as they are answered
        where that is slower; for {seconds} s, after {WARM_SECONDS} s that count for the cost only.
        Measured from the answer to a batch until its last invoice is in the standby's customers.db, which
        is looked at every {_LOOK_SECONDS * 1000:.0f} ms: the primary's relay, Redis and the standby's relay
        are in it. Cost: of the same batches, until all is visible at both, what they take while idle
        included. Redis, both Tallys and the client share {os.cpu_count()} cores: where the costs at a rate
        come to more than these, the standby is behind by all that is left over, more with each second.
    """)
