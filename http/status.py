"""What GET /status tells of a service, gathered from its database and from Redis."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import apsw
from msgspec import Struct

from tally.store import account_totals, accounts, lacking, read_model
from tally.store import notes as noted
from tally.store import ranges as numbers
from tally.store.asks import Asks
from tally.store.consumer_group import ConsumerGroup
from tally.store.database import Database
from tally.store.errors import StoreError
from tally.store.groups import Groups
from tally.store.inbox import Inbox
from tally.store.incarnations import incarnations, own_sources
from tally.store.membership import number_of, read_nodes
from tally.store.nodes import Node, differs, follows, known_nodes
from tally.store.outbox import Outbox
from tally.store.ranges import Range
from tally.store.stream import EventStream, RedisError, entry_time
from tally.version import VERSION

ANSWER_SECONDS = 0.2  # twice that, to connect and to answer, stays below half a second
REDIS_AWAY = "Redis does not answer"  # so begins the reason
_NO_ANSWER = {"ConnectionError", "TimeoutError", "BusyLoadingError"}  # so begin actors' troubles then
TOLD_LOG_BYTES = 64_000_000  # of a write-ahead log; some 16 MiB are usual, at most 32


class RedisStatus(Struct, frozen=True):
    """What Redis tells; every figure is None while it can't be reached, or wasn't asked.

    `pending` entries were read and not yet applied; `lag` tells how many events of each source were
    published and are missing here: of its own, none.
    """

    reachable: bool | None = None
    pending: int | None = None
    dead_letters: int | None = None
    lag: dict[str, int] | None = None


class ActorReport(Struct, frozen=True):
    """A process of the service, as its supervisor sees it; `trouble` is what it waits out.

    `uptime_seconds` is None for one that doesn't run.
    """

    name: str
    state: str
    restarts: int
    trouble: str | None = None
    uptime_seconds: float | None = None


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


class StatusProbe:
    """Gathers a StatusReport over connections of its own, opened anew each time.

    `actors` answers the service's processes, none when no supervisor tells; it may not block for long.
    """

    def __init__(
        self,
        service: str,
        open_database: Callable[[], AbstractContextManager[Database]],
        directory: Path,
        open_stream: Callable[[], EventStream],
        actors: Callable[[], list[ActorReport]],
    ) -> None:
        self._service = service
        self._open_database = open_database
        self._directory = directory
        self._open_stream = open_stream
        self._actors = actors

    def __call__(self) -> StatusReport:
        """Look now. Raises nothing: what can't be told becomes a reason."""
        actors = self._actors()
        reasons: list[str] = []
        notes: list[str] = []
        identity, depth, log_bytes, redis, is_standby = None, None, None, RedisStatus(), False
        nodes: list[NodeStatus] = []
        try:
            with self._open_database() as database:
                identity, depth = database.identity, Outbox(database).depth()
                is_standby = follows(database)
                notes += _standby(database)
                reasons += _differing(database)
                if self._service == accounts.SERVICE:
                    notes += _unshown(database)
                    reasons += _given_twice(database)
                notes += [*([] if is_standby else lacking.told(database)), *noted.told(database)]
                redis, nodes = self._ask_redis(database, reasons, notes)
                log_bytes = database.log_bytes()
        except StoreError as error:
            reasons.append(str(error))
        reasons = [*troubles(actors, reasons), *reasons]
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
            disk_free_bytes=self._disk_free(),
            database_log_bytes=log_bytes,
            sqlite_version=apsw.sqlite_lib_version(),
        )

    def _disk_free(self) -> int | None:
        try:
            return disk_usage(self._directory).free
        except OSError:
            return None

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
            missing |= {own: [] for own in own_sources(database)}  # it knows these
            missing |= _to_follow(database, published)
            if self._service != accounts.SERVICE:  # nor does it want those of another of its kind
                missing |= {each: [] for each in published if not each.startswith(f"{accounts.SERVICE}@")}
            asks = Asks(stream)
            given_up, gone = asks.given_up() & missing.keys(), asks.gone(database.source)
            known, heirs = read_nodes(stream), stream.heirs()
            whose = {source: number_of(source, known, heirs) for source in published}
            wanted = {each: missing[each] for each in missing.keys() - given_up}
            reasons += _lost(asks, database, wanted, whose)
            lost = {each: numbers.both(missing[each], gone.get(each, [])) for each in given_up}
            lag = {
                each: numbers.count(missing[each]) - numbers.count(lost.get(each, [])) for each in published
            }
            notes += _given_up(lost)
            notes += _others(database, published, known, heirs)
            reasons += [*_kept(groups.holding(), known), *_missed(groups.overtaken(), known)]
            nodes = _nodes(database, known, whose, lag, groups)
            # Last: without lag, all that was published has been handed out, and may be pending still.
            pending = ConsumerGroup(stream, database.source, "").pending()
            if self._service == "accounts" and pending == 0 and (why := read_model.due(database)):
                reasons.append(why)
        except (RedisError, OSError) as error:
            reasons.append(f"{REDIS_AWAY}: {error}")
            return RedisStatus(reachable=False), _nodes(database, known_nodes(database))
        finally:
            stream.client.close()
        if dead_letters:
            wait = "dead letter waits" if dead_letters == 1 else "dead letters wait"
            reasons.append(f"{dead_letters} {wait} for a decision")
        return RedisStatus(reachable=True, pending=pending, dead_letters=dead_letters, lag=lag), nodes


