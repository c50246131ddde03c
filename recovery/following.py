"""A standby's database follows its primary: it takes in the primary's events from the stream.

A database that was put back from a copy does the same at its start (see taking_back). A standby goes on with
it, some milliseconds behind. So it holds the primary's events under the primary's names, with their numbers
and RequestKeys, and can take the primary's place.
"""

import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import structlog

from tally.recovery import taking_back
from tally.recovery.first_start import note_known_beside
from tally.recovery.settling import UNTOLD, note_unsettled, unsettled
from tally.recovery.standing import begin_heirs, later_names
from tally.recovery.taking_back import Store
from tally.store.incarnations import own_sources
from tally.store.lacking import LACKING
from tally.store.nodes import DIFFERS, FOLLOWS, follows
from tally.store.outbox import Outbox, OwnEvent, outboxes
from tally.store.ranges import Range
from tally.store.stream import Entry, EventStream

AT_ONCE = 5000  # entries that are read together, and taken in in one transaction
READ_AGAIN, GIVE_UP = 2, 4  # consecutive looks that find it behind, with nothing left to read

_PASS_OVER_SECONDS = 0.02  # how often it looks for events of its own, where they are rare

_POSITION = "followed"  # in meta: the last entry of the stream that was looked at
_START = b"0-0"

_log = structlog.get_logger()


