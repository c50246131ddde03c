"""The process of one service's relay. A primary's publishes, a standby's follows.

On promotion a follower becomes a publisher; a primary that was replaced becomes a follower.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import redis
import structlog

from tally.actors import relay
from tally.actors.actor import PASSING, START_SECONDS, Actor
from tally.actors.housekeeper import Housekeeper
from tally.actors.metrics import EventMetrics
from tally.actors.services import SERVICES, Differs, followers, url_of
from tally.actors.shared import Shared
from tally.recovery import first_start
from tally.recovery.following import Follower
from tally.recovery.handing_over import TakingOver, go_on, hand_over
from tally.recovery.standing import Standing
from tally.store import customers, nodes, shared_revocations
from tally.store.database import Database
from tally.store.errors import StoreError, StoreUnavailable, UnusableDatabase
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
from tally.store.outbox import Outbox
from tally.store.revocations import Revocations
from tally.store.stream import EventStream, RedisError
from tally.store.write_permission import Refusal, boot_clock

LOOK_SECONDS = 1.0  # between two looks whether a database is at work elsewhere
RETRY_SECONDS = 0.5  # between two tries when nothing can be done without Redis
FOLLOWING_MS = 100  # how long a standby waits for the next entry
WATCHING_SECONDS = 0.5  # between a standby's looks whether it was promoted, and whether the primary is alive

NO_ANSWER = (redis.ConnectionError, redis.TimeoutError)

_log = structlog.get_logger()


class Watch:
    """Tells when a primary was silent for so long that a standby must take its place.

    It counts from the last renewal of the primary's leases that was seen here, by this machine's clock. It
    starts again when Redis was replaced or couldn't be reached: the primary may have had the same trouble.
    """

    def __init__(self, failover_seconds: float, clock: Callable[[], float] = boot_clock) -> None:
        self._seconds = failover_seconds
        self._clock = clock
        self._seen: tuple[Mapping[str, str], str] | None = None
        self._since = clock()

    def sees(self, leases: Mapping[str, str], redis: str) -> bool:
        """Whether all leases of the databases with that number have lapsed, as told by that Redis."""
        if (leases, redis) != self._seen:
            self._seen, self._since = (leases, redis), self._clock()
        return self._seconds > 0 and self._clock() - self._since >= self._seconds

    def sees_nothing(self) -> None:
        """Start again: Redis did not answer."""
        self._seen = None


class RelayProcess:
    """Runs a service's relay. First makes customers.db, if there is none."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._failover_seconds = shared.settings.node.failover_seconds

    def run(self, actor: Actor, service: str) -> None:
        """Be the relay until the actor must stop."""
        self._shared.let_go_of_listeners()
        stream = self._shared.stream(actor)
        if SERVICES[service].is_made_late and not self._begin(actor, stream):
            return
        database = self._shared.open(service)
        database.beat_by(actor.beat)
        # Corrections may take longer than a lease lasts. Redis takes them only from who has the number.
        database.refusal = partial(self._shared.refusal, service, may_lapse=True)
        membership = self._membership(database, stream)
        with closing(database):
            while not actor.stopping.is_set():
                try:
                    self._publish(actor, database, stream, membership)
                except Replaced as replaced:
                    _log.warning("follows", reason=str(replaced))
                    self._follow(actor, database, stream, membership)
            if self._shared.is_ending():  # else other processes still write
                with suppress(RedisError, StoreError):
                    membership.leave()

    def _publish(self, actor: Actor, database: Database, stream: EventStream, membership: Membership) -> None:
        """Be a primary's relay until the actor must stop. Raises Replaced once it is a standby's."""
        service, permission = database.service, self._shared.permissions[database.service]
        kind = SERVICES[service]
        standing = Standing(kind.store(database), stream, permission, membership)
        if nodes.follows(database):
            self._refuse(database)
        # One that has had its number before may be written to before Redis confirms that.
        is_known = nodes.known_texts(database) or Outbox(database).last() or self._has_customers()
        _wait_for_number(actor, standing, may_start=bool(is_known))
        if actor.stopping.is_set():
            return
        if nodes.follows(database):
            raise Replaced(f"{database.source} is a standby, as far as is known without Redis")
        publishing = relay.Relay(
            database,
            stream,
            standing.settle,
            EventMetrics(self._shared.figures(actor)),
            pass_over=not kind.concerns_itself,
            publication=self._shared.publications.get(service),
            holder=membership.holder,
        )
        taking_over = TakingOver(kind.store(database), stream)

        def renew() -> None:
            standing.take_number()
            while not self._shared.is_private and taking_over.step():  # a private one has no standbys
                publishing.look_again()

        doorbell, answer = self._shared.doorbells[service], kind.answering(database, stream).step
        relay.run(actor, publishing, doorbell, self._housekeeper(database, stream, renew), answer)

    def _follow(self, actor: Actor, database: Database, stream: EventStream, membership: Membership) -> None:
        """Be a standby's relay until it is promoted, or the actor must stop.

        It is ready once it has taken in everything on the stream.
        """
        self._refuse(database)
        follower = Follower(SERVICES[database.service].store(database), stream)
        housekeeper, watch = self._housekeeper(database, stream), Watch(self._failover_seconds)
        taken, next_look, promoted = 0, 0.0, False

        def step() -> None:
            nonlocal taken, next_look
            try:
                with _following():
                    taken = follower.step(FOLLOWING_MS)
                    housekeeper.step()
            except NO_ANSWER:
                watch.sees_nothing()
                raise
            finally:  # whatever fails, for however long: the primary may be gone
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + WATCHING_SECONDS
                    look()

        def look() -> None:
            nonlocal promoted
            try:
                self._watch(database, stream, watch)
                is_primary = membership.take() is None
            except RedisError:
                watch.sees_nothing()
                raise
            with _following():
                if is_primary:
                    follower.catch_up()
                    go_on(follower.store, stream)
                    _log.warning("promoted", source=database.source)
                    promoted = True
                    return
                hand_over(database, stream)
                if not taken:
                    follower.look()

        actor.attempt(_following()(follower.catch_up))
        actor.ready()
        actor.repeat(step, until=lambda: promoted)

    def _watch(self, database: Database, stream: EventStream, watch: Watch) -> None:
        self._refuse(database)  # the primary may have changed
        leases = leases_of(stream, database.node)
        info: Any = stream.client.info("server")
        if watch.sees(leases, info["run_id"]):
            self._fail_over(stream, leases)

    def _refuse(self, database: Database) -> None:
        url = nodes.address_of(database, database.node) or ""
        self._shared.permissions[database.service].refuse(Refusal.STANDBY, url)

    def _fail_over(self, stream: EventStream, leases: Mapping[str, str]) -> None:
        """Promote all databases that follow the primary, unless one of them can't be.

        They are promoted only if `leases` are still the same: else the primary has shown a sign of life.
        """
        settings, found = self._shared.settings, []
        try:
            for database in followers(settings.directory, self._shared.open):
                found.append(Candidate(database.source, url_of(settings, database.service)))
            if found:
                promote(stream, settings.node.number, found, leases)
        except Differs as differs:
            _log.warning("not_promoted", database=differs.source)
        except StillAlive as alive:
            _log.info("primary_is_alive", reason=str(alive))

    def _housekeeper(
        self, database: Database, stream: EventStream, take_number: Callable[[], object] = lambda: None
    ) -> Housekeeper:
        """Also renews the lease, and exchanges revocations of tokens with other nodes."""
        settings = self._shared.settings
        revocations = Revocations(settings.directory)

        def renew(now: int) -> None:
            take_number()
            if settings.auth.mode != "off":
                shared_revocations.exchange(stream, revocations, self._shared.revoking, now)

        return Housekeeper(
            database,
            stream,
            timedelta(days=settings.data.retention_days),
            self._shared.groups,
            renew=renew,
            renew_seconds=min(RENEW_SECONDS, self._failover_seconds / 4 or RENEW_SECONDS),
        )

    def _begin(self, actor: Actor, stream: EventStream) -> bool:
        """Make customers.db if there was none at the start, once Redis has answered; see insist_on_no_other.

        False when the actor must stop before that.
        """
        directory, where = self._shared.settings.directory, str(self._shared.settings.redis.address)
        node = self._shared.settings.node.number
        place = self._shared.places[customers.SERVICE]
        is_there = place.get() is not None  # or was, and is lost
        while not actor.stopping.is_set():
            try:
                first_start.insist_on_no_other(directory, stream, where, node)
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
            place.note()
            self._shared.permissions[customers.SERVICE].doubt()  # confirmed was the file that is gone
            actor.trouble(None)
        return True

    def _membership(self, database: Database, stream: EventStream) -> Membership:
        url = url_of(self._shared.settings, database.service)
        place = place_of_work(self._shared.settings.directory)
        may_replace: Literal["", "idle", "any"] = "any" if self._shared.is_private else ""
        if not may_replace and database.service != customers.SERVICE and self._has_customers():
            may_replace = "idle"  # this is the node's directory, and its accounts.db was lost or put back
        return Membership(database, stream, url, place=place, may_replace=may_replace)

    def _has_customers(self) -> bool:
        """Whether this directory has the node's customers.db."""
        if not (self._shared.settings.directory / customers.FILE).exists():
            return False
        with closing(self._shared.open(customers.SERVICE)) as database:
            return database.node == self._shared.settings.node.number and not nodes.follows(database)


@contextmanager
def _following() -> Iterator[None]:
    """Have a failure tried again, and told, even if it is a fault of the code: others watch no lease here."""
    try:
        yield
    except (*NO_ANSWER, UnusableDatabase):
        raise
    except Exception as error:
        if not isinstance(error, PASSING):
            _log.exception("following_failed")
        raise StoreUnavailable(f"following fails: {type(error).__name__}: {error}") from error


def _wait_for_number(actor: Actor, standing: Standing, may_start: bool) -> None:
    """Wait until a new node has its number. Before that, no request is answered and no id is given.

    If the database is at work elsewhere, wait for the end of its lease. Raises AtWorkElsewhere once that is
    renewed. While Redis is unreachable, go on if it `may_start` without, else wait.
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
