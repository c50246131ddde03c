"""A trace parent on its way: from a request through outbox and stream into every log line."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from support import disks
from support.tally import ROOT, Tally, running
from support.waiting import eventually
from tally.store.accounts import open_database
from tally.store.dead_letters import DeadLetters
from tally.store.stream import EventStream, connect

NEARLY_TOO_MUCH = 9223372036854000000  # cents; an invoice of 10^12 more makes the sum overflow

_traces = iter(range(1, 1000))


def _trace(sampled: bool = True) -> str:
    """A trace parent that no other test has."""
    return f"00-{next(_traces):032x}-b7ad6b7169203331-{'01' if sampled else '00'}"


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally that logs as by default. Its one HTTP thread makes requests run one after another."""
    sections: dict[str, Any] = {
        "customers": {"threads": 1},
        "consumers": {"max_deliveries": 1, "claim_idle_ms": 100},
    }
    with running(tmp_path_factory.mktemp("tracing"), **sections) as tally:
        yield tally


@pytest.fixture
def stream(tally: Tally) -> Iterator[redis.Redis]:
    """A client of Tally's Redis, with Tally's rights."""
    with connect(tally.redis_url) as client:
        yield client


def _lines(tally: Tally) -> list[dict[str, Any]]:
    """The log lines since all actors were ready, each parsed as a JSON object."""
    logged = tally.said().partition("stops it\n")[2]
    return [json.loads(line) for line in logged.splitlines()]


def _way(tally: Tally, trace: str) -> set[tuple[str, str]]:
    """The actors and events of the log lines with that trace."""
    found = set()
    for line in _lines(tally):
        if line.get("trace_parent") == trace or trace in line.get("trace_parents", []):
            found.add((re.sub(r"-\d+$", "", line["actor"]), line["event"]))
    return found


def _account(tally: Tally, trace: str) -> str:
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"}, {"traceparent": trace})
    return str(account["id"])


def _customer(tally: Tally, account: str, **headers: str) -> str:
    customer = tally.customers.post("/customers", {"name": "c", "account_id": account}, headers)["id"]
    eventually(lambda: tally.accounts.get(f"/accounts/{account}")["customers"])
    return str(customer)


def test_the_lines_of_a_sampled_trace_show_its_whole_way(tally: Tally) -> None:
    trace = _trace()
    tally.customers.post("/customers", {"name": "c", "account_id": "77"}, {"traceparent": trace})
    way = {
        ("customers-http", "request"),
        ("customers-relay", "published"),
        ("accounts-consumer", "applied"),
    }
    eventually(lambda: _way(tally, trace) == way)


def test_a_trace_that_is_not_sampled_costs_no_line_while_all_is_well(tally: Tally) -> None:
    quiet, told = _trace(sampled=False), _trace()
    for trace in (quiet, "nonsense", told):
        tally.customers.post("/customers", {"name": "c", "account_id": "77"}, {"traceparent": trace})
    eventually(lambda: len(_way(tally, told)) == 3)
    assert _way(tally, quiet) == set()
    assert "nonsense" not in tally.said()


def test_at_level_debug_every_trace_shows(tmp_path: Path) -> None:
    with running(tmp_path, log={"level": "debug"}) as tally:
        trace = _trace(sampled=False)
        tally.customers.post(
            "/customers/batch", [{"name": "c", "account_id": "77"}] * 3, {"traceparent": trace}
        )
        eventually(lambda: len(_way(tally, trace)) == 3)
        tally.customers.post("/customers", {"name": "c", "account_id": "77"})
        requests = [line for line in _lines(tally) if line["event"] == "request"]
        assert [line.get("trace_parent") for line in requests] == [trace, None]
        assert {line["level"] for line in requests} == {"debug"}


def test_what_an_event_causes_in_turn_belongs_to_its_trace(tally: Tally, stream: redis.Redis) -> None:
    opened, closed = _trace(), _trace()
    account = _account(tally, opened)
    customer = _customer(tally, account)
    response = tally.accounts.request(
        "DELETE", f"/accounts/{account}?cascade=true", headers={"traceparent": closed}
    )
    assert response.status == 204

    def deleted() -> list[dict[bytes, bytes]]:
        entries: Any = stream.xrange("event-stream")
        return [
            fields
            for _, fields in entries
            if fields[b"EventTypeName"] == b"CustomerDeleted"
            and json.loads(fields[b"Payload"])["id"] == customer
        ]

    (fields,) = eventually(deleted)
    assert fields[b"TraceParent"].decode() == closed
    eventually(lambda: ("customers-relay", "published") in _way(tally, closed))
    eventually(lambda: ("accounts-consumer", "applied") in _way(tally, closed))


