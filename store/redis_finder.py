"""Finds the server that has the stream: each new connection asks here for its address.

With sentinels it is the primary that they name; in a cluster, the node that has the stream's slot. If the
server changes, connections to the old one break or are closed (`redis_connection`), and new ones find the new
one.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError
from redis.retry import Retry

from tally.redis_url import Host, RedisUrl

SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 2.0  # how long to wait for one sentinel or node

Find = Callable[[], Host]
"""Answers a new connection's address. Blocks; raises RedisError if nobody can tell."""


class WronglySet(redis.ConnectionError):
    """An answer shows that the URL is wrong; the message says what to set."""


def finder(url: RedisUrl, key: str, answer_seconds: float) -> Find | None:
    """Finds the server for `key`. None if it is simply the one in `url`.

    All questions together take `answer_seconds`, the last one a little longer.
    """
    if url.finder == "sentinel":
        return _Sentinels(url, answer_seconds)
    if url.finder == "cluster":
        return _Cluster(url, key, answer_seconds)
    return None


class _Finder:
    """Asks the hosts of a URL, one after the other, beginning with the last that answered."""

    def __init__(self, url: RedisUrl, seconds: float, login: Mapping[str, Any]) -> None:
        self._url = url
        self._seconds = seconds
        self._first = url.host
        # So that time is left for the others.
        wait = max(SHORTEST_SECONDS, min(seconds / len(url.hosts) / 2, LONGEST_SECONDS))
        timeouts = {"socket_timeout": wait, "socket_connect_timeout": wait}
        tls = {name: value for name, value in url.options.items() if url.is_tls and name.startswith("ssl_")}
        self._options: dict[str, Any] = {"ssl": url.is_tls, **tls, **timeouts, "protocol": 2, **login}
        self._options["retry"] = Retry(NoBackoff(), 0)

    def _hosts(self, deadline: float) -> Iterator[Host]:
        for host in dict.fromkeys([self._first, *self._url.hosts]):
            if time.monotonic() > deadline:
                break
            yield host


class _Sentinels(_Finder):
    """Asks sentinels for the primary."""

    def __init__(self, url: RedisUrl, seconds: float) -> None:
        super().__init__(url, seconds, url.sentinel_login)
        self._sentinels = {host: redis.Redis(*host, **self._options) for host in url.hosts}

    def __call__(self) -> Host:
        known: set[str] = set()
        reasons: dict[Host, redis.RedisError] = {}
        for host in self._hosts(time.monotonic() + self._seconds):
            try:
                masters: Any = self._sentinels[host].sentinel_masters()
            except redis.RedisError as error:
                reasons[host] = error
                continue
            known |= set(masters)
            state = masters.get(self._url.service)
            if state and state["is_master"] and not state["is_sdown"] and not state["is_odown"]:
                self._first = host
                return Host(state["ip"], state["port"])
        raise self._why(known, reasons)

    def _why(self, known: set[str], reasons: Mapping[Host, redis.RedisError]) -> redis.RedisError:
        """Why none of them names a primary that is up."""
        if self._url.service in known:
            return redis.ConnectionError(f"the sentinels have no primary of {self._url.service!r} that is up")
        if known or not reasons:
            names = ", ".join(map(repr, sorted(known))) or "none at all"
            return WronglySet(
                f"the sentinels know no primary called {self._url.service!r}, but {names}; "
                "it is named at the end of redis.url"
            )
        for host, error in reasons.items():
            if isinstance(error, redis.AuthenticationError):
                return WronglySet(
                    f"the sentinel at {host} refuses: {error}; "
                    "set sentinel_password, and sentinel_username, as options of redis.url"
                )
            if isinstance(error, redis.ResponseError):
                return WronglySet(f"no sentinel answers at {host}: {error}; set redis.url to sentinels")
        silent = redis.ConnectionError(f"no sentinel answers at {', '.join(map(str, self._url.hosts))}")
        silent.__cause__ = next(iter(reasons.values()), None)
        return silent


class _Cluster(_Finder):
    """Asks a cluster's nodes for the key. A node without it names the one with it."""

    def __init__(self, url: RedisUrl, key: str, seconds: float) -> None:
        super().__init__(url, seconds, {name: url.options.get(name) for name in ("username", "password")})
        self._key = key

    def __call__(self) -> Host:
        deadline = time.monotonic() + self._seconds
        reasons: list[redis.RedisError] = []
        for seed in self._hosts(deadline):
            try:
                self._first = self._from(seed, deadline)
            except redis.AuthenticationError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, ClusterDownError) as error:
                reasons.append(error)
            else:
                return self._first
        said = "; ".join(map(str, reasons))
        raise redis.ConnectionError(f"no node of the cluster serves {self._key}: {said}") from reasons[-1]

    def _from(self, host: Host, deadline: float) -> Host:
        """The node that has the key: `host`, or the one that it names."""
        while True:
            node = redis.Redis(*host, **self._options)
            try:
                node.exists(self._key)
            except MovedError as moved:
                host = Host(moved.host.strip("[]?") or host.name, moved.port)
            except AskError:
                return host  # it still has the slot, and some of its keys
            else:
                return host
            finally:
                node.close()
            if time.monotonic() > deadline:  # while a slot moves, each may name another
                raise redis.ConnectionError(f"each node names another, at last {host}")
