"""The time without a killed actor: from SIGKILL until its work is done again."""

import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import psutil
import redis

from benchmarks.client import Client, Unexpected, until
from benchmarks.plan import Plan, Result, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running
from tally.store.stream import connect

MOST_SECONDS = 0.5
CALM_SECONDS = 2.0  # between two kills: an actor that was stable when it died is started again at once
_LOOK_SECONDS = 0.002  # between two polls of whether the work is done


class Scene:
    """A Tally in which every actor is the only one of its kind, and an account with a customer."""

    def __init__(self, tally: Running) -> None:
        self.tally = tally
        with closing(tally.accounts()) as accounts, closing(tally.customers()) as customers:
            self.account = accounts.post("/accounts", _account())["id"]
            until(lambda: self._take(customers, self.account)[0] == 201, _LOOK_SECONDS)
            self.customer = customers.get(f"/customers?account_id={self.account}")["customers"][0]["id"]
        self._revenue = 0
        self._redis = connect(tally.own_redis_url, answer_seconds=1)
        self._redis_run = self._run_id()

    def invoice_answered(self) -> None:
        """A POST /invoices on a new connection is answered."""
        with closing(self.tally.customers()) as customers:
            customers.post("/invoices", self._invoice())

    def account_answered(self) -> None:
        """A GET /accounts/{id} on a new connection is answered."""
        with closing(self.tally.accounts()) as accounts:
            accounts.get(f"/accounts/{self.account}")

    def invoice_shown(self) -> None:
        """An invoice posted after the kill shows in GET /accounts/{id}."""
        self.invoice_answered()
        with closing(self.tally.accounts()) as accounts:
            path = f"/accounts/{self.account}"
            until(lambda: bool(accounts.get(path)["total_revenue_cents"] == self._revenue), _LOOK_SECONDS)

    def account_known(self) -> None:
        """An account opened after the kill is known to the customers service."""
        with closing(self.tally.accounts()) as accounts, closing(self.tally.customers()) as customers:
            account = accounts.post("/accounts", _account())["id"]
            until(lambda: self._take(customers, account)[0] == 201, _LOOK_SECONDS)

    def redis_answers(self) -> None:
        """A new redis-server answers."""
        before = self._redis_run
        until(lambda: self._run_id() not in (None, before), _LOOK_SECONDS)
        self._redis_run = self._run_id()

    def redis_serves(self) -> None:
        """A new redis-server answers, and an invoice posted then shows."""
        self.redis_answers()
        self.invoice_shown()

    def calm(self) -> None:
        """Wait until all is done, all actors are there, and each has been for CALM_SECONDS."""
        self.account_known()
        self.invoice_shown()
        until(self.tally.settled, pause=0.05)
        self._redis_run = self._run_id()
        time.sleep(CALM_SECONDS)

    def _invoice(self) -> dict[str, Any]:
        self._revenue += 1
        return {"customer_id": self.customer, "purchase_date": "1998-06-30", "purchase_price_cents": 1}

    def _take(self, customers: Client, account: str) -> tuple[int, Any]:
        """Create a customer in the account: 201 once it is known (`require_account`), before that 422."""
        body = json.dumps({"name": "somebody", "account_id": account}).encode()
        return customers.request("POST", "/customers", body)

    def _run_id(self) -> str | None:
        try:
            return str(self._redis.info("server")["run_id"])
        except redis.RedisError:
            return None


class Killing(NamedTuple):
    """The process to kill, and a function that blocks until its successor works."""

    name: str
    works: Callable[[Scene], None]


KILLINGS = (
    Killing("customers-http-1", Scene.invoice_answered),
    Killing("accounts-http-1", Scene.account_answered),
    Killing("customers-relay", Scene.invoice_shown),
    Killing("accounts-relay", Scene.account_known),
    Killing("customers-consumer-1", Scene.account_known),
    Killing("accounts-consumer-1", Scene.invoice_shown),
    Killing("redis", Scene.redis_answers),
    Killing("redis", Scene.redis_serves),
    Killing("redis-server", Scene.redis_answers),
    Killing("redis-server", Scene.redis_serves),
)


def measure(plan: Plan) -> Result:
    """Kill every kind of process; return how long each was missed."""
    rows = [["killed", "s, median (min..max)", "back at work when"]]
    targets = []
    with running(plan.base, consumers={"accounts": 1}, customers={"require_account": True}) as tally:
        scene = Scene(tally)
        for killing in KILLINGS:
            plan.say(f"killed: {killing.name}, {plan.runs} times")
            taken = [kill(scene, killing) for _ in range(plan.runs)]
            rows.append([killing.name, spread(taken, ".3f"), _words(killing)])
            what = f"killed: {killing.name}, {killing.works.__name__.replace('_', ' ')}, s"
            targets.append(at_most(what, MOST_SECONDS, taken))
    return Result(f"{table(rows)}\n\n{_NOTES}", targets)


def kill(scene: Scene, killing: Killing) -> float:
    """Kill the process once all is calm; return the seconds until its work is done again."""
    scene.calm()
    victim = scene.tally.processes()[killing.name]
    descriptor = os.pidfd_open(victim.pid)
    try:
        started = time.perf_counter()
        victim.send_signal(signal.SIGKILL)
        select.select([descriptor], [], [])  # from here on the old process can do nothing more
        killing.works(scene)
        taken = time.perf_counter() - started
    finally:
        os.close(descriptor)
    _insist_on_successor(scene.tally, killing.name, victim)
    return taken


def _insist_on_successor(tally: Running, name: str, victim: psutil.Process) -> None:
    successor = tally.processes().get(name)
    if successor is None or successor == victim:
        raise Unexpected(f"the work of {name} is done, yet there is no new process of that name")


def _account() -> dict[str, str]:
    return {"name": "Killed", "owned_by": "benchmark"}


def _words(killing: Killing) -> str:
    return (killing.works.__doc__ or "").rstrip(".")


_NOTES = paragraph(f"""
    From SIGKILL until the work named has been done, end to end over HTTP; the probe starts when the process
    is seen to be dead, and looks every {_LOOK_SECONDS * 1000:.0f} ms. Every actor is the only one of its
    kind (one accounts consumer), so that nobody else can have done it; a new process of that name is
    insisted on. Each had been at work for {CALM_SECONDS:.0f} s. The listening socket outlives an HTTP
    process: connections wait, none is refused. `redis` is the actor that minds redis-server; the other is
    the server itself.
""")
