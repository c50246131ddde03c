"""The clock is set forward and back while Tally runs: only the dates it shows follow."""

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from support.clients import answer, connect, head, request
from support.clocks import Clock, settable_clock
from support.load import Load
from support.tally import Tally, running
from support.waiting import eventually
from tally.store import stream

HOUR = 3600


class Timed(NamedTuple):
    """A Tally, and the clock that it and its Redis use."""

    tally: Tally
    clock: Clock

    def ahead(self) -> float:
        """How many seconds ahead of the true time a new account is dated."""
        id = self.tally.accounts.post("/accounts", {"name": "dated", "owned_by": "u"})["id"]
        dated = self.tally.accounts.get(f"/accounts/{id}")["account"]["created_date"]
        return (datetime.fromisoformat(dated) - datetime.now(UTC)).total_seconds()

    def redis_ahead(self) -> float:
        """How many seconds Redis's time is ahead of the true time."""
        with stream.connect(self.tally.redis_url) as client:
            seconds, _ = client.time()
        return float(seconds - datetime.now(UTC).timestamp())


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Timed]:
    """A Tally and its Redis with a clock of their own."""
    with (
        settable_clock(tmp_path) as clock,
        running(
            tmp_path,
            consumers={"claim_idle_ms": 500},
            supervisor={"heartbeat_timeout": 3},
        ) as tally,
    ):
        yield Timed(tally, clock)


def test_nothing_depends_on_the_clock_but_the_dates_that_are_shown(timed: Timed) -> None:
    tally = timed.tally
    with Load(tally) as load:
        load.goes_on()
        before = tally.pids()
        for hours in (1, 0, -1, 1, -1, 0):
            timed.clock.set(hours * HOUR)
            assert abs(timed.ahead() - hours * HOUR) < 10
            assert abs(timed.redis_ahead() - hours * HOUR) < 10
            load.goes_on(100)
            shown = load.shown()
            eventually(lambda shown=shown: load.shown() > shown)  # type: ignore[misc]
        assert tally.pids() == before
    assert load.faults() == {}
    assert {each.status for each in load.tries()} == {201}
    load.is_counted_once()
    assert "actor_hangs" not in tally.said()


@pytest.mark.parametrize("hours", [1, -1])
def test_what_hangs_or_dies_after_the_clock_was_set_is_replaced(timed: Timed, hours: int) -> None:
    tally = timed.tally
    with Load(tally) as load:
        load.goes_on()
        stopped = tally.kill("accounts-consumer-1", signal.SIGSTOP)
        timed.clock.set(hours * HOUR)
        killed = tally.kill("customers-relay")
        eventually(lambda: tally.pids().get("customers-relay", killed) != killed, 3)
        eventually(lambda: tally.pids().get("accounts-consumer-1", stopped) != stopped, 8)
        load.goes_on()
    load.is_counted_once()


def test_an_idempotency_key_holds_when_the_clock_is_set(timed: Timed) -> None:
    with Load(timed.tally) as load:
        load.goes_on()
    for hours in (1, -1, 0):
        timed.clock.set(hours * HOUR)
        for invoice in load.invoices[:5]:
            id, invoice.id = invoice.id, None
            load.settle()
            assert invoice.id == id
    load.is_counted_once()


def test_a_request_that_is_being_sent_is_not_cut_off_when_the_clock_is_set_forth(timed: Timed) -> None:
    tally = timed.tally
    with Load(tally) as load:
        load.goes_on()
        content = {"customer_id": load.customer, "purchase_date": "2019-01-06", "purchase_price_cents": 0}
        whole = request("/invoices", content)
        with connect(tally.customers.port) as sending, connect(tally.customers.port) as idle:
            idle.sendall(head("GET", "/health/live"))
            assert answer(idle)[0] == 200
            sending.sendall(whole[:-5])
            load.goes_on()
            timed.clock.set(HOUR)
            looked = time.monotonic() + 6  # Tally looks for idle connections every 5 seconds
            eventually(lambda: time.monotonic() > looked)
            sending.sendall(whole[-5:])
            assert answer(sending)[0] == 201
            idle.sendall(head("GET", "/health/live"))
            assert answer(idle)[0] == 200
