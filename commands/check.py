"""`check`: whether `run` would work here, found out without starting anything."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import click

from tally.actors import family, redis_access, redis_server
from tally.actors.actor import CannotStart
from tally.actors.listening import PortTaken, bind
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.actors.redis_fitness import inspect
from tally.commands.command_line import FAILED
from tally.commands.databases import DATABASES, at_work
from tally.commands.shared import ALONE, Command
from tally.config import Settings
from tally.recovery.first_start import insist_on_no_other
from tally.store import accounts, nodes
from tally.store.database import RESTORING
from tally.store.errors import OutdatedDatabase, StoreError
from tally.store.key_file import SIGNING_KEY
from tally.store.membership import Membership
from tally.store.stream import EventStream, RedisError


@click.command(cls=Command, example="check --config production.toml")
def check(settings: Settings) -> None:
    """Tell whether `run` would work here: settings, data directory, ports, Redis."""
    click.echo("good  settings: valid")
    if not all([*_findings(settings)]):
        sys.exit(FAILED)


def _findings(settings: Settings) -> Iterator[bool]:
    """Whether each thing that `run` needs is good. Leaves only the data directory and its lock file."""
    has_directory = _found("data directory", _directory, settings)
    yield has_directory
    if has_directory:
        for name in DATABASES:
            is_there = (settings.directory / f"{name}.db").exists()
            if is_there or settings.node.standby or (settings.directory / RESTORING).exists():
                yield _found(f"{name}.db", _database, settings, name)
        has_key = settings.node.number or (settings.directory / SIGNING_KEY.name).exists()
        if settings.auth.mode != "off" and not settings.signing_key and has_key:
            yield _found("signing key", _signing_key, settings)
    if running := _running(settings):
        click.echo(f"good  supervisor: {running}")
        # As the running Tally's own processes reach it.
        answers = _found("redis", lambda: _redis_that_answers(settings, redis_access.url(settings)))
    else:
        with ExitStack() as held:  # each port stays taken, as in `run`, while the others are tried
            for name in DATABASES:
                yield _found(f"{name} port", _port, settings, name, held)
            answers = _found("redis", _redis, settings)
    yield answers
    if has_directory and not (running and at_work(settings.directory) == {accounts.FILE}):
        yield _found("other databases", _others, settings, answers)


def _found(subject: str, look: Callable[..., str], *arguments: object) -> bool:
    """Whether it is good. Tells what `look` answers, or else the error that it raises."""
    good = True
    try:
        seen = look(*arguments)
    except (CannotStart, PortTaken, StoreError, OSError) as error:
        good, seen = False, str(error)
    click.echo(f"{'good' if good else 'BAD '}  {subject}: {seen}")
    return good


def _directory(settings: Settings) -> str:
    try:
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.directory) as file:
            file.write(b"check")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CannotStart(f"{settings.directory}: {error.strerror}") from error
    return f"{settings.directory} is writable"


def _database(settings: Settings, name: str) -> str:
    family.insist_on_file_of_standby(settings, name)
    try:
        with closing(DATABASES[name](settings.directory)) as database:
            database.insist_on_soundness()
            nodes.insist_on_number(database, settings.node.number)
            return f"is {database.source}, and sound"
    except OutdatedDatabase as error:
        return str(error)


def _signing_key(settings: Settings) -> str:
    family.tokens(settings)
    return f"{settings.directory / SIGNING_KEY.name} is for its owner alone"


def _running(settings: Settings) -> str | None:
    try:
        DirectoryLock(settings.directory, patience=0).close()
    except AlreadyRunning as error:
        return f"runs already, process {error.pid or 'unknown'}"
    except OSError:
        return None  # the finding on the directory tells it
    return None


def _port(settings: Settings, name: str, held: ExitStack) -> str:
    host, port = held.enter_context(family.listen(settings, name)).getsockname()[:2]
    return f"{host}:{port} is free"


def _redis(settings: Settings) -> str:
    choice = redis_server.choose(settings)
    if not choice.server:
        return _redis_that_answers(settings, settings.redis.full_url)
    redis_access.insist_on_files(settings)
    try:
        bind(*settings.redis.address.host, "redis.url").close()
    except PortTaken as error:
        raise CannotStart(f"no Redis answers there, but {error}") from error
    return choice.told.removeprefix("redis: ")


def _redis_that_answers(settings: Settings, url: str) -> str:
    seen = inspect(url, settings.redis.stream, settings.waits_for_replicas)
    if seen is None:
        raise CannotStart(f"no Redis answers at {settings.redis.address}")
    if seen.faults:
        raise CannotStart(f"{settings.redis.address}: {seen}")
    return f"{settings.redis.address}: {seen}"


def _others(settings: Settings, answers: bool) -> str:
    """Whether Redis and accounts.db know of other databases that keep these from beginning, or going on."""
    url, directory = redis_access.url(settings), settings.directory
    stream = EventStream.at(url, settings.redis.stream) if answers else None
    where, number = str(settings.redis.address), settings.node.number
    try:
        try:
            insist_on_no_other(directory, stream, where, number)
            if stream and url == settings.redis.full_url:  # a private one has no other nodes
                _insist_on_free_number(directory, stream, number)
        except RedisError:  # a private one does not run yet
            stream = None
            insist_on_no_other(directory, stream, where, number)
    except OutdatedDatabase:
        return "looked for once the files here are of this release"
    if stream or (answers and not redis_access.directory_of(settings).exists()):
        return "none is known to be in the way"
    return f"none is known here to be in the way; Redis, which may know of one, could not be asked{ALONE}"


def _insist_on_free_number(directory: Path, stream: EventStream, number: int) -> None:
    """Raise WrongNumber if another node has the number. With a customers.db, accounts.db goes by that."""
    for name, opened in DATABASES.items():
        if (directory / f"{name}.db").exists():
            with closing(opened(directory, make=False)) as database:
                database.node = number  # as `run` will assign it
                Membership(database, stream).insist_on_free_number()
            return
