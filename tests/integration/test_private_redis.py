"""The private Redis serves only Tally, even when another user of the machine attacks it."""

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psutil
import pytest
import redis

from support import servers
from support.cli import command, is_free, server_of_another_kind, settings
from support.engines import free_port
from support.tally import Tally, running
from support.unprivileged import as_nobody
from support.waiting import eventually
from tally.actors.redis_access import PASSWORD
from tally.actors.redis_binaries import bundled
from tally.store.stream import connect

FOR_NOBODY = [
    # Writing files and loading code as Tally's user, which used to be possible.
    "CONFIG SET dir /tmp",
    "CONFIG SET dbfilename x",
    "CONFIG GET dir",
    "CONFIG REWRITE",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "MODULE LOAD /tmp/x.so",
    "MODULE LOADEX /tmp/x.so",
    "MODULE LIST",
    "DEBUG SLEEP 0",
    "DEBUG RELOAD",
    # Taking data away or bringing it in.
    "REPLICAOF 127.0.0.1 1",
    "SLAVEOF 127.0.0.1 1",
    "FAILOVER",
    "MIGRATE 127.0.0.1 1 event-stream 0 10",
    "SYNC",
    "PSYNC ? -1",
    "MONITOR",
    "SHUTDOWN NOSAVE",
    # Rights, and other clients.
    "ACL SETUSER default allcommands",
    "ACL LIST",
    "ACL GETUSER tally",
    "ACL SAVE",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1000",
    "CLIENT NO-EVICT on",
    # Programs in the server; their sandbox had holes.
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "KEYS *",
    "SCAN 0",
    "DUMP event-stream",
    "DEL event-stream",
    "RENAME event-stream x",
    "LATENCY DOCTOR",
    "SLOWLOG GET",
    "MEMORY DOCTOR",
]
_NO_RIGHT = re.compile("NOPERM|no permission", re.IGNORECASE)

BESIDE = [  # a key of the wrong type would stop Tally's scripts, and nobody could remove it
    f"XADD {{event-stream}}:{name} * a b"
    for name in ("published", "marks", "trimmed", "successors", "dead", "redrive:accounts@4cc9167c", "new")
] + ["XSETID event-stream 18446744073709551615-18446744073709551615"]

FOR_OTHERS = [
    "EVAL return{1} 0",
    "EVALSHA 0 0",
    "INFO",
    "HGETALL {event-stream}:published",
    "XADD other * a b",
]


