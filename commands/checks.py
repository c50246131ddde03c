"""`check`: whether `run` would work here, found out without starting anything."""

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from tally.actors import family, redis_server
from tally.actors.actor import CannotStart
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.config import Settings
from tally.store import signing_key
from tally.store.errors import OutdatedDatabase, StoreError
from tally.store.stream import connect

OLDEST_REDIS = (6, 2)
FARTHEST_CLOCK_SECONDS = 60


class Finding(NamedTuple):
    """What was looked at, whether it will do, and what was seen."""

    subject: str
    good: bool
    seen: str


def check(settings: Settings) -> Iterator[Finding]:
    """Look at each thing that `run` needs. Leaves nothing behind but the data directory and its lock file."""
    directory = _directory(settings)
    yield directory
    if directory.good:
        yield from _databases(settings)
        yield from _signing_key(settings)
    running = _running(settings)
    if running:
        yield Finding("supervisor", True, running)
        yield _redis_at_url(settings)
    else:
        yield from (_port(settings, service) for service in family.SERVICES)
        yield _redis(settings)


def _directory(settings: Settings) -> Finding:
    try:
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.directory) as file:
            file.write(b"check")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding("data directory", False, f"{settings.directory}: {error.strerror}")
    return Finding("data directory", True, f"{settings.directory} is writable")


def _databases(settings: Settings) -> Iterator[Finding]:
    for service in family.SERVICES:
        path = settings.directory / f"{service}.db"
        if not path.exists():
            continue
        try:
            database = family.OPEN[service](settings.directory)
        except OutdatedDatabase as error:
            yield Finding(path.name, True, str(error))
        except StoreError as error:
            yield Finding(path.name, False, str(error))
        else:
            yield Finding(path.name, True, f"is {database.source}")
            database.close()


def _signing_key(settings: Settings) -> Iterator[Finding]:
    path = settings.directory / signing_key.FILE
    if settings.auth.mode == "off" or settings.signing_key or not path.exists():
        return
    try:
        signing_key.load(settings.directory)
    except (StoreError, OSError) as error:
        yield Finding("signing key", False, str(error))
    else:
        yield Finding("signing key", True, f"{path} is for its owner alone")


def _running(settings: Settings) -> str | None:
    try:
        DirectoryLock(settings.directory).release()
    except AlreadyRunning as error:
        return f"runs already, process {error.pid or 'unknown'}"
    except OSError:
        return None  # the finding on the directory tells
    return None


def _port(settings: Settings, service: str) -> Finding:
    subject = f"{service} port"
    try:
        listener = family.listen(settings, service)
    except family.PortTaken as error:
        return Finding(subject, False, str(error))
    host, port = listener.getsockname()[:2]
    listener.close()
    return Finding(subject, True, f"{host}:{port} is free")


def _redis(settings: Settings) -> Finding:
    try:
        embedded, line = redis_server.choose(settings)
    except CannotStart as error:
        return Finding("redis", False, str(error))
    if not embedded:
        return _redis_at_url(settings)
    address = settings.redis.address
    try:
        family.bind(address.host, address.port, "redis.url").close()
    except family.PortTaken as error:
        return Finding("redis", False, f"no Redis answers there, but {error}")
    return Finding("redis", True, line.removeprefix("redis: "))


def _redis_at_url(settings: Settings) -> Finding:
    client = connect(settings.redis.url, answer_seconds=1)
    try:
        info: Any = client.info()
        seconds, _ = client.time()
    except redis.RedisError as error:
        return Finding("redis", False, f"{settings.redis.address}: {error}")
    finally:
        client.close()
    faults = list(_redis_faults(info, abs(time.time() - seconds)))
    return Finding("redis", not faults, "; ".join([f"version {info['redis_version']} answers", *faults]))


def _redis_faults(info: dict[str, Any], clock_off: float) -> Iterator[str]:
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < OLDEST_REDIS:
        yield "6.2 or newer is needed"
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield f"maxmemory-policy {policy} may evict the stream: set noeviction"
    if clock_off > FARTHEST_CLOCK_SECONDS:
        yield f"its clock is {clock_off:.0f} s off this machine's: set one of them right"
