"""The registry of nodes: which database has which node's number, in `{stream}:nodes`.

One database of each service has the node's number: the primary. Standbys follow it, until one of them is
promoted. Redis may lose the registry; so each database keeps a copy of it, and writes it again. A new
number is taken only after the registry has existed for a while.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from tally.store import nodes
from tally.store.database import Database
from tally.store.errors import StoreError, StoreUnavailable
from tally.store.incarnations import first_name
from tally.store.nodes import HIGHEST, REMOVED, Node, WrongNumber
from tally.store.stream import EventStream, texts

WAIT_SECONDS = 5.0  # how long the registry must have existed before a new number is taken
LEASE_SECONDS = 15.0  # how long a database counts as at work in a place, unless it renews that
RENEW_SECONDS = LEASE_SECONDS / 3
REPLACES = "begun_beside"  # in meta: begun to replace another database that had its number

_SINCE = "since"
_WORKED = "at_work_as"  # in meta: the name and the place where it was last at work
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Awaited(StoreUnavailable):
    """The number is taken later, by itself; the message says why. To be looked at in `seconds` again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class AtWorkElsewhere(StoreError):
    """A database is at work that this one can't be at work with; the message says which, and what to do.

    Its lease lasts `seconds` more, unless it is renewed; `said` is when that was last (ms, by Redis's clock).
    """

    def __init__(self, message: str, seconds: float, said: int) -> None:
        super().__init__(message)
        self.seconds, self.said = seconds, said


class Replaced(StoreError):
    """Another database has the number of this one's node: this one is a standby."""


def place_of_work(directory: Path) -> str:
    """A text for a Tally in that directory. It differs for a copy of the directory, here or elsewhere."""
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else os.uname().nodename
    found = os.stat(directory)
    return f"{boot}-{found.st_dev:x}-{found.st_ino:x}"


def _directory(place: str) -> list[str]:
    """The part of a place that stays the same after a reboot."""
    return place.rsplit("-", 2)[1:] or [place]


def read_nodes(stream: EventStream) -> dict[str, Node]:
    """The databases of all nodes, as Redis knows them. Raises RedisError."""
    return nodes.parsed(stream.hash("nodes"))


def at_work(stream: EventStream, database: str) -> float | None:
    """For how many seconds, at most, a database still counts as at work somewhere; None if it doesn't.

    Raises RedisError.
    """
    said: bytes | None = stream.client.hget(stream.beside("leases"), database)  # type: ignore[assignment]
    found = re.fullmatch(rb"\S+ (\d+)", said or b"")
    if not found:
        return None
    left = LEASE_SECONDS - (stream.now_ms() - int(found[1])) / 1000
    return left if 0 < left <= LEASE_SECONDS else None


def number_of(source: str, known: Mapping[str, Node], heirs: Mapping[str, str]) -> int:
    """The node whose database has or had that name; 0 for an unknown name, as before there were nodes."""
    name = first_name(source, heirs, known)
    return known[name].number if name in known else 0


def remove(stream: EventStream, gone: Mapping[str, Node]) -> None:
    """Note that these databases are gone for good: the number is free. May be repeated. Raises RedisError."""
    told = {name: f"{node.number}:{node.changes + 1} {REMOVED}" for name, node in gone.items()}
    stream.client.hset(stream.beside("nodes"), mapping=told)  # type: ignore[arg-type]


class Candidate(NamedTuple):
    """A standby's database that may get the number, and its service's address."""

    source: str
    url: str


def leases_of(stream: EventStream, number: int) -> dict[str, str]:
    """The leases of the databases with this number, as text that each renewal changes. Raises RedisError."""
    leases = stream.hash("leases")
    known = read_nodes(stream).items()
    return {name: leases.get(name, "") for name, node in known if node.number == number and node.has_number}


class StillAlive(StoreError):
    """The primary has renewed its lease meanwhile."""


