"""A load of HTTP requests over kept-alive connections, far lighter than the server under it.

One process, one thread, raw sockets: each client sends its next request after its answer.
"""

import select
import socket
import time
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from benchmarks.client import Unexpected
from benchmarks.report import percentile

ANSWER_SECONDS = 30.0
_PART = 262_144


class Request(NamedTuple):
    """The bytes of a request, and the weight it counts for if it gets the wanted answer."""

    raw: bytes
    weight: int = 0


class Load(NamedTuple):
    """The results: the number of wanted and of other answers, and the weight of the wanted.

    `latencies` are in ms, one for each wanted answer; `cpu` is the processor time of the load itself,
    `server_cpu` that of the watched process, both in seconds.
    """

    answered: int
    refused: int
    weight: int
    seconds: float
    cpu: float
    server_cpu: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Wanted answers a second."""
        return self.answered / self.seconds

    def latency(self, part: float) -> float:
        """The latency in ms that `part` of all answers do not exceed."""
        return percentile(self.latencies, part)


def post(path: str, body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(path: str) -> bytes:
    """A GET as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class _Client:
    """A connection, opened again if an answer ended the last, and the one request under way on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._come = b""
        self._left: int | None = 0  # None: everything until the connection ends
        self.request = Request(b"")
        self.sent = 0  # ns
        self.connect()

    def connect(self) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False

    def send(self, request: Request, at: int) -> None:
        """Send a request; `at` is the time from which its latency counts."""
        self.request, self.sent = request, at
        self.socket.sendall(request.raw)

    def receive(self) -> int | None:
        """Read the received bytes; return the status once the answer is complete."""
        part = self.socket.recv(_PART)
        if not part:
            return self._at_end()
        if self._left is None:
            self._come = self._come[:12] + (self._come[12:] + part)[-16:]  # the status, and the last bytes
        elif self._left:
            self._left -= len(part)
        else:
            self._come += part
            end = self._come.find(b"\r\n\r\n")
            if end < 0:
                return None
            length = _length(self._come[:end])
            self._left = None if length is None else end + 4 + length - len(self._come)
        return self._status() if self._left == 0 else None

    def _at_end(self) -> int:
        if self._left is not None or not self._come.endswith(b"0\r\n\r\n"):
            raise Unexpected("the connection was closed instead of an answer")
        self.socket.close()
        self.ended, self._left = True, 0
        return self._status()

    def _status(self) -> int:
        status, self._come = int(self._come[9:12]), b""
        return status


def _length(head: bytes) -> int | None:
    """The value of Content-Length; None for an answer in chunks, after which the connection ends."""
    lower = head.lower()
    start = lower.find(b"content-length:")
    if start >= 0:
        return int(lower[start + 15 :].split(b"\r\n", 1)[0])
    if b"connection: close" in lower and b"transfer-encoding: chunked" in lower:
        return None
    raise Unexpected(f"an answer without an end: {head!r}")


def run(
    port: int,
    requests: Sequence[Request],
    clients: int,
    seconds: float,
    rate: float | None = None,
    wanted: int = 201,
    server: int | None = None,
) -> Load:
    """Send `requests`, over and over, for `seconds`, by `clients` clients; blocks until all are answered.

    With `rate`, that many a second on a fixed schedule: then a latency counts from when it was due.
    `server` is the process to watch, if any.
    Raises Unexpected if a connection is closed, or an answer takes ANSWER_SECONDS.
    """
    watched = psutil.Process(server) if server else None
    before = _cpu(watched)
    found = _Run(port, requests, clients, rate, wanted).run(seconds)
    return found._replace(server_cpu=_cpu(watched) - before)


def _cpu(process: psutil.Process | None) -> float:
    return float(sum(process.cpu_times()[:2])) if process else 0.0


def send_each(port: int, requests: Sequence[Request], wanted: int = 201) -> tuple[float, float]:
    """Send each request once, one after another, by one client; return the times of begin and end.

    Both on the monotonic clock, which all processes share. Raises Unexpected for any other status.
    """
    client = _Client(port)
    began = time.monotonic()
    for request in requests:
        client.send(request, 0)
        while (status := client.receive()) is None:
            pass
        if status != wanted:
            raise Unexpected(f"expected the status {wanted}, got {status}")
    ended = time.monotonic()
    client.socket.close()
    return began, ended


class _Run:
    def __init__(
        self, port: int, requests: Sequence[Request], clients: int, rate: float | None, wanted: int
    ) -> None:
        self._clients = {client.socket.fileno(): client for client in (_Client(port) for _ in range(clients))}
        self._idle = list(self._clients.values())
        self._count = clients
        self._poll = select.epoll()
        self._requests, self._next = requests, 0
        self._interval = int(1e9 / rate) if rate else 0
        self._wanted = wanted
        self._latencies = array("q")
        self._refused = self._weight = 0

    def run(self, seconds: float) -> Load:
        for descriptor in self._clients:
            self._poll.register(descriptor, select.EPOLLIN)
        cpu, began = time.process_time(), time.perf_counter_ns()
        end = began + int(seconds * 1e9)
        while True:
            now = time.perf_counter_ns()
            while self._idle and now < end and (due := self._due(began, now)):
                self._send(self._idle.pop(), due)
            if len(self._idle) == self._count and now >= end:
                break
            self._receive()
        taken = (time.perf_counter_ns() - began) / 1e9
        for client in self._clients.values():
            client.socket.close()
        latencies = [nanoseconds / 1e6 for nanoseconds in self._latencies]
        used = time.process_time() - cpu
        return Load(len(latencies), self._refused, self._weight, taken, used, 0.0, latencies)

    def _due(self, began: int, now: int) -> int:
        """When the next request is due, if that is not later than now; else 0."""
        due = began + self._next * self._interval if self._interval else now
        return due if due <= now else 0

    def _send(self, client: _Client, due: int) -> None:
        if client.ended:
            client.connect()
            self._clients[client.socket.fileno()] = client
            self._poll.register(client.socket, select.EPOLLIN)
        client.send(self._requests[self._next % len(self._requests)], due)
        self._next += 1

    def _receive(self) -> None:
        wait = 0.0005 if self._interval else ANSWER_SECONDS
        events = self._poll.poll(wait)
        if not events and not self._interval:
            raise Unexpected(f"no answer within {ANSWER_SECONDS:.0f} s")
        for descriptor, _ in events:
            client = self._clients[descriptor]
            status = client.receive()
            if status is None:
                continue
            if client.ended:
                del self._clients[descriptor]
            if status == self._wanted:
                self._latencies.append(time.perf_counter_ns() - client.sent)
                self._weight += client.request.weight
            else:
                self._refused += 1
            self._idle.append(client)
