"""The command line as a user sees it: `python supervisor.py`, with real processes and signals."""

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import redis
import urllib3

from support import cli, engines
from support.cli import command, is_free, processes_in, server_of_another_kind, settings
from support.engines import bundled_process, free_port
from support.program import SUPERVISOR
from support.redis_process import RedisProcess
from support.tally import Tally, alive, prepared, running
from support.waiting import eventually
from tally.actors.redis_fitness import RIGHTS
from tally.recovery import first_start
from tally.store import accounts, customers

SECRET = "hunter2"
DEFAULT_ACTORS = {
    "customers-http-1",
    "customers-relay",
    "customers-consumer-1",
    "accounts-http-1",
    "accounts-relay",
    "accounts-consumer-1",
    "accounts-consumer-2",
}


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Each test works in its own directory. Every process started there must end with the test."""
    with contextlib.chdir(tmp_path):
        yield
    try:
        eventually(lambda: not processes_in(tmp_path), 5)
    finally:
        for process in processes_in(tmp_path):
            process.kill()


@pytest.fixture
def redis_there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that is not Tally's."""
    with engines.started(engines.BUNDLED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally of some size on a private Redis, for tests that only look."""
    directory = tmp_path_factory.mktemp("at_work")
    consumers = {"accounts": 3, "customers": 2}
    with running(directory, accounts={"processes": 2}, consumers=consumers) as tally:
        yield tally


def _client(tally: Tally) -> redis.Redis:
    return redis.Redis.from_url(tally.settings["redis"]["url"], protocol=2)


def _refused(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """The command failed, and said so in one line that contains `parts`."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert [part for part in parts if part not in line] == [], line
    assert "ready after" not in done.stdout
    assert processes_in(Path.cwd()) == []


def _table(said: str) -> dict[str, tuple[int, str]]:
    """The pid and the address of each actor in the table."""
    lines = said.splitlines()
    (top,) = (number for number, line in enumerate(lines) if line.split() == ["actor", "pid", "address"])
    (end,) = (number for number, line in enumerate(lines) if line.startswith("ready after"))
    rows = [line.split(maxsplit=2) for line in lines[top + 1 : end]]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: (int(row[1]), row[2] if row[2:] else "") for row in rows}


# run: its output


def test_run_prints_a_table_of_every_actor_with_its_pid_and_address(at_work: Tally) -> None:
    table = _table(at_work.said())
    assert table.keys() == DEFAULT_ACTORS | {
        "redis",
        "accounts-http-2",
        "accounts-consumer-3",
        "customers-consumer-2",
    }
    assert {name: pid for name, (pid, _) in table.items()} == at_work.pids()
    ports = {section: at_work.settings[section]["port"] for section in ("customers", "accounts")}
    assert {name: address for name, (_, address) in table.items() if address} == {
        "redis": at_work.settings["redis"]["url"].removeprefix("redis://").removesuffix("/0"),
        "customers-http-1": f"http://127.0.0.1:{ports['customers']}",
        "accounts-http-1": f"http://127.0.0.1:{ports['accounts']}",
        "accounts-http-2": f"http://127.0.0.1:{ports['accounts']}",
    }


def test_the_addresses_in_the_table_answer(at_work: Tally) -> None:
    for _, address in _table(at_work.said()).values():
        if address.startswith("http"):
            assert urllib3.request("GET", f"{address}/health/ready").status == 200


def test_run_says_that_redis_is_a_private_one_and_where_its_data_is(at_work: Tally) -> None:
    (line,) = (line for line in at_work.said().splitlines() if line.startswith("redis: "))
    assert "private" in line
    assert at_work.settings["redis"]["url"] in line
    assert str(at_work.directory / "data" / "redis") in line


def test_every_actor_says_its_name_in_ps(at_work: Tally) -> None:
    for name, pid in at_work.pids().items():
        shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
        assert shown.stdout.strip() == f"tally: {name}"


def test_the_data_directory_and_what_is_in_it_are_for_its_owner_alone(at_work: Tally) -> None:
    data = at_work.directory / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "redis").stat().st_mode) == 0o700
    assert {"customers.db", "accounts.db", "redis", "supervisor.lock"} <= {
        file.name for file in data.iterdir()
    }


