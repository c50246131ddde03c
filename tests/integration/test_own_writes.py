"""Read your own writes: a change gives `Tally-Event-Id`, and a read with `Tally-After` waits for it."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import urllib3
from integration.conftest import invoice, new_account, new_customer

from support.clients import answer, connect
from support.tally import Client, Tally, running
from support.waiting import eventually, known
from tally.events import EventId, EventRange
from tally.store import ranges
from tally.store.dead_letters import DeadLetter, DeadLetters
from tally.store.stream import EventStream

CENTS = 2933


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally with one consumer for each service: stopping it stops everything."""
    directory = tmp_path_factory.mktemp("own-writes")
    with running(directory, consumers={"accounts": 1, "customers": 1}) as tally:
        yield tally


@pytest.fixture
def account(tally: Tally) -> str:
    return new_account(tally.accounts)


@pytest.fixture
def customer(tally: Tally, account: str) -> str:
    return new_customer(tally.customers, account)


def _told(response: urllib3.BaseHTTPResponse) -> EventRange:
    assert response.status in (200, 201, 204), response.data
    return EventRange.parse(response.headers["Tally-Event-Id"])


def _after(client: Client, path: str, events: object, wait: int | None = None) -> urllib3.BaseHTTPResponse:
    prefer = {} if wait is None else {"Prefer": f"wait={wait}"}
    return client.request("GET", path, headers={"Tally-After": str(events), **prefer})


@contextmanager
def _stopped(tally: Tally, actor: str) -> Iterator[None]:
    """The actor is stopped, so nothing is applied meanwhile."""
    tally.kill(actor, signal.SIGSTOP)
    try:
        yield
    finally:
        tally.kill(actor, signal.SIGCONT)


def _client(tally: Tally) -> redis.Redis:
    return redis.Redis.from_url(tally.redis_url)


# The answer to a change


def test_every_change_tells_its_events(tally: Tally, account: str) -> None:
    made = tally.customers.request("POST", "/customers", {"name": "Ann", "account_id": account})
    customer = made.json()["id"]
    first = _told(made)
    assert first.source.startswith("customers@")
    last = first.last

    many = tally.customers.request("POST", "/invoices/batch", [invoice(customer)] * 3)
    assert _told(many) == EventRange(first.source, last + 1, last + 3)
    assert many.headers["Tally-Event-Id"] == f"{first.source}:{last + 1}-{last + 3}"
    one = tally.customers.request("POST", "/invoices", invoice(customer))
    assert one.headers["Tally-Event-Id"] == f"{first.source}:{last + 4}"
    path = f"/invoices/{one.json()['id']}"
    changed = tally.customers.request("PATCH", path, {"purchase_price_cents": 5})
    assert _told(changed).last == last + 5
    assert _told(tally.customers.request("DELETE", path)).last == last + 6
    gone = _told(tally.customers.request("DELETE", f"/customers/{customer}"))
    assert (gone.first, gone.last > last + 6) == (last + 7, True)
    opened = tally.accounts.request("POST", "/accounts", {"name": "one", "owned_by": "user1"})
    assert _told(opened).source.startswith("accounts@")
    assert "Tally-Event-Id" not in tally.customers.request("GET", "/customers").headers


def test_a_change_that_changes_nothing_tells_the_newest_event(tally: Tally, customer: str) -> None:
    newest = _told(tally.customers.request("POST", "/invoices", invoice(customer)))
    path = f"/customers/{customer}"
    name = tally.customers.get(path)["name"]
    assert _told(tally.customers.request("PATCH", path, {"name": name})) == newest


def test_a_request_that_comes_again_tells_the_same_events(tally: Tally, customer: str) -> None:
    key = {"Idempotency-Key": f"again-{customer}"}
    first, again = (
        tally.customers.request("POST", "/invoices/batch", [invoice(customer)] * 2, headers=key)
        for _ in range(2)
    )
    assert first.data == again.data
    assert _told(first) == _told(again)


# Reads that wait


