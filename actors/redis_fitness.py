"""Whether Tally can work with the Redis at a URL: `run` and `check` ask only this."""

import re
import ssl
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, NoPermissionError

from tally.actors.redis_binaries import OLDEST_REDIS
from tally.redis_url import Host, RedisUrl
from tally.store.redis_finder import WronglySet
from tally.store.stream import connect

FARTHEST_CLOCK_SECONDS = 60

_ANSWER_SECONDS = 0.5  # twice that, to connect and to answer


class Seen(NamedTuple):
    """A description of the server, its faults, and notes that are no faults."""

    what: str
    faults: list[str]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.what, *self.faults, *self.notes])


def inspect(url: str, stream: str, replicas: int | None = None) -> Seen | None:
    """Look at the server at `url`, even if it refuses; None when no Redis answers.

    `replicas` is given if answers wait for publication: that many replicas must then have the events. Nothing
    is changed on the server. Waits at most a second for each answer.
    """
    address = RedisUrl(url)
    client = connect(url, _ANSWER_SECONDS, key=stream)
    try:
        info: Any = client.info()
        seconds, _ = client.time()
        faults = list(_faults(info, abs(time.time() - seconds), address))
        what = f"{_version(info)}, now {_found(client)}" if address.finder else _version(info)
        faults = faults or list(_refusals(client, stream, replicas))
        return Seen(what, faults, tuple(_notes(info, address, replicas)))
    except WronglySet as error:
        return Seen("it is asked where the stream is", [str(error)])
    except redis.BusyLoadingError:
        return Seen("which is still loading its data", [])
    except NoPermissionError as error:
        remedy = (
            "Give redis.url a user that has it; or, when this is the private Redis of another Tally, another "
            "port, for one of this Tally's own"
        )
        return Seen("it answers", [f"a right is missing: {error}. {remedy}"])
    except (redis.AuthenticationError, redis.ResponseError) as error:  # the first is a ConnectionError
        if "NOREPLICAS" in str(error):  # this passes, so Tally waits it out
            return Seen("it answers", [], ("min-replicas-to-write: it takes no writes before it has more",))
        return Seen("it answers", [f"it refuses: {error}"])
    except redis.RedisError as error:
        refusal = _refused_by_tls(error) or (_refused_by_tls(_heard(client)) if address.is_tls else None)
        return Seen("it answers", [refusal]) if refusal else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return Seen("it answers", ["as no Redis does"])
    finally:
        client.close()


def _refused_by_tls(error: BaseException | None) -> str | None:
    """Why TLS refused the connection; None if it failed for another reason, such as end-of-file."""
    while error:
        if isinstance(error, ssl.SSLError):
            if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                return None
            return (
                f"TLS fails: {error.reason or error}. See redis.ca_file (whose certificates are believed), "
                "redis.cert_file and redis.key_file (who we are), and whether the server speaks TLS"
            )
        error = error.__cause__ or error.__context__
    return None


def _heard(client: redis.Redis) -> BaseException | None:
    """The TLS error seen by only listening. Once a client has sent something, a reset can hide it."""
    connection: Any = client.connection_pool.make_connection()
    try:
        with connection._connect() as listening:
            listening.settimeout(_ANSWER_SECONDS)
            listening.recv(1)
    except (redis.RedisError, OSError) as error:
        return error
    return None


def _version(info: dict[str, Any]) -> str:
    valkey = info.get("valkey_version")  # Valkey also calls itself Redis 7.2.4
    version = str(valkey or info["redis_version"])
    if not re.fullmatch(r"[\w.+~-]{1,40}", version, re.ASCII):
        raise ValueError("no version")
    return f"valkey version {version}" if valkey else f"version {version}"


def _faults(info: dict[str, Any], clock_off: float, address: RedisUrl) -> Iterator[str]:
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < OLDEST_REDIS:
        yield "6.2 or newer is needed"
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield f"maxmemory-policy {policy} may evict the stream: set noeviction"
    if info.get("role") == "slave" and not address.finder:  # with a finder this is only momentary
        primary = Host(str(info.get("master_host")), int(info.get("master_port", 0)))
        yield f"it is a replica, which takes no writes: set redis.url to its primary, {primary}"
    if clock_off > FARTHEST_CLOCK_SECONDS:
        yield f"its clock is {clock_off:.0f} s off this machine's: set one of them right"


def _notes(info: dict[str, Any], address: RedisUrl, replicas: int | None) -> Iterator[str]:
    if replicas is not None:
        yield from _of_replicas(info, replicas)
    if info.get("cluster_enabled") == 1 and address.hosts and address.finder != "cluster":
        yield f"it is one node of a cluster; redis+cluster://{address.host} finds the one that has the stream"
    if info.get("aof_enabled") == 0:
        yield (
            "appendonly is off: what it alone keeps (dead letters, what was published when) goes with it; "
            "what Tally has recorded doesn't"
        )


