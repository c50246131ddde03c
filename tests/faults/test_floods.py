"""Floods by strangers and by a user: others are served, and neither memory nor disk fills up."""

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from support import users
from support.clients import answer, answers, connect, connections, head, longest_wait
from support.tally import Tally, running
from support.users import SignedIn
from support.waiting import eventually
from tally.http.bodies import MOST_TOLD
from tally.http.long_lists import OF_A_USER

SOON = 10.0  # the most seconds that others may wait: far less than the requests begun here take
MB = 1024**2


class World(NamedTuple):
    """A Tally with users, and an account whose list is 9 MB."""

    tally: Tally
    admin: SignedIn
    alice: SignedIn

    def process(self, service: str) -> psutil.Process:
        """A service's HTTP process."""
        return psutil.Process(self.tally.pids()[f"{service}-http-1"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("floods"), auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        users.add(tally, "alice")
        admin, alice = users.sign_in(tally, "root"), users.sign_in(tally, "alice")
        account = alice.accounts.post("/accounts", {"name": "a", "owned_by": "alice"})["id"]
        row = {"name": "\N{ABACUS}" * 200, "account_id": account}
        eventually(lambda: alice.customers.request("POST", "/customers", row).status == 201)
        body = json.dumps([row] * 10_000, ensure_ascii=False).encode()
        assert alice.customers.request("POST", "/customers/batch", body=body).status == 201
        eventually(lambda: len(alice.accounts.get("/accounts")[0]["customers"]) == 10_001)
        yield World(tally, admin, alice)


def _signed(user: SignedIn, method: str, path: str, length: int = 0) -> bytes:
    """The beginning of a user's request, with the token."""
    plain = head(method, path, length).removesuffix(b"\r\n")
    return plain + f"Authorization: Bearer {user.token}\r\n\r\n".encode()


def _in_files(process: psutil.Process) -> int:
    """How many bytes a process keeps in files that were unlinked."""
    found = 0
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if os.readlink(descriptor).endswith(" (deleted)"):
                found += descriptor.stat().st_size
        except OSError:
            continue
    return found


def test_many_requests_in_one_packet_cost_what_a_few_do(world: World) -> None:
    """Each request used to be read as soon as it came, at 100 times its size: 2.2 GB; health took 49 s."""
    process = world.process("customers")
    before = process.memory_info().rss
    packet = b"GET /health/live HTTP/1.1\r\nHost:a\r\n\r\n" * 240
    with connections(world.tally.customers.port, 300, receive_buffer=4096) as flood:
        for client in flood:
            client.sendall(packet)
        assert longest_wait(world.tally.customers, "/health/live", times=5) < SOON
        assert process.memory_info().rss - before < 100 * MB
        came = answers(flood[-1])
        assert [next(came)[0] for _ in range(240)] == [200] * 240


def test_a_user_s_long_lists_are_bounded_and_keep_no_thread_and_fill_no_disk(world: World) -> None:
    process = world.process("accounts")
    before = process.memory_info().rss
    with connections(world.tally.accounts.port, 60, receive_buffer=4096) as flood:
        for client in flood:
            client.sendall(_signed(world.alice, "GET", "/accounts"))
        assert longest_wait(world.tally.accounts, "/health/live", times=5) < SOON
        statuses = [int(client.recv(12).split()[1]) for client in flood]
        assert (statuses.count(200), statuses.count(429)) == (OF_A_USER, 60 - OF_A_USER)
        assert world.admin.accounts.get("/accounts?limit=1")
        assert len(world.admin.accounts.get("/accounts")[0]["customers"]) == 10_001
        assert _in_files(process) == 0
        assert process.memory_info().rss - before < 200 * MB
    # The clients are gone, and their places are free again.
    eventually(lambda: world.alice.accounts.request("GET", "/accounts").status == 200)


def test_a_stranger_s_requests_for_the_largest_file_fill_no_disk(world: World) -> None:
    process = world.process("customers")
    before = process.memory_info().rss
    with connections(world.tally.customers.port, 100, receive_buffer=4096) as flood:
        for client in flood:
            client.sendall(head("GET", "/static/swagger-ui-bundle.js"))
        assert {client.recv(12) for client in flood} == {b"HTTP/1.1 200"}
        assert longest_wait(world.tally.customers, "/health/live", times=5) < SOON
        assert _in_files(process) == 0
        assert process.memory_info().rss - before < 150 * MB


def test_whoever_sends_a_large_body_is_asked_who_that_is_first(world: World) -> None:
    for given in ("", "Authorization: Bearer nonsense\r\n", "Transfer-Encoding: chunked\r\n"):
        with connect(world.tally.customers.port) as client:
            length = "" if "chunked" in given else f"Content-Length: {30 * MB}\r\n"
            client.sendall(f"POST /invoices/batch HTTP/1.1\r\nHost: a\r\n{length}{given}\r\n".encode())
            status, kind, _ = answer(client)
            assert (status, kind) == (401, "application/problem+json")
    assert _in_files(world.process("customers")) == 0


def test_large_bodies_that_are_on_their_way_have_a_limit_together(world: World) -> None:
    port, begun = world.tally.customers.port, _signed(world.alice, "POST", "/invoices/batch", 30 * MB)
    with ExitStack() as stack:
        statuses = []
        for _ in range(12):
            client = stack.enter_context(connect(port))
            client.sendall(begun + b"[")
            if _has_come(client):
                statuses.append(answer(client)[0])
        assert set(statuses) == {503}
        assert world.alice.customers.get("/customers?limit=1")
    eventually(lambda: world.alice.customers.request("POST", "/invoices/batch", body=b" " * MB).status == 400)


def _has_come(client: socket.socket) -> bool:
    """Whether an answer is there already: it comes at once, or only after the body."""
    return bool(select.select([client], [], [], 0.5)[0])


def test_a_large_body_that_is_wrong_keeps_no_other_change_waiting(world: World) -> None:
    """The thread that writes used to parse it: 2 s for each."""
    others = b",".join(b'"k%d":%d' % (n, n) for n in range(130))
    bad = b"[%s]" % b",".join([b'{"customer_id":7,"purchase_date":1,%s}' % others] * 9_900)
    assert 10 * MB < len(bad) < 16 * MB
    port = world.tally.customers.port
    account = world.alice.accounts.get("/accounts?limit=1")[0]["account"]["id"]
    with ExitStack() as stack:
        large = [stack.enter_context(connect(port)) for _ in range(4)]
        for client in large:
            client.sendall(_signed(world.alice, "POST", "/invoices/batch", len(bad)) + bad)
        world.alice.customers.post("/customers", {"name": "small", "account_id": account})
        assert not all(map(_is_there, large)), "the small one came behind all of them"
        for client in large:
            status, _, body = answer(client)
            assert (status, len(json.loads(body)["errors"])) == (422, MOST_TOLD + 1)


def _is_there(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])
