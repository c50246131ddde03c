"""The old primary's accounts.db has applied events that Redis lost and the promoted standby lacks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from faults.test_failover import freeze, shows, thaw
from integration.test_nodes import sell
from integration.test_standby import is_primary, pair, recorded, tool

from support.redis_process import RedisProcess
from support.tally import Tally
from support.waiting import eventually

INVOICE = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 20}
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def lost(tmp_path: Path, server: RedisProcess) -> Iterator[tuple[Tally, Tally, str]]:
    """The old primary, the new one, and an invoice of the old one that Redis has lost, with a change."""
    with pair(tmp_path, server.url) as (first, second):
        standing = freeze(second)
        server.client.client_kill_filter(_type="normal", skipme=True)  # nothing is on its way to the standby
        server.copy(tmp_path / "before")
        invoice = first.customers.post("/invoices", INVOICE, headers=KEY)["id"]
        assert first.customers.request("PATCH", "/invoices/1", {"purchase_price_cents": 300}).status == 200
        eventually(partial(shows, first, 320))
        frozen = freeze(first)
        server.kill()
        server.put_back(tmp_path / "before")
        server.start()
        thaw(standing)
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers) and is_primary(second.accounts))
        yield first, second, invoice
        thaw(frozen)


def _agree(first: Tally, second: Tally, expected: dict[str, int]) -> None:
    for tally in (second, first):
        eventually(partial(_has, tally, expected))
        eventually(tally.settled)
    there = {**expected, sell(second.customers, "1", 4): 4}  # who shows this has applied all earlier events
    for tally in (first, second):
        eventually(partial(_has, tally, there))
        eventually(partial(shows, tally, sum(there.values())))


def _has(tally: Tally, expected: dict[str, int]) -> bool:
    there = recorded(tally)
    assert there == expected
    return True


def test_it_is_handed_over(lost: tuple[Tally, Tally, str]) -> None:
    first, second, invoice = lost
    _thaw_all(first)
    _agree(first, second, {"1": 300, invoice: 20})


def test_it_counts_once_where_it_was_asked_for_again(lost: tuple[Tally, Tally, str]) -> None:
    first, second, _ = lost
    again = second.customers.post("/invoices", INVOICE, headers=KEY)["id"]
    _thaw_all(first)
    _agree(first, second, {"1": 300, again: 20})


def test_what_both_have_changed_counts_once(lost: tuple[Tally, Tally, str]) -> None:
    first, second, invoice = lost
    assert second.customers.request("PATCH", "/invoices/1", {"purchase_price_cents": 500}).status == 200
    _thaw_all(first)
    for tally in (first, second):
        eventually(partial(_has_all, tally, {"1", invoice}))
        eventually(tally.settled)
    there = recorded(second)
    assert there in ({"1": 300, invoice: 20}, {"1": 500, invoice: 20})
    _agree(first, second, there)


def _has_all(tally: Tally, invoices: set[str]) -> bool:
    return recorded(tally).keys() == invoices


def _thaw_all(tally: Tally) -> None:
    supervisor = psutil.Process(tally.process.pid)
    thaw([supervisor, *supervisor.children(recursive=True)])
