"""A standby: it follows the primary of its node, and takes over from it."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from integration.test_nodes import ACCOUNT, a_node, sell, shown

from support.cli import command
from support.tally import Client, Tally
from support.waiting import eventually

FAILOVER_SECONDS = 2


@contextmanager
def pair(
    directory: Path, redis_url: str, customers: dict[str, Any] | None = None, **node: Any
) -> Iterator[tuple[Tally, Tally]]:
    """A primary and its standby. Both begin with the same data."""
    first = a_node(directory / "first", redis_url, 0, customers=customers or {})
    second = a_node(directory / "second", redis_url, 0, customers=customers or {})
    for each in (first, second):
        each.settings["node"] |= node
    second.settings["node"]["standby"] = True
    try:
        first.start()
        account = first.accounts.post("/accounts", ACCOUNT)["id"]
        customer = first.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        sell(first.customers, customer, 100)
        eventually(first.settled)
        follow(first, second)
        yield first, second
    finally:
        for each in (first, second):
            if hasattr(each, "process"):
                each.end()


def follow(first: Tally, second: Tally) -> None:
    """Make the second a standby of the first, and start it."""
    copies = first.directory / "copies"
    tool(first, "backup", str(copies))
    second.written()
    tool(second, "join", str(copies))
    second.start()
    eventually(lambda: second.accounts.request("GET", "/health/live").status == 200)


def tool(tally: Tally, *arguments: str) -> str:
    """Run a command for a Tally, and return its output."""
    done = command(*arguments, "--config", str(tally.directory / "tally.toml"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def is_primary(client: Client) -> bool:
    """Whether a load balancer sees a primary there."""
    status = client.request("GET", "/health/primary").status
    assert status in (200, 503)
    return status == 200


def recorded(tally: Tally) -> dict[str, int]:
    """The invoices of a Tally, by id."""
    listed = tally.customers.get("/invoices?limit=1000")["invoices"]
    return {each["id"]: each["purchase_price_cents"] for each in listed}


@pytest.mark.whole
def test_a_standby_follows_and_is_promoted(tmp_path: Path, redis_url: str) -> None:
    with pair(tmp_path, redis_url) as (first, second):
        invoice = sell(first.customers, "1", 20)
        eventually(lambda: recorded(second) == {"1": 100, invoice: 20})
        eventually(lambda: shown(second) == {"1": {"1": 120}})
        assert is_primary(first.customers)
        assert not is_primary(second.customers)
        refused = second.customers.request("POST", "/customers", {"name": "d", "account_id": "1"})
        assert refused.status == 503
        assert second.customers.request("POST", "/imports?dry_run=true", body=b"").status == 503
        told = refused.json()
        assert (told["title"], told["node"]["url"]) == (
            "At the primary",
            first.settings["node"]["url_customers"],
        )
        first.end()
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers) and is_primary(second.accounts))
        later = sell(second.customers, "1", 3)
        assert int(later) > 10**9, "of a block that nobody had"
        eventually(lambda: shown(second) == {"1": {"1": 123}})
        assert recorded(second) == {"1": 100, invoice: 20, later: 3}
        eventually(second.settled)


@pytest.mark.whole
def test_the_old_primary_joins_and_hands_over_what_it_had_not_published(
    tmp_path: Path, redis_url: str
) -> None:
    with pair(tmp_path, redis_url) as (first, second):
        first.kill("customers-relay", signal.SIGSTOP)
        handed = sell(first.customers, "1", 20)
        changed = {"purchase_price_cents": 200}
        assert first.customers.request("PATCH", "/invoices/1", changed).status == 200
        key = {"Idempotency-Key": "k"}
        invoice = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 5}
        first.customers.post("/invoices", invoice, headers=key)
        first.end()
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers) and is_primary(second.accounts))
        assert recorded(second) == {"1": 100}
        retried = second.customers.post("/invoices", invoice, headers=key)["id"]
        assert second.customers.request("PATCH", "/invoices/1", {"purchase_price_cents": 300}).status == 200
        first.start()
        expected = {"1": 200, handed: 20, retried: 5}
        eventually(lambda: recorded(second) == expected)
        eventually(lambda: shown(second) == {"1": {"1": 225}})
        eventually(lambda: recorded(first) == expected)
        eventually(lambda: shown(first) == {"1": {"1": 225}})
        assert not is_primary(first.customers)
        eventually(lambda: first.settled() and second.settled())
        assert (
            second.customers.get("/invoices/1")["revision"] == 3
        )  # its own change, and two corrections of it
        tool(first, "promote", "--yes")  # and back
        eventually(lambda: is_primary(first.customers) and not is_primary(second.customers))
        again = sell(first.customers, "1", 1)
        eventually(lambda: recorded(second) == expected | {again: 1})


@pytest.mark.whole
def test_what_both_have_deleted_keeps_neither_from_being_the_primary(tmp_path: Path, redis_url: str) -> None:
    with pair(tmp_path, redis_url) as (first, second):
        changed, deleted = (sell(first.customers, "1", cents) for cents in (20, 3))
        eventually(lambda: recorded(second) == {"1": 100, changed: 20, deleted: 3})
        first.kill("customers-relay", signal.SIGSTOP)
        change = {"purchase_price_cents": 200}
        assert first.customers.request("PATCH", f"/invoices/{changed}", change).status == 200
        first.customers.delete(f"/invoices/{deleted}")
        first.end()
        tool(second, "promote", "--yes")
        eventually(lambda: is_primary(second.customers) and is_primary(second.accounts))
        for invoice in (changed, deleted):
            second.customers.delete(f"/invoices/{invoice}")
        first.start()
        eventually(lambda: "took_over" in second.said())
        eventually(second.settled)
        later = sell(second.customers, "1", 4)
        for tally in (first, second):
            eventually(partial(_has, tally, {"1": 100, later: 4}))
        tool(first, "promote", "--yes")
        eventually(lambda: is_primary(first.customers))


@pytest.mark.whole
def test_a_standby_takes_the_place_of_a_primary_that_is_gone(tmp_path: Path, redis_url: str) -> None:
    with pair(tmp_path, redis_url, failover_seconds=FAILOVER_SECONDS) as (first, second):
        assert is_primary(first.customers)
        first.end()
        eventually(lambda: is_primary(second.customers) and is_primary(second.accounts))
        invoice = sell(second.customers, "1", 20)
        first.start()
        eventually(lambda: recorded(first) == {"1": 100, invoice: 20})
        assert is_primary(second.customers)
        assert not is_primary(first.customers)


@pytest.mark.whole
def test_status_and_nodes_list_tell_of_the_standby(tmp_path: Path, redis_url: str) -> None:
    with pair(tmp_path, redis_url) as (first, second):
        for tally, is_standby in ((first, False), (second, True)):
            eventually(partial(_knows_both, tally))
            for client in (tally.customers, tally.accounts):
                report = client.get("/status")
                assert (report["status"], report["standby"]) == ("ok", is_standby)
                assert [(node["standby"], node["here"]) for node in report["nodes"]] == [
                    (False, not is_standby),
                    (True, is_standby),
                ]
                assert any("this is a standby of node 0" in note for note in report["notes"]) == is_standby
        assert "0, standby (here)" in tool(second, "status")
        listed = tool(first, "nodes", "list", "--json")
        assert [json.loads(line)["state"] for line in listed.splitlines()].count("standby") == 2
        identity = second.accounts.get("/status")["identity"]
        second.end()
        redis.Redis.from_url(redis_url).hset("{event-stream}:leases", f"accounts@{identity}", "x 1")
        tool(first, "groups", "remove", f"accounts@{identity}", "--yes")
        assert "gone for good" in tool(first, "nodes", "list")


@pytest.mark.whole
def test_a_standby_tells_what_it_lacks_and_is_begun_again(tmp_path: Path, redis_url: str) -> None:
    with pair(tmp_path, redis_url) as (first, second), redis.Redis.from_url(redis_url) as client:
        second.stop()
        invoice, later = sell(first.customers, "1", 20), sell(first.customers, "1", 3)
        eventually(first.settled)
        client.xtrim("event-stream", maxlen=1, approximate=False)
        second.start()
        eventually(lambda: any("lacks 1 events" in each for each in second.reports()[0]["reasons"]))
        eventually(lambda: shown(second) == {"1": {"1": 123}}, 30)  # it asked for the event
        second.stop()
        for file in (second.directory / "data").glob("*.db*"):
            file.unlink()
        (first.directory / "copies").rename(tmp_path / "old-copies")
        follow(first, second)
        eventually(lambda: recorded(second) == {"1": 100, invoice: 20, later: 3})
        eventually(lambda: second.reports()[0]["status"] == "ok")


def _has(tally: Tally, invoices: dict[str, int]) -> bool:
    """Whether a Tally has exactly these invoices of the one customer, and shows their sum."""
    return recorded(tally) == invoices and shown(tally) == {"1": {"1": sum(invoices.values())}}


def _knows_both(tally: Tally) -> bool:
    return all(len(client.get("/status")["nodes"]) == 2 for client in (tally.customers, tally.accounts))