def troubles(actors: Collection[ActorReport], reasons: Collection[str]) -> Iterator[str]:
    """The actors' troubles: each once, with all actors that have it, without those among the reasons.

    When Redis does not answer, that is one trouble, however each actor words it.
    """
    waiting: dict[str, list[str]] = {}
    is_away = any(reason.startswith(REDIS_AWAY) for reason in reasons)
    for actor in actors:
        name, _, said = (actor.trouble or "").partition(": ")
        if is_away and name in _NO_ANSWER:
            continue
        if actor.trouble and not any((said or name) in reason for reason in reasons):
            waiting.setdefault(actor.trouble, []).append(actor.name)
    return (f"{', '.join(names)}: {trouble}" for trouble, names in waiting.items())


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
    """The databases of each node by service, then those of its standby.

    Of several standbys, each database stands alone: nothing tells which belong together.
    """
    there: dict[tuple[int, bool], list[str]] = {}
    for name, node in sorted(known.items()):
        if not node.is_removed:
            there.setdefault((node.number, node.is_standby), []).append(name)
    for (number, is_standby), names in sorted(there.items()):
        services = [name.partition("@")[0] for name in names]
        if len({*services}) == len(services) or not is_standby:
            yield number, is_standby, dict(zip(services, names, strict=True))
        else:
            for service, name in zip(services, names, strict=True):
                yield number, is_standby, {service: name}


def _to_follow(database: Database, published: Mapping[str, int]) -> dict[str, list[Range]]:
    """Published events of its primary that a standby has not taken in yet."""
    if not follows(database):
        return {}
    every = (Outbox(database, each) for each in incarnations(database))
    return {
        outbox.source: [Range(outbox.last() + 1, last)]
        for outbox in every
        if (last := published.get(outbox.source, 0)) > outbox.last()
    }


def _standby(database: Database) -> Iterator[str]:
    """That it is a standby, and of which primary."""
    if follows(database):
        primaries = [
            name
            for name, node in known_nodes(database).items()
            if node.number == database.node and node.has_number and name.startswith(database.service)
        ]
        yield (
            f"this is a standby of node {database.node}, whose primary is {[*primaries, 'nobody'][0]}: it "
            "records nothing itself; `promote` has it go on in the primary's place"
        )


def _differing(database: Database) -> Iterator[str]:
    """What a standby lacks of its primary, or has beyond it."""
    lacks = lacking.lacking_of(database) if follows(database) else {}
    if lacks:
        count = sum(map(numbers.count, lacks.values()))
        yield (
            f"{database.path.name} lacks {count:,} events of the primary, which were taken off the stream "
            "before they were read here: begin it again with `join`, and a `backup` of the primary"
        )
    if differs(database):
        yield (
            f"{database.path.name} has something that the primary did not take over from it, and so can't "
            "take its place: begin it again with `join`, and a `backup` of the primary"
        )


