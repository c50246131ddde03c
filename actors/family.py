"""The actors that the settings ask for, and what each is made of.

Only this file, `relay_process.py`, `services.py` and `commands/run.py` know which concrete parts go together.
"""

import mmap
import os
import socket
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial

import structlog

from tally import figures
from tally.actors import consumer, control, http_server, limits, redis_server, waitress_server
from tally.actors.actor import Actor
from tally.actors.limits import Limits
from tally.actors.listening import bind
from tally.actors.metrics import APPLIED, FAMILIES, EventMetrics, actor_metrics
from tally.actors.publication import LONGEST_SECONDS, AfterPublication
from tally.actors.redis_binaries import Server
from tally.actors.relay_process import RelayProcess
from tally.actors.services import SERVICES
from tally.actors.shared import Shared
from tally.actors.supervision import ActorSpec, Stage
from tally.config import Settings
from tally.http import accounts as accounts_http
from tally.http import customers as customers_http
from tally.http import metrics, operations, pages
from tally.http.application import Api
from tally.http.minutes import Counts
from tally.http.neighbours import Neighbours
from tally.http.reasons import ActorReport
from tally.http.requests import RequestObserver
from tally.http.service import Outside
from tally.http.status import ANSWER_SECONDS, StatusProbe
from tally.http.tokens import Tokens
from tally.importing.imports import ImportsResource
from tally.redis_url import bracketed
from tally.store import nodes
from tally.store.asks import Asks
from tally.store.database import Place, place_of
from tally.store.errors import OutdatedDatabase, StoreError
from tally.store.key_file import SIGNING_KEY, UnusableKey
from tally.store.outbox import recorded
from tally.store.ranges import Range
from tally.store.revocations import Revocations
from tally.store.stream import EventStream, RedisError

_log = structlog.get_logger()


def prepare(settings: Settings, roles: Collection[str]) -> None:
    """Make the data directory, mode 0700, the signing key and the databases of `roles`, or check them.

    The relay makes a missing customers.db, once Redis has said that it knows of none. Files of an earlier
    release are upgraded: the caller must hold the DirectoryLock, and start the actors after this. Raises
    StoreError or OSError.
    """
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(settings.directory, 0o700)
    for name, service in SERVICES.items():
        if name in roles:
            insist_on_file_of_standby(settings, name)
        if name not in roles or (service.is_made_late and not (settings.directory / f"{name}.db").exists()):
            continue
        try:
            database = service.open(settings.directory, make=not service.is_made_late)
        except OutdatedDatabase:
            _log.warning("bringing_up_to_date", database=f"{name}.db")
            database = service.open(settings.directory, migrate=True)
        with closing(database):
            nodes.assign(database, settings.node.number)
    tokens(settings)


def insist_on_file_of_standby(settings: Settings, service: str) -> None:
    """Raise StoreError if this is to be a standby, and the service's database is not there."""
    if settings.node.standby and not (settings.directory / f"{service}.db").exists():
        raise StoreError(
            f"there is no {service}.db in {settings.directory}, and node.standby is set: begin with `join`, "
            "and a `backup` of the primary"
        )


def tokens(settings: Settings, lifetime: timedelta | None = None) -> Tokens | None:
    """The Tokens that signs and reads tokens, None when auth is off. Raises UnusableKey or OSError.

    A node other than 0 takes the tokens of node 0, so it makes no key of its own.
    """
    if settings.auth.mode == "off":
        return None
    file, number = settings.directory / SIGNING_KEY.name, settings.node.number
    if number and not settings.signing_key and not file.exists():
        raise UnusableKey(
            f"{file}: is not there, and node {number} takes the tokens of node 0: copy its "
            "file there, mode 0600, or set TALLY_AUTH_SIGNING_KEY for all nodes"
        )
    key = settings.signing_key or SIGNING_KEY.load(settings.directory)
    revocations = Revocations(settings.directory)
    return Tokens(key, lifetime or timedelta(minutes=settings.auth.token_minutes), revocations.cover)


def listen(settings: Settings, service: str) -> socket.socket:
    """Bind and listen on the service's address. Raises PortTaken."""
    address = getattr(settings, service)
    listener = bind(address.host, address.port, f"{service}.port")
    listener.setblocking(False)
    return listener


