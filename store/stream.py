"""The Redis stream of business events: publishing to it once, looking through it, and what is kept beside it.

The clients made here resend nothing by themselves. redis-py would repeat an XADD or an XREADGROUP whose
answer was lost, and so publish twice or strand an entry. The callers know what may be repeated.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.driver_info import DriverInfo
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tally.events import EVENT_ID_FIELD, EventId
from tally.redis_url import RedisUrl
from tally.store.incarnations import ROOM
from tally.store.outbox import OutboxRow
from tally.store.redis_connection import Expect, kind_for
from tally.store.redis_finder import finder

RedisError = redis.RedisError
"""Raised by every call here when Redis is unreachable, too slow, or refuses."""

BLOCK_MS = 1000  # how long a read waits for new entries
REPLICAS_MS = 1000  # how long one wait for replicas takes
LONGEST_NAME = 200  # bytes: longer EventIds are kept as hashes
ANSWER_SECONDS = 5.0  # how long any command may take, a blocking read included

ENTRY_ID = r"\d{1,20}-\d{1,20}"

_DRIVER = DriverInfo()  # made once: looking up redis-py's release takes longer than connecting
_SAMPLES = 5  # Redis samples so many of the stream's nodes, and so answers at once
_PAGE = 1000  # entries read at a time when the whole stream is read
_SCRIPTS = Path(__file__).with_name("scripts")
_PUT_BEFORE = {  # code that scripts share
    "promote": "registry",
    "take_number": "registry",
    "publish": "entries",
    "redrive": "entries",
    "trim": "entries",
}


def connect(
    url: str, answer_seconds: float = ANSWER_SECONDS, expect: Expect = lambda _seconds: None, key: str = ""
) -> redis.Redis:
    """A client that connects at its first command and waits `answer_seconds` for each answer.

    In a cluster it connects to the node that has `key`. `expect` is told of each wait. It uses RESP2, whose
    answers have the same shape in every release from 6.2 on.
    """
    parsed = RedisUrl(url)
    return redis.Redis.from_url(
        parsed.plain,
        connection_class=kind_for(parsed),
        expect=expect,
        find=finder(parsed, key, answer_seconds),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        driver_info=_DRIVER,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
    )


def is_missing(error: Exception) -> bool:
    """Whether `error` tells that the stream or the group is gone, and must be made again.

    Redis 7 answers UNBLOCKED to a read that was waiting when its stream was deleted.
    """
    return str(error).startswith(("NOGROUP", "UNBLOCKED", "no such key"))


def is_not_held(error: Exception) -> bool:
    """Whether `error` tells that a database may not publish: Redis doesn't know that it has its number."""
    return str(error).startswith("NOTHELD")


def is_entry_id(text: str) -> bool:
    """Whether it may be the id of an entry: Redis refuses numbers from 2^64 on."""
    return bool(re.fullmatch(ENTRY_ID, text, re.ASCII)) and max(map(int, text.split("-"))) < 2**64


def entry_ms(id: bytes) -> int:
    """When Redis took the entry, by its id; at most what a column holds: other programs may make up ids."""
    return min(int(id.partition(b"-")[0]), 2**63 - 1)


