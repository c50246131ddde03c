"""Connections to Redis: they announce each wait, and are closed if their server has changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from tally.redis_url import RedisUrl
from tally.store.redis_finder import Find
from tally.store.unix_socket import short_path

CONNECT_SECONDS = 60.0  # the longest time to look up a name and find none of its hosts

_ANOTHER_IS_MEANT = ("READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED", "MOVED", "CLUSTERDOWN")
"""Errors of a server that takes no more writes, has become a replica, or has given the stream away."""

_NO_NAME = "can't run this command or subcommand"

Expect = Callable[[float], object]
"""Called when a wait begins, with the most seconds that it may take, and with 0 when it is over."""


def kind_for(url: RedisUrl) -> "type[redis.connection.AbstractConnection]":
    """The class of connection that a URL asks for; it takes `expect` and `find`."""
    return _Unix if url.path else _Tls if url.is_tls else _Tcp


class _Watched:
    """The additions to each kind of connection. Must be the first base class.

    A demoted server leaves connections open, and refuses each command. Such a connection is closed here, so
    that the next command looks up the server again, by its name or behind the proxy.
    """

    socket_timeout: Any
    _sock: Any

    def __init__(self, *arguments: Any, expect: Expect, find: Find | None, **options: Any) -> None:
        self._expect = expect
        self._find = find
        super().__init__(*arguments, **options)

    def _connect(self) -> Any:
        self._expect(CONNECT_SECONDS)
        try:
            if self._find:
                self.host, self.port = self._find()
            return super()._connect()  # type: ignore[misc]
        finally:
            self._expect(0)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self._sock:
            self.connect_check_health(check_health=False)  # type: ignore[attr-defined]
        self._expect(self.socket_timeout)
        try:
            super().send_packed_command(command, check_health)  # type: ignore[misc]
        finally:
            self._expect(0)

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        self._expect(self.socket_timeout)
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            if _NO_NAME in str(error):  # 6.2 doesn't name the command that was denied in a script
                raise NoPermissionError(f"{error} (`check` names the rights that are missing)") from error
            # redis-py removes an error's first word if it knows that, but not within a script.
            if any(word in f"{error.status_code or ''} {error}" for word in _ANOTHER_IS_MEANT):
                self.disconnect()  # type: ignore[attr-defined]
            raise
        finally:
            self._expect(0)


class _Tcp(_Watched, redis.Connection):
    pass


class _Tls(_Watched, redis.SSLConnection):
    pass


class _Unix(_Watched, redis.UnixDomainSocketConnection):
    """A connection to a unix socket whose path may be longer than the kernel takes."""

    def _connect(self) -> Any:
        path = self.path
        try:
            with short_path(Path(path)) as self.path:
                return super()._connect()
        finally:
            self.path = path
