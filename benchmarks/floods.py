"""Users' waiting times while clients flood a service with auth, and the service's state afterwards."""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.plan import Plan, Result, Target, at_most
from benchmarks.report import paragraph, percentile, table
from tally.actors.limits import MOST_CONNECTIONS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import users
from support.clients import answer, connect, connections, dripping, head, request
from support.tally import Tally, running
from support.users import SignedIn
from support.waiting import eventually

MB = 1_000_000
ANSWER_SECONDS, HEALTH_SECONDS, LOG_BYTES = 2.0, 1.0, 1 * MB
LEFT_BYTES = 100 * MB  # SQLite's caches of everything that was read


class World(NamedTuple):
    """A Tally with users; one of them has an account with a long list."""

    tally: Tally
    alice: SignedIn
    account: str

    def signed(self, method: str, path: str, length: int = 0) -> bytes:
        """The beginning of a request of that user."""
        plain = head(method, path, length).removesuffix(b"\r\n")
        return plain + f"Authorization: Bearer {self.alice.token}\r\n\r\n".encode()


WARM = 32

Flood = Callable[[World, int], AbstractContextManager[None]]
"""Floods a port for as long as the context lasts."""


class Found(NamedTuple):
    """The results of one flood: the seconds of each answer to users and of health; bytes."""

    answers: list[float]
    health: list[float]
    log: float  # in a minute
    most: int  # memory of the service's HTTP process
    left: int  # growth since before the flood, measured afterwards


def measure(plan: Plan) -> Result:
    """Flood a Tally in each way; return a table and the targets."""
    seconds = plan.choose(20.0, 3.0)
    rows = [["flood", "answers", "p99, ms", "health, ms", "log, MB/min", "memory, MB", "stays, MB"]]
    targets: list[Target] = []
    for name, (service, flood) in FLOODS.items():
        plan.say(f"floods: {name}")
        with _world(plan.base) as world:
            found = _watch(world, service, flood, seconds)
        answers, health = percentile(found.answers, 0.99), max(found.health)
        rows.append(
            [name, f"{len(found.answers):,}", f"{answers * 1000:,.0f}", f"{health * 1000:,.0f}"]
            + [f"{number / MB:,.2f}" for number in (found.log, found.most, found.left)]
        )
        targets += [
            at_most(f"{name}: a user's answer, p99", ANSWER_SECONDS, [answers], unit=" s"),
            at_most(f"{name}: health, longest", HEALTH_SECONDS, [health], unit=" s"),
            at_most(f"{name}: log in a minute", LOG_BYTES / MB, [found.log / MB], unit=" MB"),
            at_most(f"{name}: memory that stays", LEFT_BYTES / MB, [found.left / MB], unit=" MB"),
        ]
    return Result(f"{table(rows)}\n\n{_notes(seconds)}", targets)


@contextmanager
def _world(base: Path | None) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=base) as directory:
        auth = {"mode": "jwt", "trusted_proxy": "127.0.0.1"}  # so that a flood can come from any address
        with running(Path(directory), auth=auth) as tally:
            users.add(tally, "alice")
            alice = users.sign_in(tally, "alice")
            account = alice.accounts.post("/accounts", {"name": "a", "owned_by": "alice"})["id"]
            row = {"name": "\N{ABACUS}" * 200, "account_id": account}
            eventually(lambda: alice.customers.request("POST", "/customers", row).status == 201)
            body = json.dumps([row] * 10_000, ensure_ascii=False).encode()
            alice.customers.request("POST", "/customers/batch", body=body)
            eventually(lambda: len(alice.accounts.get("/accounts")[0]["customers"]) == 10_001)
            yield World(tally, alice, account)


def _watch(world: World, service: str, flood: Flood, seconds: float) -> Found:
    """Ask as a user and for the health during the flood, and measure what it leaves behind."""
    port = getattr(world.tally, service).port
    path = "/customers?limit=1" if service == "customers" else f"/accounts/{world.account}/customers?limit=1"
    process = psutil.Process(world.tally.pids()[f"{service}-http-1"])
    with ThreadPoolExecutor(WARM) as pool:  # so all threads take memory that is needed once
        over = threading.Event()
        warming = [pool.submit(_ask, port, world.signed("GET", path), over) for _ in range(WARM)]
        time.sleep(1)
        over.set()
        assert all(each.result() for each in warming)
    before, logged, most = process.memory_info().rss, world.tally.output.stat().st_size, 0
    over = threading.Event()
    with flood(world, port), ThreadPoolExecutor(2) as asking:
        health = asking.submit(_ask, port, head("GET", "/health/live"), over)
        answers = asking.submit(_ask, port, world.signed("GET", path), over)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            most = max(most, process.memory_info().rss)
            time.sleep(0.1)
        over.set()
        log = (world.tally.output.stat().st_size - logged) / seconds * 60
        found = answers.result(), health.result()
    left = min(_memory_for_a_while(process)) - before
    return Found(*found, log, most, left)


