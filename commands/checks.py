"""`check`: whether `run` would work here, found out without starting anything."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from tally.actors import family, redis_access, redis_server
from tally.actors.actor import CannotStart
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.actors.redis_fitness import inspect
from tally.actors.services import SERVICES
from tally.config import Settings
from tally.store.errors import OutdatedDatabase, StoreError
from tally.store.key_file import SIGNING_KEY


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
        yield _redis_in_use(settings)
    else:
        yield from (_port(settings, service) for service in SERVICES)
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
    for service in SERVICES:
        path = settings.directory / f"{service}.db"
        if not path.exists():
            continue
        try:
            with closing(SERVICES[service].open(settings.directory)) as database:
                database.insist_on_soundness()
            yield Finding(path.name, True, f"is {database.source}, and sound")
        except OutdatedDatabase as error:
            yield Finding(path.name, True, str(error))
        except StoreError as error:
            yield Finding(path.name, False, str(error))


def _signing_key(settings: Settings) -> Iterator[Finding]:
    path = settings.directory / SIGNING_KEY.name
    if settings.auth.mode == "off" or settings.signing_key or not path.exists():
        return
    try:
        SIGNING_KEY.load(settings.directory)
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
        choice = redis_server.choose(settings)
        if choice.server:
            redis_access.insist_on_files(settings)
    except (CannotStart, StoreError, OSError) as error:
        return Finding("redis", False, str(error))
    if not choice.server:
        return _redis_that_answers(settings, settings.redis.full_url)
    address = settings.redis.address
    try:
        family.bind(*address.host, "redis.url").close()
    except family.PortTaken as error:
        return Finding("redis", False, f"no Redis answers there, but {error}")
    return Finding("redis", True, choice.told.removeprefix("redis: "))


def _redis_in_use(settings: Settings) -> Finding:
    """The Redis of the Tally that runs, as its own processes reach it."""
    try:
        return _redis_that_answers(settings, redis_access.url(settings))
    except StoreError as error:
        return Finding("redis", False, str(error))


def _redis_that_answers(settings: Settings, url: str) -> Finding:
    seen = inspect(url, settings.redis.stream, settings.waits_for_replicas)
    if seen is None:
        return Finding("redis", False, f"no Redis answers at {settings.redis.address}")
    return Finding("redis", not seen.faults, f"{settings.redis.address}: {seen}")
