"""A Redis in memory, for the commands that Tally uses, with a clock that can be set.

It answers as Redis does, through redis-py's own client, and runs the real scripts. It lacks
`entries-read` and `lag` of groups (as 6.2 does), blocking, expiry, and most errors of the wrong type.
`tests/integration/test_redis_double.py` compares it with every real engine.
"""

import bisect
import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from weakref import WeakMethod

import msgspec
import redis
from lupa import lua51
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

Id = tuple[int, int]

_LAST = 2**64 - 1
_DRIVER = DriverInfo()  # to make one takes longer than everything else
_NO_KEY = "The XGROUP subcommand requires the key to exist"
_LUA: Any = lua51.LuaRuntime(encoding=None)  # for all servers: no script can leave anything in it


class Status(bytes):
    """A status reply of Redis: `OK`."""


class Pending:
    """An entry that was delivered and not acknowledged."""

    def __init__(self, consumer: bytes, at: int) -> None:
        self.consumer = consumer
        self.at = at
        self.deliveries = 1


class Group:
    """A consumer group: its last delivered entry, the pending ones, and when consumers were seen."""

    def __init__(self, last: Id) -> None:
        self.last = last
        self.pending: dict[Id, Pending] = {}
        self.consumers: dict[bytes, int] = {}

    def of(self, consumer: bytes | None) -> list[Id]:
        """The pending ids, of one consumer or of all, ascending."""
        return sorted(
            id for id, each in self.pending.items() if consumer is None or each.consumer == consumer
        )


class Stream:
    """Entries in order, and the groups that read them."""

    def __init__(self) -> None:
        self.ids: list[Id] = []
        self.entries: dict[Id, list[bytes]] = {}
        self.last: Id = (0, 0)
        self.groups: dict[bytes, Group] = {}

    def between(self, first: Id, last: Id) -> list[Id]:
        """The ids from `first` to `last`."""
        return self.ids[bisect.bisect_left(self.ids, first) : bisect.bisect_right(self.ids, last)]

    def remove(self, ids: Iterable[Id]) -> int:
        """Remove these entries; return how many existed."""
        there = [id for id in ids if id in self.entries]
        for id in there:
            del self.entries[id]
        self.ids = [id for id in self.ids if id in self.entries] if there else self.ids
        return len(there)