def test_a_read_sees_the_change_that_it_names(tally: Tally, account: str, customer: str) -> None:
    for count in range(1, 21):
        made = tally.customers.request("POST", "/invoices", invoice(customer, CENTS))
        seen = _after(tally.accounts, f"/accounts/{account}", _told(made), wait=10)
        assert (seen.status, seen.json()["total_revenue_cents"]) == (200, count * CENTS)


def test_it_waits_until_the_events_have_come_and_is_503_where_they_don_t(
    tally: Tally, account: str, customer: str
) -> None:
    path = f"/accounts/{account}"
    with ThreadPoolExecutor() as pool:
        with _stopped(tally, "accounts-consumer-1"):
            made = tally.customers.request("POST", "/invoices", invoice(customer, CENTS))
            for wait in (0, None):
                late = _after(tally.accounts, path, _told(made), wait)
                assert (late.status, late.headers["Retry-After"]) == (503, "1")
                assert late.json()["title"] == "Not applied yet"
            waiting = pool.submit(_after, tally.accounts, path, _told(made), 20)
            assert tally.accounts.get(path)["total_revenue_cents"] == 0  # a read without waiting is answered
            assert not waiting.done()
        assert waiting.result(20).json()["total_revenue_cents"] == CENTS


def test_waiting_takes_no_thread_from_others(tally: Tally, account: str, customer: str) -> None:
    """There are eight threads. A hundred waiting reads hold none of them."""
    path, crowd = f"/accounts/{account}", 100
    with ThreadPoolExecutor(crowd) as pool, _stopped(tally, "accounts-consumer-1"):
        made = _told(tally.customers.request("POST", "/invoices", invoice(customer, CENTS)))
        waiting = [pool.submit(_after, tally.accounts, path, made, 3) for _ in range(crowd)]
        answered = 0
        while not any(each.done() for each in waiting):
            assert tally.accounts.get(path)["total_revenue_cents"] == 0
            answered += 1
        assert answered > 2 * 8
        assert {each.result().status for each in waiting} == {503}


def test_all_earlier_events_count_too(tally: Tally, account: str, customer: str) -> None:
    """The second read names two events, of which only one is applied."""
    made = _told(tally.customers.request("POST", "/invoices/batch", [invoice(customer)] * 2))
    last = EventRange(made.source, made.last, made.last)
    assert _after(tally.accounts, f"/accounts/{account}", last, 10).status == 200
    ahead = EventRange(made.source, made.last, made.last + 1)
    assert _after(tally.accounts, f"/accounts/{account}", ahead, 0).status == 503


def test_what_a_service_has_told_itself_is_there_at_once(tally: Tally, account: str, customer: str) -> None:
    made = _told(tally.customers.request("POST", "/invoices", invoice(customer)))
    ahead = EventRange(made.source, made.last, made.last + 1000)
    assert _after(tally.customers, f"/customers/{customer}", ahead, 0).status == 200


def test_an_account_is_known_to_the_customers_service_as_soon_as_it_is_said(tally: Tally) -> None:
    opened = tally.accounts.request("POST", "/accounts", {"name": "one", "owned_by": "user1"})
    assert _after(tally.customers, "/customers?limit=1", _told(opened), 10).status == 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "customers",
        "customers@4f2a9c1e:0",
        "customers@4f2a9c1e:1-",
        "customers@4f2a9c1e:5-3",
        "a b:1",
        "x:1:2-y",
        "x:" + "9" * 19,
    ],
)
def test_what_names_no_events_is_refused(tally: Tally, text: str) -> None:
    refused = _after(tally.accounts, "/accounts?limit=1", text)
    assert refused.status == 422
    assert refused.json()["errors"][0]["field"] == "Tally-After"


def test_a_source_that_a_service_does_not_apply_is_refused(tally: Tally) -> None:
    refused = _after(tally.customers, "/customers", "customers@00000000:1")
    assert refused.status == 422
    assert "not applied here" in refused.json()["errors"][0]["message"]


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, wait=0", 'Wait="0"; x=y', "wait=x, wait=0"])
def test_prefer_is_read_as_rfc_7240_has_it(tally: Tally, prefer: str) -> None:
    headers = {"Tally-After": "customers@00000000:1", "Prefer": prefer}

    def takes() -> float:
        began = time.monotonic()
        assert tally.accounts.request("GET", "/accounts?limit=1", headers=headers).status == 503
        return time.monotonic() - began

    assert min(takes() for _ in range(5)) < 0.9, "it waited as long as without"


