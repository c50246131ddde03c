"""Many, slow and broken clients: Tally still serves the others."""

import json
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import apsw
import psutil
import pytest

from support.clients import answer, answers, connect, connections, dripping, head, longest_wait, request
from support.load import Load
from support.tally import ROOT, Tally, running
from support.waiting import eventually
from tally.actors.limits import MOST_CONNECTIONS, SOONEST_SECONDS

SOON = 10.0  # seconds that a client may wait while others misbehave: far less than those are given
MANY = 1000
LARGEST = ROOT / "http" / "vendor" / "swagger-ui-bundle.js"  # of what anybody may ask for: 1.7 MB
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally that all these clients share. None of them may leave a trace."""
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


def test_more_slow_senders_than_there_are_places_keep_nobody_waiting(tally: Tally) -> None:
    with (
        Load(tally, kept=False) as load,
        connections(tally.customers.port, MOST_CONNECTIONS + 600) as slow,
        dripping([(client, _invoice(load)) for client in slow]),
    ):
        for _ in range(3):
            _others_are_served(tally, load)


def test_bodies_that_break_off_make_nothing(tally: Tally) -> None:
    with Load(tally) as load:
        with connections(tally.customers.port, 200) as clients:
            for client in clients:
                client.sendall(_invoice(load)[:-5])
            _others_are_served(tally, load)
        load.goes_on()
    load.is_counted_once()  # and no other invoice is counted


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


def test_an_answer_does_not_wait_for_the_next_one_on_its_connection(tally: Tally) -> None:
    path = tally.directory / "data" / "customers.db"
    with closing(apsw.Connection(str(path))) as other, connect(tally.customers.port) as client:
        client.settimeout(1)
        came = answers(client)
        other.set_busy_timeout(20_000)  # the services write, too
        other.execute("BEGIN IMMEDIATE")  # blocks all other writers for longer than the busy timeout
        try:
            slow = request("/customers", {"name": "slow", "account_id": "1"})
            client.sendall(head("GET", "/health/live") + head("GET", "/customers?limit=1000") + slow)
            assert [next(came)[0] for _ in range(2)] == [200, 200]
        finally:
            other.execute("ROLLBACK")
        client.settimeout(20)
        assert next(came)[0] in (201, 503)


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


# Answers above 16 MiB, the most held for one reader: Tally makes the rest while the client reads


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally whose list of accounts is 32 MB, and whose services have two threads each."""
    few = {"threads": 2}
    with running(tmp_path_factory.mktemp("huge"), customers=few, accounts=few) as tally:
        for _ in range(4):
            account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
            customers = [{"name": "\N{ABACUS}" * 200, "account_id": account}] * 10_000
            body = json.dumps(customers, ensure_ascii=False).encode()
            assert tally.customers.request("POST", "/customers/batch", body=body).status == 201
        eventually(tally.settled)
        yield tally


def _has_done_what_it_can(tally: Tally, service: str) -> None:
    """Wait until a service's HTTP process has reached its limits and is idle."""
    eventually(lambda: _rests(psutil.Process(tally.pids()[f"{service}-http-1"]), 0.5))


def _rests(process: psutil.Process, seconds: float = 2) -> bool:
    """Whether the process doesn't use the processor all the time."""
    return bool(process.cpu_percent(seconds) < 25)


def test_readers_of_more_than_is_held_for_them_take_no_thread_and_get_everything(huge: Tally) -> None:
    with connections(huge.accounts.port, 6, receive_buffer=4096) as slow:
        for client in slow:
            client.sendall(head("GET", "/accounts"))
        _has_done_what_it_can(huge, "accounts")
        assert longest_wait(huge.accounts, "/health/ready") < SOON
        for client in slow:
            status, _, body = answer(client)
            assert (status, [len(each["customers"]) for each in json.loads(body)]) == (200, [10_000] * 4)


def test_who_asks_for_much_at_once_and_does_not_read_takes_no_thread_and_gets_everything(huge: Tally) -> None:
    with connections(huge.customers.port, 4, receive_buffer=4096) as slow:
        for client in slow:
            client.sendall(head("GET", "/customers?limit=1000") * 40 + head("GET", "/health/live"))
        _has_done_what_it_can(huge, "customers")
        assert longest_wait(huge.customers, "/health/ready") < SOON
        for client in slow:
            came = answers(client)
            assert {(status, len(body)) for status, _, body in (next(came) for _ in range(40))} == {
                (200, len(huge.customers.request("GET", "/customers?limit=1000").data))
            }
            assert next(came)[0] == 200


