"""Clients over bare sockets. Unlike a library, they send nothing or half a request, or read slowly."""

import contextlib
import io
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from typing import Any

from support.tally import Client

PACE_SECONDS = 0.5  # between two bytes of a slow sender


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    """A connection, with a receive buffer of the given size."""
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


@contextmanager
def connections(port: int, count: int, receive_buffer: int | None = None) -> Iterator[list[socket.socket]]:
    """Many connections at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 500, hard), hard))
    with ExitStack() as open_ones:
        yield [open_ones.enter_context(connect(port, receive_buffer)) for _ in range(count)]


def head(method: str, path: str, length: int = 0) -> bytes:
    """The beginning of a request, up to its body."""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def request(path: str, content: Any) -> bytes:
    """A whole POST."""
    body = json.dumps(content).encode()
    return head("POST", path, len(body)) + body


def answer(client: socket.socket) -> tuple[int, str | None, bytes]:
    """The next answer: its status, its type and its body."""
    response = HTTPResponse(client)
    response.begin()
    return response.status, response.headers["Content-Type"], response.read()


class _Kept(io.BufferedReader):
    """The bytes from a client. Closing a fully read answer doesn't close them."""

    def close(self) -> None:
        return

    def makefile(self, *_: Any) -> "_Kept":
        return self


def answers(client: socket.socket) -> Iterator[tuple[int, str | None, bytes]]:
    """The successive answers on one connection."""
    kept = _Kept(socket.SocketIO(client, "rb"))
    while True:
        response = HTTPResponse(kept)  # type: ignore[arg-type]
        response.begin()
        yield response.status, response.headers["Content-Type"], response.read()


@contextmanager
def dripping(senders: Sequence[tuple[socket.socket, bytes]]) -> Iterator[None]:
    """Each sender sends a byte every half second; at the end it sends the rest at once."""
    over = threading.Event()
    sent = 0

    def drip() -> None:
        nonlocal sent
        while not over.is_set():
            for client, content in senders:
                with contextlib.suppress(ConnectionError):  # cut off: the others continue
                    client.sendall(content[sent : sent + 1])
            sent += 1
            over.wait(PACE_SECONDS)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for client, content in senders:
            with contextlib.suppress(OSError):
                client.sendall(content[sent:])


def longest_wait(client: Client, path: str, times: int = 20) -> float:
    """The time of the slowest of some GETs, each on a new connection."""
    slowest = 0.0
    for _ in range(times):
        began = time.monotonic()
        with connect(client.port) as one:
            one.sendall(head("GET", path))
            assert answer(one)[0] == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest
