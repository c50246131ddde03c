"""Who is there: the actors that the settings ask for, and what each runs as.

This, `services.py` and `commands/run.py` are the only places that know which concrete parts go together.
"""

import mmap
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import structlog

from tally.actors import consumer, control, http_server, limits, redis_server, relay, standby
from tally.actors.actor import PASSING, START_SECONDS, Actor
from tally.actors.doorbell import Doorbell
from tally.actors.housekeeper import Housekeeper
from tally.actors.limits import Limits
from tally.actors.metrics import APPLIED, FAMILIES, ConsumerMetrics, RelayMetrics, actor_metrics
from tally.actors.publication import LONGEST_SECONDS, AfterPublication, Publication
from tally.actors.redis_binaries import Server
from tally.actors.services import SERVICES, Differs, followers, url_of
from tally.actors.supervision import ActorSpec, Stage
from tally.config import AccountsSettings, CustomersSettings, Settings
from tally.http import accounts as accounts_http
from tally.http import customers as customers_http
from tally.http import figures, metrics, operations, pages
from tally.http.after import EventsElsewhere
from tally.http.application import Api
from tally.http.figures import Figures, new_page
from tally.http.minutes import Counts, Minutes
from tally.http.neighbours import Neighbours, Ports
from tally.http.requests import RequestObserver
from tally.http.status import ANSWER_SECONDS, ActorReport, StatusProbe
from tally.http.tokens import Tokens
from tally.importing import imports
from tally.recovery import first_start
from tally.recovery.following import Follower
from tally.recovery.handing_over import TakingOver, go_on, hand_over
from tally.recovery.standing import Standing
from tally.redis_url import bracketed
from tally.store import customers, nodes
from tally.store.asks import Asks
from tally.store.database import Database, Place, place_of
from tally.store.errors import OutdatedDatabase, StoreError
from tally.store.group_commit import AnswerAfter
from tally.store.inbox import Inbox
from tally.store.key_file import SIGNING_KEY, UnusableKey
from tally.store.membership import (
    RENEW_SECONDS,
    AtWorkElsewhere,
    Awaited,
    Candidate,
    Membership,
    Replaced,
    StillAlive,
    leases_of,
    place_of_work,
    promote,
)
from tally.store.outbox import Outbox, recorded
from tally.store.ranges import Range
from tally.store.revocations import Revocations
from tally.store.shared_revocations import SharedRevocations
from tally.store.stream import Age, EventStream, RedisError
from tally.store.write_permission import Refusal, WritePermission

_BACKLOG = 1024
_PLACE = struct.Struct("QQ")
LOOK_SECONDS = 1.0  # until it is looked again whether a database is at work elsewhere
RETRY_SECONDS = 0.5  # until Redis answers, where nothing can be done without

_log = structlog.get_logger()


class PortTaken(Exception):
    """A service's address can't be listened on; the message says which, and why."""


class StandbyWithoutCopy(StoreError):
    """A standby begins from a copy of its primary; the message says how."""


def prepare(settings: Settings, roles: Collection[str]) -> None:
    """Make the data directory, mode 0700, the signing key and the databases of `roles`, or see that
    they are sound.

    A missing customers.db its relay makes, once Redis knows of none. Files of an earlier release are
    brought up to date: the caller holds the DirectoryLock, and starts the actors after this. Raises
    StoreError or OSError.
    """
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(settings.directory, 0o700)
    for name, service in SERVICES.items():
        if name in roles and settings.node.standby and not (settings.directory / f"{name}.db").exists():
            raise StandbyWithoutCopy(
                f"there is no {name}.db in {settings.directory}, and node.standby is set: begin with `join`, "
                "and a `backup` of the primary"
            )
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


def tokens(settings: Settings, lifetime: timedelta | None = None) -> Tokens | None:
    """What gives out tokens and reads them, when there are any. Raises UnusableKey or OSError."""
    if settings.auth.mode == "off":
        return None
    file = settings.directory / SIGNING_KEY.name
    if settings.node.number and not settings.signing_key and not file.exists():
        raise UnusableKey(
            f"{file}: is not there, and node {settings.node.number} takes the tokens of node 0: copy its "
            "file there, mode 0600, or set TALLY_AUTH_SIGNING_KEY for all nodes"
        )
    key = settings.signing_key or SIGNING_KEY.load(settings.directory)
    revocations = Revocations(settings.directory)
    return Tokens(key, lifetime or timedelta(minutes=settings.auth.token_minutes), revocations.cover)


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


class _NotedPlace:
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


