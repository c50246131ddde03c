"""Things that the actors of one run share. The supervisor makes them before it forks the actors."""

import mmap
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from tally.actors.actor import Actor
from tally.actors.doorbell import Doorbell
from tally.actors.publication import Publication
from tally.actors.services import SERVICES
from tally.config import Settings
from tally.figures import Figures
from tally.http.minutes import Minutes
from tally.store.database import Database, Place, place_of
from tally.store.errors import StoreUnavailable
from tally.store.inbox import Inbox
from tally.store.stream import Age, EventStream
from tally.store.write_permission import WritePermission

_log = structlog.get_logger()


class NotedPlace:
    """A database's file as it was at the start, or when it was made, in memory that all actors share."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._numbers = memoryview(mmap.mmap(-1, 16)).cast("Q")
        self.note()

    def note(self) -> None:
        """Note which file is there now."""
        self._numbers[0], self._numbers[1] = place_of(self.file) or (0, 0)

    def get(self) -> Place | None:
        """The noted file, None when there was none."""
        place = self._numbers[0], self._numbers[1]
        return place if any(place) else None


@dataclass(eq=False)
class Shared:
    """Shared by the actors of one run: how to reach Redis, their services' sockets, and memory.

    `is_private` tells that no other node uses this Redis.
    """

    settings: Settings
    redis_url: str
    listeners: dict[str, socket.socket]
    is_private: bool

    def __post_init__(self) -> None:
        settings, customers = self.settings, self.settings.customers
        self.doorbells = {service: Doorbell() for service in SERVICES}
        self.places = {service: NotedPlace(settings.directory / f"{service}.db") for service in SERVICES}
        self.publications: dict[str, Publication] = {}  # for services that answer after publication
        if customers.answer_after == "publish":
            self.publications["customers"] = Publication(customers.processes, settings.redis.replicas)
        self.run = secrets.token_hex(8)
        self._end = mmap.mmap(-1, 1)  # all actors share it
        failover = settings.node.failover_seconds
        self.permissions = {service: WritePermission(failover) for service in SERVICES}
        self.pages: dict[str, mmap.mmap] = {}  # one for each actor, made before it is forked
        self.minutes = {service: Minutes() for service in SERVICES}

    def open(self, service: str) -> Database:
        """Open the database that was there at the start: no other in its place, and no new one."""
        database = SERVICES[service].open(
            self.settings.directory, make=False, place=self.places[service].get()
        )
        permission = self.permissions[service]
        database.run, database.is_newest = self.run, permission.is_confirmed
        database.refusal = partial(self.refusal, service)
        return database

    @contextmanager
    def revoking(self) -> Iterator[None]:
        """Keep others from changing the list of revoked tokens.

        Like `users`, in a transaction of accounts.db, if there is one. Raises StoreUnavailable.
        """
        service = "accounts" if self.places["accounts"].file.exists() else "customers"
        with closing(self.open(service)) as database, database.transaction():
            yield

    def note_end(self) -> None:
        """Note that all actors end now. Call it before the first is told to."""
        self._end[0] = True

    def is_ending(self) -> bool:
        """Whether all actors end. Else, one that is told to end is replaced, and the others go on."""
        return bool(self._end[0])

    def refusal(self, service: str, may_lapse: bool = False) -> StoreUnavailable | None:
        """Why nothing may be written to the service's database; None if writing is allowed.

        For `may_lapse` see WritePermission.
        """
        return self.permissions[service].refusal(self.settings.node.number, may_lapse)

    def groups(self) -> dict[str, Age]:
        """The groups of all databases here, with their ages, even if their service doesn't run."""
        there = (each for each in SERVICES if (self.settings.directory / f"{each}.db").exists())
        ages = {}
        for service in there:
            with closing(self.open(service)) as database:
                ages[database.source] = Inbox(database).age()
        return ages

    def put_logs_aside(self) -> None:
        """If a database's file was removed or replaced, keep SQLite from reading its log into another file.

        Call it when no actor runs any more.
        """
        for noted in self.places.values():
            place, file = noted.get(), noted.file
            if place is None or place_of(file) == place:
                continue
            for log in (Path(f"{file}-wal"), Path(f"{file}-shm")):
                if log.exists():
                    _log.warning("log_put_aside", log=log.name, of=f"a {file.name} that is gone")
                    log.replace(f"{log}.of-the-one-that-is-gone")

    def let_go_of_listeners(self, keep: str | None = None) -> None:
        """Close listeners in an actor that doesn't serve them: a port refuses only once nobody holds it."""
        for service, listener in self.listeners.items():
            if service != keep:
                listener.close()

    def stream(self, actor: Actor) -> EventStream:
        """The stream, over a connection of the actor's own. The actor beats while it reads many entries."""
        stream = EventStream.at(self.redis_url, self.settings.redis.stream, expect=actor.expect)
        stream.beat = actor.beat
        return stream

    def figures(self, actor: Actor) -> Figures:
        """The actor's figures, made before it was forked."""
        return Figures(self.pages[actor.name])
