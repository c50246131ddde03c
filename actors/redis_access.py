"""The two ways into the private Redis: its port, for the stream alone, and its socket, for Tally.

Whoever reaches the port may read the stream and publish to it, as other programs do. All else that Tally does
wants a user whose password is in the data directory. Nobody may configure the server, load code into it,
write files with it, or stop it: no user has the rights.
"""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tally.config import RedisSettings, Settings
from tally.store.key_file import KeyFile
from tally.store.unix_socket import short_path

SOCKET = "redis.sock"
PASSWORD = KeyFile(
    "tally.password", "change all that Redis keeps for Tally", "restart Tally then, it is read at the start"
)

_USER = "tally"
# Of the categories, what concerns other clients (CLIENT KILL, CLIENT PAUSE) is dangerous. 6.2 knows no rights
# for parts of a command but those that are given, and takes all of CLIENT away.
_FOR_ALL = "-@all +@stream +@connection -@dangerous +client|id +client|getname +client|setname"
_FOR_TALLY = "+@hash +get +set +exists +multi +exec +evalsha +script|load +time +info"


def directory_of(settings: Settings) -> Path:
    """Where the private Redis keeps its data, its socket and the password."""
    return settings.directory / "redis"


def url(settings: Settings) -> str:
    """By which Tally's commands reach the stream: the private Redis that runs on this data, else `redis.url`.

    Raises UnusableKey.
    """
    directory = directory_of(settings)
    try:
        with socket.socket(socket.AF_UNIX) as probe, short_path(directory / SOCKET) as path:
            probe.settimeout(_PROBE_SECONDS)
            probe.connect(path)
        return private_url(settings)
    except OSError:  # it doesn't run, or isn't ours
        return settings.redis.url


def private_url(settings: Settings) -> str:
    """The same while it may not run yet. Makes its folder and its password. Raises UnusableKey or OSError."""
    directory = directory_of(settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = PASSWORD.load(directory).decode()
    path = quote(str(directory / SOCKET))
    return f"unix://{_USER}:{password}@{path}?db={settings.redis.address.database}"


def users(settings: RedisSettings, password: bytes) -> Iterator[tuple[str, ...]]:
    """The directives that give the private Redis its users; `password` is Tally's own.

    The password in `redis.url`, where there is one, is for other programs: without it they get nothing.
    """
    theirs = settings.address.password
    keys = [f"~{_pattern(key)}" for key in (settings.stream, f"{{{settings.stream}}}:")]
    keys[1] += "*"
    for_all = _FOR_ALL.split()
    known_by = _hashed(theirs.encode()) if theirs else "nopass"
    yield ("user", "default", "on", known_by, *keys, *for_all)
    yield ("user", _USER, "on", _hashed(password), *keys, *for_all, *_FOR_TALLY.split())


_PROBE_SECONDS = 0.5


def _hashed(password: bytes) -> str:
    return f"#{hashlib.sha256(password).hexdigest()}"


def _pattern(key: str) -> str:
    """A pattern that fits this key; for a blank, which rules can't hold, it takes any byte."""
    return "".join("?" if char in _BLANKS else f"\\{char}" if char in "*?[]^-\\" else char for char in key)


_BLANKS = " \t\n\v\f\r\0"