def test_of_readers_that_are_gone_nothing_is_left(huge: Tally) -> None:
    process = psutil.Process(huge.pids()["accounts-http-1"])
    assert longest_wait(huge.accounts, "/health/ready") < SOON
    with connections(huge.accounts.port, 30, receive_buffer=4096) as slow:
        for client in slow:
            client.sendall(head("GET", "/accounts"))
        eventually(lambda: len(process.net_connections()) > 30)
        _has_done_what_it_can(huge, "accounts")
        most = process.num_fds()
    eventually(lambda: process.num_fds() <= most - 30)
    assert longest_wait(huge.accounts, "/health/ready") < SOON
    assert "Traceback" not in huge.said()


def test_a_stop_waits_for_no_reader_that_reads_nothing(huge: Tally) -> None:
    with connections(huge.accounts.port, 3, receive_buffer=4096) as slow:
        for client in slow:
            client.sendall(head("GET", "/accounts"))
        _has_done_what_it_can(huge, "accounts")
        old = huge.kill("accounts-http-1", signal.SIGTERM)
        eventually(lambda: not psutil.pid_exists(old), 8)
    eventually(lambda: "accounts-http-1" in huge.pids())


# Fewer open files than clients


def _limited(tally: Tally, files: int) -> psutil.Process:
    """A new HTTP process of the customers service, with at most that many open files."""
    resource.prlimit(tally.process.pid, resource.RLIMIT_NOFILE, (files, files))
    old = tally.kill("customers-http-1")
    eventually(lambda: tally.pids().get("customers-http-1", old) != old)
    eventually(lambda: tally.customers.get("/health/ready"))
    return psutil.Process(tally.pids()["customers-http-1"])


@pytest.mark.parametrize(("files", "clients"), [(1024, 1300), (256, 400)])
def test_with_fewer_files_than_clients_all_are_served(tmp_path: Path, files: int, clients: int) -> None:
    with running(tmp_path) as tally:
        process = _limited(tally, files)
        said = len(tally.said())
        with connections(tally.customers.port, clients) as idle, connect(tally.customers.port) as kept:
            for client in idle[-5:]:
                client.sendall(head("GET", "/health/live"))
                assert answer(client)[0] == 200
            with Load(tally) as load:
                _others_are_served(tally, load)
                kept.sendall(head("GET", "/customers?limit=1"))
                assert answer(kept)[0] == 200
            load.is_counted_once()
            assert process.num_fds() < files - 20
            assert _rests(process)
        assert len(tally.said()) - said < 1000, tally.said()[said:]


def test_bodies_that_are_half_there_take_the_files_of_nobody_else(tmp_path: Path) -> None:
    """Tally keeps each body of more than half a MiB in a file."""
    with running(tmp_path) as tally:
        _limited(tally, 1024)
        said = len(tally.said())
        with connections(tally.customers.port, 400) as half:
            for client in half:
                with suppress(OSError):
                    client.sendall(head("POST", "/invoices/batch", 1_000_000) + b"[" + b" " * 550_000)
            with Load(tally) as load:
                _others_are_served(tally, load)
            load.is_counted_once()
        assert len(tally.said()) - said < 1000, tally.said()[said:]


def test_out_of_files_accepting_pauses_is_told_once_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        process = psutil.Process(tally.pids()["customers-http-1"])
        assert tally.customers.get("/health/ready")
        free = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 5, free[1]))
        with connections(tally.customers.port, 50):
            assert longest_wait(tally.customers, "/health/live", times=5) < SOON
            assert tally.customers.get("/health/live")
            assert _rests(process)
            process.rlimit(psutil.RLIMIT_NOFILE, free)
            assert longest_wait(tally.customers, "/health/ready", times=5) < 1
        assert tally.said().count("accepting_paused") == 1
        assert "Traceback" not in tally.said()


def test_out_of_files_a_large_answer_is_sent_and_its_connection_goes_on(tmp_path: Path) -> None:
    """An answer of more than a MiB was put into a file. Without one, the loop span until the client went."""
    with running(tmp_path) as tally, connect(tally.customers.port, receive_buffer=4096) as client:
        came = answers(client)
        client.sendall(head("GET", "/health/live"))
        assert next(came)[0] == 200
        process = _has_no_file_left(tally)
        for path, size in ((f"/static/{LARGEST.name}", LARGEST.stat().st_size), ("/health/live", None)):
            client.sendall(head("GET", path))
            status, _, body = next(came)
            assert status == 200
            assert size is None or len(body) == size
        assert _rests(process)
        assert "Traceback" not in tally.said()


def test_out_of_files_a_process_lives_on(tmp_path: Path) -> None:
    """Every three seconds it looks how much memory it has, for which it reads a file of the system's."""
    with running(tmp_path) as tally:
        before = tally.pids()
        assert _rests(_has_no_file_left(tally), 2 * SOONEST_SECONDS)
        assert tally.pids() == before
        assert "Traceback" not in tally.said()


def _has_no_file_left(tally: Tally) -> psutil.Process:
    """The HTTP process of the customers service, which may open no further file from now on."""
    process = psutil.Process(tally.pids()["customers-http-1"])
    process.rlimit(psutil.RLIMIT_NOFILE, (3, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
    return process