class Family(Shared):
    """Composes the actors of one run."""

    def redis(self, server: Server) -> list[ActorSpec]:
        """The actor that runs that server as the private Redis."""
        main = partial(self._run_redis, server, place_of(self.settings.directory))
        return [ActorSpec("redis", main, Stage.REDIS, str(self.settings.redis.address.host))]

    def service(self, service: str) -> list[ActorSpec]:
        """A service's HTTP processes, its relay and its consumers."""
        address = getattr(self.settings, service)
        shown = f"http://{bracketed(address.host)}:{address.port}"
        consumers = getattr(self.settings.consumers, service)
        names = [f"{service}-consumer-{number}" for number in range(1, consumers + 1)]
        specs = [
            *(
                ActorSpec(f"{service}-http-{n}", partial(self._serve, service, n - 1), Stage.HTTP, shown)
                for n in range(1, address.processes + 1)
            ),
            ActorSpec(f"{service}-relay", partial(RelayProcess(self).run, service=service), Stage.RELAY),
            *(ActorSpec(name, partial(self._consume, service, names), Stage.CONSUMER) for name in names),
        ]
        self.pages.update((spec.name, figures.new_page()) for spec in specs)
        return specs

    def _run_redis(self, server: Server, place: Place | None, actor: Actor) -> None:
        self.let_go_of_listeners()
        redis_server.run(actor, self.settings, server, self.redis_url, place)

    def _serve(self, service: str, number: int, actor: Actor) -> None:
        self.let_go_of_listeners(keep=service)
        threads = getattr(self.settings, service).threads
        most = limits.of_this_process(threads)
        api = self.api(service, most, number)
        app, commits = RequestObserver(api.app, self.figures(actor)), api.service.commits
        actor.is_well = lambda: not commits.stands_still()
        listener, proxy = self.listeners[service], self.settings.auth.trusted_proxy
        with closing(api.service), self._noting_minutes(actor, service, api):
            server = waitress_server.Server(app, listener, threads, most, proxy, commits, api.gate.refusal)
            http_server.run(actor, server, commits.trouble)

    @contextmanager
    def _noting_minutes(self, actor: Actor, service: str, api: Api) -> Iterator[None]:
        """Note each full minute how much was recorded and applied, in a thread beside the server's."""

        def note() -> None:
            seconds = 0.0
            while not actor.stopping.wait(seconds):
                seconds = 1.0
                with suppress(StoreError):
                    seconds = self.minutes[service].note(self._counts(service, api))

        thread = threading.Thread(target=note, name="minutes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(1)

    def api(self, service: str, most: Limits, number: int = 0) -> Api:
        """A service as its HTTP process of that number serves it, within these limits. Opens its database."""
        api = self._calls(service, most.sign_ins, number)
        counted, probe = self._pages_of(service), self._status(service)
        parts: dict[str, metrics.Part] = {
            "processes": lambda: metrics.counted(service, FAMILIES, counted),
            "status": lambda: metrics.status_metrics(probe),
            "supervisor": lambda: actor_metrics(service, control.ask(self.settings.directory)),
            "limits": lambda: metrics.limits(service, most._asdict()),
        }
        api.app.add_route("/metrics", metrics.MetricsResource(service, parts))
        pages.add_pages(api.app, self._neighbours(service), self.settings.pages.currency)
        calls = operations.OperationsResource(
            minutes=lambda: self.minutes[service].told(self._counts(service, api)),
            open_stream=self._impatient_stream,
            actors=lambda: [
                actor for actor in self._reports() if actor.name.partition("-")[0] not in SERVICES
            ],
        )
        operations.add_operations(api.app, calls)
        return api

    def _neighbours(self, service: str) -> Neighbours:
        settings = self.settings
        ports = {"customers": settings.customers.port, "accounts": settings.accounts.port}
        urls = {"customers": settings.pages.customers_url, "accounts": settings.pages.accounts_url}
        return Neighbours(service, ports, urls)

    def _counts(self, service: str, api: Api) -> Counts:
        """How much the service has recorded so far, and applied since Tally's start."""
        counted = figures.sums(self._pages_of(service))
        applied = sum(numbers[0] for series, numbers in counted.items() if series[0] == APPLIED.name)
        with api.service.read() as store:
            return Counts(recorded(store.database), int(applied))

    def _pages_of(self, service: str) -> list[mmap.mmap]:
        return [page for name, page in self.pages.items() if name.startswith(f"{service}-")]

    def _calls(self, service: str, sign_ins: int, number: int) -> Api:
        outside = Outside(
            service,
            self.settings.node.number,
            partial(self.open, service),
            partial(self.refusal, service),
            self.doorbells[service].ring,
            self._status(service),
            tokens(self.settings),
            self._neighbours(service),
            SERVICES[service].source_prefix,
            self._gone,
        )
        if service == "customers":
            require_account = self.settings.customers.require_account
            publication = self.publications.get(service)
            seconds = min(LONGEST_SECONDS, self.settings.supervisor.stop_timeout / 2)
            after = AfterPublication(publication, number, seconds) if publication else None
            api = customers_http.api(outside, require_account, after)
            is_required = require_account or outside.tokens is not None
            api.app.add_route("/imports", ImportsResource(api.service, is_required))
            return api
        return accounts_http.api(outside, self.settings.accounts.threads, sign_ins)

    def _gone(self, group: str) -> Mapping[str, list[Range]]:
        stream = self._impatient_stream()
        try:
            with stream.client:
                return Asks(stream).gone(group)
        except (RedisError, OSError):
            return {}

    def _status(self, service: str) -> StatusProbe:
        """Gathers the status of a service, and of its processes as the supervisor knows them."""
        return StatusProbe(
            service,
            lambda: closing(self.open(service)),
            self.settings.directory,
            self._impatient_stream,
            lambda: [actor for actor in self._reports() if actor.name.startswith(f"{service}-")],
            self.groups,
        )

    def _reports(self) -> list[ActorReport]:
        """Every process as the supervisor knows it; empty when no supervisor answers."""
        try:
            actors = control.ask(self.settings.directory)
        except control.NotRunning:
            return []
        return [actor.report for actor in actors]

    def _impatient_stream(self) -> EventStream:
        """The stream, for a request, which can't wait long for Redis."""
        return EventStream.at(self.redis_url, self.settings.redis.stream, ANSWER_SECONDS)

    def _consume(self, service: str, siblings: Collection[str], actor: Actor) -> None:
        self.let_go_of_listeners()
        database = self.open(service)
        database.beat_by(actor.beat)
        database.expect_writes()
        with closing(database):
            stream, ring = self.stream(actor), self.doorbells[service].ring
            settings, counts = self.settings.consumers, EventMetrics(self.figures(actor))
            make = SERVICES[service].consumer
            consumer.run(actor, make(actor.name, siblings, database, stream, settings, ring, counts))
