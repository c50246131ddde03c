"""`groups` shows who reads the stream, and removes a group when told to."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command, settings
from support.redis_process import RedisProcess
from support.tally import running
from support.waiting import eventually
from tally.store.groups import Groups
from tally.store.stream import EventStream


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(server: RedisProcess) -> redis.Redis:
    """A stream of five entries. One group has read two and has one of them pending; one has read none."""
    client = server.client
    client.flushall()
    for n in range(5):
        client.xadd("event-stream", {"n": n}, id=f"{1553318690326 + n}-0")
    client.xgroup_create("event-stream", "accounts@0000000a", id="0")
    client.xreadgroup("accounts@0000000a", "c", {"event-stream": ">"}, count=2)
    client.xack("event-stream", "accounts@0000000a", "1553318690326-0")
    client.xgroup_create("event-stream", "report\x1b[31m", id="0")
    return client


@pytest.fixture
def config(server: RedisProcess, client: redis.Redis, tmp_path: Path) -> Path:
    return settings(tmp_path, redis={"url": server.url, "embedded": "never"})


def test_the_list_tells_of_each_group_whose_it_is_and_how_far_it_is(
    config: Path, client: redis.Redis
) -> None:
    client.hset("{event-stream}:holding", "accounts@0000000a", "1553318690327-0")
    client.hset("{event-stream}:overtaken", "report\x1b[31m", 7)
    done = command("groups", "list", "--json", "--config", config)
    ours, theirs = map(json.loads, done.stdout.splitlines())
    assert ours.pop("idle s") >= 0
    assert ours == {
        "group": "accounts@0000000a",
        "of": "Tally",
        "read up to": "2019-03-23T05:24:50.327Z",
        "in hand": 1,
        "not read": 3,
        "beyond the retention": "entries are kept for it",
    }
    assert (theirs["of"], theirs["read up to"], theirs["not read"]) == ("another program", None, 5)
    assert (theirs["idle s"], theirs["beyond the retention"]) == (None, "7 removed unread")


def test_the_table_shows_no_order_to_a_terminal(config: Path) -> None:
    done = command("groups", "list", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accounts@0000000a" in done.stdout
    assert "\x1b" not in done.stdout


def test_without_a_stream_nobody_reads_it(config: Path, client: redis.Redis) -> None:
    client.flushall()
    assert command("groups", "list", "--config", config).stdout == "nobody reads the stream yet\n"


def test_a_group_is_removed_only_when_that_is_confirmed(config: Path, client: redis.Redis) -> None:
    arguments = ("groups", "remove", "accounts@0000000a", "--config", config)
    done = command(*arguments)
    assert done.returncode == 1
    assert "1 entries in hand and 3 that it has not read" in done.stderr
    assert len(client.xinfo_groups("event-stream")) == 2
    done = command(*arguments, "--yes")
    assert (done.returncode, done.stdout) == (0, "removed accounts@0000000a\n")
    assert [group["name"] for group in client.xinfo_groups("event-stream")] == [b"report\x1b[31m"]
    assert client.xlen("event-stream") == 5


def test_a_group_that_is_not_there_is_told(config: Path) -> None:
    done = command("groups", "remove", "nobody", "--yes", "--config", config)
    assert done.returncode == 1
    assert "there is no group nobody" in done.stderr


def test_a_group_is_removed_from_the_private_redis_with_the_few_rights_that_there_are(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        own = redis.Redis.from_url(tally.redis_url)
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        eventually(lambda: own.xlen("event-stream"))
        own.xgroup_create("event-stream", "accounts@0000000a", id="0")
        own.hset("{event-stream}:gone:accounts@0000000a", "customers@0000000b", "1-2")
        own.xadd("{event-stream}:redrive:accounts@0000000a", {"n": 1})
        file = tally.directory / "tally.toml"
        done = command("groups", "remove", "accounts@0000000a", "--yes", "--config", file)
        assert (done.returncode, done.stdout) == (0, "removed accounts@0000000a\n"), done
        assert not own.exists("{event-stream}:gone:accounts@0000000a")
        assert own.xlen("{event-stream}:redrive:accounts@0000000a") == 0
        assert len(own.xinfo_groups("event-stream")) == 2


def test_a_group_that_goes_while_it_is_looked_at_is_as_if_it_were_gone_before(client: redis.Redis) -> None:
    class Vanishing(EventStream):
        def groups(self) -> dict[str, dict[str, Any]]:
            found = super().groups()
            self.client.xgroup_destroy(self.key, "accounts@0000000a")
            return found

    client.hset("{event-stream}:holding", "accounts@0000000a", "1553318690327-0")
    for look in (Groups.holding, Groups.all, partial(Groups.idle_ms, group="accounts@0000000a")):
        look(Groups(Vanishing(client, "event-stream")))
        client.xgroup_destroy("event-stream", "accounts@0000000a")
        client.xgroup_create("event-stream", "accounts@0000000a", id="0")


def test_without_a_group_or_a_stream_nobody_has_read(client: redis.Redis) -> None:
    for stream in ("event-stream", "no-stream"):
        assert Groups(EventStream(client, stream)).idle_ms("nobody") is None
