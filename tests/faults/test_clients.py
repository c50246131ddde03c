"""Clients that are many, slow or broken off: the others are served all the same."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.clients import answer, connections, dripping, head, longest_wait, request
from support.invoices import Load
from support.tally import Tally, running
from support.waiting import eventually

SOON = 10.0  # seconds that a client may wait while others misbehave: far less than what those are given
MANY = 1000
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally that all of these clients share; none of them may leave a trace."""
    with running(tmp_path_factory.mktemp("clients")) as tally:
        before = tally.pids()
        yield tally
        assert tally.pids() == before


def _invoice(load: Load, cents: int = 0) -> bytes:
    content = {"customer_id": load.customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}
    return request("/invoices", content)


def _others_are_served(tally: Tally, load: Load) -> None:
    began = len(load.tries())
    load.goes_on(100)
    assert longest_wait(tally.customers, f"/customers/{load.customer}") < SOON
    assert max(each.seconds for each in load.tries()[began:]) < SOON
    assert load.faults() == {}


def test_a_thousand_idle_connections_are_kept_and_keep_nobody_waiting(tally: Tally) -> None:
    with connections(tally.customers.port, MANY) as idle:
        for _ in range(2):
            for client in idle:
                client.sendall(head("GET", "/health/live"))
            assert {answer(client)[0] for client in idle} == {200}
            with Load(tally) as load:
                _others_are_served(tally, load)
            load.is_counted_once()


def test_a_thousand_connections_that_send_nothing_keep_nobody_waiting(tally: Tally) -> None:
    with connections(tally.customers.port, MANY), Load(tally, kept=False) as load:
        _others_are_served(tally, load)
    load.is_counted_once()


def test_slow_senders_are_answered_and_keep_nobody_waiting(tally: Tally) -> None:
    with Load(tally) as load, connections(tally.customers.port, 200) as slow:
        whole = _invoice(load)
        start = whole.index(b"\r\n\r\n") + 10
        for client in slow[100:]:
            client.sendall(whole[:start])
        senders = [(client, whole) for client in slow[:100]]
        senders += [(client, whole[start:]) for client in slow[100:]]
        with dripping(senders):
            for _ in range(3):
                _others_are_served(tally, load)
        assert {answer(client)[0] for client in slow} == {201}


def test_bodies_that_break_off_make_nothing(tally: Tally) -> None:
    with Load(tally) as load:
        with connections(tally.customers.port, 200) as clients:
            for client in clients:
                client.sendall(_invoice(load)[:-5])
            _others_are_served(tally, load)
        load.goes_on()
    load.is_counted_once()  # and no other invoice


def test_floods_of_headers_are_refused(tally: Tally) -> None:
    with Load(tally) as load, connections(tally.customers.port, 50) as clients:
        for client in clients:
            client.sendall(b"GET /health/live HTTP/1.1\r\n")
            client.sendall(b"X-Flood: " + b"x" * 33 * 1024)
        for client in clients:
            status, kind, body = answer(client)
            assert (status, kind) == (431, PROBLEM)
            assert json.loads(body)["status"] == 431
        _others_are_served(tally, load)


def test_a_body_that_is_too_large_is_refused(tally: Tally) -> None:
    with Load(tally) as load, connections(tally.customers.port, 8) as clients:

        def flood(number: int) -> tuple[int, str | None, bytes]:
            clients[number].sendall(head("POST", "/invoices", 2 << 20) + bytes(2 << 20))
            return answer(clients[number])

        with ThreadPoolExecutor(8) as threads:
            for status, kind, _ in threads.map(flood, range(8)):
                assert (status, kind) == (413, PROBLEM)
        _others_are_served(tally, load)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Tally]:
    """A Tally whose list of accounts is 8 MB."""
    with running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
        customers = [{"name": "\N{ABACUS}" * 200, "account_id": account}] * 10_000
        body = json.dumps(customers, ensure_ascii=False).encode()
        assert tally.customers.request("POST", "/customers/batch", body=body).status == 201
        eventually(lambda: len(tally.accounts.get("/accounts")[0]["customers"]) == 10_000)
        yield tally


def test_readers_that_do_not_read_keep_nobody_waiting(large: Tally) -> None:
    with connections(large.accounts.port, 20, receive_buffer=4096) as slow:
        for client in slow:
            client.sendall(head("GET", "/accounts"))
        assert all(client.recv(20).startswith(b"HTTP/1.1 200") for client in slow[:16])
        assert longest_wait(large.accounts, "/health/live", times=5) < SOON


def test_slow_readers_get_everything(large: Tally) -> None:
    with connections(large.accounts.port, 5, receive_buffer=65536) as slow:
        for client in slow:
            client.sendall(head("GET", "/accounts"))
        assert longest_wait(large.accounts, "/health/live", times=5) < SOON
        for client in slow:
            status, _, body = answer(client)
            assert status == 200
            assert len(json.loads(body)[0]["customers"]) == 10_000
