"""What the actors of one run share: made by the supervisor before it forks them."""

import mmap
import secrets
import socket
import struct
from contextlib import closing
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
from tally.store.inbox import Inbox
from tally.store.stream import Age, EventStream
from tally.store.write_permission import WritePermission

_PLACE = struct.Struct("QQ")

_log = structlog.get_logger()


class NotedPlace:
    """Which file a database was when all started, or when it was made: in memory that all actors share."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._page = mmap.mmap(-1, _PLACE.size)
        self.note()

    def note(self) -> None:
        """Note which file is there now."""
        self._page[:] = _PLACE.pack(*(place_of(self.file) or (0, 0)))

    def get(self) -> Place | None:
        """The one that was noted, None when there was none."""
        place = _PLACE.unpack(self._page[:])
        return place if any(place) else None


class Shared:
    """What the actors of one run share: how they reach Redis, and the sockets of their services.

    `is_private` tells that this Redis is no other node's.
    """

    def __init__(
        self,
        settings: Settings,
        redis_url: str,
        listeners: dict[str, socket.socket],
        is_private: bool = False,
    ) -> None:
        self.settings = settings
        self.is_private = is_private
        self.redis_url = redis_url
        self.listeners = listeners
        self.doorbells = {service: Doorbell() for service in SERVICES}
        self.places = {service: NotedPlace(settings.directory / f"{service}.db") for service in SERVICES}
        customers, replicas = settings.customers, settings.redis.replicas
        self.publications: dict[str, Publication] = {}  # of the services that answer after publication
        if customers.answer_after == "publish":
            self.publications["customers"] = Publication(customers.processes, replicas)
        self.run = secrets.token_hex(8)
        failover = settings.node.failover_seconds
        self.permissions = {service: WritePermission(failover) for service in SERVICES}
        self.pages: dict[str, mmap.mmap] = {}  # of each actor, made before it is forked
        self.minutes = {service: Minutes() for service in SERVICES}

    def open(self, service: str) -> Database:
        """The database that was there when all started: no other in its place, and none that is made anew."""
        database = SERVICES[service].open(
            self.settings.directory, make=False, place=self.places[service].get()
        )
        permission = self.permissions[service]
        database.run, database.is_newest = self.run, permission.is_confirmed
        database.refusal = partial(permission.refusal, database.node)
        return database

    def groups(self) -> dict[str, Age]:
        """The groups of the databases that are here, and their ages; of a service that doesn't run, too."""
        there = (each for each in SERVICES if (self.settings.directory / f"{each}.db").exists())
        ages = {}
        for service in there:
            with closing(self.open(service)) as database:
                ages[database.source] = Inbox(database).age()
        return ages

    def put_logs_aside(self) -> None:
        """Where a database's file was removed or replaced, keep its log from being read into another's.

        To be called when no actor runs any more.
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
        """In an actor that doesn't serve them: a port refuses once nobody holds it, and not before."""
        for service, listener in self.listeners.items():
            if service != keep:
                listener.close()

    def stream(self, actor: Actor) -> EventStream:
        """The stream, over a connection of the actor's own."""
        return EventStream.at(self.redis_url, self.settings.redis.stream, expect=actor.expect)

    def figures(self, actor: Actor) -> Figures:
        """Where the actor counts; made before it was forked."""
        return Figures(self.pages[actor.name])