def _others(
    database: Database, published: Collection[str], known: Mapping[str, Node], heirs: Mapping[str, str]
) -> Iterator[str]:
    """Other databases of the same service and node on the stream, which may give the same numbers."""
    own = own_sources(database)
    others = [
        source
        for source in published
        if source.startswith(f"{database.service}@")
        and source not in own
        and "+" not in source
        and number_of(source, known, heirs) == database.node
    ]
    if others := sorted({*others} - {former for heir, former in heirs.items() if heir not in own}):
        told = (
            f"the stream has, or had, events of {' and '.join(others[:3])}, another {database.service} "
            "database: where two give the same number, the one that was first by its date counts"
        )
        if database.service != accounts.SERVICE:
            told += (
                f". What they told still counts where it was applied, also what {database.path.name} lacks; "
                "if that database is gone for good, `rebuild accounts` leaves it out"
            )
        yield told


def _given_twice(database: Database) -> Iterator[str]:
    """Rows whose number two sources have given."""
    if count := accounts.Accounts(database).given_twice():
        yield (
            f"{count:,} customers or accounts were created under a number that another had, by two sources: "
            "the one that was first by its date is shown, with what both have earned"
        )


def _unshown(database: Database) -> Iterator[str]:
    """Revenue that no open account shows."""
    totals = account_totals.unopened(database)
    if totals.customers:
        cents = int(totals.total_revenue_cents)
        yield (
            f"{cents // 100:,}.{cents % 100:02} of revenue, of {totals.customers:,} customers, is shown "
            f"nowhere: nobody has opened their accounts ({totals.accounts:,}), or they were deleted"
        )


def _given_up(lost: dict[str, list[Range]]) -> Iterator[str]:
    """Events of databases that were given up, which no outbox has any more."""
    for source, ranges in sorted(lost.items()):
        if ranges:
            yield (
                f"{numbers.count(ranges):,} events of {source}, which is gone for good, were never read here "
                f"and are nowhere any more: numbers {_first_of(ranges)}"
            )


def _lost(
    asks: Asks, database: Database, missing: dict[str, list[Range]], whose: Mapping[str, int]
) -> Iterator[str]:
    """Missing events that will not come by themselves: no outbox has them, or their relay does not answer."""
    gone = asks.gone(database.source)
    for source, ranges in sorted(missing.items()):
        lost = numbers.both(ranges, gone.get(source, []))
        if lost:
            yield (
                f"{numbers.count(lost):,} events of {source} are missing for good, as its outbox no longer "
                f"keeps them: numbers {_first_of(lost)}; the remedy is {_remedy(database, whose.get(source))}"
            )
        elif ranges and asks.is_asked(source, database.source):
            yield (
                f"{numbers.count(ranges):,} events of {source} were taken off the stream before they were "
                "read; they are asked for, and its relay has not answered yet. If that database is gone for "
                f"good: `groups remove {source}`"
            )


def _remedy(database: Database, number: int | None) -> str:
    """How to give accounts.db what lost events of that node said."""
    if number in (None, database.node):
        return "`rebuild accounts`"
    return f"`rebuild accounts` at node {number}, and `join` here, with a backup of its accounts.db from then"


def _first_of(ranges: list[Range]) -> str:
    text = numbers.shown(ranges[:5])
    return f"{text} and others" if len(ranges) > 5 else text


def _kept(holding: dict[str, str], known: Mapping[str, Node]) -> Iterator[str]:
    """Groups for which the stream keeps entries beyond their retention."""
    for group, id in sorted(holding.items()):
        if "@" not in group:
            yield f"the stream keeps entries beyond data.retention_days: no {group} service has read it yet"
            continue
        yield (
            f"the stream keeps entries beyond data.retention_days for {group}, which has read up to "
            f"{entry_time(id)}; if its database is gone for good: `{_removal(group, known)}`"
        )


def _removal(group: str, known: Mapping[str, Node]) -> str:
    """The command that stops keeping entries for the group of a database that is gone.

    It removes the whole node, except for node 0: a lost accounts.db of node 0 has usually been made again.
    """
    node = known.get(group)
    if node and node.number and node.has_number:
        return f"nodes remove {node.number}"
    return f"groups remove {group}"


def _missed(overtaken: dict[str, int], known: Mapping[str, Node]) -> Iterator[str]:
    """Groups that did not read entries before these were removed."""
    for group, count in sorted(overtaken.items()):
        if group in known:
            yield (
                f"{count:,} entries were removed, for their age, before node {known[group].number} had read "
                f"them ({group}): it asks for them when it is back; if it is gone for good: "
                f"`{_removal(group, known)}`"
            )
            continue
        yield (
            f"{count:,} entries were removed, for their age, before the group {group} of another program had "
            f"read them; nobody reads from it: `groups remove {group}`, when it is not needed"
        )
