"""Who is there: the actors that the settings ask for, and what each is made of.

This and `supervisor.py` are the only places that know which concrete parts go together.
"""

import os
import socket
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tally.actors import consumer, control, http_server, redis_server, relay
from tally.actors.actor import Actor
from tally.actors.doorbell import Doorbell
from tally.actors.healing import take_back
from tally.actors.housekeeper import Housekeeper
from tally.actors.supervision import ActorSpec, Stage
from tally.config import AccountsSettings, CustomersSettings, Settings, bracketed
from tally.http import accounts as accounts_http
from tally.http import customers as customers_http
from tally.http.status import ActorReport, StatusProbe
from tally.store import accounts, customers
from tally.store.database import Database
from tally.store.outbox import Outbox
from tally.store.stream import ConsumerGroup, EventStream, connect

SERVICES = ("customers", "accounts")
OPEN: dict[str, Callable[[Path], Database]] = {
    "customers": customers.open_database,
    "accounts": accounts.open_database,
}

_BACKLOG = 1024


class PortTaken(Exception):
    """A service's address can't be listened on; the message says which, and why."""


def prepare(settings: Settings, roles: Collection[str]) -> None:
    """Make the data directory, mode 0700, and the databases of `roles`, or see that they are sound.

    Raises StoreError or OSError.
    """
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(settings.directory, 0o700)
    for service in SERVICES:
        if service in roles:
            OPEN[service](settings.directory).close()


def listen(settings: Settings, service: str) -> socket.socket:
    """Bind and listen on the service's address. Raises PortTaken."""
    address = _address_settings(settings, service)
    listener = bind(address.host, address.port, f"{service}.port")
    listener.setblocking(False)
    return listener


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens on the address that `setting` gives. Raises PortTaken."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise PortTaken(
            f"can't listen on {bracketed(host)}:{port}: {error.strerror}; "
            f"stop what holds it, or set {setting}"
        ) from error


class Family:
    """Composes the actors of `roles`; `listeners` are the sockets of their services."""

    def __init__(self, settings: Settings, listeners: dict[str, socket.socket]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._doorbells = {service: Doorbell() for service in SERVICES}

    def redis(self) -> list[ActorSpec]:
        """The private Redis."""
        settings, directory = self._settings.redis, self._settings.directory / "redis"

        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            redis_server.run(actor, settings, directory)

        return [ActorSpec("redis", main, Stage.REDIS, settings.address.listens_at)]

    def service(self, service: str) -> list[ActorSpec]:
        """A service's HTTP processes, its relay and its consumers."""
        address = _address_settings(self._settings, service)
        shown = f"http://{bracketed(address.host)}:{address.port}"
        consumers = getattr(self._settings.consumers, service)
        names = [f"{service}-consumer-{number}" for number in range(1, consumers + 1)]
        return [
            *(
                ActorSpec(f"{service}-http-{number}", self._http(service), Stage.HTTP, shown)
                for number in range(1, address.processes + 1)
            ),
            ActorSpec(f"{service}-relay", self._relay(service), Stage.RELAY),
            *(ActorSpec(name, self._consumer(service, names), Stage.CONSUMER) for name in names),
        ]

    def _let_go_of_listeners(self, keep: str | None = None) -> None:
        """In an actor that doesn't serve them: a port refuses once nobody holds it, and not before."""
        for service, listener in self._listeners.items():
            if service != keep:
                listener.close()

    def _stream(self) -> EventStream:
        return EventStream(connect(self._settings.redis.url), self._settings.redis.stream)

    def _http(self, service: str) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners(keep=service)
            threads = _address_settings(self._settings, service).threads
            http_server.run(actor, self._app(service), self._listeners[service], threads)

        return main

    def _app(self, service: str) -> Any:
        directory = self._settings.directory
        ring = self._doorbells[service].ring
        status = status_probe(self._settings, service)
        if service == "customers":
            return customers_http.app(directory, ring, self._settings.customers.require_account, status)
        return accounts_http.app(directory, ring, status)

    def _relay(self, service: str) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            database = OPEN[service](self._settings.directory)
            database.while_waiting = actor.beat
            stream = self._stream()
            retention = timedelta(days=self._settings.data.retention_days)
            heal = partial(take_back, accounts.Accounts(database), stream, actor.beat)
            relay.run(
                actor,
                relay.Relay(Outbox(database), stream, heal if service == "accounts" else None),
                self._doorbells[service],
                Housekeeper(database, stream, retention),
            )

        return main

    def _consumer(self, service: str, siblings: Collection[str]) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            database = OPEN[service](self._settings.directory)
            database.while_waiting = actor.beat
            store = customers.Customers(database) if service == "customers" else accounts.Accounts(database)
            group = ConsumerGroup(self._stream(), database.source, actor.name)
            settings = self._settings.consumers
            consumer.run(
                actor,
                consumer.Consumer(
                    group,
                    database,
                    store.apply,
                    after_commit=self._doorbells[service].ring,
                    batch=settings.batch,
                    claim_idle_ms=settings.claim_idle_ms,
                    max_deliveries=settings.max_deliveries,
                    siblings=siblings,
                ),
            )

        return main


def status_probe(settings: Settings, service: str) -> StatusProbe:
    """What gathers the status of a service, its processes as the supervisor knows them included."""

    def reports() -> list[ActorReport]:
        try:
            actors = control.ask(settings.directory)
        except control.NotRunning:
            return []
        return [
            ActorReport(actor.name, actor.state, actor.restarts, actor.trouble)
            for actor in actors
            if actor.name.startswith(f"{service}-")
        ]

    redis = settings.redis
    return StatusProbe(service, OPEN[service], settings.directory, redis.url, redis.stream, reports)


def _address_settings(settings: Settings, service: str) -> AccountsSettings | CustomersSettings:
    return settings.customers if service == "customers" else settings.accounts