class Family:
    """Composes the actors; `redis_url` is how they reach Redis, `listeners` the sockets of their services.

    `is_private` tells that this Redis is no other node's.
    """

    def __init__(
        self,
        settings: Settings,
        redis_url: str,
        listeners: dict[str, socket.socket],
        is_private: bool = False,
    ) -> None:
        self._settings = settings
        self._is_private = is_private
        self._redis_url = redis_url
        self._listeners = listeners
        self._doorbells = {service: Doorbell() for service in SERVICES}
        self._places = {service: _NotedPlace(settings.directory / f"{service}.db") for service in SERVICES}
        customers, replicas = settings.customers, settings.redis.replicas
        self._publications: dict[str, Publication] = {}  # of the services that answer after publication
        if customers.answer_after == "publish":
            self._publications["customers"] = Publication(customers.processes, replicas)
        self._run = secrets.token_hex(8)
        failover = settings.node.failover_seconds
        self._permissions = {service: WritePermission(failover) for service in SERVICES}
        self._pages: dict[str, mmap.mmap] = {}  # of each actor, made before it is forked
        self._minutes = {service: Minutes() for service in SERVICES}

    def redis(self, server: Server) -> list[ActorSpec]:
        """The private Redis, which is that server."""
        place = place_of(self._settings.directory)

        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            redis_server.run(actor, self._settings, server, self._redis_url, place)

        return [ActorSpec("redis", main, Stage.REDIS, str(self._settings.redis.address.host))]

    def service(self, service: str) -> list[ActorSpec]:
        """A service's HTTP processes, its relay and its consumers."""
        address = _address_settings(self._settings, service)
        shown = f"http://{bracketed(address.host)}:{address.port}"
        consumers = getattr(self._settings.consumers, service)
        names = [f"{service}-consumer-{number}" for number in range(1, consumers + 1)]
        specs = [
            *(
                ActorSpec(f"{service}-http-{number}", self._http(service, number - 1), Stage.HTTP, shown)
                for number in range(1, address.processes + 1)
            ),
            ActorSpec(f"{service}-relay", self._relay(service), Stage.RELAY),
            *(ActorSpec(name, self._consumer(service, names), Stage.CONSUMER) for name in names),
        ]
        self._pages.update((spec.name, new_page()) for spec in specs)
        return specs

    def _open(self, service: str) -> Database:
        """The database that was there when all started: no other in its place, and none that is made anew."""
        database = SERVICES[service].open(
            self._settings.directory, make=False, place=self._places[service].get()
        )
        permission = self._permissions[service]
        database.run, database.is_newest = self._run, permission.is_confirmed
        database.refusal = partial(permission.refusal, database.node)
        return database

    def _groups(self) -> dict[str, Age]:
        """The groups of the databases that are here, and their ages; of a service that doesn't run, too."""
        there = (each for each in SERVICES if (self._settings.directory / f"{each}.db").exists())
        ages = {}
        for service in there:
            with closing(self._open(service)) as database:
                ages[database.source] = Inbox(database).age()
        return ages

    def put_logs_aside(self) -> None:
        """Where a database's file was removed or replaced, keep its log from being read into another's.

        To be called when no actor runs any more.
        """
        for noted in self._places.values():
            place, file = noted.get(), noted.file
            if place is None or place_of(file) == place:
                continue
            for log in (Path(f"{file}-wal"), Path(f"{file}-shm")):
                if log.exists():
                    _log.warning("log_put_aside", log=log.name, of=f"a {file.name} that is gone")
                    log.replace(f"{log}.of-the-one-that-is-gone")

    def _let_go_of_listeners(self, keep: str | None = None) -> None:
        """In an actor that doesn't serve them: a port refuses once nobody holds it, and not before."""
        for service, listener in self._listeners.items():
            if service != keep:
                listener.close()

    def _stream(self, actor: Actor) -> EventStream:
        return EventStream.at(self._redis_url, self._settings.redis.stream, expect=actor.expect)

    def _http(self, service: str, number: int) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners(keep=service)
            threads = _address_settings(self._settings, service).threads
            figures, most = self._figures(actor), limits.of_this_process(threads)
            api = self.api(service, most, number)
            actor.depends_on(lambda: not api.service.commits.stands_still())
            with closing(api.service), self._noting_minutes(actor, service, api):
                http_server.run(
                    actor,
                    RequestObserver(api.app, figures),
                    self._listeners[service],
                    threads,
                    self._settings.auth.trusted_proxy,
                    api,
                    most,
                )

        return main

    @contextmanager
    def _noting_minutes(self, actor: Actor, service: str, api: Api) -> Iterator[None]:
        """Note at each full minute what was recorded and applied, in a thread beside the server's."""

        def note() -> None:
            seconds = 0.0
            while not actor.stopping.wait(seconds):
                seconds = 1.0
                with suppress(StoreError):
                    seconds = self._minutes[service].note(self._counts(service, api))

        thread = threading.Thread(target=note, name="minutes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(1)

    def api(self, service: str, most: Limits, number: int = 0) -> Api:
        """A service as its HTTP process of that number serves it, within these limits. Opens its database."""
        api = self._calls(service, most.sign_ins, number)
        parts = self._parts(service) | {"limits": lambda: metrics.limits(service, most._asdict())}
        metrics.add_metrics(api.app, service, parts)
        pages.add_pages(api.app, self._neighbours(service), self._settings.pages.currency)
        operations.add_operations(api.app, self._sources(service, api))
        return api

    def _neighbours(self, service: str) -> Neighbours:
        settings = self._settings
        urls = {"customers": settings.pages.customers_url, "accounts": settings.pages.accounts_url}
        return Neighbours(service, Ports(settings.customers.port, settings.accounts.port), urls)

    def _sources(self, service: str, api: Api) -> operations.Sources:
        """Where the calls of the operations page get from what they tell."""
        return operations.Sources(
            minutes=lambda: self._minutes[service].told(self._counts(service, api)),
            open_stream=partial(EventStream.at, self._redis_url, self._settings.redis.stream, ANSWER_SECONDS),
            actors=lambda: [
                actor for actor in _reports(self._settings) if actor.name.partition("-")[0] not in SERVICES
            ],
        )

    def _counts(self, service: str, api: Api) -> Counts:
        """How much the service has recorded so far, and applied since Tally's start."""
        counted = figures.sums(self._pages_of(service))
        applied = sum(numbers[0] for series, numbers in counted.items() if series[0] == APPLIED.name)
        with api.service.read() as store:
            return Counts(recorded(store.database), int(applied))

    def _pages_of(self, service: str) -> list[mmap.mmap]:
        return [page for name, page in self._pages.items() if name.startswith(f"{service}-")]

    def _calls(self, service: str, sign_ins: int, number: int) -> Api:
        opened, known = partial(self._open, service), tokens(self._settings)
        ring = self._doorbells[service].ring
        status = self._status(service)
        events, neighbours = self._events(service), self._neighbours(service)
        if service == "customers":
            require_account = self._settings.customers.require_account
            after = self._answer_after(service, number)
            api = customers_http.api(opened, ring, require_account, status, known, events, neighbours, after)
            imports.add_imports(api.app, api.service, require_account or known is not None)
            return api
        threads = self._settings.accounts.threads
        return accounts_http.api(opened, ring, status, known, neighbours, threads, sign_ins, events)

    def _answer_after(self, service: str, number: int) -> Callable[[Database], AnswerAfter] | None:
        """What has the answers of the service's HTTP process of that number wait, if anything does."""
        publication = self._publications.get(service)
        if publication is None:
            return None
        seconds = min(LONGEST_SECONDS, self._settings.supervisor.stop_timeout / 2)
        return partial(AfterPublication, publication, number, answer_seconds=seconds)

    def _events(self, service: str) -> EventsElsewhere:
        def gone(group: str) -> Mapping[str, list[Range]]:
            stream = EventStream.at(self._redis_url, self._settings.redis.stream, ANSWER_SECONDS)
            try:
                return Asks(stream).gone(group)
            except (RedisError, OSError):
                return {}
            finally:
                stream.client.close()

        return EventsElsewhere(SERVICES[service].source_prefix, gone)

    def _status(self, service: str) -> StatusProbe:
        return status_probe(self._settings, service, self._redis_url, partial(self._open, service))

    def _figures(self, actor: Actor) -> Figures:
        return Figures(self._pages[actor.name])

    def _parts(self, service: str) -> dict[str, metrics.Part]:
        """What GET /metrics of a service tells, by who knows it."""
        pages = self._pages_of(service)
        probe, directory = self._status(service), self._settings.directory
        return {
            "processes": lambda: metrics.counted(service, FAMILIES, pages),
            "status": lambda: metrics.status_metrics(probe),
            "supervisor": lambda: actor_metrics(service, control.ask(directory)),
        }

    def _relay(self, service: str) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            stream = self._stream(actor)
            if SERVICES[service].is_made_late and not self._begin(actor, stream):
                return
            database = self._open(service)
            database.while_waiting = actor.beat
            membership = self._membership(database, stream)
            with closing(database):
                while not actor.stopping.is_set():
                    try:
                        self._publish(actor, database, stream, membership)
                    except Replaced as replaced:
                        _log.warning("follows", reason=str(replaced))
                        self._follow(actor, database, stream, membership)
                with suppress(RedisError, StoreError):
                    membership.leave()

        return main

    def _publish(self, actor: Actor, database: Database, stream: EventStream, membership: Membership) -> None:
        """Be the relay of a primary, until the actor is to stop. Raises Replaced once it is a standby's."""
        service, permission = database.service, self._permissions[database.service]
        kind = SERVICES[service]
        permission.confirm(False)
        standing = Standing(kind.store(database), stream, actor.beat, permission, membership)
        if nodes.follows(database):
            self._refuse(database)
        _wait_for_number(actor, standing, may_start=self._may_start_without_redis(database))
        if actor.stopping.is_set():
            return
        if nodes.follows(database):
            raise Replaced(f"{database.source} is a standby, as far as is known without Redis")
        publishing = relay.Relay(
            database,
            stream,
            standing.settle,
            RelayMetrics(self._figures(actor)),
            pass_over=not kind.concerns_itself,
            publication=self._publications.get(service),
            holder=membership.holder,
        )
        taking_over = TakingOver(kind.store(database), stream)

        def renew() -> None:
            standing.take_number()
            if not self._is_private and taking_over.step():  # a private one has no standbys
                publishing.look_again()

        relay.run(
            actor,
            publishing,
            self._doorbells[service],
            self._housekeeper(database, stream, renew),
            kind.answering(database, stream).step,
        )

    def _follow(self, actor: Actor, database: Database, stream: EventStream, membership: Membership) -> None:
        """Be the relay of a standby, until it is promoted, or the actor is to stop."""
        self._refuse(database)
        follower = Follower(SERVICES[database.service].store(database), stream, actor.beat)
        watch = standby.Watch(self._settings.node.failover_seconds)

        def look() -> None:
            self._refuse(database)  # the primary may be another by now
            hand_over(database, stream)
            leases = leases_of(stream, database.node)
            info: Any = stream.client.info("server")
            if watch.sees(leases, info["run_id"]):
                self._fail_over(stream, leases)

        standby.run(
            actor,
            follower,
            self._housekeeper(database, stream),
            lambda: membership.take() is None,
            look,
            watch.sees_nothing,
        )
        if not actor.stopping.is_set():
            follower.catch_up()
            go_on(follower.store, stream)
            _log.warning("promoted", source=database.source)

    def _refuse(self, database: Database) -> None:
        url = nodes.address_of(database, database.node) or ""
        self._permissions[database.service].refuse(Refusal.STANDBY, url)

    def _fail_over(self, stream: EventStream, leases: Mapping[str, str]) -> None:
        """Take the primary's place: with all databases that follow it, unless it shows a sign of life."""
        try:
            if candidates := self._candidates(leases):
                promote(stream, self._settings.node.number, candidates)
        except StillAlive as alive:
            _log.info("primary_is_alive", reason=str(alive))

    def _candidates(self, leases: Mapping[str, str]) -> list[Candidate]:
        """The databases here that follow a primary, to be promoted where `leases` still tell the same.

        None where one of them can't be.
        """
        found = []
        try:
            for database in followers(self._settings.directory, self._open):
                seen = [each for name, each in leases.items() if name.startswith(f"{database.service}@")]
                url = url_of(self._settings, database.service)
                found.append(Candidate(database.source, url, "".join(seen)))
        except Differs as differs:
            _log.warning("not_promoted", database=differs.source)
            return []
        return found

    def _housekeeper(
        self, database: Database, stream: EventStream, take_number: Callable[[], object] = lambda: None
    ) -> Housekeeper:
        failover = self._settings.node.failover_seconds
        return Housekeeper(
            database,
            stream,
            timedelta(days=self._settings.data.retention_days),
            self._groups,
            renew=self._renewing(stream, take_number),
            renew_seconds=min(RENEW_SECONDS, failover / 4 or RENEW_SECONDS),
        )

    def _begin(self, actor: Actor, stream: EventStream) -> bool:
        """Make customers.db where there is none, once Redis has answered; see insist_on_no_other.

        False when the actor is to stop before that.
        """
        directory, where = self._settings.directory, str(self._settings.redis.address)
        node = self._settings.node.number
        file = directory / customers.FILE
        is_there = file.exists()
        while not actor.stopping.is_set():
            try:
                first_start.insist_on_no_other(directory, stream, where, node, actor.beat)
                break
            except RedisError as error:
                if is_there:
                    break  # nobody can tell now
                actor.trouble(f"{error}; {customers.FILE} is made once Redis has told that there is no other")
                actor.wait(RETRY_SECONDS)
        else:
            return False
        if not is_there:
            first_start.make(directory, node)
            self._places[customers.SERVICE].note()
            actor.trouble(None)
        return True

    def _membership(self, database: Database, stream: EventStream) -> Membership:
        url = url_of(self._settings, database.service)
        place = place_of_work(self._settings.directory)
        may_replace: Literal["", "idle", "any"] = "any" if self._is_private else ""
        if not may_replace and database.service != customers.SERVICE and self._has_customers():
            may_replace = "idle"  # this is the node's directory, and its accounts.db was lost or put back
        return Membership(database, stream, url, place=place, may_replace=may_replace)

    def _has_customers(self) -> bool:
        """Whether this directory has the node's customers.db."""
        if not (self._settings.directory / customers.FILE).exists():
            return False
        with closing(self._open(customers.SERVICE)) as database:
            return database.node == self._settings.node.number and not nodes.follows(database)

    def _may_start_without_redis(self, database: Database) -> bool:
        """Whether it may be written to before Redis has told that it has its number."""
        return bool(nodes.known_texts(database) or Outbox(database).last() or self._has_customers())

    def _renewing(self, stream: EventStream, take_number: Callable[[], object]) -> Callable[[int], None]:
        """What renews the lease, and exchanges with other nodes whose tokens are good no more."""
        directory = self._settings.directory

        @contextmanager
        def locked() -> Iterator[None]:  # like `users`: in a transaction of accounts.db, where there is one
            service = next(name for name in ("accounts", "customers") if (directory / f"{name}.db").exists())
            with closing(self._open(service)) as database, database.transaction():
                yield

        revocations = SharedRevocations(stream, Revocations(directory), locked)

        def renew(now: int) -> None:
            take_number()
            if self._settings.auth.mode != "off":
                revocations.exchange(now)

        return renew

    def _consumer(self, service: str, siblings: Collection[str]) -> Callable[[Actor], None]:
        def main(actor: Actor) -> None:
            self._let_go_of_listeners()
            database = self._open(service)
            database.while_waiting = actor.beat
            database.expect_writes()
            with closing(database):
                consumer.run(
                    actor,
                    SERVICES[service].consumer(
                        actor.name,
                        siblings,
                        database,
                        self._stream(actor),
                        self._settings.consumers,
                        self._doorbells[service].ring,
                        ConsumerMetrics(self._figures(actor)),
                    ),
                )

        return main


def _wait_for_number(actor: Actor, standing: Standing, may_start: bool) -> None:
    """Wait until a new node has its number: no request is answered before, and no id given.

    Where another is at work in its place, wait for the end of its lease. Raises AtWorkElsewhere once that is
    renewed. While Redis can't tell, one that `may_start` without does, and another waits.
    """
    said: int | None = None
    while not actor.stopping.is_set():
        try:
            standing.take_number()
        except Awaited as awaited:
            actor.trouble(str(awaited))
            actor.wait(awaited.seconds)
            continue
        except AtWorkElsewhere as elsewhere:
            if said not in (None, elsewhere.said):
                raise
            said = elsewhere.said
            actor.trouble(f"{elsewhere} (looking whether it still is)")
            actor.expect(START_SECONDS)
            actor.wait(min(elsewhere.seconds, LOOK_SECONDS))
            continue
        except PASSING as error:
            if not may_start:
                actor.trouble(f"{error}; a new node begins once Redis has told that nobody has its number")
                actor.wait(RETRY_SECONDS)
                continue
        actor.trouble(None)
        return


def status_probe(
    settings: Settings, service: str, redis_url: str, open_database: Callable[[], Database] | None = None
) -> StatusProbe:
    """What gathers the status of a service, its processes as the supervisor knows them included."""

    opened = open_database or partial(SERVICES[service].open, settings.directory, make=False)
    return StatusProbe(
        service,
        lambda: closing(opened()),
        settings.directory,
        lambda: EventStream.at(redis_url, settings.redis.stream, ANSWER_SECONDS),
        lambda: [actor for actor in _reports(settings) if actor.name.startswith(f"{service}-")],
    )


def _reports(settings: Settings) -> list[ActorReport]:
    """Every process as the supervisor knows it; none when no supervisor tells."""
    try:
        actors = control.ask(settings.directory)
    except control.NotRunning:
        return []
    return [
        ActorReport(
            actor.name, actor.state, actor.restarts, actor.trouble or actor.failed, actor.uptime_seconds
        )
        for actor in actors
    ]


def _address_settings(settings: Settings, service: str) -> AccountsSettings | CustomersSettings:
    return settings.customers if service == "customers" else settings.accounts