class Follower:
    """Keeps one service's database in step with its primary's."""

    def __init__(self, store: Store, stream: EventStream) -> None:
        self.store = store
        self._database = store.database
        self._stream = stream
        self._others: set[str] = set()  # names of this service that don't follow its own
        self._behind = 0
        self._looked_for: dict[str, list[Range]] = {}  # what it lacked when it read all again
        self._is_sparse = False  # the last entries read held none of its own
        self._own = outboxes(self._database)

    def _begin(self) -> None:
        """If it was a primary: note the events that it accepted and has not published.

        If Redis has lost some since they were published, the new primary may lack them, too. If it has lost
        its notes of them as well, those count as known that a group has applied, or this database saw
        published.
        """
        if follows(self._database):
            return
        note_known_beside(self._database.directory, self._stream, self._database.service)
        published, applied = self._stream.published_by_source(), self._stream.applied_by_source()
        told = {
            source: published.get(source) or max(applied.get(source, 0), outbox.published())
            for source, outbox in outboxes(self._database).items()
        }
        with self._database.transaction():
            before = unsettled(self._database, UNTOLD)  # it was promoted, and replaced at once
            told = {source: min(number, before.get(source, number)) for source, number in told.items()}
            self._database.set_meta(FOLLOWS, 1)
            note_unsettled(self._database, UNTOLD, told)

    def step(self, block_ms: int = 0) -> int:
        """Take in the next entries of the stream, and answer how many. Waits `block_ms` for one.

        May be repeated, also when it was interrupted. Raises RedisError or StoreUnavailable.
        """
        self._begin()
        position = self._position()
        if self._is_sparse and self._pass_over(position):
            time.sleep(min(block_ms / 1000, _PASS_OVER_SECONDS))
            return 0
        entries = self._stream.read(position, AT_ONCE, block_ms)
        if entries:
            self._is_sparse = not self._take(entries)
        return len(entries)

    def _position(self) -> bytes:
        return str(self._database.meta(_POSITION) or _START.decode()).encode()

    def _pass_over(self, position: bytes) -> bool:
        """Skip the rest of the stream beyond `position`, if none of it is its own.

        So the other service's many events need not be read: Redis knows how far each name has got. A database
        that was a primary, or lacks some events, reads everything: its own events may come anywhere.
        """
        if LACKING.of(self._database):
            return False
        newest, published = self._stream.newest(), self._stream.published_by_source()  # in this order
        if newest in (None, position) or unsettled(self._database, UNTOLD) or self._strangers({*published}):
            return False
        if any(published.get(source, 0) > outbox.last() for source, outbox in self._own.items()):
            return False
        with self._database.relaxed(), self._database.transaction():
            self._database.set_meta(_POSITION, newest.decode())
        return True

    def catch_up(self) -> None:
        """Take in everything that is on the stream by now: others may publish on and on."""
        self._begin()
        self._know_names()
        newest = _numbers_of(self._stream.newest() or _START)
        while _numbers_of(self._position()) < newest and self.step():
            self._stream.beat()

    def look(self) -> None:
        """If it is behind with nothing left to read, read all again; if still behind, note what it lacks.

        Call it now and then, when `step` had nothing. Redis may have been replaced, so that entries have
        other ids than before; or others have removed entries. What it lacks is looked for once.
        """
        if self._others:  # Redis may have lost whose they are, and have been told again
            self._know_names()
        behind, lacking = self.behind(), LACKING.of(self._database)
        self._behind = self._behind + 1 if behind or (lacking and lacking != self._looked_for) else 0
        if self._behind == READ_AGAIN:
            self._looked_for = lacking
            with self._database.relaxed(), self._database.transaction():
                self._database.set_meta(_POSITION, _START.decode())
        elif self._behind >= GIVE_UP:
            for source in behind:
                taking_back.take_back(self.store, self._stream, self._own[source])
            self._know_names()
            self._behind = 0

    def behind(self) -> dict[str, int]:
        """By name: how many events the stream is known to have had that aren't here yet."""
        published = self._stream.published_by_source()
        more = {source: published.get(source, 0) - outbox.last() for source, outbox in self._own.items()}
        return {source: events for source, events in more.items() if events > 0}

    def _know_names(self) -> None:
        """Learn which names are its own, including those that the primary has begun since."""
        heirs = self._stream.heirs()
        if later_names(own_sources(self._database), heirs):
            with self._database.transaction():
                begin_heirs(self._database, heirs)
        self._own = outboxes(self._database)
        self._others -= self._own.keys()

    def _take(self, entries: Sequence[Entry]) -> bool:
        """Take in those of the entries that are its own; answers whether there were any."""
        sources = [taking_back.source_of(entry) for entry in entries]
        if strange := self._strangers({*sources}):
            self._know_names()
            self._others |= strange - self._own.keys()
        newest = entries[-1].id.decode()
        with self._database.relaxed(), self._database.transaction():
            for source, same in groupby(zip(sources, entries, strict=True), itemgetter(0)):
                if source in self._own:
                    self._take_of(self._own[source], [entry for _, entry in same])
            self._database.set_meta(_POSITION, newest)
        return not self._own.keys().isdisjoint(sources)

    def _strangers(self, sources: set[str]) -> set[str]:
        """Names of this service that aren't known yet: the primary's newest one, or another node's."""
        prefix = f"{self._database.service}@"
        unknown = sources - self._own.keys() - self._others
        return {source for source in unknown if source.startswith(prefix)}

    def _note_published(self, outbox: Outbox, sequence: int) -> None:
        row = outbox.row(sequence)
        self._database.set_meta("published", max(row, self._database.meta("published") or 0))

    def _compare(self, outbox: Outbox, known: Sequence[OwnEvent]) -> None:
        """Compare events that came again with those here: with the same number, they are the same.

        In the open transaction.
        """
        first, newest = known[0].row.sequence, known[-1].row.sequence
        here = {row.sequence: row.payload for row in outbox.of([Range(first, newest)])}
        for each in known:
            if here.get(each.row.sequence, each.row.payload) != each.row.payload:
                _log.error("differs_from_primary", source=outbox.source, number=each.row.sequence)
                self._database.set_meta(DIFFERS, 1)
        self._note_published(outbox, newest)

    def _take_of(self, outbox: Outbox, entries: Sequence[Entry]) -> None:
        """Take in entries of one name, in the transaction that is open."""
        last, every, at = outbox.last(), taking_back.own_events(entries), taking_back.seconds_of(entries[-1])
        if known := [each for each in every if each.row.sequence <= last]:
            self._compare(outbox, known)
            if came := taking_back.find_lacking(outbox, every):  # behind later ones
                taking_back.make_again(self.store, outbox, came)
                taking_back.remember_answers(self.store, outbox, came, at)
                taking_back.apply_left_out(self.store)
        own = taking_back.following(every, last)
        if not own:
            return
        rows = [each.row for each in own]
        if lacking := taking_back.gaps(rows, last):
            _log.warning("events_lacking", source=outbox.source, after=last, next=rows[0].sequence)
        LACKING.add(self._database, outbox.source, lacking)
        outbox.restore(rows)
        self._note_published(outbox, rows[-1].sequence)
        taking_back.make_again(self.store, outbox, own)
        taking_back.remember_answers(self.store, outbox, own, at)


def _numbers_of(id: bytes) -> tuple[int, ...]:
    """An entry's id in a form that sorts as Redis does."""
    return tuple(map(int, id.split(b"-")))
