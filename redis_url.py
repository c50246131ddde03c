"""The URL of a Redis, and its parts. Imports nothing of ours.

    redis://[user:password@]host[:6379][/database]                 one server
    unix://[user:password@]/path/of/a/socket                       one on this machine
    redis+sentinel://[user:password@]host[:26379],host…/name       the primary that sentinels call `name`
    redis+cluster://[user:password@]host[:6379],host…              whichever node of a cluster has the stream

`rediss` in the place of `redis` is TLS, for the sentinels too. After a `?` come options of redis-py, and
`sentinel_username` and `sentinel_password`. The last two schemes are as the library limits has them.
"""

import ipaddress
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis

PATTERN = r"^(rediss?(\+(sentinel|cluster))?|unix)://"
"""What such a URL begins with."""

FORMS = "redis://host:port/db, redis+sentinel://host,host/name or redis+cluster://host,host"

_PORTS = {"sentinel": 26379, "cluster": 6379, "": 6379}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")


class Host(NamedTuple):
    """A server's host, a name or an address, and its port; as text, as it stands in a URL."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.name)}:{self.port}"


class RedisUrl:
    """A URL, taken apart. Raises ValueError, or TypeError for an option that redis-py doesn't know.

    As text it holds no password and no options. `plain` is a URL of its first host, as redis-py takes it.
    Nothing is sent.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        self.scheme = scheme
        base, _, self.finder = scheme.partition("+")
        self.hosts: tuple[Host, ...] = ()
        self.service = ""
        self.sentinel_login: dict[str, str] = {}
        self.plain = self._take_apart(base, rest) if self.finder else url
        self.is_tls = base == "rediss"
        pool = redis.ConnectionPool.from_url(self.plain, driver_info=None)  # else its release is looked up
        pool.make_connection()  # it alone looks at the options
        self.options: dict[str, Any] = pool.connection_kwargs
        if not self.finder and not self.path:
            self.hosts = (Host(self.options.get("host") or "localhost", self.options.get("port") or 6379),)

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        hosts = ",".join(map(str, self.hosts))
        name = f"/{self.service}" if self.service else ""
        database = "" if self.finder and not self.database else f"/{self.database}"
        return f"{self.scheme}://{hosts}{name}{database}"

    @property
    def path(self) -> str:
        """Of a unix socket; empty for any other."""
        return str(self.options.get("path") or "")

    @property
    def host(self) -> Host:
        """The first host that it names. Raises IndexError for a unix socket."""
        return self.hosts[0]

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self.options.get("db") or 0)

    @property
    def password(self) -> str | None:
        """The password for Redis."""
        return self.options.get("password")

    @property
    def is_ours_to_use(self) -> bool:
        """Whether a private server could listen there."""
        return self.scheme == "redis" and is_loopback(self.host.name)

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that the options name, such as a CA's, by option."""
        return {name: self.options[name] for name in _FILES if self.options.get(name)}

    def _take_apart(self, base: str, rest: str) -> str:
        """Note what is none of redis-py's concern; answer a URL of the first host for it."""
        rest, _, query = rest.partition("?")
        netloc, _, path = rest.partition("/")
        login, at, hosts = netloc.rpartition("@")
        self.hosts = tuple(_host(each, _PORTS[self.finder]) for each in hosts.split(","))
        database = path
        if self.finder == "sentinel":
            name, _, database = path.partition("/")
            self.service = unquote(name)
            if not self.service:
                raise ValueError("the name by which the sentinels know the primary is missing")
            if not re.fullmatch(r"\d*", database) or "@" in name:  # as of a password with a slash
                raise ValueError("behind the name comes the number of the database")
        elif database not in ("", "0"):
            raise ValueError("a cluster has one database")
        options = []
        for option, value in parse_qsl(query, keep_blank_values=True):
            if self.finder == "sentinel" and option in ("sentinel_username", "sentinel_password"):
                self.sentinel_login[option.removeprefix("sentinel_")] = value
            else:
                options.append((option, value))
        return f"{base}://{login}{at}{self.hosts[0]}/{database or 0}?{urlencode(options)}"


def with_options(url: str, options: Mapping[str, str]) -> str:
    """The URL with these options besides."""
    if not options:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options, quote_via=quote)}"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """The host as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _host(text: str, port: int) -> Host:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/?#]+)(:\d+)?", text):
        raise ValueError("a host is missing, or is none")
    split = urlsplit(f"//{text}")
    return Host(split.hostname or "", split.port or port)
