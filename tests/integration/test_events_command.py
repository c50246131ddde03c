"""`events`: the stream as people and programs see it, while it grows and while Redis is away."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command, settings
from support.disks import unavailable
from support.program import SUPERVISOR
from support.redis_process import RedisProcess
from support.terminal import on_terminal
from support.waiting import eventually
from tally.store.accounts import open_database

PAYLOAD = '{"id":"1","account_id":"1","name":"John Adams","created_date":"2019-01-06T12:00:00Z"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis for all tests here. It is empty when a test begins."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(server: RedisProcess) -> redis.Redis:
    server.client.flushall()
    return server.client


@pytest.fixture
def config(server: RedisProcess, client: redis.Redis, tmp_path: Path) -> Path:
    return settings(tmp_path, redis={"url": server.url, "embedded": "never"})


def _add(client: redis.Redis, id: str = "*", type: str = "CustomerCreated", payload: Any = PAYLOAD) -> str:
    added: Any = client.xadd("event-stream", {"EventTypeName": type, "Payload": payload}, id)
    return str(added.decode())


def _events(config: Path, *options: str) -> list[str]:
    done = command("events", "--config", config, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class Following:
    """A running `events --follow`, and the lines that it has printed."""

    def __init__(self, config: Path, directory: Path, *options: str) -> None:
        self.out, self.err = directory / "out.txt", directory / "err.txt"
        arguments = [sys.executable, str(SUPERVISOR), "events", "--config", str(config), "--follow", *options]
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(arguments, stdout=out, stderr=err)

    def ids(self) -> list[str]:
        return [line.split()[0] for line in self.out.read_text().splitlines()]

    def told(self) -> list[str]:
        return self.err.read_text().splitlines()


@contextmanager
def _following(config: Path, directory: Path, *options: str) -> Iterator[Following]:
    following = Following(config, directory, *options)
    try:
        yield following
    finally:
        following.process.kill()
        following.process.wait()


def test_each_event_is_a_line_with_id_time_type_and_payload(config: Path, client: redis.Redis) -> None:
    _add(client, "1553318690326-0")
    _add(client, "1553318690326-1", "AccountDeleted", '{"id":"1"}')
    assert _events(config) == [
        f"1553318690326-0  2019-03-23T05:24:50.326Z  CustomerCreated  {PAYLOAD}",
        '1553318690326-1  2019-03-23T05:24:50.326Z  AccountDeleted   {"id":"1"}',
    ]


def test_a_stream_that_is_not_there_has_no_events(config: Path) -> None:
    assert _events(config) == []


def test_every_event_is_printed_once_and_it_ends_at_the_end(config: Path, client: redis.Redis) -> None:
    ids = [_add(client) for _ in range(1000)]
    assert [line.split()[0] for line in _events(config)] == ids


def test_from_begins_with_that_id(config: Path, client: redis.Redis) -> None:
    ids = [_add(client, id) for id in ("5-0", "5-1", "6-0", "6-7")]
    for start, expected in (("0", ids), ("5-1", ids[1:]), ("6", ids[2:]), ("5-2", ids[2:]), ("7", [])):
        assert [line.split()[0] for line in _events(config, "--from", start)] == expected, start


def test_types_may_be_chosen_and_one_that_does_not_exist_is_wrong_usage(
    config: Path, client: redis.Redis
) -> None:
    for type in ("CustomerCreated", "InvoiceCreated", "AccountCreated", "InvoiceCreated", "Other"):
        _add(client, type=type)
    chosen = _events(config, "--type", "InvoiceCreated", "--type", "AccountCreated")
    assert [line.split()[2] for line in chosen] == ["InvoiceCreated", "AccountCreated", "InvoiceCreated"]
    assert command("events", "--config", config, "--type", "Invoice").returncode == 2


def test_since_begins_so_long_ago_by_the_clock_of_redis(config: Path, client: redis.Redis) -> None:
    now = client.time()[0]
    ids = [_add(client, f"{(now - ago) * 1000}-0") for ago in (7 * 86400, 7300, 3500, 300)]
    for since, expected in (("8d", ids), ("2h", ids[2:]), ("1h30m", ids[2:]), ("10m", ids[3:]), ("0s", [])):
        assert [line.split()[0] for line in _events(config, "--since", since)] == expected, since
    for wrong in ("", "10", "m", "10x", "1m1h", "-1m"):
        done = command("events", "--config", config, f"--since={wrong}")
        assert (done.returncode, "such as 10m" in done.stderr) == (2, True), wrong
    done = command("events", "--config", config, "--since", "1m", "--from", "0")
    assert (done.returncode, "not both" in done.stderr) == (2, True)


def test_a_customer_and_an_account_may_be_chosen(config: Path, client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with closing(open_database(tmp_path / "data")) as database, database.transaction():
        database.execute("INSERT INTO customer (id, account_id) VALUES (8, 1)")  # older than the stream
    _add(client, "1-0", "AccountCreated", '{"id":"1"}')
    _add(client, "2-0", "CustomerCreated", '{"id":"1","account_id":"2"}')
    _add(client, "3-0", "CustomerCreated", '{"id":"7","account_id":"1"}')
    _add(client, "4-0", "InvoiceCreated", '{"id":"1","customer_id":"7"}')
    _add(client, "5-0", "InvoiceCreated", '{"id":"7","customer_id":"8"}')
    _add(client, "6-0", "InvoiceCreated", '{"id":"2","customer_id":"1"}')
    _add(client, "7-0", "InvoiceCreated", "broken")
    _add(client, "8-0", "InvoiceCreated", '{"id":"1","customer_id":"\N{SUPERSCRIPT TWO}"}')

    def chosen(*options: str) -> str:
        return "".join(line[0] for line in _events(config, *options))

    assert chosen("--customer", "7") == "34"
    assert chosen("--account", "1") == "1345"
    assert chosen("--account", "1", "--customer", "7", "--type", "InvoiceCreated") == "4"
    assert command("events", "--config", config, "--customer", "x").returncode == 2


def test_where_accounts_db_can_not_be_read_the_account_is_known_by_the_stream(
    config: Path, client: redis.Redis
) -> None:
    _add(client, "3-0", "CustomerCreated", '{"id":"7","account_id":"1"}')
    _add(client, "4-0", "InvoiceCreated", '{"id":"1","customer_id":"7"}')
    done = command("events", "--config", config, "--account", "1")
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)
    assert "the stream alone tells whose invoices" in done.stderr


def test_json_has_every_field_and_what_is_json_stays_as_it_is(config: Path, client: redis.Redis) -> None:
    fields: dict[Any, Any] = {
        "EventTypeName": "InvoiceCreated",
        "Payload": '{"id": "1",\n "cents": 12345678901234567890, "x": 1.10}',
        "EventId": "customers@4f2a9c1e:42",
        "Odd": b"\xff\n{",
    }
    client.xadd("event-stream", fields, "7-0")
    (line,) = _events(config, "--json")
    assert '"cents":12345678901234567890,"x":1.10' in line
    assert json.loads(line) == {
        "id": "7-0",
        "EventTypeName": "InvoiceCreated",
        "Payload": {"id": "1", "cents": 12345678901234567890, "x": 1.1},
        "EventId": "customers@4f2a9c1e:42",
        "Odd": "\\xff\n{",
    }


@pytest.mark.parametrize("payload", ["", "{", "[1]", "1", b"{\xff}", b'{"a": "\xff"}'])
def test_json_shows_what_is_no_json_object_as_text(
    config: Path, client: redis.Redis, payload: str | bytes
) -> None:
    _add(client, payload=payload)
    (line,) = _events(config, "--json")
    assert isinstance(json.loads(line)["Payload"], str)


def test_what_others_put_there_can_not_order_the_terminal_about(config: Path, client: redis.Redis) -> None:
    client.xadd("event-stream", {"EventTypeName": "\x1b[2J", "Payload": b"a\n\x07\xff"}, "8-0")
    client.xadd("event-stream", {"Some": "thing"}, f"{2**64 - 1}-0")
    assert [line.split() for line in _events(config)] == [
        ["8-0", "1970-01-01T00:00:00.008Z", "\\x1b[2J", "a\\n\\x07\\xff"],
        [f"{2**64 - 1}-0", "?", "?", "?"],
    ]


def test_on_a_terminal_lines_are_cut_to_its_width(config: Path, client: redis.Redis) -> None:
    _add(client)
    status, shown = on_terminal("events", "--config", config, columns=70)
    (line,) = shown.splitlines()
    assert (status, len(line), line[-1]) == (0, 70, "…")


@pytest.mark.parametrize("id", ["x", "1-", "-1", "1-0-0", "+", "", f"{2**64}", f"1-{2**64}"])
def test_what_is_no_id_is_wrong_usage(config: Path, id: str) -> None:
    done = command("events", "--config", config, f"--from={id}")
    assert (done.returncode, "Expected the id of an event" in done.stderr) == (2, True)


def test_without_redis_it_fails_in_one_line(tmp_path: Path) -> None:
    done = command("events", "--config", settings(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("tally: Redis at redis://127.0.0.1:")


def test_a_key_that_is_no_stream_is_told_in_one_line_also_when_following(
    config: Path, client: redis.Redis
) -> None:
    client.set("event-stream", "text")
    for options in ([], ["--follow"]):
        done = command("events", "--config", config, *options)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "WRONGTYPE" in line


def test_a_reader_that_goes_ends_it_quietly(config: Path, client: redis.Redis) -> None:
    with client.pipeline() as many:
        for _ in range(5000):
            many.xadd("event-stream", {"EventTypeName": "CustomerCreated", "Payload": PAYLOAD})
        many.execute()
    arguments = [sys.executable, str(SUPERVISOR), "events", "--config", str(config), "--follow"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (0, b"")


def test_following_prints_what_comes_and_joins_no_group_and_ctrl_c_ends_it_with_status_0(
    config: Path, client: redis.Redis, tmp_path: Path
) -> None:
    ids = [_add(client)]
    with _following(config, tmp_path, "--type", "CustomerCreated") as following:
        eventually(lambda: following.ids() == ids)
        _add(client, type="InvoiceCreated")
        ids += [_add(client) for _ in range(3)]
        eventually(lambda: following.ids() == ids)
        assert client.xinfo_groups("event-stream") == []
        following.process.send_signal(signal.SIGINT)
        assert (following.process.wait(20), following.told()) == (0, [])


def test_following_from_the_end_prints_only_what_comes(
    config: Path, client: redis.Redis, tmp_path: Path
) -> None:
    before = [_add(client) for _ in range(3)]
    with _following(config, tmp_path, "--from", "$") as following:
        ids: list[str] = []

        def sees_new_ones() -> bool:
            ids.append(_add(client))
            return bool(following.ids())

        eventually(sees_new_ones)
        eventually(lambda: following.ids()[-1] == ids[-1])
        seen = following.ids()
        assert seen == ids[-len(seen) :]
        assert not set(seen) & set(before)


def test_following_survives_redis_going_away_and_says_so_once(
    config: Path, client: redis.Redis, server: RedisProcess, tmp_path: Path
) -> None:
    ids = [_add(client)]
    with _following(config, tmp_path) as following:
        eventually(lambda: following.ids() == ids)
        server.kill()
        eventually(following.told)
        server.start()
        ids.append(_add(client))
        eventually(lambda: following.ids() == ids)
        eventually(lambda: len(following.told()) == 2)
        away, back = following.told()
        assert away.startswith("tally: Redis does not answer, waiting for it: ")
        assert back == "tally: Redis answers again"
        client.delete("event-stream")
        ids.append(_add(client))
        eventually(lambda: following.ids() == ids)


def test_raw_shows_every_field_as_redis_cli_does(
    config: Path, client: redis.Redis, server: RedisProcess
) -> None:
    """The entries of the seed's session, and characters that redis-cli escapes."""
    _add(client, "1553318690326-0", payload='{"id":"7","name":"Martin North 4"}')
    strange = {
        b"EventTypeName": b"Odd",
        b"Payload": b'\x00\xff\xc3\xa9 "\\\n\r\t\a\b~',
        b"EventId": b"shop:1",
        b"": b"",
    }
    client.xadd("event-stream", dict(strange), "1553318690326-1")  # type: ignore[arg-type]
    client.xadd("event-stream", {f"field {number}": number for number in range(7)}, "1553318690327-0")
    shown = _events(config, "--raw")
    assert shown[:5] == [
        '1) 1) "1553318690326-0"',
        '   2) 1) "EventTypeName"',
        '      2) "CustomerCreated"',
        '      3) "Payload"',
        r'      4) "{\"id\":\"7\",\"name\":\"Martin North 4\"}"',
    ]
    redis_cli = shutil.which("redis-cli")
    if redis_cli is None:
        unavailable("redis-cli", "no such program (Debian: redis-tools)")
    told = [redis_cli, "-p", str(server.port), "--no-raw", "XRANGE", "event-stream", "-", "+"]
    assert shown == subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()


def test_of_two_forms_the_last_one_counts(config: Path, client: redis.Redis) -> None:
    _add(client)
    assert _events(config, "--json", "--raw") == _events(config, "--raw")
    assert _events(config, "--raw", "--json") == _events(config, "--json")