def test_a_preference_that_is_none_is_passed_over(tally: Tally) -> None:
    headers = {"Tally-After": "customers@00000000:1", "Prefer": "wait=soon"}
    assert tally.accounts.request("GET", "/accounts?limit=1", headers=headers).status == 503


# Events that never come: the answer comes at once


def test_a_dead_letter_is_not_waited_for(tally: Tally, account: str) -> None:
    client, source = _client(tally), "customers@0000dead"
    client.xadd(
        "event-stream",
        {"EventTypeName": "InvoiceCreated", "Payload": "{}", "EventId": str(EventId(source, 1))},
    )
    said = _after(tally.accounts, f"/accounts/{account}", EventRange(source, 1, 1), 20)
    assert said.status == 503
    assert "dead letter" in said.json()["detail"]
    assert "Retry-After" not in said.headers


def test_a_discarded_event_is_never_applied_and_stops_no_read_of_later_ones(
    tally: Tally, account: str
) -> None:
    stream, source = EventStream(_client(tally), "event-stream"), "customers@000d15ca"
    payloads = "{}", '{"id":"9","account_id":"9","deleted_date":"2019-01-06T00:00:00Z"}'
    for number, payload in enumerate(payloads, start=1):
        fields = {"EventTypeName": "CustomerDeleted", "Payload": payload, "EventId": f"{source}:{number}"}
        stream.client.xadd("event-stream", fields)  # type: ignore[arg-type]
    letters = DeadLetters(stream)

    def letter() -> DeadLetter | None:
        return next((each for each in letters.all() if each.entry.event_name == EventId(source, 1)), None)

    assert letters.discard(known(letter))
    path = f"/accounts/{account}"
    eventually(lambda: _after(tally.accounts, path, EventRange(source, 2, 2)).status == 200)
    for last in (1, 2):
        said = _after(tally.accounts, path, EventRange(source, 1, last), 20)
        assert (said.status, "Retry-After" in said.headers) == (503, False)
        assert f"{source}:1 was discarded" in said.json()["detail"]


def test_what_is_missing_for_good_is_not_waited_for(tally: Tally, account: str) -> None:
    source = "customers@0000fade"
    group = f"accounts@{tally.accounts.get('/status')['identity']}"
    _client(tally).hset(f"{{event-stream}}:gone:{group}", source, ranges.shown([ranges.Range(1, 2)]))
    began = time.monotonic()
    said = _after(tally.accounts, f"/accounts/{account}", EventRange(source, 3, 3), 20)
    assert said.status == 503
    assert "missing" in said.json()["detail"]
    assert time.monotonic() - began < 10


def test_who_cannot_be_looked_after_keeps_nobody_else_waiting(tally: Tally, account: str) -> None:
    """Another program wrote something there that is no range of numbers."""
    source = "customers@0000f00d"
    gone = f"{{event-stream}}:gone:accounts@{tally.accounts.get('/status')['identity']}"
    _client(tally).hset(gone, source, "x")
    for _ in range(2):
        said = _after(tally.accounts, f"/accounts/{account}", EventRange(source, 3, 3))
        assert (said.status, said.json()["title"]) == (503, "Not applied yet")
        _client(tally).hdel(gone, source)


# The end of a process


def test_a_process_that_ends_lets_go_of_who_waits(tmp_path: Path) -> None:
    with running(tmp_path) as tally, connect(tally.accounts.port) as waiting:
        waiting.sendall(
            b"GET /accounts?limit=1 HTTP/1.1\r\nHost: localhost\r\n"
            b"Tally-After: customers@00000000:1\r\nPrefer: wait=30\r\n\r\n"
        )
        assert tally.accounts.get("/accounts?limit=1") == []  # a later request is answered
        began = time.monotonic()
        assert tally.stop() == 0
        assert time.monotonic() - began < 20
        assert answer(waiting)[0] == 503
