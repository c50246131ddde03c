"""The names that a database publishes under, one after another.

Before a database writes, it should know that it holds the newest events of its source. If it doesn't, such as
a copy that was put back while Redis is away, it writes under a new name, and gives fresh numbers. So no
EventId and no number ever means two things. The events that it lacked come in later, under the old name.
"""

import hashlib
import random
import secrets
from collections.abc import Collection, Mapping, Sequence

import msgspec
import structlog
from msgspec.structs import replace

from tally.store.database import Database
from tally.store.ids import begin_block, raise_sequence

ROOM = 1 << 40  # outbox rows reserved for each name, so that all stay in order

_EARLIER = "earlier_sources"  # in meta, as JSON
_BEGUN_IN = "begun_in"  # in meta: the run of Tally that began the newest name
_NOTED = "incarnations"  # in meta, as JSON, if there was more than one
_HEIRS = "heirs"  # in meta, as JSON, for all databases: each name and the one that it follows

_log = structlog.get_logger()


class Incarnation(msgspec.Struct, frozen=True):
    """A name, and the place of its events: number n is the outbox row `base` + n.

    `last` is the number of its last event if it has ended; None if it is written to.
    """

    source: str
    base: int = 0
    last: int | None = None


def incarnations(database: Database) -> list[Incarnation]:
    """All names that the database ever had, the oldest first; the last one is written to."""
    noted = database.meta(_NOTED)
    return msgspec.json.decode(noted, type=list[Incarnation]) if noted else [Incarnation(database.source)]


def earlier_sources(database: Database) -> dict[str, int]:
    """The database's names in earlier releases, and the number up to which it has their events."""
    return msgspec.json.decode(database.meta(_EARLIER) or "{}", type=dict[str, int])


def known_heirs(database: Database) -> dict[str, str]:
    """For all databases: each name and the one that it follows, as last heard. Redis may lose them."""
    return msgspec.json.decode(database.meta(_HEIRS) or "{}", type=dict[str, str])


def first_name(source: str, heirs: Mapping[str, str], known: Collection[str] = ()) -> str:
    """The first name of the database that has this one, or the last before it that is `known`."""
    formers = {**heirs}
    while source not in known and source in formers:
        source = formers.pop(source)  # not twice: Redis may hold anything, even a cycle
    return source


def keep_heirs(database: Database, heirs: Mapping[str, str]) -> None:
    """Keep these too. May be repeated."""
    known = known_heirs(database)
    if not heirs.items() <= known.items():
        with database.transaction():
            database.set_meta(_HEIRS, msgspec.json.encode({**known, **heirs}).decode())


def own_sources(database: Database) -> set[str]:
    """All names that events of this database have on the stream, including those of earlier releases."""
    return {each.source for each in incarnations(database)} | earlier_sources(database).keys()


def begin(
    database: Database, last: int, source: str | None = None, draw: random.Random | None = None
) -> None:
    """End the current name, whose last number is `last`, and begin another.

    Without `source`, it gets a fresh name. With a fresh name, or with `draw`, new rows get fresh numbers, and
    that is logged. In the open transaction.
    """
    if source is None:
        # Its own identity, if it began as a copy and has not used that yet.
        is_used = database.source in own_sources(database)
        source = f"{database.service}@{secrets.token_hex(4)}" if is_used else database.source
        draw = random.SystemRandom()
    *ended, current = incarnations(database)
    ended.append(replace(current, last=last))
    begun = Incarnation(source, len(ended) * ROOM)
    _note(database, [*ended, begun])
    raise_sequence(database, "outbox", begun.base)
    if draw:
        begin_block(database, draw)
        database.set_meta(_BEGUN_IN, database.run)
        database.at_commit(lambda: _log.warning("began_name", source=source, former=current.source))


def begin_for(database: Database, last: int, told: bytes) -> None:
    """Like `begin`, with a name and numbers made from `told`, the first event to be published again.

    A copy of the database that publishes the same again gets the same name, so the events are there once.
    """
    name = f"{database.service}@{hashlib.sha256(told).hexdigest()[:8]}"
    if name in own_sources(database):
        begin(database, last)
    else:
        begin(database, last, name, random.Random(told))


def name_explicitly(database: Database) -> None:
    """Note its present names, before it gets another identity. In the open transaction."""
    _note(database, incarnations(database))


def is_begun(database: Database) -> bool:
    """Whether the current name was begun in this run of Tally: then no other database has it."""
    return bool(database.run) and database.meta(_BEGUN_IN) == database.run


def end_at(database: Database, source: str, last: int) -> None:
    """Note the last number of an ended name. In the open transaction."""
    every = incarnations(database)
    _note(database, [replace(each, last=last) if each.source == source else each for each in every])


def _note(database: Database, every: Sequence[Incarnation]) -> None:
    database.set_meta(_NOTED, msgspec.json.encode(every).decode())