def promote(
    stream: EventStream, number: int, candidates: Sequence[Candidate], leases: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give these databases the number of the node that they follow: all or none.

    The previous holders are standbys from now on. With `leases`, only if no holder has renewed its lease
    since. Answers the registry after that. May be repeated. Raises StillAlive or RedisError.
    """
    told = [
        (source, url.rstrip("/"), "" if leases is None else _of_others(source, leases))
        for source, url in candidates
    ]
    what, other, *registry = stream.script("promote")(
        keys=[*map(stream.beside, ("nodes", "leases"))], args=[number, *chain.from_iterable(told)]
    )
    if what == b"alive":
        raise StillAlive(f"{other.decode()} has renewed its lease")
    return _registry(registry)


def _of_others(source: str, leases: Mapping[str, str]) -> str:
    """The leases of the other databases of that service, as promote.lua compares them."""
    service = f"{source.partition('@')[0]}@"
    others = (lease for name, lease in sorted(leases.items()) if name.startswith(service) and name != source)
    return "".join(f"{lease}," for lease in others) or ","


class Membership:
    """Takes a database's number, and takes it again if Redis has lost it.

    `url` tells others the address of its service. A new number waits for `wait_seconds`, so that others can
    tell theirs first. With `place`, the number is also a lease: a copy of the database in another place is
    refused. Redis may have lost the lease. So a database that was at work in another directory takes it only
    once nobody has had it for LEASE_SECONDS by `clock`: the original would have renewed it by then.
    `may_replace` tells whose number it may take: nobody's, that of a database not at work ("idle"), or
    anybody's ("any"), on a Redis that no other data directory uses.
    """

    def __init__(
        self,
        database: Database,
        stream: EventStream,
        url: str = "",
        wait_seconds: float = WAIT_SECONDS,
        place: str = "",
        may_replace: Literal["", "idle", "any"] = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._stream = stream
        self._url = url.rstrip("/")
        self._wait_ms = 0 if may_replace == "any" else int(wait_seconds * 1000)
        self._may_replace = may_replace
        self._place = place
        self._take = stream.script("take_number")
        self._clock = clock
        self._free: tuple[float, float] | None = None  # the first and last looks that found nobody at work

    @property
    def holder(self) -> str:
        """The database and its number, as publishers send it."""
        return f"{self._database.source} {self._database.node}"

    def take(self) -> str | None:
        """Take the number, unless another database has it, and keep the registry.

        None once it has the number. A standby, or a primary that was replaced by a promotion, gets the name
        of the holder instead, "" if there is none. Raises WrongNumber, Awaited, AtWorkElsewhere, RedisError
        or StoreError. Repeat it every RENEW_SECONDS.
        """
        database, known = self._database, nodes.known_texts(self._database)
        may_replace: str = self._may_replace or ("idle" if self._is_replacement(known) else "")
        if nodes.follows(database):
            may_replace = "standby"
        what, detail, *registry = self._take(
            keys=[*map(self._stream.beside, ("nodes", "leases", "published"))],
            args=[
                database.source,
                database.node,
                self._url,
                self._wait_ms,
                self._place,
                int(LEASE_SECONDS * 1000),
                may_replace,
                "moved" if self._is_moved() else "",
                *chain.from_iterable(known.items()),
            ],
        )
        if what == b"free":
            raise self._awaits_others()
        self._free = None
        now = _registry(registry)
        if what in (b"elsewhere", b"busy"):
            raise self._is_at_work(*detail.decode().split())
        if what == b"another":
            raise self._is_anothers(detail.decode(), now)
        if now != known:
            nodes.keep(database, now)
        if what == b"wait":
            seconds = int(detail) / 1000
            raise Awaited(
                f"node {database.node} is new here: it begins in {seconds:.1f} s, once others could tell "
                "their numbers",
                seconds,
            )
        worked = f"{database.source} {self._place}"
        if self._place and database.meta(_WORKED) != worked:
            with database.transaction():
                database.set_meta(_WORKED, worked)
        return str(detail.decode(errors="replace")) if what == b"standby" else None

    def insist_on_free_number(self) -> None:
        """Raise WrongNumber if `take` would, by the registry as it is. Changes nothing. Raises RedisError."""
        database, known = self._database, self._stream.hash("nodes")
        every, prefix = nodes.parsed(known), f"{database.service}@"
        holders = [name for name, node in every.items() if node.has_number and node.number == database.node]
        others = [name for name in holders if name.startswith(prefix)]
        may_share = database.source not in every and self._stream.published_by_source().get(database.source)
        may_replace = self._may_replace or nodes.follows(database) or self._is_replacement(known)
        if others and database.source not in others and not (may_share or may_replace):
            raise self._is_anothers(others[0], known)

    def leave(self) -> None:
        """End the lease. From now on a copy may be at work; a copy made now, at once.

        May be repeated. Raises RedisError or StoreError.
        """
        key, source = self._stream.beside("leases"), self._database.source
        said: bytes | None = self._stream.client.hget(key, source)  # type: ignore[assignment]
        if self._place and said and said.startswith(f"{self._place} ".encode()):
            self._stream.client.hdel(key, source)
            with self._database.transaction():
                self._database.set_meta(_WORKED, "")

    def _is_moved(self) -> bool:
        """Whether it was at work in another directory, and may still be.

        Not if every look within the time of a lease found nobody at work.
        """
        source, _, place = str(self._database.meta(_WORKED) or "").partition(" ")
        is_same = source != self._database.source or _directory(place) == _directory(self._place)
        first, last = self._free or (0.0, 0.0)
        return not is_same and self._may_replace != "any" and last - first < LEASE_SECONDS

    def _awaits_others(self) -> Awaited:
        now = self._clock()
        first, last = self._free or (now, now)
        if now - last >= LEASE_SECONDS:
            first = now  # another may have been at work in between
        self._free = (first, now)
        left = max(LEASE_SECONDS - (now - first), 0.0)
        return Awaited(
            f"{self._database.path} was at work in another directory before: it begins here in {left:.0f} s, "
            "unless it turns out to be at work there still",
            min(left, RENEW_SECONDS),
        )

    def _is_replacement(self, known: Mapping[str, str]) -> bool:
        """Whether it was begun to replace another, and has not had its number yet."""
        return bool(self._database.meta(REPLACES)) and self._database.source not in known

    def _is_at_work(self, left: str, said: str, other: str) -> AtWorkElsewhere:
        own = self._database.source
        if other == own:
            message = (
                f"{self._database.path} is {own}, which is at work elsewhere on this stream too: one of both "
                f"is a copy. Stop the other, and start this again {LEASE_SECONDS:.0f} s later; or leave it "
                "to the other. To make a node of its own of a copy: `join`"
            )
        else:
            message = (
                f"{self._database.path} is to take the place of {other}, which is at work elsewhere on this "
                "stream: stop that, or give this a node.number of its own"
            )
        return AtWorkElsewhere(message, int(left) / 1000, int(said))

    def _is_anothers(self, other: str, known: Mapping[str, str]) -> WrongNumber:
        taken = {node.number for node in nodes.parsed(known).values()}
        free = next(number for number in range(HIGHEST + 1) if number not in taken)
        number = self._database.node
        how = f"set node.number to one of its own, such as {free}, or redis.url to another Redis"
        if not nodes.may_be_assigned(self._database):
            how = "it has given ids of that node itself, so both can't be: set redis.url to another Redis"
        return WrongNumber(
            f"node.number is {number}, and {other} has that on this stream, not {self._database.source}: "
            f"{how}. If {other} is gone for good, or lost its disk: `nodes remove {number}`"
        )


def _registry(pairs: Sequence[bytes]) -> dict[str, str]:
    """The databases in an answer, which lists the hash's names and values in turn."""
    found = texts(dict(zip(pairs[::2], pairs[1::2], strict=True)))
    return {name: text for name, text in found.items() if name != _SINCE}
