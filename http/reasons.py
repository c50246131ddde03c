"""Sentences about a service for `status`: what is wrong or worth knowing, and what to do about it."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from tally.store import account_totals, accounts, lacking
from tally.store import ranges as numbers
from tally.store.asks import Asks
from tally.store.database import Database
from tally.store.incarnations import own_sources
from tally.store.membership import number_of
from tally.store.nodes import Node, awaited, differs, follows, known_nodes
from tally.store.ranges import Range
from tally.store.revenue import money
from tally.store.stream import entry_ms, entry_time

REDIS_AWAY = "Redis does not answer"  # so begins the reason
UNREADABLE = "a note beside the stream can't be read"
AHEAD_MS = 3_600_000  # an id may be ahead of Redis's clock by so much: clocks are set right by less
FULL_BYTES = 1_000_000  # free; a large batch takes more
_NO_ANSWER = {"ConnectionError", "TimeoutError", "BusyLoadingError"}  # so begin actors' troubles then


class ActorReport(Struct, frozen=True):
    """A process of the service, as its supervisor sees it; `trouble` is what it waits out.

    `uptime_seconds` is None for one that doesn't run.
    """

    name: str
    state: str
    restarts: int
    trouble: str | None = None
    uptime_seconds: float | None = None


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


def full(directory: Path, free: int | None) -> Iterator[str]:
    """That the disk with the databases has too little free space, in bytes, to go on writing."""
    if free is not None and free < FULL_BYTES:
        yield (
            f"the disk of {directory} is full, with {free:,} bytes free: changes are answered 503, and "
            "nothing is damaged; make room on it, or give it a larger one"
        )


def standby(database: Database) -> Iterator[str]:
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


def differing(database: Database) -> Iterator[str]:
    """Events that a standby lacks of its primary, or has in place of others."""
    lacks = lacking.LACKING.of(database) if follows(database) else {}
    if lacks:
        count = sum(map(numbers.count, lacks.values()))
        yield (
            f"{database.path.name} lacks {count:,} events of the primary, which were taken off the stream "
            "before they were read here: begin it again with `join`, and a `backup` of the primary"
        )
    if differs(database):
        yield (
            f"{database.path.name} has other events than the primary under the same numbers, and so can't "
            "take its place: keep it aside, and begin it again with `join`, and a `backup` of the primary"
        )


def awaiting_rest(database: Database) -> Iterator[str]:
    """That a standby has more to hand over of what it had accepted."""
    if (standby := awaited(database)) and not follows(database):
        yield (
            f"{standby} hands over what it had accepted as the primary, and has more. Until that has come, "
            "nobody compares it with what was recorded here meanwhile. If it doesn't run, start it. If it is "
            f"gone for good: `groups remove {standby}`"
        )


def others(
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


def given_twice(database: Database) -> Iterator[str]:
    """Rows whose number two sources have given."""
    if count := accounts.Accounts(database).given_twice():
        yield (
            f"{count:,} customers or accounts were created under a number that another had, by two sources: "
            "the one that was first by its date is shown, with what both have earned"
        )


def unshown(database: Database) -> Iterator[str]:
    """Revenue that no open account shows."""
    totals = account_totals.unopened(database)
    if totals.customers:
        yield (
            f"{money(totals.total_revenue_cents)} of revenue, of {totals.customers:,} customers, is shown "
            f"nowhere: nobody has opened their accounts ({totals.accounts:,}), or they were deleted"
        )


def given_up(lost: dict[str, list[Range]]) -> Iterator[str]:
    """Events of databases that were given up, which no outbox has any more."""
    for source, ranges in sorted(lost.items()):
        if ranges:
            yield (
                f"{numbers.count(ranges):,} events of {source}, which is gone for good, were never read here "
                f"and are nowhere any more: numbers {_first_of(ranges)}"
            )


def lost(
    asks: Asks,
    database: Database,
    missing: dict[str, list[Range]],
    gone: Mapping[str, list[Range]],
    whose: Mapping[str, int],
) -> Iterator[str]:
    """Missing events that will not come by themselves: no outbox has them, or their relay does not answer."""
    for source, ranges in sorted(missing.items()):
        lost = numbers.both(ranges, gone.get(source, []))
        if lost:
            yield (
                f"{numbers.count(lost):,} events of {source} are missing for good, as its outbox no longer "
                f"keeps them: numbers {_first_of(lost)}; the remedy is {_remedy(database, whose.get(source))}"
            )
        rest = numbers.without(ranges, lost)
        if rest and (asked := numbers.both(rest, asks.of(source).get(database.source, []))):
            yield (
                f"{numbers.count(asked):,} events of {source} were taken off the stream before they were "
                "read; they are asked for, and its relay has not answered yet. If that database is gone for "
                f"good: `groups remove {source}`"
            )


def _remedy(database: Database, number: int | None) -> str:
    """How to give accounts.db what lost events of that node said. A customers.db gets the accounts' state."""
    if database.service != accounts.SERVICE:
        return "not needed: another program has made up a number of that name"
    if number in (None, database.node):
        return "`rebuild accounts`"
    return f"`rebuild accounts` at node {number}, and `join` here, with a backup of its accounts.db from then"


def _first_of(ranges: list[Range]) -> str:
    text = numbers.shown(ranges[:5])
    return f"{text} and others" if len(ranges) > 5 else text


def kept(holding: dict[str, str], known: Mapping[str, Node]) -> Iterator[str]:
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


def trimming_waits(behind: Collection[str]) -> Iterator[str]:
    """Databases that were put back, and whose groups must be set back before anything is trimmed."""
    for group in behind:
        service = group.partition("@")[0]
        yield (
            f"nothing is taken off the stream: {group} has acknowledged more than {service}.db holds, which "
            f"was put back from a copy. To end that, run the {service} service here: its consumers read the "
            "stream again"
        )


def ahead(newest: bytes | None, now_ms: int) -> Iterator[str]:
    """Entries with ids of a time to come: they, and all that follow, are not trimmed before it has passed."""
    if newest and entry_ms(newest) > now_ms + AHEAD_MS:
        time = entry_time(newest.decode()) or "a time beyond all dates"
        yield (
            f"the stream's newest entry has the id {newest.decode()}, of {time}, which is still to come: "
            "Redis's clock was ahead, or another program gave that id. Until then no new entry is trimmed, "
            "and no outbox pruned. To end that, delete the stream (`DEL` in Redis) once everybody has read "
            "all of it (`groups list`): it is published again, as far as outboxes have it, and counts once"
        )


def missed(overtaken: dict[str, int], known: Mapping[str, Node]) -> Iterator[str]:
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
