"""What finds the server that has the stream, apart from what uses it: for each new connection, its address.

With sentinels it is the primary that they name, in a cluster the node that has the stream's slot. Where that
changes, connections to the old one break, or are given up (`redis_connection`); new ones find the new one.
"""

from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import MovedError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from tally.redis_url import Host, RedisUrl

SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 2.0  # one sentinel or node is waited for
_MOST_HOPS = 5  # from a node to the one that it names: while a slot moves, each may name another

Find = Callable[[], Host]
"""Answers where a connection is to go. Blocks, and raises RedisError where nobody can tell."""


class WronglySet(redis.ConnectionError):
    """Somebody answers, and says that the URL can't be right; the message says what to set."""


def finder(url: RedisUrl, key: str, answer_seconds: float) -> Find | None:
    """What finds the server for `key`, where that isn't simply the one that `url` names.

    All of them together are waited for about `answer_seconds`.
    """
    each = max(SHORTEST_SECONDS, min(answer_seconds / max(len(url.hosts), 1), LONGEST_SECONDS))
    if url.finder == "sentinel":
        return _Sentinels(url, each)
    if url.finder == "cluster":
        return _Cluster(url, key, each)
    return None


class _Sentinels:
    """Asks sentinels, one after the other, for the primary."""

    def __init__(self, url: RedisUrl, seconds: float) -> None:
        self._url = url
        options = {**_patience(seconds), **_tls(url), **url.sentinel_login}
        self._sentinels = Sentinel(list(url.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def __call__(self) -> Host:
        try:
            return Host(*self._sentinels.discover_master(self._url.service))  # type: ignore[no-untyped-call]
        except (MasterNotFoundError, redis.ResponseError):
            raise self._why()  # noqa: B904 -- which has its own cause

    def _why(self) -> redis.RedisError:
        """Why none of them names a primary that is up."""
        known: set[str] = set()
        answers, reason = False, None
        for sentinel in self._sentinels.sentinels:
            asked = sentinel.connection_pool.connection_kwargs
            host = Host(asked["host"], asked["port"])
            try:
                masters: Any = sentinel.sentinel_masters()
                known |= set(masters)
                answers = True
            except redis.AuthenticationError as error:
                return WronglySet(
                    f"the sentinel at {host} refuses: {error}; "
                    "set sentinel_password, and sentinel_username, as options of redis.url"
                )
            except redis.ResponseError as error:
                return WronglySet(f"no sentinel answers at {host}: {error}; set redis.url to sentinels")
            except redis.RedisError as error:
                reason = error
        if not answers:
            silent = redis.ConnectionError(f"no sentinel answers at {', '.join(map(str, self._url.hosts))}")
            silent.__cause__ = reason
            return silent
        if self._url.service in known:
            return redis.ConnectionError(f"the sentinels have no primary of {self._url.service!r} that is up")
        names = ", ".join(map(repr, sorted(known))) or "none at all"
        return WronglySet(
            f"the sentinels know no primary called {self._url.service!r}, but {names}; "
            "it is named at the end of redis.url"
        )


class _Cluster:
    """Asks nodes of a cluster, one after the other, for the key; who hasn't got it names who has."""

    def __init__(self, url: RedisUrl, key: str, seconds: float) -> None:
        self._url = url
        self._key = key
        login = {name: url.options.get(name) for name in ("username", "password")}
        self._options = {**_patience(seconds), **_tls(url), **login}
        self._last: Host | None = None

    def __call__(self) -> Host:
        reasons = []
        for seed in dict.fromkeys([self._last, *self._url.hosts] if self._last else self._url.hosts):
            try:
                self._last = self._from(seed)
            except redis.AuthenticationError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterDownError) as error:
                reasons.append(error)
            else:
                return self._last
        said = "; ".join(map(str, reasons))
        raise redis.ConnectionError(f"no node of the cluster serves {self._key}: {said}") from reasons[-1]

    def _from(self, host: Host) -> Host:
        for _ in range(_MOST_HOPS):
            node = redis.Redis(*host, **self._options)
            try:
                node.exists(self._key)
            except MovedError as moved:
                host = Host(moved.host.strip("[]?") or host.name, moved.port)
            else:
                return host
            finally:
                node.close()
        raise redis.ConnectionError(f"each node names another, at last {host}")


def _patience(seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }


def _tls(url: RedisUrl) -> dict[str, Any]:
    """The options for TLS, which hold for whoever is asked."""
    options = {name: value for name, value in url.options.items() if name.startswith("ssl_")}
    return {**options, "ssl": True} if url.is_tls else {}