def entry_time(id: str) -> str | None:
    """When Redis took the entry, in RFC 3339; None for an id beyond all dates, made up by another program."""
    try:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(id.partition("-")[0]))
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the stream, as it was read. A deleted one has no fields.

    `name` is the name of a dead letter's event without an EventId. It stays the same when the event is
    edited.
    """

    id: bytes
    fields: dict[bytes, bytes]
    name: str = ""

    @property
    def event_name(self) -> EventId | str:
        """The permanent name of the event: its EventId if it has one.

        Else the entry's id with a hash of its content: after a failover Redis can give an id again.
        """
        given = self.fields.get(EVENT_ID_FIELD)
        if not given:
            content = msgspec.msgpack.encode(sorted(self.fields.items()))
            return self.name or f"{self.id.decode()} {hashlib.sha256(content).hexdigest()[:16]}"
        if len(given) > LONGEST_NAME:
            return f"EventId:sha256:{hashlib.sha256(given).hexdigest()}"
        return EventId.parse(given) or f"EventId:{given.decode(errors='backslashreplace')}"


class Age(NamedTuple):
    """A database's age: the number of transactions that took in events of the stream, and the branch.

    A group that is set back begins another branch, which tells its database from earlier copies of it.
    """

    branch: str = "-"
    transactions: int = 0

    @classmethod
    def parse(cls, text: str) -> "Age | None":
        """Parse `branch transactions`; None for anything else, as another program may have written it."""
        branch, _, transactions = text.partition(" ")
        return cls(branch, int(transactions)) if re.fullmatch("[0-9]{1,18}", transactions) else None

    def includes(self, earlier: "Age") -> bool:
        """Whether a database of this age is the one of the `earlier` age, or a later state of it."""
        return earlier == Age() or (earlier.branch == self.branch and earlier <= self)


class Published(NamedTuple):
    """The last sequence of a source on the stream, 0 before the first, and its payload's SHA-1.

    `ever` is the last one known to have been published, even if the stream was deleted since. `replicas` is
    the number of replicas that have it, if that was waited for.
    """

    last: int
    fingerprint: str | None
    ever: int
    replicas: int = 0


class Memory(msgspec.Struct, frozen=True):
    """In bytes: Redis's used memory, its limit (None: no limit), and the stream's estimated part.

    A figure that Redis denies this user is None, too; `limit_is_known` tells the two apart.
    """

    used: int | None = None
    limit: int | None = None
    limit_is_known: bool = False
    stream: int | None = None


def is_a_services(name: str) -> bool:
    """Whether a group, or a source, is a Tally database's: its node trims no entry that it has not read."""
    return re.fullmatch(r"(accounts|customers)@[0-9a-f]+", name) is not None


@cache
def _script(name: str) -> str:
    names = [_PUT_BEFORE[name], name] if name in _PUT_BEFORE else [name]
    return "".join((_SCRIPTS / f"{each}.lua").read_text(encoding="utf-8") for each in names)


def fingerprint(payload: bytes) -> str:
    """The hash of a payload; the stream keeps that of each source's last one."""
    return hashlib.sha1(payload, usedforsecurity=False).hexdigest()


def texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    """A hash of Redis, decoded to text."""
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in found.items()}


_PUBLISH_KEYS = ("published", "marks", "trimmed", "highest", "ages", "nodes")
_TRIM_KEYS = ("trimmed", "contact", "successors", "holding", "overtaken", "unread", "ages", "nodes")