def _found(client: redis.Redis) -> str:
    """The server that was found."""
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        return str(Host(connection.host, connection.port))
    finally:
        pool.release(connection)


def _of_replicas(info: dict[str, Any], wanted: int) -> Iterator[str]:
    """Promises of an answer after publication that these replicas can't keep."""
    found = int(info.get("connected_slaves", 0))
    if found < wanted:
        yield f"redis.replicas is {wanted}, and it has {found}: before that, changes are answered 503"
    elif found > wanted:
        yield (
            f"redis.replicas is {wanted} of {found}: what was answered is lost if this machine is lost, and "
            "one that lacks it takes the place of the primary"
        )
    elif wanted == 0:
        yield "it has no replica: what was answered is lost if this machine is lost, and that one"


def _refusals(client: redis.Redis, stream: str, replicas: int | None) -> Iterator[str]:
    """Operations on its keys that the server denies Tally, found without doing them."""
    try:
        client.exists(stream)
    except MovedError as error:
        node = Host(error.host, error.port)
        yield f"its cluster keeps {stream} at {node}: set redis.url to redis+cluster://{node}, which finds it"
        return
    except ClusterDownError as error:
        yield f"its cluster does not serve: {error}"
        return
    except (NoPermissionError, AskError):
        pass  # told below, or the key moves to another node
    waits = bool(replicas)
    if missing := list(_missing_rights(client, stream, waits)):
        shown = ", ".join(missing[:5]) + (" and others" if missing[5:] else "")
        rights = f"{RIGHTS} +wait" if waits else RIGHTS
        yield f"rights are missing: {shown}. Give redis.url a user with `~{stream} ~{{{stream}}}:* {rights}`"
    try:
        client.evalsha(client.script_load("return 1"), 0)
    except NoPermissionError:
        yield "the right to run scripts is missing: `+evalsha +script|load`"
    except redis.ResponseError as error:
        yield f"it runs no scripts ({error}): load the module for Lua, where that is apart"


RIGHTS = (
    "-@all +@stream +@hash +@transaction +@connection +get +set +exists +time +info +evalsha +script|load"
)
"""The fewest rights that are enough, as ACL rules that Redis 6.2 takes too."""

_OF_STREAMS: tuple[tuple[str, ...], ...] = (
    ("XADD", "{}", "*", "f", "v"),
    ("XLEN", "{}"),
    ("XRANGE", "{}", "-", "+"),
    ("XTRIM", "{}", "MAXLEN", "0"),
    ("XDEL", "{}", "0-1"),
    ("XACK", "{}", "g", "0-1"),
    ("XPENDING", "{}", "g"),
    ("XAUTOCLAIM", "{}", "g", "c", "0", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "{}", ">"),
    ("XGROUP", "CREATE", "{}", "g", "0"),
    ("XREVRANGE", "{}", "+", "-"),
    ("XINFO", "GROUPS", "{}"),
)
_OF_OTHER_KEYS: tuple[tuple[str, ...], ...] = (
    ("HSET", "{}", "f", "v"),
    ("HGET", "{}", "f"),
    ("HGETALL", "{}"),
    ("HKEYS", "{}"),
    ("HDEL", "{}", "f"),
    ("HEXISTS", "{}", "f"),
    ("HINCRBY", "{}", "f", "1"),
    ("GET", "{}"),
    ("SET", "{}", "v"),
    ("EXISTS", "{}"),
)


def _missing_rights(client: redis.Redis, stream: str, waits: bool) -> Iterator[str]:
    """The commands that are denied on Tally's keys. They are queued in a transaction that is discarded.

    When a command is queued, Redis checks only the rights.
    """
    beside = f"{{{stream}}}:check"
    commands = [(command, key) for command in _OF_STREAMS for key in (stream, beside)]
    commands += [(command, beside) for command in _OF_OTHER_KEYS]
    commands += [(("WAIT", "0", "0"), "replicas")] if waits else []
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        connection.send_command("MULTI")
        connection.read_response()
        for command, key in commands:
            connection.send_command(*(word.replace("{}", key) for word in command))
        for command, key in commands:
            try:
                connection.read_response()
            except NoPermissionError:
                yield f"{' '.join(command[: 2 if command[0] in ('XGROUP', 'XINFO') else 1])} on {key}"
    finally:
        connection.disconnect()  # this discards the transaction
        pool.release(connection)
