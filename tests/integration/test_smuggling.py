"""Behind a shared proxy, no client's bytes become another client's request (HTTP request smuggling).

Two programs may disagree where an attack's request ends. A deletion is hidden after one of these ends.
It may only be carried out if the proxy has seen it too: then it is the attacker's own request.
"""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
from integration.conftest import new_customer
from integration.test_http_framing import CODINGS, HEADERS, HOST, LENGTHS, LINE, SIZES

from support.clients import connect
from support.reverse_proxies import NAMES, ReverseProxy, reverse_proxy
from support.tally import Client
from support.waiting import eventually

END = b"0\r\n\r\n"
CHUNKED, OBSCURED = b"Transfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked"


def _request(lines: tuple[bytes, ...], body: bytes) -> bytes:
    return LINE + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def _attacks(hidden: bytes) -> Iterator[bytes]:
    """Requests that end before or after the hidden one, depending on the reader."""
    in_a_chunk = b"%x\r\n%s\r\n%s" % (len(hidden), hidden, END)
    behind_the_end = END + hidden
    whole = b"Content-Length: %d" % len(behind_the_end)
    short = b"Content-Length: %d" % in_a_chunk.index(hidden)
    for lines in CODINGS.values():
        others = tuple(line for line in lines if not line.lower().startswith(b"content-length"))
        yield _request((whole, *others), behind_the_end)
        yield _request((*others, whole), behind_the_end)
        yield _request((short, *others), in_a_chunk)
    for lines in LENGTHS.values():
        yield _request((whole, *lines), behind_the_end)
        yield _request((*lines, CHUNKED), in_a_chunk)
        yield _request(lines, hidden)
    for lines in HEADERS.values():
        yield _request((*lines, CHUNKED), behind_the_end)
        yield _request((*lines, whole), behind_the_end)
        yield _request((*lines, whole, OBSCURED), behind_the_end)
    for chunks in SIZES.values():
        yield _request((CHUNKED,), chunks + hidden)
        yield _request((whole, CHUNKED), chunks + hidden)


def _ask(port: int, customer: str) -> tuple[int, bytes]:
    """Ask for a customer over a connection of its own, like anybody."""
    with connect(port) as client:
        client.sendall(
            b"GET /customers/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % customer.encode()
        )
        came = _all(client)
    return int(came.split(b" ", 2)[1]), came.partition(b"\r\n\r\n")[2]


def _all(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            came += part
    return came


def _others_go_on(proxy: ReverseProxy, customer: str, over: Event) -> int:
    """Ask until `over` is set, and insist on the right answers; return the number of answers."""
    found = 0
    while not over.is_set() or not found:
        status, body = _ask(proxy.port, customer)
        if status == 200:
            assert f'"id":"{customer}"'.encode() in body
            found += 1
        else:  # an attack made the proxy close the connection
            assert status in (502, 503), (status, body)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_carried_out_that_the_proxy_has_not_seen(
    customers: Client, tmp_path: Path, name: str
) -> None:
    mine = new_customer(customers)
    count = sum(1 for _ in _attacks(b""))
    victims = [new_customer(customers) for _ in range(count)]
    assert count > 150
    with reverse_proxy(name, tmp_path, customers.port) as proxy, ThreadPoolExecutor(1) as others:
        over = Event()
        answers: Future[int] = others.submit(_others_go_on, proxy, mine, over)
        try:
            with ExitStack() as stack:
                clients = []
                for number, victim in enumerate(victims):
                    hidden = b"DELETE /customers/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % victim.encode()
                    client = stack.enter_context(connect(proxy.port))
                    with contextlib.suppress(ConnectionError):
                        client.sendall([*_attacks(hidden)][number])
                    clients.append(client)
                for client in clients:
                    _all(client)
        finally:
            over.set()
        assert answers.result() > 0
        eventually(lambda: _ask(proxy.port, mine)[0] == 200)
        seen = proxy.requests()
        for victim in victims:
            status = customers.request("GET", f"/customers/{victim}").status
            assert status == 200 or f"DELETE /customers/{victim}" in seen
        assert customers.get(f"/customers/{mine}")["id"] == mine
