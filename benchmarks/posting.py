"""POST /invoices, one by one, from 16 and from 64 clients, beside the limit and FastAPI."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks import cdnow, entries, limits, load
from benchmarks.apart import Server, apart, serving
from benchmarks.client import Unexpected, until
from benchmarks.entries import STREAM
from benchmarks.load import Load, Request
from benchmarks.peers import fastapi_invoices
from benchmarks.plan import Plan, Result, Target, at_least, at_most, ratios
from benchmarks.private_redis import private_redis
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running, scratch
from benchmarks.scene import Scene, create_customers, requests
from tally.recovery import first_start
from tally.store import customers

CLIENTS, MANY = 16, 64
OF_LIMIT, OF_FASTAPI, OF_FEWER, TAIL = 0.85, 2.5, 1.1, 2.75
OF_COMMIT, LONGER_MS = (
    0.6,
    3.0,
)  # answers after publication: relative to the rate with answers after the commit, and how much later

_DIFFERENT = 5_000  # requests, sent over and over
_TALLY, _MANY = f"Tally, {CLIENTS} clients", f"Tally, {MANY} clients"
_PUBLISHED = "Tally, answered after publication"
_ALONE, _LIMIT, _FASTAPI = "Tally, HTTP alone", "limit: constant answer", "FastAPI"


def measure(plan: Plan) -> Result:
    """Post to each in turn; return rates, latencies and ratios."""
    seconds = plan.choose(5.0, 1.0)
    loads = plan.alternate(
        {
            _LIMIT: lambda: limit(seconds),
            _TALLY: lambda: tally(plan.base, CLIENTS, seconds),
            _PUBLISHED: lambda: tally(plan.base, CLIENTS, seconds, answer_after="publish"),
            _FASTAPI: lambda: fastapi(plan, seconds),
            _MANY: lambda: tally(plan.base, MANY, seconds),
            _ALONE: lambda: alone(plan.base, seconds),
        }
    )
    return Result(f"{_table(loads)}\n\n{_notes(seconds)}", _targets(loads))


def limit(seconds: float) -> Load:
    """Falcon on waitress, with the same answer to every request."""
    with serving(limits.answer) as server:
        made = requests(_DIFFERENT, _numbers())
        return _refusing_none(_posted(server, made, CLIENTS, seconds))


def tally(
    base: Path | None,
    clients: int,
    seconds: float,
    prepare: Callable[[Path], None] | None = None,
    set_up: Callable[[Running], Scene] = lambda tally: Scene(tally, cdnow.CUSTOMERS),
    **customers: str,
) -> Load:
    """A whole Tally, with its relay and consumers, on the data from `prepare`.

    `customers` are settings of that service.
    """
    with running(base, prepare=prepare, customers=customers) as tally:
        scene = set_up(tally)
        until(tally.settled, pause=0.02)
        tally_load = _posted(_server(tally), scene.requests(_DIFFERENT), clients, seconds)
        scene.sent += tally_load.weight
        scene.insist()
    return _refusing_none(tally_load)


def alone(base: Path | None, seconds: float) -> Load:
    """Tally without Redis, so that only the HTTP process has work."""
    with running(base, roles=["customers"], prepare=first_start.make) as tally:
        ids = create_customers(tally, "1", cdnow.CUSTOMERS)
        found = _posted(_server(tally), requests(_DIFFERENT, ids), CLIENTS, seconds)
        _insist(tally.directory / customers.FILE, found)
    return _refusing_none(found)


def fastapi(plan: Plan, seconds: float) -> Load:
    """The same request to FastAPI on uvicorn, which commits and publishes."""
    with private_redis(plan.base, plan.server) as url, scratch(plan.base) as directory:
        with serving(fastapi_invoices.serve, directory, url, cdnow.CUSTOMERS) as server:
            found = _posted(server, requests(_DIFFERENT, _numbers()), CLIENTS, seconds)
        _insist(directory / fastapi_invoices.FILE, found)
        if (on_stream := entries.published(url, STREAM)) != (found.answered, found.weight):
            raise Unexpected(f"the stream has {on_stream} (entries, cents) of {found.answered} accepted")
    return _refusing_none(found)


def _server(tally: Running) -> Server:
    return Server(tally.customers_port, tally.processes()["customers-http-1"].pid)


def _posted(server: Server, made: Sequence[Request], clients: int, seconds: float) -> Load:
    return apart(load.run, server.port, made, clients, seconds, server=server.pid)


def _numbers() -> list[str]:
    return [str(number) for number in range(1, cdnow.CUSTOMERS + 1)]


def _refusing_none(found: Load) -> Load:
    if found.refused:
        raise Unexpected(f"{found.refused} of {found.answered + found.refused} requests were refused")
    return found


def _insist(file: Path, found: Load) -> None:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        sql = "SELECT count(*), sum(purchase_price_cents) FROM invoice"
        [row] = connection.execute(sql)
    if row != (found.answered, found.weight):
        raise Unexpected(f"{file.name} has {row} (invoices, cents), not {(found.answered, found.weight)}")


def _rates(loads: Sequence[Load]) -> list[float]:
    return [each.rate for each in loads]


def _targets(loads: dict[str, list[Load]]) -> list[Target]:
    rates = {side: _rates(found) for side, found in loads.items()}
    tails = [each.latency(0.99) / each.latency(0.5) for each in loads[_TALLY]]
    pairs = zip(loads[_PUBLISHED], loads[_TALLY], strict=True)
    longer = [published.latency(0.5) - committed.latency(0.5) for published, committed in pairs]
    return [
        at_least(f"post: {_TALLY} / {_LIMIT}", OF_LIMIT, ratios(rates[_TALLY], rates[_LIMIT])),
        at_least(f"post: {_ALONE} / {_LIMIT}", OF_LIMIT, ratios(rates[_ALONE], rates[_LIMIT])),
        at_least(f"post: {_TALLY} / {_FASTAPI}", OF_FASTAPI, ratios(rates[_TALLY], rates[_FASTAPI])),
        at_most(f"post: {_TALLY}, p99 / median", TAIL, tails),
        at_least(f"post: {_MANY} / {CLIENTS} clients", OF_FEWER, ratios(rates[_MANY], rates[_TALLY])),
        at_least(f"post: {_PUBLISHED} / after commit", OF_COMMIT, ratios(rates[_PUBLISHED], rates[_TALLY])),
        at_most(f"post: {_PUBLISHED}, median longer by, ms", LONGER_MS, longer),
        at_most(f"post: {_MANY}, refused", 0, [each.refused for each in loads[_MANY]], ".0f"),
    ]


def _table(loads: dict[str, list[Load]]) -> str:
    rows = [
        [
            "POST /invoices",
            "requests/s",
            "Tally's by this",
            "median, ms",
            "p99, ms",
            "µs of processor for each",
            "cores, server",
            "client",
        ]
    ]
    own = _rates(loads[_TALLY])
    for side, found in loads.items():
        rows.append(
            [
                side,
                spread(_rates(found), ",.0f"),
                spread(ratios(own, _rates(found)), ".2f"),
                spread([each.latency(0.5) for each in found], ".2f"),
                spread([each.latency(0.99) for each in found], ".2f"),
                spread([each.server_cpu / each.answered * 1e6 for each in found], ".0f"),
                spread([each.server_cpu / each.seconds for each in found], ".2f"),
                spread([each.cpu / each.seconds for each in found], ".2f"),
            ]
        )
    return table(rows)


def _notes(seconds: float) -> str:
    return paragraph(f"""
        {seconds:.0f} s each, {CLIENTS} kept-alive connections unless {MANY} are named, each sending its
        next request when its answer has come; one process of raw sockets, whose share of a core is
        shown, drives them all. Every side is one HTTP process, started anew for each run: its processor
        time for each request, and its share of a core. Tally: all of
        it at default settings, so that the relay and the consumers share the cores with the HTTP
        process; every answer follows a durable commit, and GET /accounts must show the cents of all
        that was answered in the end. Answered after publication: the same with `answer_after = "publish"`.
        HTTP alone: the same without Redis, so that nothing else has work.
        Limit: Falcon on waitress as it is, {limits.THREADS} threads; reads the body,
        answers a constant 201, stores nothing. FastAPI on uvicorn (uvloop, httptools), one worker:
        pydantic models, one durable SQLite commit and one XADD for each request. Refused: any answer
        but 201, which would also fail the run.
    """)