def test_a_data_directory_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with running(tmp_path, "--only", "redis"):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_run_without_a_file_reads_config_toml_and_the_environment(tmp_path: Path) -> None:
    environment = {
        "TALLY_DATA_DIRECTORY": str(tmp_path / "elsewhere"),
        "TALLY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "TALLY_CUSTOMERS_PORT": str(free_port()),
        "TALLY_ACCOUNTS_PORT": str(free_port()),
    }
    done = command("check", environment=environment)
    assert done.returncode == 0, done
    for value in environment.values():
        assert value.removesuffix("/0") in done.stdout


# run: which Redis it uses


def _listening(process: psutil.Process) -> set[str]:
    return {
        connection.laddr.ip
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_the_private_redis_listens_on_loopback_only(at_work: Tally) -> None:
    (server,) = psutil.Process(at_work.pids()["redis"]).children()
    assert _listening(server) == {"127.0.0.1"}


def test_the_private_redis_listens_on_loopback_only_when_the_url_says_localhost(tmp_path: Path) -> None:
    url = f"redis://localhost:{free_port()}/0"
    with running(tmp_path, "--only", "redis", redis={"url": url}) as tally:
        (server,) = psutil.Process(tally.pids()["redis"]).children()
        assert _listening(server)
        assert _listening(server) <= {"127.0.0.1", "::1"}


def test_the_private_redis_keeps_its_data_under_data_redis_over_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as tally, _client(tally) as client:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        eventually(tally.settled)
        entries = client.xrange("event-stream")
        assert len(entries) == 2
        assert tally.stop() == 0
        assert any(file.name.startswith("appendonly") for file in (tmp_path / "data" / "redis").iterdir())
        tally.start()
        assert client.xrange("event-stream") == entries
        eventually(tally.settled)
        assert client.xrange("event-stream") == entries


@pytest.mark.parametrize("secret", [SECRET, 'a "b" \\c #d\'%'], ids=["plain", "with quotes and blanks"])
def test_the_private_redis_asks_for_the_password_in_the_url_and_nobody_shows_it(
    tmp_path: Path, secret: str
) -> None:
    port = free_port()
    with running(tmp_path, redis={"url": f"redis://:{quote(secret, safe='')}@127.0.0.1:{port}/0"}) as tally:
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(url, password=secret) as friend:
            assert friend.ping()
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(tally.settled)
        for shown in (secret, quote(secret, safe="")):
            assert shown not in tally.said()
            assert not [process for process in processes_in(tmp_path) if shown in " ".join(process.cmdline())]


def test_the_data_directory_may_have_any_name(tmp_path: Path) -> None:
    data = tmp_path / 'my "data" \\ #1 \u00fc'
    with running(tmp_path, data={"directory": str(data)}) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(tally.settled)
        assert {"customers.db", "accounts.db", "redis"} <= {file.name for file in data.iterdir()}
        assert any(file.name.startswith("appendonly") for file in (data / "redis").iterdir())


def test_auto_uses_a_redis_that_answers(tmp_path: Path, redis_there: str) -> None:
    with running(tmp_path, redis_url=redis_there, redis={"embedded": "auto"}) as tally:
        (line,) = (line for line in tally.said().splitlines() if line.startswith("redis: "))
        assert redis_there in line
        assert "private" not in line
        assert tally.pids().keys() == DEFAULT_ACTORS
        assert not (tmp_path / "data" / "redis").exists()
        with _client(tally) as client:
            client.flushall()
            tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
            eventually(lambda: client.xlen("event-stream") == 1)


def test_always_fails_where_a_redis_answers_already(tmp_path: Path, redis_there: str) -> None:
    file = settings(tmp_path, redis={"url": redis_there, "embedded": "always"})
    _refused(command("run", "--config", file), "always", redis_there)
    assert engines.answers(redis_there)


@pytest.mark.parametrize("url", ["redis://192.0.2.1:6379/0", "unix:///nowhere/redis.sock"])
def test_always_fails_where_no_private_redis_can_be(tmp_path: Path, url: str) -> None:
    file = settings(tmp_path, redis={"url": url, "embedded": "always"})
    _refused(command("run", "--config", file), "always", url)


def test_never_takes_writes_without_redis_and_publishes_once_one_comes_up(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    first_start.make(tmp_path / "data")  # as after an earlier start; otherwise it waits for Redis first
    with running(tmp_path, redis_url=f"redis://127.0.0.1:{port}/0") as tally:
        assert tally.pids().keys() == DEFAULT_ACTORS
        (line,) = (line for line in tally.said().splitlines() if line.startswith("redis: "))
        assert f"127.0.0.1:{port}" in line
        assert "waiting" in line
        account = tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
        customer = tally.customers.post("/customers", {"name": "John Adams", "account_id": account})
        invoice = {"customer_id": customer["id"], "purchase_date": "2019-01-06", "purchase_price_cents": 7}
        tally.customers.post("/invoices", invoice)
        assert is_free(port)
        with bundled_process(tmp_path_factory.mktemp("late"), port), _client(tally) as client:
            eventually(lambda: client.xlen("event-stream") == 3)
            eventually(tally.settled)
            assert tally.accounts.get("/accounts")[0]["total_revenue_cents"] == 7
            assert client.xlen("event-stream") == 3


@pytest.mark.parametrize(
    ("talk", "embedded"),
    [
        (cli.says_nothing, "auto"),
        (cli.hangs_up, "auto"),
        (cli.speaks_ssh, "auto"),
        (cli.speaks_http, "auto"),
        (cli.says_nothing, "always"),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_another_server_on_the_redis_port_is_told_promptly_in_one_line(
    tmp_path: Path, talk: cli.Conversation, embedded: str
) -> None:
    with server_of_another_kind(talk) as port:
        url = f"redis://127.0.0.1:{port}/0"
        file = settings(tmp_path, redis={"url": url, "embedded": embedded})
        _refused(command("run", "--config", file, seconds=6), "redis", str(port))


# run: only some roles


def test_only_customers_starts_that_service_and_leaves_the_others_port_and_database_alone(
    tmp_path: Path, redis_there: str
) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        running(tmp_path, "--only", "customers", redis_url=redis_there, accounts={"port": port}) as tally,
    ):
        assert tally.pids().keys() == {name for name in DEFAULT_ACTORS if name.startswith("customers")}
        assert _table(tally.said()).keys() == tally.pids().keys()
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        assert not (tmp_path / "data" / "accounts.db").exists()


def test_only_customers_starts_no_redis_and_does_not_say_so(tmp_path: Path) -> None:
    first_start.make(tmp_path / "data")
    with running(tmp_path, "--only", "customers", redis={"embedded": "auto"}) as tally:
        assert tally.pids().keys() == {name for name in DEFAULT_ACTORS if name.startswith("customers")}
        assert "starting a private" not in tally.said()
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})


def test_only_redis_starts_a_redis_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path, "--only", "redis") as tally:
        assert tally.pids().keys() == {"redis"}
        assert engines.answers(tally.settings["redis"]["url"])
        assert not list((tmp_path / "data").glob("*.db"))


