"""The content of GET /status, gathered from a service's database and from Redis."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import apsw
from msgspec import Struct

from tally.http import reasons as told
from tally.http.reasons import ActorReport
from tally.store import accounts, lacking, read_model
from tally.store import notes as noted
from tally.store import ranges as numbers
from tally.store.asks import Asks
from tally.store.consumer_group import ConsumerGroup
from tally.store.database import Database
from tally.store.errors import StoreError
from tally.store.groups import Groups, behind
from tally.store.inbox import Inbox
from tally.store.incarnations import own_sources
from tally.store.membership import number_of, read_nodes
from tally.store.nodes import Node, follows, known_nodes
from tally.store.outbox import Outbox, outboxes
from tally.store.ranges import Range
from tally.store.stream import Age, EventStream, RedisError
from tally.version import VERSION

ANSWER_SECONDS = 0.2  # twice that, to connect and to answer, stays below half a second
TOLD_LOG_BYTES = 64_000_000  # of a write-ahead log; some 16 MiB are usual, at most 32


class RedisStatus(Struct, frozen=True):
    """Figures from Redis. Each is None if Redis can't be reached, or wasn't asked.

    `pending` entries were read and not yet applied. `lag` tells, for each other source, how many of its
    published events are missing here.
    """

    reachable: bool | None = None
    pending: int | None = None
    dead_letters: int | None = None
    lag: dict[str, int] | None = None


class NodeStatus(Struct, frozen=True):
    """A node on the stream, as this service knows it: its databases, and where its services are to be found.

    A `standby` of a node follows it; where there are several, each of their databases stands for itself.

    `lag` tells how many of its events are missing here, None where that can't be told; `idle_seconds` for how
    long nobody of it has read the stream, None where nobody has.
    """

    number: int
    here: bool
    standby: bool = False
    customers: str | None = None
    accounts: str | None = None
    url_customers: str = ""
    url_accounts: str = ""
    lag: int | None = None
    idle_seconds: float | None = None


class StatusReport(Struct, frozen=True):
    """A service's state; `status` is "ok", or "degraded" for the `reasons` given.

    `notes` tell what people should know that is no fault. `nodes` has all of the stream, this one too. A
    `standby` follows its node's primary, and records nothing itself.
    """

    status: Literal["ok", "degraded"]
    reasons: list[str]
    notes: list[str]
    service: str
    standby: bool
    version: str
    identity: str | None
    outbox_depth: int | None
    redis: RedisStatus
    nodes: list[NodeStatus]
    actors: list[ActorReport]
    disk_free_bytes: int | None
    database_log_bytes: int | None
    sqlite_version: str


class StatusProbe(Struct, frozen=True):
    """Gathers a StatusReport over its own connections, which it opens each time.

    `actors` answers the service's processes, none without a supervisor; it must not block for long. `readers`
    answers the groups of this machine's other databases, with their ages, even if their service doesn't run.
    """

    _service: str
    _open_database: Callable[[], AbstractContextManager[Database]]
    _directory: Path
    _open_stream: Callable[[], EventStream]
    _actors: Callable[[], list[ActorReport]]
    _readers: Callable[[], Mapping[str, Age]] = dict

    def __call__(self, for_admin: bool = True) -> StatusReport:
        """Gather it now. Raises nothing: a failed part becomes a reason.

        Other users aren't told of revenue, which may be of another's account that was just deleted.
        """
        actors = self._actors()
        reasons: list[str] = []
        notes: list[str] = []
        identity, depth, log_bytes, redis, is_standby = None, None, None, RedisStatus(), False
        nodes: list[NodeStatus] = []
        try:
            with self._open_database() as database:
                identity, depth = database.identity, Outbox(database).depth()
                is_standby = follows(database)
                notes += told.standby(database)
                reasons += told.differing(database)
                reasons += told.awaiting_rest(database)
                if self._service == accounts.SERVICE:
                    notes += told.unshown(database) if for_admin else ()
                    reasons += told.given_twice(database)
                notes += [*([] if is_standby else lacking.told(database)), *noted.told(database)]
                redis, nodes = self._ask_redis(database, reasons, notes)
                log_bytes = database.log_bytes()
        except StoreError as error:
            reasons.append(str(error))
        disk_free: int | None = None
        with suppress(OSError):
            disk_free = disk_usage(self._directory).free
        reasons += told.full(self._directory, disk_free)
        reasons = [*told.troubles(actors, reasons), *reasons]
        if log_bytes is not None and log_bytes >= TOLD_LOG_BYTES:
            reasons.append(
                f"{self._service}.db-wal has {log_bytes / 1e6:,.0f} MB: something reads it without an end, "
                "and so keeps its log from being emptied; end it (`lsof` tells which)"
            )
        return StatusReport(
            status="degraded" if reasons else "ok",
            reasons=reasons,
            notes=notes,
            service=self._service,
            standby=is_standby,
            version=VERSION,
            identity=identity,
            outbox_depth=depth,
            redis=redis,
            nodes=nodes,
            actors=actors,
            disk_free_bytes=disk_free,
            database_log_bytes=log_bytes,
            sqlite_version=apsw.sqlite_lib_version(),
        )

    def _trimming_waits(self, database: Database, stream: EventStream) -> Iterator[str]:
        noted = stream.ages()  # read before the databases' ages, which grow meanwhile
        readers = {database.source: Inbox(database).age()}
        with suppress(StoreError):  # the other service's file may be gone, and its own status tells
            readers |= self._readers()
        return told.trimming_waits(behind(noted, readers))

    def _ask_redis(
        self, database: Database, reasons: list[str], notes: list[str]
    ) -> tuple[RedisStatus, list[NodeStatus]]:
        stream = self._open_stream()
        groups = Groups(stream)
        try:
            dead_letters = stream.dead_letters()
            published = stream.known_by_source()
            inbox = Inbox(database)
            missing = {source: inbox.missing(source, last) for source, last in published.items()}
            missing |= {own: [] for own in own_sources(database)}  # it has these itself
            if follows(database):  # what its primary has published, and it has not taken in yet
                missing |= {
                    source: [Range(outbox.last() + 1, last)]
                    for source, outbox in outboxes(database).items()
                    if (last := published.get(source, 0)) > outbox.last()
                }
            if self._service != accounts.SERVICE:  # and it doesn't need events of the same service elsewhere
                missing |= {each: [] for each in published if not each.startswith(f"{accounts.SERVICE}@")}
            asks = Asks(stream)
            given_up, gone = asks.given_up() & missing.keys(), asks.gone(database.source)
            known, heirs = read_nodes(stream), stream.heirs()
            whose = {source: number_of(source, known, heirs) for source in published}
            wanted = {each: missing[each] for each in missing.keys() - given_up}
            reasons += told.lost(asks, database, wanted, gone, whose)
            lost = {each: numbers.both(missing[each], gone.get(each, [])) for each in given_up}
            lag = {
                each: numbers.count(missing[each]) - numbers.count(lost.get(each, [])) for each in published
            }
            notes += told.given_up(lost)
            notes += told.others(database, published, known, heirs)
            reasons += [*told.kept(groups.holding(), known), *told.missed(groups.overtaken(), known)]
            reasons += [
                *self._trimming_waits(database, stream),
                *told.ahead(stream.newest(), stream.now_ms()),
            ]
            nodes = _nodes(database, known, whose, lag, groups)
            # Last: without lag, all published events were handed out, but some may still be pending.
            pending = ConsumerGroup(stream, database.source, "").pending()
            if self._service == "accounts" and pending == 0 and (why := read_model.due(database)):
                reasons.append(why)
        except (RedisError, OSError) as error:
            reasons.append(f"{told.REDIS_AWAY}: {error}")
            return RedisStatus(reachable=False), _nodes(database, known_nodes(database))
        except ValueError as error:  # another program has written it
            reasons.append(f"{told.UNREADABLE}: {error}")
            return RedisStatus(reachable=True), _nodes(database, known_nodes(database))
        finally:
            stream.client.close()
        if dead_letters:
            wait = "dead letter waits" if dead_letters == 1 else "dead letters wait"
            reasons.append(f"{dead_letters} {wait} for a decision")
        return RedisStatus(reachable=True, pending=pending, dead_letters=dead_letters, lag=lag), nodes


def _nodes(
    database: Database,
    known: Mapping[str, Node],
    whose: Mapping[str, int] | None = None,
    lag: Mapping[str, int] | None = None,
    groups: Groups | None = None,
) -> list[NodeStatus]:
    """The nodes, by number. `whose` tells which node has each source of the `lag`."""
    is_standby = follows(database)
    found = []
    for number, is_its_standby, databases in _together(known):
        idle = [ms for name in databases.values() if groups and (ms := groups.idle_ms(name)) is not None]
        missing = [count for source, count in (lag or {}).items() if whose and whose[source] == number]
        urls = {service: known[name].url for service, name in databases.items()}
        found.append(
            NodeStatus(
                number,
                number == database.node
                and is_its_standby == is_standby
                and (not is_standby or databases.get(database.service) == database.source),
                is_its_standby,
                databases.get("customers"),
                databases.get("accounts"),
                urls.get("customers", ""),
                urls.get("accounts", ""),
                lag=None if lag is None else sum(missing),
                idle_seconds=min(idle) / 1000 if idle else None,
            )
        )
    return found


def _together(known: Mapping[str, Node]) -> Iterator[tuple[int, bool, dict[str, str]]]:
    """The databases of each node by service, then those of its standbys.

    With several standbys, each database is listed alone: nothing tells which belong together.
    """
    there: dict[tuple[int, bool], list[str]] = {}
    for name, node in sorted(known.items()):
        if not node.is_removed:
            there.setdefault((node.number, node.is_standby), []).append(name)
    for (number, is_standby), names in sorted(there.items()):
        services = [name.partition("@")[0] for name in names]
        are_several = is_standby and len({*services}) < len(services)
        for together in [[name] for name in names] if are_several else [names]:
            yield number, is_standby, {name.partition("@")[0]: name for name in together}
