"""The two ways into the private Redis: its port, for the stream alone, and its socket, for Tally.

Anyone who reaches the port may read the stream and publish to it, as other programs do. Everything else that
Tally does needs a user whose password is in the data directory. Nobody may configure the server, load code
into it, write files with it, or stop it: no user has the rights.
"""

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tally.actors import control
from tally.actors.redis_binaries import Release
from tally.config import RedisSettings, Settings
from tally.store.key_file import KeyFile, UnusableKey
from tally.store.unix_socket import short_path

SOCKET = "redis.sock"
PASSWORD = KeyFile("tally.password", "change all that Redis keeps for Tally", "it is read when Tally starts")

_USER = "tally"
# Commands on other clients (CLIENT KILL, CLIENT PAUSE) are in the category dangerous. In 6.2 a subcommand can
# be granted but not revoked. SELECT is in none of these categories.
_FOR_BOTH = "-@all +@stream +@connection -@dangerous +select +client|id +client|getname +client|setname"
_NOT_FOR_ALL = "-xsetid"  # with the highest id set, nothing could be added any more
_FOR_TALLY = "+@hash +get +set +exists +multi +exec +evalsha +script|load +time +info +memory|usage"
_PROBE_SECONDS = 0.5
_BLANKS = " \t\n\v\f\r\0"


def directory_of(settings: Settings) -> Path:
    """Where the private Redis keeps its data, its socket and the password."""
    return settings.directory / "redis"


def url(settings: Settings) -> str:
    """The URL for Tally's commands: the private Redis that runs on this data, else `redis.url`.

    Raises UnusableKey.
    """
    return private_url(settings) if _runs(settings) else settings.redis.full_url


def private_url(settings: Settings) -> str:
    """The private Redis's URL, even before it runs. Makes its folder and its password.

    Raises UnusableKey or OSError.
    """
    directory = directory_of(settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    password, path = quote(password_in(directory), safe=""), quote(str(directory / SOCKET))
    return f"unix://{_USER}:{password}@{path}?db={settings.redis.address.database}"


def password_in(directory: Path) -> str:
    """Tally's own password, made when it is missing. Raises UnusableKey or OSError."""
    try:
        return PASSWORD.load(directory).decode("ascii")
    except UnicodeDecodeError as error:
        raise UnusableKey(f"{directory / PASSWORD.name}: is no password of Tally's; delete it") from error


def insist_on_files(settings: Settings) -> None:
    """Check that the private Redis's files, if any, can be used. Raises UnusableKey or OSError."""
    directory = directory_of(settings)
    if directory.exists():
        os.listdir(directory)
        if (directory / PASSWORD.name).exists():
            password_in(directory)


def users(settings: RedisSettings, password: str, release: Release) -> Iterator[tuple[str, ...]]:
    """The directives that give the private Redis its users; `password` is Tally's own.

    Others may read the keys beside the stream, if the server has such a right, but not write them: that could
    stop Tally. A password in `redis.url` is for other programs: without it they get nothing.
    """
    theirs = settings.address.password
    stream, beside = _pattern(settings.stream), _pattern(f"{{{settings.stream}}}:") + "*"
    readable = [f"%R~{beside}"] if release.series >= (7, 0) else []
    known_by = _hashed(theirs) if theirs else "nopass"
    yield ("user", "default", "on", known_by, f"~{stream}", *readable, *_FOR_BOTH.split(), _NOT_FOR_ALL)
    both = (*_FOR_BOTH.split(), *_FOR_TALLY.split())
    yield ("user", _USER, "on", _hashed(password), f"~{stream}", f"~{beside}", *both)


def _runs(settings: Settings) -> bool:
    """Whether a private Redis listens here, or soon will again. Then nobody else may take its place."""
    try:
        with socket.socket(socket.AF_UNIX) as probe, short_path(directory_of(settings) / SOCKET) as path:
            probe.settimeout(_PROBE_SECONDS)
            probe.connect(path)
    except OSError:
        try:
            return any(actor.name == "redis" for actor in control.ask(settings.directory))
        except control.NotAnswering:
            return True  # it may be one that runs a Redis
        except control.NotRunning:
            return False
    return True


def _hashed(password: str) -> str:
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def _pattern(key: str) -> str:
    """A pattern that matches this key. Rules can't hold a blank, so the pattern takes any byte for it."""
    return "".join("?" if char in _BLANKS else f"\\{char}" if char in "*?[]^-\\" else char for char in key)
