"""Compares a database with the stream: does it hold all that it ever published, and may it go on?

Its relay does so whenever it asks Redis how far it has got. A database that was put back from an older copy
takes back the events that it lacks. One that diverged, because there were two of it, publishes the events
that it alone has under another name. In this run, it is written to under its name only once it is known to
hold that name's newest events; see store/incarnations.py.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import structlog

from tally.recovery.competing import make_again_beside
from tally.recovery.diverged import part_ways
from tally.recovery.first_start import known_sources, note_known_beside
from tally.recovery.settling import settle_own
from tally.recovery.taking_back import Store, agrees, joins, take_back, take_back_lost
from tally.store.asks import Asks
from tally.store.database import Database
from tally.store.incarnations import begin, is_begun, keep_heirs, known_heirs, own_sources
from tally.store.lacking import LACKING
from tally.store.membership import AtWorkElsewhere, Membership, Replaced
from tally.store.nodes import WrongNumber, address_of, follows
from tally.store.outbox import Outbox, outboxes
from tally.store.stream import EventStream, Published
from tally.store.write_permission import Refusal, WritePermission

_TOLD_BEFORE = "told_before"  # in meta: how many events commands recorded before it was compared
_HAS_STOOD = "has_stood"  # in meta: Redis was told of the database before anything was written

_log = structlog.get_logger()


class Stand(NamedTuple):
    """The events of one name, here and on the stream."""

    outbox: Outbox
    published: Published


def stands_of(database: Database, stream: EventStream) -> list[Stand]:
    """The stand of the newest name, and of each that has events here, lacks some, or has more on the stream.

    Before a name publishes anything, it is noted beside the stream which name it follows. The notes of others
    are kept in the database too, and told again where Redis has lost them: nobody else may know them. A name
    that has ended here can go on in a copy of the database that runs elsewhere.
    """
    every, heirs = outboxes(database), stream.heirs()
    own = {heir: former for former, heir in pairwise(every)}
    known = known_heirs(database) | own
    stream.note_heirs({heir: former for heir, former in known.items() if heir not in heirs})
    keep_heirs(database, heirs)
    *ended, newest = every.values()
    ever, lacking = stream.published_by_source(), LACKING.of(database)
    kept = [
        outbox
        for outbox in ended
        if outbox.first() <= outbox.last()
        or not outbox.last()
        or ever.get(outbox.source, 0) > outbox.last()
        or outbox.source in lacking
    ]
    return [Stand(outbox, stream.published(outbox.source)) for outbox in [*kept, newest]]


def later_names(known: Collection[str], heirs: Mapping[str, str]) -> list[str]:
    """The names that come after the `known` ones, in order; `heirs` gives the name that each follows."""
    later: list[str] = []
    while fresh := [
        heir
        for heir, former in heirs.items()
        if (former in known or former in later) and heir not in known and heir not in later
    ]:
        later += fresh
    return later


def begin_heirs(database: Database, heirs: Mapping[str, str]) -> list[str]:
    """Give a database the names that follow its own, and answer which. In the open transaction."""
    later = later_names(own_sources(database), heirs)
    for heir in later:
        begin(database, Outbox(database).last(), heir)
    return later


class Standing:
    """Compares one service's database with the stream, and mends what differs.

    `permission` is told once the database is known to hold the newest events of the name that it is written
    under. With `membership`, its node's number is taken before all else, and `permission` is told whether
    another has its place.
    """

    def __init__(
        self,
        store: Store,
        stream: EventStream,
        permission: WritePermission | None = None,
        membership: Membership | None = None,
    ) -> None:
        self._store = store
        self._membership = membership
        self._permission = permission or WritePermission()
        self._database = store.database
        self._stream = stream
        self._adopted = False
        self._taken_up = False
        self._looked_at: dict[str, Published] = {}  # by each name that lacks events

    def settle(self) -> list[Stand]:
        """Mend what differs, and answer the stands after it, the newest name last.

        May be repeated, also after it was interrupted. Raises RedisError, StoreUnavailable, and what
        `take_number` does, also where the number was lost meanwhile.
        """
        while True:
            self.take_number()
            if not self._taken_up:
                note_known_beside(self._database.directory, self._stream, self._database.service)
                self._taken_up = True
            stands = stands_of(self._database, self._stream)
            if not self._mend(stands):
                return stands

    def take_number(self) -> None:
        """Take the number of the database's node, if it is to have one.

        May be repeated. Raises Replaced where the database is a standby's, WrongNumber where another has the
        number, Awaited, AtWorkElsewhere, RedisError or StoreUnavailable.
        """
        if self._membership:
            asked_at = self._permission.clock()
            try:
                primary = self._membership.take()
            except (WrongNumber, AtWorkElsewhere):
                self._permission.refuse(Refusal.REPLACED)
                raise
            if primary is not None or follows(self._database):  # if promoted, it goes on first
                url = address_of(self._database, self._database.node) or ""
                self._permission.refuse(Refusal.STANDBY, url)
                raise Replaced(f"{self._database.source} is a standby; {primary or 'nobody'} has its number")
            self._permission.renew(asked_at)
            self._permission.refuse(Refusal.NONE)
        Asks(self._stream).take_up_again(own_sources(self._database))  # another may have given up this source

    def _mend(self, stands: Sequence[Stand]) -> bool:
        """Mend one difference, if there is one. True when it did: then everything must be compared again."""
        applied = self._stream.applied_by_source()
        behind = [max(each.ever, applied.get(outbox.source, 0)) > outbox.last() for outbox, each in stands]
        for place, (outbox, published) in enumerate(stands):
            last, ever = outbox.last(), max(published.ever, applied.get(outbox.source, 0))
            if ever > last and joins(outbox, self._stream):
                if outbox.is_written_to:
                    self._permission.doubt()  # others give no number meanwhile that is taken back
                if outbox.is_written_to or any(behind[place + 1 :]):
                    take_back(self._store, self._stream, outbox)
                else:  # it may conflict with events of later names, all of which are here
                    take_back(self._store, self._stream, outbox, make_again_beside)
                return True
            if ever > last or not agrees(outbox, published):
                part_ways(self._store, self._stream, outbox)
                return True
        if self._take_back_lost(stands) or (not self._adopted and self._adopt()):
            return True
        self._adopted = True
        if not self._permission.is_confirmed() and self._is_newest(stands[-1]):
            self._permission.confirm()
        return settle_own(self._store)

    def _take_back_lost(self, stands: Sequence[Stand]) -> bool:
        """Take back events that were noted as lost and are on the stream again, if it changed since."""
        came, lacking = 0, LACKING.of(self._database)
        for outbox, published in stands:
            if outbox.source in lacking and self._looked_at.get(outbox.source) != published:
                self._looked_at[outbox.source] = published
                came += take_back_lost(self._store, self._stream, outbox, make_again_beside)
        return came > 0

    def _adopt(self) -> bool:
        """Take over the names that this database got after the copy was made, if any.

        They end at once. A name that nobody else can have begins, for events that are written meanwhile. The
        next look takes back the events of the earlier names.
        """
        heirs = self._stream.heirs()
        self.take_number()  # else the heir may be the database that took this one's place
        with self._database.transaction():
            adopted = begin_heirs(self._database, heirs)
            if adopted:
                begin(self._database, Outbox(self._database).last())
        for heir in adopted:
            self._let_end(heirs[heir])
            _log.warning("took_over_name", source=heir, former=heirs[heir])
        return bool(adopted)

    def _let_end(self, former: str) -> None:
        """Make sure that no copy goes on publishing under a name that an earlier release gave up."""
        if former in self._stream.hash("successors"):
            if outbox := outboxes(self._database).get(former):
                part_ways(self._store, self._stream, outbox)
            self._stream.client.hdel(self._stream.beside("successors"), former)

    def _is_newest(self, stand: Stand) -> bool:
        """Whether nobody can know later events of that name."""
        outbox, _ = stand
        if is_begun(self._database):
            return True
        is_new = self._database.meta(_HAS_STOOD) is None and outbox.is_first
        if is_new and outbox.last() == (self._database.meta(_TOLD_BEFORE) or 0):
            return self._is_first_of_its_service(outbox)
        applied = self._stream.applied_by_source().get(outbox.source, 0)
        return self._stream.is_known(outbox.source) and applied <= outbox.last()

    def _is_first_of_its_service(self, outbox: Outbox) -> bool:
        """Whether a database that was never written to is the first of its service. If so, Redis is told.

        From then on, a Redis that does not know it must have lost data.
        """
        directory, service = self._database.directory, self._database.service
        node = self._database.node
        if known_sources(directory, self._stream, node, service) - {outbox.source}:
            return False  # numbers of theirs would be given again
        self._stream.note_begun(outbox.source)
        with self._database.transaction():
            self._database.set_meta(_HAS_STOOD, 1)
        return True


def note_told_before(database: Database) -> None:
    """Note that a database that was not compared yet has events that a command recorded.

    In the open transaction. Anything else written before the comparison begins another name.
    """
    if database.meta(_HAS_STOOD) is None:
        database.set_meta(_TOLD_BEFORE, Outbox(database).last())