class EventStream:
    """The stream at `key`, and the keys beside it, `{key}:…`."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self.client = client
        self.key = key
        self.beat: Callable[[], None] = lambda: None
        """Called with each page of entries: to read them all may take long."""
        self._publish = self.script("publish")
        self._publish_keys = [key, *map(self.beside, _PUBLISH_KEYS)]
        self._trim = self.script("trim")
        self._trim_keys = [key, *map(self.beside, _TRIM_KEYS)]

    @classmethod
    def at(
        cls, url: str, key: str, answer_seconds: float = ANSWER_SECONDS, expect: Expect = lambda _: None
    ) -> "EventStream":
        """The stream at that URL; see `connect`."""
        return cls(connect(url, answer_seconds, expect, key), key)

    def beside(self, *name: str) -> str:
        """The key beside the stream with that name, given in parts such as "redrive" and a group."""
        return f"{{{self.key}}}:{':'.join(name)}"

    def hash(self, *name: str) -> dict[str, str]:
        """The hash beside the stream with that name; empty when there is none."""
        found: dict[bytes, bytes] = self.client.hgetall(self.beside(*name))  # type: ignore[assignment]
        return texts(found)

    def script(self, name: str) -> Script:
        """The server-side script of that name. It is sent again whenever Redis has lost it."""
        return self.client.register_script(_script(name))

    def published(self, source: str) -> Published:
        """How far the stream has got with `source`. Notes it if the stream was deleted. May be repeated."""
        return _published(self._publish(keys=self._publish_keys, args=[source, 0, 1, "", "", ""]))

    def publish_command(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """The command that publishes, for a Redis that has been given the script."""
        return "EVALSHA", self._publish.sha, len(self._publish_keys), *self._publish_keys, *arguments

    def published_by_source(self) -> dict[str, int]:
        """The last sequence that each source has on the stream."""
        return {source: int(last) for source, last in self.hash("published").items()}

    def highest(self, source: str) -> dict[str, int]:
        """The highest id that a source is known to have given, by table: `customer`, `invoice`, `account`."""
        every = self.hash("highest").items()
        ours = f"{source}:"
        return {field.removeprefix(ours): int(id) for field, id in every if field.startswith(ours)}

    def oldest_sequence(self, source: str) -> int | None:
        """The sequence of the first entry of a source that the stream still has, None without one.

        Reads the stream up to there.
        """
        names = (entry.event_name for entry in self.entries_of(source))
        return next((name.sequence for name in names if isinstance(name, EventId)), None)

    def entries_of(self, source: str, after: bytes = b"0-0") -> Iterator[Entry]:
        """A source's entries beyond `after` that are still there, in order; reads them by pages."""
        ours = f"{source}:".encode()
        for entry in chain.from_iterable(self.pages(after)):
            if entry.fields.get(EVENT_ID_FIELD, b"").startswith(ours):
                yield entry

    def pages(self, after: bytes = b"0-0", of: str = "") -> Iterator[list["Entry"]]:
        """Pages of the entries with ids above `after`, in order, up to the end at the last reading.

        `of` is the key of a stream beside this one. Redis prepares the next page while one is processed.
        """
        coming: Request | None = self._page(of or self.key, after)
        try:
            while coming:
                request, coming = coming, None
                entries = _entries(request.answer())
                if len(entries) == _PAGE:
                    coming = self._page(of or self.key, entries[-1].id)
                if entries:
                    self.beat()
                    yield entries
        finally:
            if coming:
                coming.abandon()

    def entries_at(self, ids: Sequence[bytes]) -> list["Entry"]:
        """The entries with these ids that are still on the stream, in that order."""
        with self.client.pipeline(transaction=False) as pipeline:
            for id in ids:
                pipeline.xrange(self.key, id, id)
            answers = pipeline.execute()
        return [Entry(id, fields) for answer in answers for id, fields in answer]

    def read(self, after: bytes, count: int, block_ms: int) -> list["Entry"]:
        """Up to `count` entries with ids above `after`, in order. Waits up to `block_ms` for one."""
        block = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREAD", "COUNT", count, *block, "STREAMS", self.key, after)
        return entries_read(Request(self.client, command).answer())

    def groups(self) -> dict[str, dict[str, Any]]:
        """Each group that reads the stream, as XINFO GROUPS has it, by name; empty without a stream."""
        try:
            every: Any = self.client.xinfo_groups(self.key)
        except redis.ResponseError as error:
            if not is_missing(error):
                raise
            return {}
        return {each["name"].decode(errors="replace"): each for each in every}

    def newest(self) -> bytes | None:
        """The id of the newest entry; None without entries."""
        entries: Any = self.client.xrevrange(self.key, count=1)
        return entries[0][0] if entries else None

    def _page(self, key: str, after: bytes) -> "Request":
        return Request(self.client, ("XRANGE", key, b"(" + after, "+", "COUNT", _PAGE))

    def holds(self, id: bytes) -> bool:
        """Whether the entry with that id is on the stream."""
        return bool(self.client.xrange(self.key, id, id))

    def length(self) -> int:
        """How many entries there are."""
        return int(self.client.xlen(self.key))

    def is_trimmed(self) -> bool:
        """Whether entries were removed on purpose, for their age."""
        return bool(self.client.exists(self.beside("trimmed")))

    def heirs(self) -> dict[str, str]:
        """Each source that follows another name of its database, and that other."""
        begun = self.hash("incarnations")
        return {successor: former for former, successor in self.hash("successors").items()} | begun

    def note_heirs(self, heirs: Mapping[str, str]) -> None:
        """Note for sources which one each follows, before they publish anything. May be repeated."""
        if heirs:
            self.client.hset(self.beside("incarnations"), mapping=heirs)  # type: ignore[arg-type]

    def is_known(self, source: str) -> bool:
        """Whether Redis knows how far a source has got, and so has not lost it since it began."""
        return bool(self.client.hexists(self.beside("published"), source))

    def note_begun(self, source: str) -> None:
        """Note that a source has begun, before it publishes anything. May be repeated."""
        if not self.is_known(source):
            self.client.hset(self.beside("published"), source, "0")

    def applied_by_source(self) -> dict[str, int]:
        """The highest sequence of each source that some group is known to have applied.

        Numbers that no event of a database can have are left out: another program has made them up.
        """
        furthest: dict[str, int] = {}
        for field, last in self.hash("applied").items():
            source = field.partition(" ")[2]
            if int(last) < ROOM:
                furthest[source] = max(int(last), furthest.get(source, 0))
        return furthest

    def known_by_source(self) -> dict[str, int]:
        """The last sequence that each source is known to have published, even if Redis has lost it.

        In that case, groups that had read it have told. Sources of other programs are left out then.
        """
        every = self.published_by_source()
        for source, last in self.applied_by_source().items():
            if source in every or is_a_services(source):
                every[source] = max(last, every.get(source, 0))
        return every

    def note_applied(self, group: str, applied: Mapping[str, int]) -> None:
        """Note the highest sequence of each source that a group has applied. May be repeated."""
        if applied:
            told = {f"{group} {source}": last for source, last in applied.items()}
            self.client.hset(self.beside("applied"), mapping=told)  # type: ignore[arg-type]

    def trim(self, retention_ms: int, groups: Collection[str] = (), node: int = 0) -> int:
        """Remove entries older than `retention_ms` that no counted group still needs; see trim.lua.

        The `groups` of this `node` count even before they are made. Answers how many entries were removed.
        May be repeated.
        """
        return int(self._trim(keys=self._trim_keys, args=[retention_ms, node, *groups]))

    def ages(self) -> dict[str, Age]:
        """The age of each group's database at its last acknowledgement."""
        parsed = ((group, Age.parse(text)) for group, text in self.hash("ages").items())
        return {group: age for group, age in parsed if age}

    def first_ms(self) -> int:
        """When the oldest entry was added, by Redis's clock; the present time without entries."""
        entries: Any = self.client.xrange(self.key, count=1)
        if entries:
            return entry_ms(entries[0][0])
        return self.now_ms()

    def now_ms(self) -> int:
        """The present time, by Redis's clock."""
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def dead_letters(self) -> int:
        """How many dead letters there are."""
        return int(self.client.xlen(self.beside("dead")))

    def memory(self) -> Memory:
        """The memory in use. Redis answers at once, however large the stream is."""
        told: Any = {}
        usage: Any = None
        with suppress(NoPermissionError):
            told = self.client.info("memory")
        with suppress(NoPermissionError):
            usage = self.client.memory_usage(self.key, samples=_SAMPLES)
        limit = told.get("maxmemory") or None
        return Memory(told.get("used_memory"), limit, "maxmemory" in told, usage)


