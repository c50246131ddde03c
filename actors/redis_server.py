"""The private Redis: Tally runs one on a machine that has none."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import redis

from tally.actors import redis_access
from tally.actors.actor import TURN_SECONDS, Actor, CannotStart, die_with_parent
from tally.actors.redis_binaries import Server, note_writer, server_for
from tally.actors.redis_fitness import inspect
from tally.config import Settings
from tally.redis_url import RedisUrl
from tally.store.database import Place, place_of
from tally.store.errors import StoreError
from tally.store.stream import connect

START_SECONDS = 10.0

_LOG = "redis.log"


class Choice(NamedTuple):
    """Which Redis carries the stream, in a line for the user, and the private `server` to start, if any."""

    server: Server | None
    told: str


def choose(settings: Settings, may_start: bool = True) -> Choice:
    """Decide whether to start a private server. Starts and creates nothing.

    Waits at most a second for the one at `redis.url`. Raises CannotStart when that one is unfit, or when the
    settings ask for a private one and there is none to run.
    """
    address, mode = settings.redis.address, settings.redis.embedded
    seen = inspect(settings.redis.full_url, settings.redis.stream, settings.waits_for_replicas)
    if mode == "always" and seen:
        raise CannotStart(
            f'redis.embedded is "always", but a Redis answers at {address} already; stop it, '
            'set redis.url to a free port, or redis.embedded to "auto"'
        )
    if seen and seen.faults:
        raise CannotStart(f"redis at {address}: {seen}")
    if seen:
        return Choice(None, f"redis: using the server at {address}, {seen}")
    if mode == "always" and not address.is_ours_to_use:
        raise CannotStart(
            f'a private Redis listens on loopback only: with redis.embedded = "always", {address} '
            "must be redis:// on a loopback address"
        )
    if mode == "never" or not may_start:
        return Choice(None, f"redis: none answers at {address} yet; waiting for it")
    if not address.is_ours_to_use:
        return Choice(
            None, f"redis: none answers at {address} yet, and none can be started there; waiting for it"
        )
    directory = redis_access.directory_of(settings)
    server = server_for(directory)
    return Choice(
        server, f"redis: none answers at {address}; starting a private one, {server}, data in {directory}"
    )


def configuration(address: RedisUrl, directory: Path, users: Iterable[tuple[str, ...]]) -> str:
    """The configuration of a private server: listens at `address`, keeps its data in `directory`."""
    directives = [
        ("bind", address.host.name),
        ("port", str(address.host.port)),
        ("protected-mode", "yes"),
        ("dir", str(directory)),  # later paths are relative to it
        ("unixsocket", redis_access.SOCKET),
        ("unixsocketperm", "700"),
        ("logfile", _LOG),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        *users,
    ]
    return "".join(" ".join([name, *map(_quoted, values)]) + "\n" for name, *values in directives)


def _quoted(value: str) -> str:
    """A value in quotes, escaped byte by byte, so that redis.conf takes any."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'


def run(actor: Actor, settings: Settings, server: Server, own_url: str, place: Place | None) -> None:
    """Run a private server until told to stop. Raises CannotStart when it ends by itself or can't start.

    `own_url` is the URL that Tally's processes use, with the password that they know. The server is started
    only while the data directory is still the one at `place`: another directory there may have its own
    server.
    """
    directory = redis_access.directory_of(settings)
    if place_of(settings.directory) != place:
        raise CannotStart(
            f"{settings.directory} was moved, or another is in its place; put it back, or stop Tally"
        )
    try:
        configured = _prepare(settings, server, own_url)
        process, ended = start(server.path, configured)
    except (OSError, StoreError) as error:
        raise CannotStart(str(error)) from error
    try:
        _await_answer(actor, process, [own_url, settings.redis.full_url], directory)
        actor.ready()
        while not actor.stopping.is_set() and process.poll() is None:
            actor.wait(TURN_SECONDS, ended)
            if not os.path.exists(directory / redis_access.SOCKET):
                raise CannotStart(f"{directory / redis_access.SOCKET} was removed; starting the server again")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # the server, also below a wrapper around it
        process.wait()
        os.close(ended)
    if not actor.stopping.is_set():
        raise CannotStart(_ended(process, directory))


def _prepare(settings: Settings, server: Server, own_url: str) -> str:
    """Make the server's files, even if they were removed meanwhile, and answer its configuration."""
    directory = redis_access.directory_of(settings)
    directory.mkdir(mode=0o700, exist_ok=True)  # fails if the data directory is gone: it may come back
    password = unquote(urlsplit(own_url).password or "")
    redis_access.PASSWORD.keep(directory, password.encode())
    note_writer(directory, server.release)  # before the start: the server may change the files and then fail
    users = redis_access.users(settings.redis, password, server.release)
    return configuration(settings.redis.address, directory, users)


def start(server: Path, configuration: str) -> tuple["subprocess.Popen[bytes]", int]:
    """The process of that server, and a descriptor that is readable once it has ended.

    The configuration goes over standard input: a command line could be read by everyone.
    """
    ended, held = os.pipe()
    process = subprocess.Popen(
        [server, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[held],
        start_new_session=True,  # Ctrl-C must not reach it: it stops last
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )
    os.close(held)
    assert process.stdin
    with process.stdin as stdin:
        stdin.write(configuration.encode())
    return process, ended


def _await_answer(actor: Actor, process: "subprocess.Popen[bytes]", urls: list[str], directory: Path) -> None:
    """Wait until it answers at each of `urls` in turn, or the actor must stop. Raises CannotStart.

    The socket comes first: the port may still be another server's, which must not get the password.
    """
    deadline = time.monotonic() + START_SECONDS
    while not actor.stopping.is_set():
        try:
            for url in urls:
                with connect(url, answer_seconds=0.5) as client:
                    client.ping()
            return
        except (redis.AuthenticationError, redis.ResponseError) as error:  # the first is a ConnectionError
            raise CannotStart(
                f"redis.url asks what a private Redis does not have: {error} (it has databases 0 to 15, "
                "and no user names)"
            ) from error
        except redis.RedisError:
            if process.poll() is not None:
                raise CannotStart(_ended(process, directory)) from None
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"the private Redis does not answer after {START_SECONDS:.0f} s; see {directory / _LOG}"
                ) from None
        actor.wait(0.01)


def _ended(process: "subprocess.Popen[bytes]", directory: Path) -> str:
    log = directory / _LOG
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return f"redis-server ended with status {process.returncode}: {said} ({log})"