def _memory_for_a_while(process: psutil.Process) -> Iterator[int]:
    for _ in range(100):
        yield process.memory_info().rss
        time.sleep(0.1)


def _ask(port: int, request: bytes, over: threading.Event) -> list[float]:
    """Ask again and again, each time over a new connection; return the seconds of each answer."""
    took = []
    while not over.is_set():
        began = time.monotonic()
        try:
            with connect(port) as client:
                client.sendall(request)
                status, _, _ = answer(client)
        except OSError:
            status = 0
        took.append(time.monotonic() - began if status == 200 else float("inf"))
        over.wait(0.02)
    return took


@contextmanager
def _repeated(flood: Callable[[int], None], threads: int) -> Iterator[None]:
    """Run `flood` again and again in so many threads, each time with a new number."""
    over, numbers = threading.Event(), count()

    def repeat() -> None:
        while not over.is_set():
            with suppress(OSError):
                flood(next(numbers))

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(repeat)
        try:
            yield
        finally:
            over.set()


@contextmanager
def _idle(world: World, port: int) -> Iterator[None]:
    with connections(port, MOST_CONNECTIONS + 600):
        yield


@contextmanager
def _dripping(world: World, port: int) -> Iterator[None]:
    whole = request("/invoices", {"customer_id": "1"})
    with connections(port, MOST_CONNECTIONS + 600) as clients, dripping([(each, whole) for each in clients]):
        yield


@contextmanager
def _half_sent(world: World, port: int) -> Iterator[None]:
    with connections(port, 1700) as clients:
        for client in clients:
            with suppress(OSError):
                client.sendall(head("POST", "/invoices", 60_000) + bytes(30_000))
        yield


@contextmanager
def _pipelined(world: World, port: int) -> Iterator[None]:
    packet = b"GET /health/live HTTP/1.1\r\nHost:a\r\n\r\n" * 240
    with connections(port, 1500, receive_buffer=4096) as clients:
        for client in clients:
            with suppress(OSError):
                client.sendall(packet)
        yield


@contextmanager
def _unread(world: World, port: int) -> Iterator[None]:
    with connections(port, 60, receive_buffer=4096) as clients:
        for client in clients:
            client.sendall(world.signed("GET", "/accounts"))
        yield


@contextmanager
def _unfinished(world: World, port: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(connect(port))
            client.sendall(world.signed("POST", "/invoices/batch", 30 * MB))
            with suppress(OSError):
                client.sendall(bytes(29 * MB))
        yield


def _wrong(world: World, port: int) -> AbstractContextManager[None]:
    others = b",".join(b'"k%d":%d' % (n, n) for n in range(130))
    bad = b"[%s]" % b",".join([b'{"customer_id":7,"purchase_date":1,%s}' % others] * 9_900)
    begin = world.signed("POST", "/invoices/batch", len(bad))

    def send(_: int) -> None:
        with connect(port) as client:
            client.sendall(begin + bad)
            answer(client)

    return _repeated(send, 8)


def _guessed(world: World, port: int) -> AbstractContextManager[None]:
    def guess(number: int) -> None:
        body = json.dumps({"username": f"u{number}", "password": "x" * 12}).encode()
        plain = head("POST", "/auth/login", len(body)).removesuffix(b"\r\n")
        address = f"X-Forwarded-For: 2001:db8:{number % 65536:x}::1\r\n\r\n".encode()
        with connect(port) as client:
            client.sendall(plain + address + body)
            answer(client)

    return _repeated(guess, 16)


FLOODS: dict[str, tuple[str, Flood]] = {
    "idle connections": ("customers", _idle),
    "bytes that drip": ("customers", _dripping),
    "half-sent bodies": ("customers", _half_sent),
    "requests in packets": ("customers", _pipelined),
    "large bodies, unfinished": ("customers", _unfinished),
    "large bodies that are wrong": ("customers", _wrong),
    "long lists, unread": ("accounts", _unread),
    "guessed passwords": ("accounts", _guessed),
}


def _notes(seconds: float) -> str:
    many = f"{MOST_CONNECTIONS + 600:,}"
    return paragraph(f"""
        One Tally for each flood, with auth, default settings; the flood and who asks share one process,
        and with Tally the cores. During {seconds:.0f} s a user with a token and a probe of /health/live
        ask over a new connection each time, 50 times a second at most: all must be answered 200.
        Floods: {many} connections that send nothing, or a byte each half second; 1,700 with half a body
        of 60 kB; 1,500 with 240 requests in one packet, and nothing read; a user's 40 bodies of 30 MB
        without the last, 8 at a time of 10 MB with 9,900 faults, and 60 lists of 9 MB that are not read;
        16 at a time guess passwords from other networks. Memory is the HTTP process's: the most during
        the flood, and what is left of it within 10 s after, more than before. MB is 10^6 bytes.
    """)
