"""The double of Redis answers like every engine: both get the same random commands, and must agree."""

import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from support.publishing import publish
from support.redis_double import RedisDouble
from tally.events import EVENT_ID_FIELD
from tally.store.asks import Asks
from tally.store.consumer_group import ConsumerGroup
from tally.store.dead_letters import DeadLetters
from tally.store.outbox import OutboxRow
from tally.store.ranges import Range
from tally.store.stream import Age, EventStream, Publishing, connect

COMMANDS = 150
GROUPS = ("accounts@1", "customers@2", "others")
CONSUMERS = ("one", "two")
LONG_MS = 10**9  # longer than any test takes
_ID = re.compile(rb"\d+-\d+")


class Side:
    """One of the two: it takes commands that both understand, and numbers the ids that it has given."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.stream = EventStream(client, "event-stream")
        self.asks = Asks(self.stream)
        self.ids: list[bytes] = [b"0-0"]

    def ask(self, *command: Any) -> Any:
        """The answer, with ids as numbers. An `int` in a tuple stands for the id of that number."""
        filled = [self.ids[part[0] % len(self.ids)] if isinstance(part, tuple) else part for part in command]
        client: Any = self.client
        detail = {"parse_detail": True} if command[0] == "XPENDING" and len(command) > 3 else {}
        return self.call(lambda: client.execute_command(*filled, **detail))

    def call(self, asked: Callable[[], Any]) -> Any:
        """The answer or the error, with ids as numbers."""
        try:
            return self._numbered(asked())
        except redis.ResponseError as error:
            return str(error).split()[0]

    def _numbered(self, answer: Any) -> Any:
        if isinstance(answer, bytes) and _ID.fullmatch(answer):
            if answer not in self.ids:
                self.ids.append(answer)
            return ("id", self.ids.index(answer))
        if isinstance(answer, dict):
            return {key: self._numbered(each) for key, each in answer.items() if key not in _NOT_COMPARED}
        if isinstance(answer, list | tuple):
            return [self._numbered(each) for each in answer]
        return answer

    def group(self, name: str, consumer: str) -> ConsumerGroup:
        return ConsumerGroup(self.stream, name, consumer, block_ms=1)


# These depend on the time or the release, or the double leaves them out.
_NOT_COMPARED = {"idle", "inactive", "entries-read", "lag", "time_since_delivered", "consumers", b"FailedAt"}


def _command(choose: random.Random) -> Callable[[Side], Any]:
    """A random command, the same for both sides."""
    group, consumer = choose.choice(GROUPS), choose.choice(CONSUMERS)
    id, count = (choose.randrange(1000),), choose.randint(1, 5)
    stream = choose.choice(["event-stream", "event-stream", "{event-stream}:dead"])
    plain: list[tuple[Any, ...]] = [
        ("XADD", stream, "*", "a", choose.randrange(9)),
        ("XADD", stream, "MAXLEN", "=", count, "*", "b", "c"),
        ("XADD", stream, id, "a", "b"),
        ("XTRIM", stream, "MAXLEN", count * 3),
        ("XTRIM", stream, "MINID", id),
        ("XDEL", stream, id, (id[0] + 1,)),
        ("XLEN", stream),
        ("XRANGE", stream, id, "+", "COUNT", count),
        ("XRANGE", stream, "-", "+"),
        ("XRANGE", stream, id, id),
        ("XREVRANGE", stream, "+", "-", "COUNT", count),
        ("XGROUP CREATE", stream, group, choose.choice(["0", "$"]), "MKSTREAM"),
        ("XGROUP CREATE", stream, group, id),
        ("XGROUP SETID", stream, group, choose.choice([id, "0", "$"])),
        ("XGROUP DELCONSUMER", stream, group, consumer),
        ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", stream, ">"),
        ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", stream, ">"),
        ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", stream, id),
        ("XACK", stream, group, id, (id[0] + 1,)),
        ("XPENDING", stream, group),
        ("XPENDING", stream, group, "-", "+", count),
        ("XPENDING", stream, group, id, "+", count, consumer),
        ("XINFO GROUPS", stream),
        ("HSET", "h", f"f{count}", "1", "g", "2"),
        ("HDEL", "h", f"f{count}", "g"),
        ("HINCRBY", "h", "n", count),
        ("HGET", "h", "g"),
        ("HGETALL", "h"),
        ("SET", "s", count, "NX"),
        ("GET", "s"),
        ("EXISTS", "s", "h", stream),
        ("DEL", choose.choice(["s", "h"])),
    ]
    rare = [("DEL", stream), ("XGROUP DESTROY", stream, group)]
    what = choose.random()
    if what < 0.55:
        command = choose.choice(plain)
        return lambda side: side.ask(*command)
    if what < 0.58:
        unusual = choose.choice(rare)
        return lambda side: side.ask(*unusual)
    return _call(choose, group, consumer, id, count)


def _call(
    choose: random.Random, group: str, consumer: str, id: tuple[int], count: int
) -> Callable[[Side], Any]:
    """A random call of `store`. Most of them are scripts."""
    source, first = choose.choice(["customers@2", "accounts@1"]), choose.randint(1, 30)
    key = choose.choice([None, "k:1"])
    rows = [
        OutboxRow(
            first + n, choose.choice(["InvoiceCreated", "CustomerDeleted"]), b'{"id":"%d"}' % n, None, key
        )
        for n in range(count)
    ]
    passing = choose.choice(["", *GROUPS])
    idle = choose.choice([0, 0, LONG_MS])
    asked = [Range(first, first + count)]
    before = choose.choice([None, b'{"id":"0"}', b'{"id":"1"}'])
    event = {EVENT_ID_FIELD: b"x:1"}
    age = Age(choose.choice("ab"), count)

    def next_rows(side: Side) -> Any:
        last = side.stream.published(source).last
        rows_now = [replace(row, sequence=last + 1 + n) for n, row in enumerate(rows)]
        publishing = Publishing(side.stream)
        publishing.send(source, 0, rows_now, passing, before)
        return publishing.answer()

    def redrive(side: Side) -> Any:
        letters = DeadLetters(side.stream)
        return [letters.discard(each) if choose_discard else _order(letters, each) for each in letters.all()]

    def bury(side: Side) -> list[bool]:
        """The second time it is done with already."""
        reader = side.group(group, consumer)
        return [reader.bury(each, "why", 1) for each in reader.read_pending(b"0-0", 1) * 2]

    choose_discard = choose.random() < 0.5
    calls: list[Callable[[Side], Any]] = [
        lambda side: publish(side.stream, source, rows, choose_floor),
        next_rows,
        next_rows,
        lambda side: side.stream.trim(choose_retention, [group]),
        lambda side: side.stream.published(source),
        lambda side: side.stream.highest(source),
        lambda side: _claimed(side, group, consumer, idle, side.ids[id[0] % len(side.ids)], count),
        lambda side: side.group(group, consumer).acknowledge([side.ids[id[0] % len(side.ids)]], age),
        lambda side: side.group(group, consumer).age(),
        bury,
        redrive,
        lambda side: side.asks.ask(source, group, asked),
        lambda side: side.asks.answer(source, group, asked, asked[:choose_left], [], [event] * count),
        lambda side: side.group(group, consumer).remove_others([CONSUMERS[0]], 0),
    ]
    choose_floor, choose_left = choose.choice([0, 0, first - 1]), choose.randint(0, 1)
    choose_retention = choose.choice([LONG_MS, 10**15])  # by a real clock, no entry is ever old enough
    made = choose.choice(calls)
    return lambda side: side.call(lambda: made(side))


def _order(letters: DeadLetters, letter: Any) -> Any:
    try:
        order = letters.redrive(letter)
        return order and order.encode()
    except Exception as error:
        return type(error).__name__


def _claimed(side: Side, group: str, consumer: str, idle: int, start: bytes, count: int) -> Any:
    """The entries handed over. Releases differ in how they report deleted ones."""
    claim = side.group(group, consumer).claim(idle, start, count)
    return [claim.next, [(each.id, each.fields) for each in claim.entries]]


def _release(client: redis.Redis) -> tuple[int, int]:
    info: Any = client.info("server")
    major, minor, *_ = str(info["redis_version"]).split(".")
    return int(major), int(minor)


@pytest.mark.parametrize("seed", range(12))
def test_the_double_answers_like_this_engine(redis_url: str, seed: int) -> None:
    with connect(redis_url) as client:
        double = RedisDouble(lambda: time.time_ns() // 1_000_000, _release(client))
        real, imitated = Side(client), Side(double.client())
        choose = random.Random(seed)
        for number in range(COMMANDS):
            time.sleep(0.001)  # only entries of one command share a millisecond
            command = _command(choose)
            assert command(imitated) == command(real), f"command {number} of seed {seed}"
