"""The process model: dead processes are replaced, nothing is lost, and the port never refuses."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from support.tally import Tally, alive, running
from support.waiting import eventually


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Tally]:
    """A Tally with two HTTP processes for each service, on a private Redis."""
    with running(tmp_path, customers={"processes": 2}, accounts={"processes": 2}) as tally:
        yield tally


def _customer(tally: Tally) -> tuple[str, str]:
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
    return account, tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]


def _invoice(customer: str, cents: int = 1) -> dict[str, object]:
    return {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}


def _total(tally: Tally, account: str) -> int:
    return int(tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"])


def _eventually_total(tally: Tally, account: str, cents: int) -> None:
    eventually(lambda: _total(tally, account) == cents)


def _replaced(tally: Tally, actor: str) -> None:
    """Kill an actor and wait until another process has its name."""
    killed = tally.kill(actor)
    eventually(lambda: tally.pids().get(actor, killed) != killed)


def test_every_actor_that_is_killed_is_replaced_and_the_totals_are_exact(wide: Tally) -> None:
    account, customer = _customer(wide)
    before = wide.pids()
    assert len(before) == 1 + 2 * (2 + 1) + 2 + 1

    for count, actor in enumerate(sorted(before), 1):
        _replaced(wide, actor)
        eventually(lambda: wide.customers.request("POST", "/invoices", _invoice(customer)).status == 201)
        _eventually_total(wide, account, count)
    assert wide.process.poll() is None


def test_a_port_never_refuses_while_its_processes_are_killed(wide: Tally) -> None:
    refused: list[Exception] = []
    knocks = [0] * 4  # of each thread
    over = threading.Event()

    def knock(thread: int) -> None:
        while not over.is_set():
            try:
                wide.customers.request("GET", "/health/live")
            except OSError as error:  # the killed process may cut its connections; none may be refused
                if isinstance(error, ConnectionRefusedError):
                    refused.append(error)
            except Exception as error:
                if "refused" in str(error):
                    refused.append(error)
            knocks[thread] += 1

    def knocked_since(before: list[int]) -> bool:
        return all(now > then + 2 for now, then in zip(knocks, before, strict=True))

    with ThreadPoolExecutor(4) as threads:
        knocking = [threads.submit(knock, thread) for thread in range(4)]
        try:
            for actor in ("customers-http-1", "customers-http-2") * 3:
                _replaced(wide, actor)
                eventually(partial(knocked_since, list(knocks)))
        finally:
            over.set()
        for each in knocking:
            each.result()
    assert refused == []


def test_requests_in_flight_are_answered_when_it_is_told_to_stop(wide: Tally) -> None:
    account, customer = _customer(wide)
    batch = [_invoice(customer)] * 10_000

    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(wide.customers.request, "POST", "/invoices/batch", batch) for _ in range(4)]
        eventually(lambda: any(future.done() for future in sent))
        assert wide.stop() == 0
        answered = [future for future in sent if not future.exception()]
        assert all(future.result().status == 201 for future in answered)
    assert answered

    wide.start()
    eventually(lambda: _total(wide, account) >= 10_000 * len(answered))
    eventually(wide.settled)
    assert _total(wide, account) % 10_000 == 0


def test_the_outboxes_are_drained_and_redis_stops_last(wide: Tally) -> None:
    account, customer = _customer(wide)
    wide.customers.post("/invoices/batch", [_invoice(customer)] * 10_000)
    assert wide.stop() == 0
    assert "outbox_not_drained" not in wide.said()
    log = (wide.directory / "data" / "redis" / "redis.log").read_text()
    assert "bye bye" in log
    wide.start()
    _eventually_total(wide, account, 10_000)


def test_after_a_stop_each_database_is_one_file(wide: Tally) -> None:
    wide.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
    assert wide.stop() == 0
    files = sorted(path.name for path in (wide.directory / "data").glob("*.db*"))
    assert files == ["accounts.db", "customers.db"]


def test_killing_the_supervisor_ends_every_actor_and_frees_the_ports(wide: Tally) -> None:
    account, customer = _customer(wide)
    children = psutil.Process(wide.process.pid).children(recursive=True)
    assert len(children) == len(wide.pids()) + 1  # redis-server is a child of its actor
    wide.kill("accounts-consumer-1", signal.SIGSTOP)  # a process that can't notice ends too

    wide.customers.post("/invoices", _invoice(customer))
    wide.process.kill()
    wide.process.wait()
    eventually(lambda: not any(map(alive, children)), 2)

    wide.start()
    eventually(lambda: _total(wide, account) == 1)


def test_the_supervisor_has_one_thread_so_that_it_may_fork(wide: Tally) -> None:
    assert psutil.Process(wide.process.pid).num_threads() == 1


def test_what_is_idle_beats_and_is_left_alone(wide: Tally) -> None:
    before = wide.pids()
    _, customer = _customer(wide)
    wide.customers.post("/invoices", _invoice(customer))
    eventually(wide.settled)
    assert wide.pids() == before
    assert "actor_ended" not in wide.said()
