"""`answer_after = "publish"`: a 201 comes once the event is on the stream and on replicas; else 503."""

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.load import Load
from support.redis_process import RedisProcess
from support.replicated import sentinels
from support.tally import Tally, running
from support.troubles import troubles
from support.waiting import eventually

PUBLISH = {"answer_after": "publish"}
INVOICE = {"purchase_date": "2019-01-06", "purchase_price_cents": 100}


@pytest.fixture
def tally(tmp_path: Path, server: RedisProcess) -> Iterator[Tally]:
    """A Tally that answers after publication; it has a customer 1."""
    with running(tmp_path, redis_url=server.url, customers=PUBLISH) as tally:
        account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "tests"})["id"]
        tally.customers.post("/customers", {"name": "C", "account_id": account})
        yield tally


def _post(tally: Tally, key: str) -> Any:
    return tally.customers.request(
        "POST", "/invoices", {**INVOICE, "customer_id": "1"}, headers={"Idempotency-Key": key}
    )


def _published(client: redis.Redis) -> set[str]:
    entries: Any = client.xrange("event-stream")
    return {fields[b"EventId"].decode() for _, fields in entries}


def test_what_is_answered_is_on_the_stream(tally: Tally, server: RedisProcess) -> None:
    for number in range(20):
        answer = _post(tally, str(number))
        assert answer.status == 201
        assert answer.headers["Tally-Event-Id"] in _published(server.client)
    changed = tally.customers.request("PATCH", "/invoices/1", {"purchase_price_cents": 5})
    assert (changed.status, changed.headers["Tally-Event-Id"] in _published(server.client)) == (200, True)
    gone = tally.customers.request("DELETE", "/invoices/2")
    assert (gone.status, gone.headers["Tally-Event-Id"] in _published(server.client)) == (204, True)
    many = tally.customers.request("POST", "/invoices/batch", [{**INVOICE, "customer_id": "1"}] * 300)
    _, _, last = many.headers["Tally-Event-Id"].rpartition("-")
    source = answer.headers["Tally-Event-Id"].partition(":")[0]
    assert (many.status, f"{source}:{last}" in _published(server.client)) == (201, True)


def test_nothing_is_answered_before_it_is_on_the_stream(tally: Tally, server: RedisProcess) -> None:
    server.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_post, tally, "key")
        eventually(lambda: tally.customers.get("/invoices")["invoices"])  # the invoice is recorded
        assert not answer.done()
        server.signal(signal.SIGCONT)
        assert answer.result().status == 201


def test_while_redis_is_away_nothing_is_answered_201_and_a_repetition_is_when_it_is_back(
    tally: Tally, server: RedisProcess
) -> None:
    server.kill()
    first = _post(tally, "first")
    assert (first.status, first.json()["title"], first.headers["Retry-After"]) == (503, "Not published", "1")
    assert "published as soon as that can be" in first.json()["detail"]
    for key in ("second", "first"):
        refused = _post(tally, key)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "nothing is begun" in refused.json()["detail"]
    assert tally.customers.get("/invoices")["invoices"][-1]["id"] == "1", "only the first was recorded"
    assert tally.customers.get("/status")["status"] == "degraded"
    told = tally.customers.request("GET", "/metrics").data.decode()
    assert re.search(r'route="/invoices",service="customers",status="503"\} 3\b', told)

    server.start()
    eventually(lambda: _post(tally, "second").status == 201)
    assert _post(tally, "first").json() == {"id": "1"}
    eventually(tally.settled)
    assert tally.accounts.get("/accounts/1")["total_revenue_cents"] == 200


def test_a_refusal_waits_for_nothing(tally: Tally, server: RedisProcess) -> None:
    server.kill()
    refused = tally.customers.request("POST", "/invoices", {**INVOICE, "customer_id": "9"})
    assert refused.status == 422


def test_a_restart_answers_repetitions(tally: Tally) -> None:
    assert _post(tally, "key").json() == {"id": "1"}
    assert tally.stop() == 0
    tally.start()
    assert _post(tally, "key").json() == {"id": "1"}


def test_a_stop_answers_what_it_has_taken(tally: Tally) -> None:
    load = Load(tally)
    with load:
        load.goes_on(50)
        assert tally.stop() == 0
        tally.start()
        load.goes_on(50)
    load.exact()


def test_so_many_replicas_must_have_it(tmp_path: Path, server: RedisProcess) -> None:
    replica = RedisProcess(tmp_path / "replica")
    replica.start("--replicaof", f"127.0.0.1 {server.port}")
    try:
        eventually(lambda: replica.client.info("replication")["master_link_status"] == "up")
        redis_settings = {"url": server.url, "embedded": "never", "replicas": 1}
        with running(tmp_path, redis=redis_settings, customers=PUBLISH) as tally:
            account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "tests"})["id"]
            tally.customers.post("/customers", {"name": "C", "account_id": account})
            answer = _post(tally, "there")
            assert answer.status == 201
            assert answer.headers["Tally-Event-Id"] in _published(replica.client)
            replica.signal(signal.SIGSTOP)
            assert _post(tally, "not-there").status == 503
            eventually(lambda: "0 of 1 replicas" in str(tally.customers.get("/status")["reasons"]))
            replica.signal(signal.SIGCONT)
            eventually(lambda: _post(tally, "not-there").status == 201)
            eventually(tally.settled)
            assert tally.accounts.get("/accounts/1")["total_revenue_cents"] == 200
            replica.signal(signal.SIGSTOP)
            assert tally.stop(seconds=12) == 0, "nobody waits for a replica at the end"
            replica.kill()
            found = command("check", "--config", tmp_path / "tally.toml")
            assert "redis.replicas is 1, and it has 0" in found.stdout
    finally:
        replica.kill()


def test_no_answer_is_lost_with_the_machine_and_a_primary(tmp_path: Path) -> None:
    with sentinels(tmp_path / "redis", down_after_ms=3000) as there:
        redis_settings = {"url": there.url, "embedded": "never", "replicas": 2}
        former = there.primary()
        with running(tmp_path / "tally", redis=redis_settings, customers=PUBLISH) as tally:
            load = Load(tally, spread=3)
            with load:
                load.goes_on(200)
            load.settle()
            answered = load.rows()
            former.kill()
            with ThreadPoolExecutor(4) as threads:
                late = [threads.submit(_post, tally, f"late-{n}") for n in range(4)]
                eventually(lambda: len(load.rows()) == len(answered) + 4)
                assert not any(answer.done() for answer in late), "recorded, and on no stream"
                tally.end()
            assert all(answer.exception() for answer in late)
        for name in ("customers.db", "customers.db-wal", "customers.db-shm"):
            (tmp_path / "tally" / "data" / name).unlink(missing_ok=True)
        there.fails_over(former)
        done = command("recover", "customers", "--config", tmp_path / "tally" / "tally.toml")
        assert done.returncode == 0, done
        redis_settings["replicas"] = 1
        with running(tmp_path / "tally", redis=redis_settings, customers=PUBLISH) as tally:
            load.tally = tally
            eventually(lambda: not troubles(tally))
            assert load.rows() == answered
            eventually(load.counted)