def test_only_may_be_given_several_times(tmp_path: Path) -> None:
    with running(tmp_path, "--only", "accounts", "--only", "redis") as tally:
        assert tally.pids().keys() == {
            "redis",
            *(name for name in DEFAULT_ACTORS if name.startswith("accounts")),
        }


# run: reasons not to start


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_port_that_is_taken_is_told_in_one_line_and_nothing_is_left(tmp_path: Path, service: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        file = settings(tmp_path, **{service: {"port": port}})
        _refused(command("run", "--config", file), service, f"127.0.0.1:{port}")


def test_a_second_supervisor_on_a_data_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    with running(tmp_path, "--only", "redis") as tally:
        first = tally.process.pid
        for name in ("same settings", "other ports"):
            file = tmp_path / "tally.toml" if name == "same settings" else settings(tmp_path)
            done = command("run", "--config", file)
            assert done.returncode == 1, name
            (line,) = done.stderr.splitlines()
            assert re.search(rf"\b{first}\b", line), line
            assert str(tmp_path / "data") in line
        assert engines.answers(tally.settings["redis"]["url"])
        assert tally.process.poll() is None


@pytest.mark.parametrize("name", ["run", "check"])
def test_settings_that_do_not_hold_are_all_told_and_nothing_is_touched(tmp_path: Path, name: str) -> None:
    file = settings(
        tmp_path, radish={"a": 1}, redis={"foo": 1}, accounts={"port": "x"}, log={"level": "loud"}
    )
    done = command(name, "--config", file, environment={"TALLY_CONSUMERS_BATCH": "0"})
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    for key in ("radish", "redis.foo", "accounts.port", "log.level", "consumers.batch"):
        assert len([line for line in lines if key in line]) == 1, key
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()


def test_a_settings_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = command("run", "--config", tmp_path / "missing.toml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "missing.toml" in line


def test_a_host_that_others_can_reach_is_refused_as_wrong_settings(tmp_path: Path) -> None:
    done = command("run", "--config", settings(tmp_path, customers={"host": "0.0.0.0"}))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "customers.host" in line
    assert "auth" in line


@pytest.mark.parametrize("query", ["nonsense=1", "socket_timeout=abc"])
def test_a_redis_url_that_no_client_understands_is_refused_as_wrong_settings(
    tmp_path: Path, query: str
) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0?{query}"
    done = command("check", "--config", settings(tmp_path, redis={"url": url}))
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "redis.url" in line


@pytest.mark.parametrize("name", ["a_file", "a_file/within", "x" * 300], ids=["file", "in a file", "long"])
def test_a_data_directory_that_can_not_be_made_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("keep me")
    file = settings(tmp_path, data={"directory": name})
    _refused(command("run", "--config", file), str(tmp_path / name))
    done = command("check", "--config", file)
    line, good = _about(done, "data directory")
    assert (done.returncode, good) == (1, False)
    assert str(tmp_path / name) in line
    assert (tmp_path / "a_file").read_text() == "keep me"


def _no_database(file: Path) -> None:
    file.write_bytes(b"this is no database\n" * 1000)


def _of_another_program(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE note (text)")
        connection.execute("INSERT INTO note VALUES ('keep me')")
        connection.commit()


def _of_another_program_with_a_version(file: Path) -> None:
    _of_another_program(file)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("PRAGMA user_version = 1")


def _of_a_newer_release(file: Path) -> None:
    database = customers.open_database(file.parent)
    database.execute("PRAGMA user_version = 999")
    database.close()


def _of_the_other_service(file: Path) -> None:
    accounts.open_database(file.parent).close()
    shutil.move(file.with_name("accounts.db"), file)


def _torn(file: Path) -> None:
    customers.open_database(file.parent).close()
    file.write_bytes(file.read_bytes()[:5000])


UNUSABLE = [
    _no_database,
    _of_another_program,
    _of_another_program_with_a_version,
    _of_a_newer_release,
    _of_the_other_service,
    _torn,
]


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__.strip("_"))
def test_a_database_file_that_is_none_of_ours_is_told_in_one_line_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    file = tmp_path / "data" / "customers.db"
    file.parent.mkdir()
    make(file)
    before = file.read_bytes()
    _refused(command("run", "--config", settings(tmp_path)), str(file))
    assert file.read_bytes() == before


def test_a_service_listens_on_the_loopback_address_of_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with running(tmp_path, customers={"host": "::1"}) as tally:
        port = tally.settings["customers"]["port"]
        assert f"http://[::1]:{port}" in tally.said()
        assert urllib3.request("GET", f"http://[::1]:{port}/health/live").status == 200


# Stopping


def _members(tally: Tally, *names: str) -> list[psutil.Process]:
    return [psutil.Process(pid) for name, pid in tally.pids().items() if name in names]


def _await_end(*processes: psutil.Process) -> None:
    eventually(lambda: not any(map(alive, processes)))


def test_sigterm_stops_http_first_then_consumers_then_relays_then_redis(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        pids = tally.pids()
        stages = [
            [psutil.Process(pid) for name, pid in pids.items() if part in name]
            for part in ("-http-", "-consumer-", "-relay", "redis")
        ]
        assert [len(stage) for stage in stages] == [2, 3, 2, 1]
        held = [stage[-1] for stage in stages]  # a stage can't end until its held process resumes
        for process in held:
            process.suspend()
        tally.process.send_signal(signal.SIGTERM)
        for number, stage in enumerate(stages):
            _await_end(*stage[:-1])
            assert all(alive(process) for later in stages[number + 1 :] for process in later)
            assert engines.answers(tally.settings["redis"]["url"])
            held[number].resume()
            _await_end(held[number])
        assert tally.process.wait(10) == 0
        assert processes_in(tmp_path) == []


def test_ctrl_c_which_reaches_every_process_stops_in_order_with_status_0(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        later = [psutil.Process(pid) for name, pid in tally.pids().items() if "-http-" not in name]
        (http,) = _members(tally, "customers-http-1")
        http.suspend()
        os.killpg(tally.process.pid, signal.SIGINT)
        eventually(lambda: "accounts-http-1" not in tally.pids())
        assert len(later) == 6
        assert all(map(alive, later))
        http.resume()
        assert tally.process.wait(10) == 0
        assert processes_in(tmp_path) == []
        assert "Traceback" not in tally.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, supervisor={"stop_timeout": 60}) as tally:
        (http,) = _members(tally, "accounts-http-1")
        http.suspend()
        tally.process.send_signal(number)
        eventually(lambda: "customers-http-1" not in tally.pids())
        assert tally.process.poll() is None
        tally.process.send_signal(number)
        tally.process.wait(2)
        eventually(lambda: not processes_in(tmp_path), 2)


def test_what_outlives_the_stop_timeout_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, supervisor={"stop_timeout": 1}) as tally:
        (http,) = _members(tally, "accounts-http-1")
        http.suspend()
        started = time.monotonic()
        assert tally.stop(10) == 0
        assert time.monotonic() - started >= 1
        assert processes_in(tmp_path) == []


def test_sigterm_before_everything_is_ready_stops_as_well(tmp_path: Path, redis_there: str) -> None:
    file = settings(tmp_path, redis={"url": redis_there, "embedded": "never"})
    with (tmp_path / "output.txt").open("w+") as output:
        arguments = [sys.executable, str(SUPERVISOR), "run", "--config", str(file)]
        process = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True)
        eventually(lambda: psutil.Process(process.pid).children())
        process.terminate()
        assert process.wait(10) == 0
    assert processes_in(tmp_path) == []
    assert "Traceback" not in (tmp_path / "output.txt").read_text()


def test_when_the_supervisor_is_killed_nothing_is_left_and_run_works_again_with_the_data_kept(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as tally, _client(tally) as client:
        account = tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
        customer = tally.customers.post("/customers", {"name": "John Adams", "account_id": account})
        invoice = {"customer_id": customer["id"], "purchase_date": "2019-01-06", "purchase_price_cents": 7}
        tally.customers.post("/invoices", invoice)
        eventually(tally.settled)
        seen = tally.customers.get("/customers"), tally.accounts.get("/accounts")
        entries = client.xrange("event-stream")
        _members(tally, "accounts-consumer-2")[0].suspend()  # a stopped process can't notice by itself
        assert len(processes_in(tmp_path)) == len(DEFAULT_ACTORS) + 3  # redis, its server, the supervisor

        tally.process.kill()
        tally.process.wait()
        eventually(lambda: not processes_in(tmp_path), 2)
        ports = tally.customers.port, tally.accounts.port, client.get_connection_kwargs()["port"]
        # The kernel closes a dying process's sockets a little after it forgets its working directory.
        eventually(lambda: all(map(is_free, ports)), 2)

        tally.start()
        assert (tally.customers.get("/customers"), tally.accounts.get("/accounts")) == seen
        assert client.xrange("event-stream") == entries
        tally.customers.post("/invoices", invoice)
        eventually(lambda: tally.accounts.get("/accounts")[0]["total_revenue_cents"] == 14)
        assert client.xlen("event-stream") == 4


# check


def _findings(done: "subprocess.CompletedProcess[str]") -> dict[str, bool]:
    """Each line, and whether it reports something good."""
    assert "Traceback" not in done.stderr
    words = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert {word for word, _ in words} <= {"good", "BAD"}
    return {line: word == "good" for word, line in words}


def _about(done: "subprocess.CompletedProcess[str]", subject: str) -> tuple[str, bool]:
    ((line, good),) = ((line, good) for line, good in _findings(done).items() if line.startswith(subject))
    return line, good


def test_check_finds_everything_good_on_a_machine_with_nothing_on_it(tmp_path: Path) -> None:
    file = settings(tmp_path)
    done = command("check", "--config", file)
    assert done.returncode == 0, done
    findings = _findings(done)
    assert all(findings.values())
    for subject in ("settings", "data directory", "customers port", "accounts port", "redis"):
        assert len([line for line in findings if line.startswith(subject)]) == 1, subject
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert {file.name for file in (tmp_path / "data").iterdir()} <= {"supervisor.lock"}
    assert processes_in(tmp_path) == []


def test_check_finds_a_redis_that_answers_good(tmp_path: Path, redis_there: str) -> None:
    done = command("check", "--config", settings(tmp_path, redis={"url": redis_there, "embedded": "never"}))
    assert done.returncode == 0, done
    line, good = _about(done, "redis")
    assert good
    assert re.search(r"version \d+\.\d+\.\d+", line)


def test_check_finds_a_tally_that_runs_good_and_says_which_process_it_is(at_work: Tally) -> None:
    done = command("check", "--config", at_work.directory / "tally.toml")
    assert done.returncode == 0, done
    line, good = _about(done, "supervisor")
    assert good
    assert re.search(rf"\b{at_work.process.pid}\b", line)
    assert all(_findings(done).values())


def test_check_finds_all_that_is_bad_in_one_go(tmp_path: Path, redis_there: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    _no_database(data / "customers.db")
    _of_another_program(data / "accounts.db")
    with (
        socket.create_server(("127.0.0.1", free_port())) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = one.getsockname()[1], two.getsockname()[1]
        file = settings(
            tmp_path,
            customers={"port": ports[0]},
            accounts={"port": ports[1]},
            redis={"url": redis_there, "embedded": "always"},
        )
        done = command("check", "--config", file)
    assert done.returncode == 1, done
    for subject, part in (
        ("customers.db", str(data / "customers.db")),
        ("accounts.db", str(data / "accounts.db")),
        ("customers port", str(ports[0])),
        ("accounts port", str(ports[1])),
        ("redis", "always"),
    ):
        line, good = _about(done, subject)
        assert not good, line
        assert part in line


def test_check_leaves_a_database_of_another_program_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "accounts.db"
    _of_another_program(file)
    before = file.read_bytes()
    done = command("check", "--config", settings(tmp_path))
    assert (done.returncode, _about(done, "accounts.db")[1]) == (1, False), done
    assert file.read_bytes() == before


def test_check_finds_a_redis_bad_that_is_to_be_there_and_does_not_answer(tmp_path: Path) -> None:
    file = settings(tmp_path, redis={"embedded": "never"})
    done = command("check", "--config", file)
    assert done.returncode == 1, done
    assert not _about(done, "redis")[1]
    assert all(good for line, good in _findings(done).items() if not line.startswith("redis"))


def test_check_finds_a_redis_bad_that_is_too_old(tmp_path: Path) -> None:
    with server_of_another_kind(cli.redis_of_version("6.0.16")) as port:
        done = command("check", "--config", settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"}))
    assert done.returncode == 1, done
    line, good = _about(done, "redis")
    assert not good
    assert "6.0.16" in line
    assert "6.2" in line


# run refuses the Redis that check finds bad, in the same words


def _both_refuse(file: Path, *parts: str) -> None:
    done = command("check", "--config", file)
    line, good = _about(done, "redis")
    assert (done.returncode, good) == (1, False), done
    _refused(command("run", "--config", file), *parts, line.partition(": ")[2])


def test_run_refuses_a_redis_that_is_too_old(tmp_path: Path) -> None:
    with server_of_another_kind(cli.redis_of_version("5.0.14")) as port:
        url = f"redis://127.0.0.1:{port}/0"
        _both_refuse(settings(tmp_path, redis={"url": url}), url, "5.0.14", "6.2 or newer")


def test_run_refuses_a_redis_whose_clock_is_off(tmp_path: Path) -> None:
    with server_of_another_kind(cli.redis_of_version("7.0.15", clock_off=3600)) as port:
        file = settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"})
        assert not _about(command("check", "--config", file), "redis")[1]
        _refused(command("run", "--config", file), "its clock is 3", "s off this machine's")


def test_run_refuses_a_redis_that_may_evict_the_stream(tmp_path: Path, redis_there: str) -> None:
    with redis.Redis.from_url(redis_there) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            _both_refuse(settings(tmp_path, redis={"url": redis_there}), "allkeys-lru", "noeviction")
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_run_refuses_a_redis_that_refuses_the_password(tmp_path: Path, redis_there: str) -> None:
    url = redis_there.replace("://", f"://:{SECRET}@")
    file = settings(tmp_path, redis={"url": url, "embedded": "never"})
    _both_refuse(file, "it refuses")
    assert SECRET not in command("run", "--config", file).stderr


def test_run_refuses_the_private_redis_of_another_tally_and_says_what_to_set(
    tmp_path: Path, at_work: Tally
) -> None:
    url = at_work.settings["redis"]["url"]
    _both_refuse(
        settings(tmp_path, redis={"url": url}), url, "private Redis of another Tally", "another port"
    )


def test_run_refuses_a_replica_and_names_its_primary(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    primary, replica = (RedisProcess(tmp_path_factory.mktemp(name)) for name in ("primary", "replica"))
    try:
        primary.start()
        replica.start("--replicaof", "127.0.0.1", str(primary.port))
        eventually(lambda: replica.client.info("replication")["master_link_status"] == "up")
        file = settings(tmp_path, redis={"url": replica.url})
        _both_refuse(
            file,
            f"it is a replica, which takes no writes: set redis.url to its primary, 127.0.0.1:{primary.port}",
        )
    finally:
        primary.kill()
        replica.kill()


def test_run_refuses_a_node_of_a_cluster_that_keeps_the_stream_elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nodes = [RedisProcess(tmp_path_factory.mktemp(name)) for name in ("one", "other")]
    try:
        buses = [free_port(), free_port()]
        for node, bus in zip(nodes, buses, strict=True):
            node.start("--cluster-enabled", "yes", "--cluster-port", str(bus))
        clients: list[Any] = [node.client for node in nodes]
        one, other = clients
        one.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        one.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port, buses[1])
        eventually(lambda: other.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        _both_refuse(
            settings(tmp_path, redis={"url": nodes[1].url}),
            f"its cluster keeps event-stream at 127.0.0.1:{nodes[0].port}: set redis.url to "
            f"redis+cluster://127.0.0.1:{nodes[0].port}, which finds it",
        )
        found = command("check", "--config", settings(tmp_path, redis={"url": nodes[0].url}))
        assert found.returncode == 0, found
        assert f"redis+cluster://127.0.0.1:{nodes[0].port} finds the one that has the stream" in found.stdout
    finally:
        for node in nodes:
            node.kill()


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        (["~event-stream", "~{event-stream}:*", *RIGHTS.split()], ""),
        (["~event-stream", "~{event-stream}:*", *RIGHTS.split(), "-hset", "-xgroup"], "XGROUP CREATE"),
        (
            ["~event-stream", "~{event-stream}:*", *RIGHTS.split(), "-hset"],
            "rights are missing: HSET on {event-stream}:check. Give",
        ),
        (["~event-stream", *RIGHTS.split()], "XADD on {event-stream}:check"),
        (["~event-stream", "~{event-stream}:*", *RIGHTS.split(), "-evalsha"], "the right to run scripts"),
    ],
)
def test_run_refuses_a_redis_without_a_right_and_names_it(
    tmp_path: Path, redis_url: str, rights: list[str], told: str
) -> None:
    client: Any = redis.Redis.from_url(redis_url)
    client.execute_command("ACL", "SETUSER", "tally-test", "reset", "on", f">{SECRET}", *rights)
    try:
        url = redis_url.replace("://", f"://tally-test:{SECRET}@")
        file = settings(tmp_path, redis={"url": url, "embedded": "never"})
        if told:
            _both_refuse(file, told)
        else:
            assert command("check", "--config", file).returncode == 0
        assert not client.exists("event-stream", "{event-stream}:check")
    finally:
        client.execute_command("ACL", "DELUSER", "tally-test")


def test_check_tells_of_a_redis_that_keeps_nothing_on_the_disk(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    try:
        server.start("--appendonly", "no")
        done = command("check", "--config", settings(tmp_path, redis={"url": server.url}))
        line, good = _about(done, "redis")
        assert (done.returncode, good, "appendonly is off" in line) == (0, True, True), done
    finally:
        server.kill()


def test_run_and_check_wait_for_the_replicas_that_redis_itself_asks_for(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    try:
        server.start("--min-replicas-to-write", "1")
        sections = {"redis": {"url": server.url, "embedded": "never"}}
        done = command("check", "--config", settings(tmp_path, **sections))
        line, good = _about(done, "redis")
        assert (done.returncode, good, "min-replicas-to-write" in line) == (0, True, True), done
        tally = prepared(tmp_path / "tally", redis_url=server.url)
        try:
            tally.launch()
            eventually(lambda: "min-replicas-to-write" in tally.said())
            server.client.config_set("min-replicas-to-write", 0)
            tally.gets_ready()
        finally:
            tally.end()
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ssl_cert_file=x", "found the option 'ssl_cert_file', which redis-py doesn't know"),
        ("ssl_ca_certs=/nowhere/ca.pem", "found ssl_ca_certs=/nowhere/ca.pem, expected a file that is there"),
    ],
)
def test_a_url_s_wrong_options_are_named_and_no_password_is(tmp_path: Path, options: str, told: str) -> None:
    file = settings(tmp_path, redis={"url": f"rediss://u:{SECRET}@127.0.0.1:1/0?{options}"})
    done = command("check", "--config", file)
    assert (done.returncode, told in done.stderr, SECRET in done.stderr) == (2, True, False), done


@pytest.mark.parametrize("version", ["", "abc.def", "7\x1b[31m", "\u00e9"])
def test_run_refuses_what_answers_as_no_redis_does(tmp_path: Path, version: str) -> None:
    with server_of_another_kind(cli.redis_of_version(version)) as port:
        _both_refuse(settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"}), "as no Redis does")


@pytest.mark.parametrize("version", ["6.2.0", "10.0.0"])
def test_check_finds_a_redis_of_that_age_good(tmp_path: Path, version: str) -> None:
    with server_of_another_kind(cli.redis_of_version(version)) as port:
        done = command("check", "--config", settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"}))
    assert (done.returncode, _about(done, "redis")[1]) == (0, True), done


@pytest.mark.parametrize("talk", [cli.says_nothing, cli.speaks_ssh], ids=lambda talk: talk.__name__)
def test_check_finds_another_server_on_the_redis_port_bad(tmp_path: Path, talk: cli.Conversation) -> None:
    with server_of_another_kind(talk) as port:
        file = settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"})
        done = command("check", "--config", file)
    assert done.returncode == 1, done
    line, good = _about(done, "redis")
    assert not good
    assert str(port) in line


@pytest.mark.parametrize("url", ["redis://:{}@127.0.0.1:{}/0", "redis://127.0.0.1:{1}/0?password={0}"])
def test_check_finds_a_password_bad_that_redis_refuses_and_does_not_show_it(
    tmp_path: Path, redis_there: str, url: str
) -> None:
    port = redis_there.rpartition(":")[2].removesuffix("/0")
    file = settings(tmp_path, redis={"url": url.format(SECRET, port), "embedded": "never"})
    done = command("check", "--config", file)
    assert done.returncode == 1, done
    assert not _about(done, "redis")[1]
    assert SECRET not in done.stdout + done.stderr


# Help and usage


def test_help_names_the_commands() -> None:
    for option in ("--help", "-h"):
        done = command(option)
        assert done.returncode == 0
        assert re.search(r"^\s+run\s", done.stdout, re.MULTILINE)
        assert re.search(r"^\s+check\s", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["run", "check"])
def test_help_of_a_command_shows_its_options_and_an_example(name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert "--config" in done.stdout
    assert f"Example: python supervisor.py {name}" in done.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["run", "--nonsense"], ["run", "--only", "nonsense"]])
def test_wrong_usage_has_status_2(tmp_path: Path, arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_once_installed_tally_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("tally")
    if not script.exists():
        pytest.skip("not installed")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == command("--version").stdout