class Attacked(NamedTuple):
    """A Tally below folders that everybody may enter, and the port of its Redis."""

    tally: Tally
    port: int

    @property
    def data(self) -> Path:
        """The data directory of the private Redis."""
        return self.tally.directory / "data" / "redis"

    def says(self, command: str, *before: str) -> str:
        """The first line of Redis's answer to a command, after others on the same connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            lines = connection.makefile("rb")
            answer = b""
            for each in (*before, command):
                connection.sendall(each.encode() + b"\r\n")
                answer = lines.readline()
            return answer.decode().strip()


@pytest.fixture(scope="module", params=servers.NAMES)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tally-attacked-")))
        directory.chmod(0o755)
        with servers.only(request.param, tmp_path_factory.mktemp("hidden")):  # only while it starts
            tally = stack.enter_context(running(directory))
        assert servers.is_named(request.param, tally.said())
        port = int(tally.settings["redis"]["url"].rpartition(":")[2].removesuffix("/0"))
        yield Attacked(tally, port)


def test_another_user_can_read_and_publish_as_the_seed_s_session_does(attacked: Attacked) -> None:
    account = attacked.tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
    customer = attacked.tally.customers.post("/customers", {"name": "John", "account_id": account})["id"]
    eventually(attacked.tally.settled)
    assert as_nobody(lambda: attacked.says("PING")) == "+PONG"
    assert as_nobody(lambda: attacked.says("XREAD STREAMS event-stream 0")) == "*1"
    payload = (
        f'{{"id":"9","customer_id":"{customer}","purchase_price_cents":8000,'
        '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-09"}'
    )
    added = f"XADD event-stream * EventTypeName InvoiceCreated Payload '{payload}'"
    assert as_nobody(lambda: attacked.says(added)).startswith("$")
    shown = f"/accounts/{account}"
    eventually(lambda: attacked.tally.accounts.get(shown)["total_revenue_cents"] == 8000)


def test_another_user_has_no_right_to_anything_but_the_stream(attacked: Attacked) -> None:
    before = _files(attacked.data)
    for order in (*FOR_NOBODY, *FOR_OTHERS, *BESIDE):
        assert _is_refused(as_nobody(lambda order=order: attacked.says(order))), order  # type: ignore[misc]
    assert _files(attacked.data) == before
    assert attacked.tally.accounts.get("/status")["status"] == "ok"


def test_nobody_has_rights_that_tally_itself_does_not_need(attacked: Attacked) -> None:
    password = PASSWORD.load(attacked.data).decode()
    for order in FOR_NOBODY:
        assert _is_refused(attacked.says(order, f"AUTH tally {password}")), order
    assert attacked.says("INFO", f"AUTH tally {password}").startswith("$")


def test_another_user_reaches_neither_the_socket_nor_the_password(attacked: Attacked) -> None:
    for folder in (attacked.data, attacked.data.parent):
        with pytest.raises(PermissionError):
            as_nobody(lambda folder=folder: os.listdir(folder))  # type: ignore[misc]
    with pytest.raises(PermissionError):
        as_nobody(lambda: socket.socket(socket.AF_UNIX).connect(str(attacked.data / "redis.sock")))
    with pytest.raises(PermissionError):
        as_nobody(lambda: PASSWORD.load(attacked.data))
    assert as_nobody(lambda: attacked.says("AUTH tally guessed")).startswith("-WRONGPASS")


def test_each_of_the_two_files_is_its_owner_s_alone_even_where_the_folder_is_open(attacked: Attacked) -> None:
    folders = (attacked.data.parent, attacked.data)
    try:
        for folder in folders:
            folder.chmod(0o755)
        with pytest.raises(PermissionError):
            as_nobody(lambda: socket.socket(socket.AF_UNIX).connect(str(attacked.data / "redis.sock")))
        with pytest.raises(PermissionError):
            as_nobody(lambda: (attacked.data / PASSWORD.name).read_bytes())
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_every_database_of_the_server_has_the_same_rights(attacked: Attacked) -> None:
    assert as_nobody(lambda: attacked.says("XLEN event-stream", "SELECT 3")) == ":0"
    assert _is_refused(as_nobody(lambda: attacked.says("FLUSHDB", "SELECT 3")))


def test_tally_s_own_processes_come_by_the_socket(attacked: Attacked) -> None:
    with connect(attacked.tally.redis_url) as client:
        clients = client.info("clients")
    assert attacked.tally.redis_url.startswith("unix://tally:")
    assert isinstance(clients, dict)
    assert clients["connected_clients"] > 1


def test_a_password_in_the_url_is_for_other_programs_and_lets_nobody_in_without(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        port = tally.settings["redis"]["url"].rpartition(":")[2]
    with running(tmp_path, redis={"url": f"redis://:secret@127.0.0.1:{port}"}) as tally:
        with (
            redis.Redis.from_url(f"redis://127.0.0.1:{port}") as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.xlen("event-stream")
        with redis.Redis.from_url(tally.settings["redis"]["url"]) as friend:
            assert friend.xlen("event-stream") == 0
            with pytest.raises(redis.ResponseError, match=_NO_RIGHT):
                friend.config_get("dir")


@pytest.mark.parametrize("stream", ["event stream", "a*b?c[d]\\e", "überweisung\u00a0*", "^-"])
def test_a_stream_of_any_name_is_served_and_no_other(tmp_path: Path, stream: str) -> None:
    with running(tmp_path, redis={"stream": stream}) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(tally.settled)
        with redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
            assert client.xlen(stream) == 1
            with pytest.raises(redis.ResponseError, match=_NO_RIGHT):
                client.xlen(f"x{stream}")
            with pytest.raises(redis.ResponseError, match=_NO_RIGHT):
                client.xlen("aXXbYc")


def test_whoever_takes_the_port_meanwhile_is_told_no_password(tmp_path: Path) -> None:
    heard = []

    def squat(words: BinaryIO, answers: BinaryIO) -> None:
        for line in words:
            heard.append(line)
            answers.write(b"-ERR no\r\n")

    port = free_port()
    url = f"redis://:topsecret@127.0.0.1:{port}/0"
    patient = {"heartbeat_timeout": 60}  # because the actor is suspended below
    with running(tmp_path, redis={"url": url}, supervisor=patient) as tally:
        (server,) = psutil.Process(tally.pids()["redis"]).children()
        actor = psutil.Process(tally.pids()["redis"])
        actor.suspend()  # so that the port stays free for long enough
        server.kill()
        eventually(lambda: is_free(port))
        with server_of_another_kind(squat, port):
            for command_line in (["status"], ["events"], ["check"], ["dead-letters", "list"]):
                command(*command_line, "--config", tmp_path / "tally.toml")
            actor.resume()
            eventually(lambda: "redis-server ended" in tally.said() or "redis" not in tally.pids())
            eventually(lambda: tally.said().count("actor_ended") >= 2)
        assert not any(b"topsecret" in line or b"AUTH" in line for line in heard)
        eventually(lambda: tally.accounts.get("/status")["status"] == "ok")


def test_what_is_removed_while_it_runs_comes_again(tmp_path: Path) -> None:
    data = tmp_path / "data" / "redis"
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(tally.settled)
        (data / "redis.sock").unlink()
        eventually(lambda: (data / "redis.sock").exists())
        data.rename(tmp_path / "aside")
        (server,) = psutil.Process(tally.pids()["redis"]).children()
        server.kill()
        eventually(lambda: (data / PASSWORD.name).exists())
        eventually(lambda: tally.settled() and tally.accounts.get("/status")["status"] == "ok")
        with connect(tally.redis_url) as client:
            eventually(lambda: client.xlen("event-stream") == 1)


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        (f"redis/{PASSWORD.name}", b"x" * 64, 0o644),
        (f"redis/{PASSWORD.name}", b"short", 0o600),
        (f"redis/{PASSWORD.name}", bytes(range(128, 192)), 0o600),
        ("redis/written-by", None, 0o700),
        ("redis", b"a file", 0o600),
    ],
    ids=["others may read it", "too short", "no text", "a directory", "no directory"],
)
def test_files_that_are_not_as_they_should_be_are_told_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, mode: int
) -> None:
    file = settings(tmp_path)
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        path.chmod(mode)
    done = command("run", "--config", file)
    assert done.returncode == 1, done
    assert str(path) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    if content is not None:
        assert command("check", "--config", file).returncode == 1


def test_a_password_of_any_characters_that_a_url_has_a_use_for_serves(tmp_path: Path) -> None:
    file = tmp_path / "data" / "redis" / PASSWORD.name
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text("/:%@?#" * 10)
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(tally.settled)


def test_a_server_behind_a_script_that_waits_for_it_is_ended_too(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "redis-server"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=99.0.0" && exit\n{bundled()} "$@"\n'
    )
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        with running(tmp_path) as tally:
            assert "redis 99.0.0" in tally.said()
            assert tally.stop() == 0
            port = int(tally.settings["redis"]["url"].rpartition(":")[2].removesuffix("/0"))
            eventually(lambda: is_free(port))


def test_an_older_server_is_not_started_on_a_newer_one_s_data_and_what_is_told_to_do_helps(
    tmp_path: Path,
) -> None:
    """Redis 6.2 would start empty on it, without an error."""
    file, data = tmp_path / "tally.toml", tmp_path / "data" / "redis"
    with servers.only("redis-8.10", tmp_path / "hidden"), running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
        customer = tally.customers.post("/customers", {"name": "John", "account_id": account})["id"]
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 7}
        tally.customers.post("/invoices", invoice)
        eventually(tally.settled)
        sections: dict[str, Any] = {**tally.settings}
        assert tally.stop() == 0
    with servers.only("redis-6.2", tmp_path / "hidden"):
        before = _files(data)
        for name in ("check", "run"):
            done = command(name, "--config", file)
            assert done.returncode == 1, done
            assert "redis 8.10" in done.stdout + done.stderr
            (advice,) = re.findall(r"`(mv [^`]+)`", done.stdout + done.stderr)
        assert _files(data) == before
        subprocess.run(["/bin/sh", "-c", advice], check=True, env={"PATH": "/bin"})
        with running(tmp_path, **sections) as tally, connect(tally.redis_url) as client:
            eventually(tally.settled)
            eventually(lambda: client.xlen("event-stream") == 3)
            assert tally.accounts.get("/accounts")[0]["total_revenue_cents"] == 7


def _is_refused(answer: str) -> bool:
    """Refused by the rights or the configuration, or because the release doesn't know the command."""
    return bool(
        re.match(r"-NOPERM |-ERR \w+ command not allowed|-ERR unknown (sub)?command", answer, re.IGNORECASE)
    )


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}