class RedisDouble:
    """One server. `clock` returns the milliseconds since the epoch; `release` is (6, 2) or later."""

    def __init__(self, clock: Callable[[], int], release: tuple[int, int] = (8, 0)) -> None:
        self._clock = clock
        self._drops_deleted = release >= (7, 0)  # XAUTOCLAIM drops pending entries that were deleted
        self._sees_idle = release >= (7, 2)  # a consumer that asks and gets nothing
        self.keys: dict[bytes, Any] = {}
        self._own: redis.Redis | None = None
        self._scripts: dict[bytes, bytes] = {}
        call: Any = WeakMethod(self._call)  # Lua's table would keep this server for good
        self._for_lua: Any = _LUA.table_from({b"call": lambda *given: call()(*given), b"sha1hex": _sha1})
        self._commands: dict[bytes, Callable[..., Any]] = {}  # by name, spelled as it was sent

    def client(self, line: "Line | None" = None) -> redis.Redis:
        """A client at the end of `line`; by default, of a line that never breaks."""
        if line is None and self._own:
            return self._own
        options: dict[str, Any] = {
            "server": self,
            "line": line or Line(),
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": _DRIVER,
        }
        pool = _Pool(connection_class=_Connection, **options)
        client = copy.copy(_a_client())
        client.lead(self, options["line"], pool)
        self._own = self._own or (client if line is None else None)
        return client

    def state(self) -> dict[bytes, Any]:
        """A copy of all data."""
        return copy.deepcopy(self.keys)

    def go_back(self, state: dict[bytes, Any]) -> None:
        """Replace all data with that state."""
        self.keys = copy.deepcopy(state)

    def execute(self, arguments: Sequence[bytes]) -> Any:
        """Redis's reply to a command, in RESP2's types. Raises redis.ResponseError."""
        name = arguments[0]
        method = self._commands.get(name)
        if method is None:
            method = getattr(self, f"_do_{name.decode().lower()}", None)
            if method is None:
                raise redis.ResponseError(f"unknown command '{name.decode()}'")
            self._commands[name] = method
        return method(*arguments[1:])

    # Scripts

    def _do_script(self, what: bytes, text: bytes) -> bytes:
        assert what.lower() == b"load"
        sha = _sha1(text)
        self._scripts[sha] = text
        return sha

    def _do_evalsha(self, sha: bytes, count: bytes, *rest: bytes) -> Any:
        if sha not in self._scripts:
            raise redis.exceptions.NoScriptError("NOSCRIPT No matching script.")
        keys, given = int(count), _LUA.table_from
        return _from_lua(_function(self._scripts[sha])(self._for_lua, given(rest[:keys]), given(rest[keys:])))

    def _call(self, *arguments: Any) -> Any:
        return _to_lua(self.execute([each if type(each) is bytes else _bytes(each) for each in arguments]))

    # Keys, hashes and strings

    def _do_ping(self) -> Status:
        return Status(b"PONG")

    def _do_time(self) -> list[bytes]:
        now = self._clock()
        return [b"%d" % (now // 1000), b"%d" % (now % 1000 * 1000)]

    def _do_flushall(self) -> Status:
        self.keys.clear()
        return Status(b"OK")

    def _do_exists(self, *names: bytes) -> int:
        return sum(name in self.keys for name in names)

    def _do_del(self, *names: bytes) -> int:
        return sum(self.keys.pop(name, None) is not None for name in names)

    def _do_get(self, name: bytes) -> bytes | None:
        value: bytes | None = self.keys.get(name)
        return value

    def _do_set(self, name: bytes, value: bytes, *options: bytes) -> Status | None:
        if b"NX" in options and name in self.keys:
            return None
        self.keys[name] = value
        return Status(b"OK")

    def _hash(self, name: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.keys.get(name, {})
        return found

    def _do_hget(self, name: bytes, field: bytes) -> bytes | None:
        return self._hash(name).get(field)

    def _do_hexists(self, name: bytes, field: bytes) -> int:
        return int(field in self._hash(name))

    def _do_hkeys(self, name: bytes) -> list[bytes]:
        return list(self._hash(name))

    def _do_hgetall(self, name: bytes) -> list[bytes]:
        return [part for pair in self._hash(name).items() for part in pair]

    def _do_hset(self, name: bytes, *pairs: bytes) -> int:
        kept = self.keys.setdefault(name, {})
        before = len(kept)
        kept.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(kept) - before

    def _do_hincrby(self, name: bytes, field: bytes, by: bytes) -> int:
        value = int(self._hash(name).get(field, b"0")) + int(by)
        self._do_hset(name, field, b"%d" % value)
        return value

    def _do_hdel(self, name: bytes, *fields: bytes) -> int:
        kept = self._hash(name)
        gone = sum(kept.pop(field, None) is not None for field in fields)
        if name in self.keys and not kept:
            del self.keys[name]
        return gone

    # Streams

    def _stream(self, name: bytes) -> Stream | None:
        return self.keys.get(name)

    def _group(self, name: bytes, group: bytes, of: str = "") -> tuple[Stream, Group]:
        stream = self._stream(name)
        if stream is None or group not in stream.groups:
            shown = f"key '{name.decode()}' or consumer group '{group.decode()}'"
            raise redis.ResponseError(f"NOGROUP No such {shown}{of}")
        return stream, stream.groups[group]

    def _do_xadd(self, name: bytes, *rest: bytes) -> bytes:
        stream = self._stream(name) or Stream()
        arguments = list(rest)
        trim = None
        if arguments[0].upper() in (b"MAXLEN", b"MINID"):
            trim = [arguments.pop(0)]
            if arguments[0] in (b"~", b"="):
                arguments.pop(0)
            trim.append(arguments.pop(0))
        given = arguments.pop(0)
        ms, seq = stream.last
        if given == b"*":
            now = self._clock()
            id = (now, 0) if now > ms else (ms, seq + 1)
        else:
            id = _id(given, 0)
            if id <= stream.last:
                raise redis.ResponseError("The ID specified in XADD is equal or smaller than the target")
        self.keys[name] = stream
        stream.last = id
        stream.ids.append(id)
        stream.entries[id] = arguments
        if trim:
            self._do_xtrim(name, *trim)
        return _shown(id)

    def _do_xtrim(self, name: bytes, how: bytes, *rest: bytes) -> int:
        stream = self._stream(name)
        if stream is None:
            return 0
        if how.upper() == b"MINID":
            return stream.remove(stream.ids[: bisect.bisect_left(stream.ids, _id(rest[-1], 0))])
        return stream.remove(stream.ids[: max(0, len(stream.ids) - int(rest[-1]))])

    def _do_xdel(self, name: bytes, *ids: bytes) -> int:
        stream = self._stream(name)
        return stream.remove([_id(id, 0) for id in ids]) if stream else 0

    def _do_xlen(self, name: bytes) -> int:
        stream = self._stream(name)
        return len(stream.ids) if stream else 0

    def _do_xrange(self, name: bytes, first: bytes, last: bytes, *count: bytes) -> Any:
        return self._range(name, first, last, count)

    def _do_xrevrange(self, name: bytes, last: bytes, first: bytes, *count: bytes) -> Any:
        return self._range(name, first, last, count, -1)

    def _range(self, name: bytes, first: bytes, last: bytes, count: Sequence[bytes], step: int = 1) -> Any:
        stream = self._stream(name)
        if stream is None:
            return []
        ids = stream.between(_first(first), _last(last))[::step]
        return [self._entry(stream, id) for id in ids[: int(count[1]) if count else None]]

    def _entry(self, stream: Stream, id: Id) -> list[Any]:
        fields = stream.entries.get(id)
        return [_shown(id), None if fields is None else list(fields)]

    def _do_xgroup(self, what: bytes, name: bytes, group: bytes, *rest: bytes) -> Any:
        how = what.upper()
        if name not in self.keys and how == b"CREATE" and b"MKSTREAM" in rest:
            self.keys[name] = Stream()
        stream = self._stream(name)
        if stream is None:
            raise redis.ResponseError(_NO_KEY)
        if how == b"CREATE":
            if group in stream.groups:
                raise redis.ResponseError("BUSYGROUP Consumer Group name already exists")
            stream.groups[group] = Group(self._named(stream, rest[0]))
            return Status(b"OK")
        if how == b"DESTROY":
            return int(stream.groups.pop(group, None) is not None)
        _, found = self._group(name, group)
        if how == b"SETID":
            found.last = self._named(stream, rest[0])
            return Status(b"OK")
        assert how == b"DELCONSUMER"
        lost = found.of(rest[0])
        for id in lost:
            del found.pending[id]
        found.consumers.pop(rest[0], None)
        return len(lost)

    def _named(self, stream: Stream, id: bytes) -> Id:
        return stream.last if id == b"$" else _id(id, 0)

    def _do_xread(self, *options: bytes) -> Any:
        at = options.index(b"STREAMS")
        name, after = options[at + 1 :]
        stream = self._stream(name)
        beyond = _id(after, 0)
        ids = stream.between((beyond[0], beyond[1] + 1), (_LAST, _LAST)) if stream else []
        ids = ids[: int(options[options.index(b"COUNT") + 1])]
        return [[name, [self._entry(stream, id) for id in ids]]] if stream and ids else None

    def _do_xreadgroup(self, *arguments: bytes) -> Any:
        _, group_name, consumer, *options = arguments
        at = options.index(b"STREAMS")
        name, after = options[at + 1 :]
        count = int(options[options.index(b"COUNT") + 1]) if b"COUNT" in options else None
        stream, group = self._group(name, group_name, " in XREADGROUP with GROUP option")
        now = self._clock()
        if after != b">" or self._sees_idle:
            group.consumers[consumer] = now
        if after != b">":
            ids = [id for id in group.of(consumer) if id > _id(after, 0)][:count]
            for id in ids:
                if id in stream.entries:
                    group.pending[id].at = now
                    group.pending[id].deliveries += 1
            return [[name, [self._entry(stream, id) for id in ids]]]
        ids = stream.between((group.last[0], group.last[1] + 1), (_LAST, _LAST))[:count]
        if not ids:
            return None
        group.consumers[consumer] = now
        group.last = ids[-1]
        for id in ids:
            group.pending[id] = Pending(consumer, now)
        return [[name, [self._entry(stream, id) for id in ids]]]

    def _do_xack(self, name: bytes, group: bytes, *ids: bytes) -> int:
        stream = self._stream(name)
        found = stream.groups.get(group) if stream else None
        return sum(found.pending.pop(_id(id, 0), None) is not None for id in ids) if found else 0

    def _do_xautoclaim(
        self, name: bytes, group: bytes, consumer: bytes, idle: bytes, start: bytes, *rest: bytes
    ) -> list[Any]:
        stream, found = self._group(name, group)
        count = int(rest[1]) if rest else 100
        now = self._clock()
        if self._sees_idle:
            found.consumers[consumer] = now
        attempts, claimed, deleted = count * 10, [], []
        left = iter([id for id in found.of(None) if id >= _id(start, 0)])
        while attempts and count and (id := next(left, None)):
            attempts -= 1
            pending = found.pending[id]
            if self._drops_deleted and id not in stream.entries:
                del found.pending[id]
                deleted.append(_shown(id))
                count -= 1
            elif now - pending.at >= int(idle):
                pending.consumer, pending.at = consumer, now
                found.consumers[consumer] = now
                pending.deliveries += 1
                claimed.append(self._entry(stream, id) if id in stream.entries else None)
                count -= 1
        cursor = _shown(next(left, (0, 0)))
        return [cursor, claimed, deleted] if self._drops_deleted else [cursor, claimed]

    def _do_xpending(self, name: bytes, group: bytes, *rest: bytes) -> list[Any]:
        _, found = self._group(name, group)
        if not rest:
            ids = found.of(None)
            if not ids:
                return [0, None, None, None]
            by: dict[bytes, int] = {}
            for each in found.pending.values():
                by[each.consumer] = by.get(each.consumer, 0) + 1
            counts = [[consumer, b"%d" % count] for consumer, count in sorted(by.items())]
            return [len(ids), _shown(ids[0]), _shown(ids[-1]), counts]
        first, last, count, *consumer = rest
        ids = [id for id in found.of(consumer[0] if consumer else None) if _first(first) <= id <= _last(last)]
        now, handed = self._clock(), found.pending
        return [
            [_shown(id), handed[id].consumer, max(0, now - handed[id].at), handed[id].deliveries]
            for id in ids[: int(count)]
        ]

    def _do_xinfo(self, what: bytes, name: bytes, *group: bytes) -> list[Any]:
        stream = self._stream(name)
        if stream is None:
            raise redis.ResponseError("no such key")
        if what.upper() == b"GROUPS":
            return [list(_told(*each)) for each in sorted(stream.groups.items())]
        _, found = self._group(name, group[0])
        now = self._clock()
        return [
            [b"name", consumer, b"pending", len(found.of(consumer)), b"idle", max(0, now - seen)]
            for consumer, seen in sorted(found.consumers.items())
        ]


class Line:
    """The way to a server: it may break before a later command arrives, or before its reply is back.

    `pause` is called before and after each command.
    """

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        self._pause = pause
        self._after = 0
        self._breaks_at = ""

    def break_at(self, when: str, after: int) -> None:
        """Let the next `after` commands through; break `before` or `after` the one that follows."""
        self._breaks_at, self._after = when, after

    def mend(self) -> None:
        """Let all commands through again."""
        self._breaks_at = ""

    def carry(self, command: Callable[[], Any]) -> Any:
        """The command's reply, or a redis.ConnectionError if the line breaks."""
        self._pause()
        answer = self._carried(command)
        self._pause()
        return answer

    def _carried(self, command: Callable[[], Any]) -> Any:
        if not self._breaks_at or self._after > 0:
            self._after -= 1
            return _answered(command)
        when, self._breaks_at = self._breaks_at, ""
        if when == "after":
            _answered(command)
        return redis.ConnectionError(f"the line broke {when} the command")


class _Client(redis.Redis):
    """redis-py's client with a shorter way for single commands: redis-py's takes longer than all the rest."""

    def lead(self, server: RedisDouble, line: Line, pool: "_Pool") -> None:
        """Connect the client to that server."""
        self._server, self._line, self.connection_pool = server, line, pool
        self._registered: dict[Any, Any] = {}

    def register_script(self, script: Any) -> Any:
        """Like redis-py's, but once for each script: Tally registers the same ones again and again."""
        if script not in self._registered:
            self._registered[script] = super().register_script(script)
        return self._registered[script]

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        command = _command(arguments)
        answer = self._line.carry(lambda: self._server.execute(command))
        if isinstance(answer, redis.RedisError):
            raise answer
        options.pop("keys", None)
        understand: Any = self.response_callbacks.get(arguments[0])  # type: ignore[no-untyped-call]
        return understand(answer, **options) if understand else answer


@cache
def _a_client() -> _Client:
    """A client without a server. To copy it is far quicker than to make another."""
    return _Client(connection_pool=redis.ConnectionPool(protocol=2))


class _Pool(redis.ConnectionPool):
    """redis-py's pool without its locks, its checks for forks and its statistics."""

    def get_connection(self, command_name: Any = None, *_: Any, **__: Any) -> Any:
        free: list[_Connection] = self._available_connections
        connection: Any = free.pop() if free else self.make_connection()
        if connection.can_read():
            connection.disconnect()
        return connection

    def release(self, connection: Any) -> None:
        self._available_connections.append(connection)


class _Connection(redis.connection.Connection):
    """A connection for redis-py to send commands and read the replies in order."""

    def __init__(self, server: RedisDouble, line: Line, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._server, self._line = server, line
        self._answers: list[Any] = []
        self._queued: list[Sequence[bytes]] | None = None  # since MULTI

    def connect(self, *_: Any, **__: Any) -> None:
        """Does nothing: no connection is needed."""

    def disconnect(self, *_: Any, **__: Any) -> None:
        """Forget the replies that were not read."""
        self._answers.clear()
        self._queued = None

    @property
    def is_connected(self) -> bool:
        return True

    def can_read(self, *_: Any, **__: Any) -> bool:
        return bool(self._answers)

    def send_command(self, *arguments: Any, **_: Any) -> None:
        self._send(_command(arguments))

    def pack_commands(self, commands: Iterable[Any]) -> list[Any]:
        return list(commands)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        for arguments in command:
            self.send_command(*arguments)

    def _send(self, command: list[bytes]) -> None:
        name = command[0].upper()
        if name == b"MULTI":
            self._queued = []
            self._answers.append(Status(b"OK"))
        elif name == b"EXEC":
            queued, self._queued = self._queued or [], None
            self._answers.append(self._line.carry(lambda: [self._server.execute(each) for each in queued]))
        elif self._queued is not None:
            self._queued.append(command)
            self._answers.append(Status(b"QUEUED"))
        elif self._answers and isinstance(broken := self._answers[-1], redis.ConnectionError):
            self._answers.append(broken)
        else:
            self._answers.append(self._line.carry(lambda: self._server.execute(command)))

    def read_response(self, *_: Any, **__: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, redis.ConnectionError):
            self.disconnect()
        if isinstance(answer, redis.RedisError):
            raise answer
        return answer


def _answered(command: Callable[[], Any]) -> Any:
    try:
        return command()
    except redis.ResponseError as error:
        return error


def _told(name: bytes, group: Group) -> Iterator[Any]:
    yield from (b"name", name, b"consumers", len(group.consumers), b"pending", len(group.pending))
    yield from (b"last-delivered-id", _shown(group.last))


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


@cache
def _function(script: bytes) -> Any:
    """The script as a function of its `redis`, KEYS and ARGV."""
    return _LUA.execute(b"return function(redis, KEYS, ARGV) " + script + b"\nend")


def _to_lua(answer: Any) -> Any:
    if type(answer) is bytes:
        return answer
    if isinstance(answer, Status):
        return _LUA.table_from({b"ok": bytes(answer)})
    if isinstance(answer, list):
        return _LUA.table_from([each if type(each) is bytes else _to_lua(each) for each in answer])
    return False if answer is None else answer


def _from_lua(value: Any) -> Any:
    if type(value) is bytes:
        return value
    if value is None or value is False:
        return None
    if isinstance(value, bool | int | float):
        return int(value)
    if value[b"ok"] is not None:
        return Status(value[b"ok"])
    if value[b"err"] is not None:
        raise redis.ResponseError(value[b"err"].decode())
    return [_from_lua(value[place]) for place in range(1, len(value) + 1)]


def _unpack(packed: bytes) -> Any:
    return _to_lua([_bytes(each) for each in msgspec.msgpack.decode(packed)])


_LUA.globals()[b"cmsgpack"] = _LUA.table_from({b"unpack": _unpack})
_LUA.execute(b"""
    local function refuse(_, name) error('a script attempted to use the global ' .. tostring(name)) end
    setmetatable(_G, {__index = refuse, __newindex = refuse})
""")


@cache
def _words(name: bytes) -> list[bytes]:
    """The words of a command's name: `XGROUP CREATE`."""
    return name.split()


def _command(arguments: Sequence[Any]) -> list[bytes]:
    """A command as it is sent, word by word."""
    sent = [each if type(each) is bytes else _bytes(each) for each in arguments]
    sent[:1] = _words(sent[0])
    return sent


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%d" % value if value == int(value) else b"%.17g" % value
    return str(value).encode()


def _id(text: bytes, missing: int) -> Id:
    ms, _, seq = text.partition(b"-")
    return int(ms), int(seq) if seq else missing


def _first(text: bytes) -> Id:
    if text == b"-":
        return 0, 0
    if text.startswith(b"("):
        ms, seq = _id(text[1:], 0)
        return ms, seq + 1
    return _id(text, 0)


def _last(text: bytes) -> Id:
    if text == b"+":
        return _LAST, _LAST
    if text.startswith(b"("):
        ms, seq = _id(text[1:], _LAST)
        return (ms, seq - 1) if seq else (ms - 1, _LAST)
    return _id(text, _LAST)


def _shown(id: Id) -> bytes:
    return b"%d-%d" % id