class Request:
    """Commands on their way: sent when made, over a connection of their own until they are answered."""

    def __init__(self, client: redis.Redis, *commands: Sequence[Any]) -> None:
        self._count = len(commands)
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()
        try:
            packed = self._connection.pack_commands(commands)  # type: ignore[no-untyped-call]
            self._connection.send_packed_command(packed)  # type: ignore[no-untyped-call]
        except BaseException:
            self.abandon()
            raise

    def answer(self) -> Any:
        """The raw answer to the last command. Blocks until it is there; call it once.

        If Redis refuses one, the error is raised after all the others are done.
        """
        answer: Any = None
        refused: redis.ResponseError | None = None
        try:
            for _ in range(self._count):
                try:
                    answer = self._connection.read_response()
                except redis.ResponseError as error:
                    refused = refused or error
            if refused:
                raise refused
        except BaseException:
            self.abandon()
            raise
        self._pool.release(self._connection)
        return answer

    def abandon(self) -> None:
        """Give up the answer. Redis carries the commands out all the same."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(self._connection)


class Publishing:
    """Batches on their way to the stream, over one connection, so they are done and answered in order.

    Redis takes one in while the next is gathered. If one fails, those after it would leave a gap, and publish
    nothing. Use it only after `EventStream.published`, which gives Redis the script. With `replicas`, an
    answer waits until that many have the batch, REPLICAS_MS at most, and tells how many have it. With
    `holder`, a database and its node's number, Redis refuses (ResponseError) while that database doesn't have
    the number.
    """

    def __init__(self, stream: EventStream, replicas: int = 0, holder: str = "") -> None:
        self._stream = stream
        self._holder = holder
        self._replicas = replicas
        self._pool = stream.client.connection_pool
        self._connection: Any = None  # only while batches are on their way
        self._unanswered = 0

    def send(
        self,
        source: str,
        floor: int,
        rows: Sequence[OutboxRow],
        groups: Sequence[str] = (),
        before: bytes | None = None,
    ) -> None:
        """Publish contiguous `rows`, each at most once; `answer` tells how far the stream has got.

        May be repeated, even when it is unknown whether it was done. An answer below the first row means that
        Redis lacks the events between: nothing was published. `floor` is the last sequence that the outbox no
        longer holds. `groups` skip the rows, unless they have others to read first. `before` is the payload
        of the event before them. If the stream has a different one, another database publishes under this
        name, and nothing is published.
        """
        self._connection = self._connection or self._pool.get_connection()
        self._unanswered += 1
        joins = fingerprint(before) if before else ""
        arguments: list[Any] = [source, floor, rows[0].sequence, " ".join(groups), joins, self._holder]
        for row in rows:
            arguments += (row.type, row.payload, _further(row))
        self._connection.send_command(*self._stream.publish_command(arguments))
        if self._replicas:
            self._connection.send_command("WAIT", self._replicas, REPLICAS_MS)

    def answer(self) -> Published:
        """The answer to the first batch without one yet.

        Blocks until Redis has answered. After a failure, only `abandon` is left.
        """
        answer = _published(self._connection.read_response())
        if self._replicas:
            answer = answer._replace(replicas=int(self._connection.read_response()))
        self._unanswered -= 1
        if not self._unanswered:
            self._let_go()
        return answer

    def abandon(self) -> None:
        """Give up the answers. Sent batches may be published or not. May be repeated."""
        if self._connection:
            self._connection.disconnect()
            self._let_go()

    def _let_go(self) -> None:
        self._pool.release(self._connection)
        self._connection, self._unanswered = None, 0


def _further(row: OutboxRow) -> bytes | str:
    """An event's optional fields, as publish.lua takes them."""
    if not (row.trace_parent or row.request_key or row.by):
        return ""
    named = ((name.decode(), value) for name, value in row.further().items())
    return msgspec.msgpack.encode([*chain.from_iterable(named)])


def _published(answer: Any) -> Published:
    last, digest, ever = answer
    return Published(int(last), digest.decode() or None, int(ever))


def _entries(answer: Any) -> list[Entry]:
    """The entries in an answer to XRANGE. It has names and values in turn, and none for a deleted one."""
    return [
        Entry(id, dict(zip(each, each)))  # noqa: B905 (Redis answers pairs; a check costs more than the rest)
        for id, flat in answer
        for each in (iter(flat or ()),)
    ]


def entries_read(answer: Any) -> list[Entry]:
    """The entries in an answer to XREADGROUP for one stream."""
    return [entry for _, entries in answer or () for entry in _entries(entries)]