def test_a_request_that_fails_is_told_with_its_trace_and_the_next_without(tally: Tally) -> None:
    trace = _trace(sampled=False)
    database = tally.directory / "data" / "customers.db"
    with disks.held(database, "IMMEDIATE"):
        for headers in ({"traceparent": trace}, {}):
            new = {"name": "c", "account_id": "77"}
            assert tally.customers.request("POST", "/customers", new, headers=headers).status == 503
    assert _way(tally, trace) == {("customers-http", "store_unavailable"), ("customers-http", "request")}
    failed = [line for line in _lines(tally) if line.get("status") == 503]
    assert [line.get("trace_parent") for line in failed] == [trace, None]
    assert {(line["level"], line["route"], line["method"]) for line in failed} == {
        ("info", "/customers", "POST")
    }


def test_a_dead_letters_line_has_the_trace_of_its_event_if_that_is_one(
    tally: Tally, stream: redis.Redis
) -> None:
    trace = _trace(sampled=False)
    broken: dict[Any, Any] = {"EventTypeName": "AccountCreated", "Payload": "{}"}
    stream.xadd("event-stream", {**broken, "TraceParent": trace})
    stream.xadd("event-stream", {**broken, "TraceParent": "made\nup" * 1000})
    stream.xadd("event-stream", {"EventTypeName": "Unknown", "Payload": "{}", "TraceParent": trace})
    eventually(
        lambda: _way(tally, trace)
        == {(f"{service}-consumer", event) for service in ("customers", "accounts")
            for event in ("dead_letter", "unknown_event_type")}
    )  # fmt: skip
    eventually(lambda: sum(line["event"] == "dead_letter" for line in _lines(tally)) == 4)
    assert "made" not in tally.said()
    stream.xtrim("{event-stream}:dead", maxlen=0)


def test_an_event_that_fails_and_is_redriven_keeps_its_trace(tally: Tally, stream: redis.Redis) -> None:
    trace = _trace(sampled=False)
    account = _account(tally, trace)
    customer = _customer(tally, account)
    eventually(tally.settled)
    database = open_database(tally.directory / "data")
    with database.transaction():
        database.execute("UPDATE customer SET revenue_cents = ?", (NEARLY_TOO_MUCH,))
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 10**12}
    tally.customers.post("/invoices", invoice, {"traceparent": trace})
    eventually(lambda: stream.xlen("{event-stream}:dead") == 1)

    letters = DeadLetters(EventStream(connect(tally.redis_url), "event-stream"))
    assert all(map(letters.redrive, letters.all()))
    eventually(lambda: ("accounts-consumer", "redriven_event_failed") in _way(tally, trace))
    eventually(lambda: stream.xlen("{event-stream}:dead") == 1)
    with database.transaction():
        database.execute("UPDATE customer SET revenue_cents = 0")
    database.close()
    assert all(map(letters.redrive, letters.all()))
    failed = {"event_failed", "dead_letter", "redriven_event_failed", "redriven_event_applied"}
    eventually(lambda: _way(tally, trace) == {("accounts-consumer", event) for event in failed})
    stacks = [line["exception"] for line in _lines(tally) if line["event"] == "event_failed"]
    assert stacks  # more than one where a consumer took so long that another took the event over
    assert all(stack.startswith("Traceback") for stack in stacks)


def test_a_request_that_hits_a_bug_is_told_with_its_trace(tally: Tally) -> None:
    """A table is removed, because no request alone can cause a bug."""
    trace = _trace(sampled=False)
    database = open_database(tally.directory / "data")
    with database.transaction():
        database.execute("ALTER TABLE account RENAME TO account_away")
    try:
        assert tally.accounts.request("GET", "/accounts/1", headers={"traceparent": trace}).status == 500
    finally:
        with database.transaction():
            database.execute("ALTER TABLE account_away RENAME TO account")
        database.close()
    assert _way(tally, trace) == {("accounts-http", "request_failed"), ("accounts-http", "request")}


def test_every_line_is_one_json_object_with_an_event_that_the_page_on_logs_lists(tally: Tally) -> None:
    """Runs after all tests above, so that there are lines to check."""
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/operations/logs.md").read_text(), re.MULTILINE))
    lines = _lines(tally)
    assert len(lines) > 20
    for line in lines:
        assert line["event"] in listed
        assert line["level"] in {"info", "warning", "error"}
        assert line["actor"] in {*tally.pids(), "supervisor"}
        assert datetime.fromisoformat(line["timestamp"])
