"""Real input: the purchases of 2,357 customers, through the HTTP interface of a running Tally."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import cdnow
from support.tally import Tally, running
from support.waiting import eventually


@pytest.fixture
def three_consumers(tmp_path: Path, redis_url: str) -> Iterator[Tally]:
    with running(tmp_path, redis_url=redis_url, consumers={"accounts": 3}) as tally:
        yield tally


def _open_account(tally: Tally) -> str:
    return str(tally.accounts.post("/accounts", {"name": "CDNOW", "owned_by": "user1"})["id"])


def _shows_everything(tally: Tally) -> bool:
    (account,) = tally.accounts.get("/accounts")
    shown = account["customers"]
    assert len({customer["customer_id"] for customer in shown}) == len(shown)
    assert sum(customer["total_revenue_cents"] for customer in shown) == account["total_revenue_cents"]
    return (len(shown), account["total_revenue_cents"]) == (cdnow.CUSTOMERS, cdnow.CENTS)


def test_the_file_is_the_one_the_figures_are_of() -> None:
    every = list(cdnow.purchases())
    assert len(every) == cdnow.INVOICES
    assert len({purchase.customer for purchase in every}) == cdnow.CUSTOMERS
    assert sum(purchase.cents for purchase in every) == cdnow.CENTS


@pytest.mark.whole
def test_every_cent_arrives_with_three_consumers_at_work(three_consumers: Tally) -> None:
    tally = three_consumers
    ids = cdnow.post_customers(tally, _open_account(tally))
    assert len(set(cdnow.post_invoices(tally, ids))) == cdnow.INVOICES

    eventually(lambda: _shows_everything(tally))
    eventually(tally.settled)
    assert _shows_everything(tally)


def test_every_cent_arrives_once_when_a_consumer_is_killed_midway(tmp_path: Path) -> None:
    with running(tmp_path, consumers={"accounts": 3}) as tally:
        _kill_a_consumer_midway(tally)


def _kill_a_consumer_midway(tally: Tally) -> None:
    ids = cdnow.post_customers(tally, _open_account(tally))
    killed = None
    for count, _ in enumerate(cdnow.post_invoices(tally, ids)):
        if count == cdnow.INVOICES // 2:
            killed = tally.kill("accounts-consumer-2")
    assert killed

    eventually(lambda: _shows_everything(tally))
    eventually(tally.settled)
    assert _shows_everything(tally)
    assert tally.pids()["accounts-consumer-2"] != killed
