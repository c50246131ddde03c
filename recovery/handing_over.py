"""Handing over: events that a primary had accepted, and not published, when another was promoted.

The old primary is a standby now, and publishes nothing. It leaves these events beside the stream. The new
primary takes them over under their names and numbers, so that nobody counts one twice. `merging.py` settles
conflicts with what the new primary has recorded since.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import structlog

from tally.events import EventId
from tally.recovery.competing import make_again_beside, undo
from tally.recovery.diverged import UNDOES
from tally.recovery.merging import Merge, Tail, row_with
from tally.recovery.standing import begin_heirs
from tally.recovery.taking_back import Answers, Healing, apply_left_out, gaps, make_again, own_event
from tally.store import nodes
from tally.store.asks import published_fields
from tally.store.database import Database
from tally.store.incarnations import begin, incarnations, own_sources
from tally.store.lacking import note_found, note_lacking
from tally.store.outbox import Outbox, OwnEvent
from tally.store.ranges import Range
from tally.store.stream import Entry, EventStream

_KNOWN = b"Known"  # this field marks an event that others may have applied: Redis had it, and lost it
AT_ONCE = 1000  # events that are handed over, or taken over, together

_log = structlog.get_logger()


def hand_over(database: Database, stream: EventStream) -> int:
    """Leave the primary the events that a standby has and the stream lacks; answer how many.

    Repeat it until there are none: it leaves no more before the primary has taken those that are there.
    Raises RedisError or StoreError.
    """
    key = stream.beside("handed", database.service, str(database.node))
    published = stream.published_by_source()
    for incarnation in incarnations(database):
        outbox = Outbox(database, incarnation)
        if rows := outbox.after(published.get(outbox.source, 0), AT_ONCE):
            _note_names(database, stream)
            if stream.client.xlen(key):
                return 0
            told = nodes.untold(database).get(outbox.source, outbox.last())
            with stream.client.pipeline(transaction=True) as transaction:
                for row in rows:
                    fields = published_fields(outbox.source, row)
                    if row.sequence <= told:
                        fields[_KNOWN] = b"1"
                    transaction.xadd(key, fields)  # type: ignore[arg-type]
                transaction.execute()
            _log.info("handed_over", source=outbox.source, first=rows[0].sequence, events=len(rows))
            return len(rows)
    return 0


def _note_names(database: Database, stream: EventStream) -> None:
    """Note beside the stream which name follows which, so that the primary knows that all are its node's."""
    known, names = stream.heirs(), [each.source for each in incarnations(database)]
    stream.note_heirs({heir: former for former, heir in pairwise(names) if heir not in known})


def go_on(store: Healing, stream: EventStream) -> None:
    """Have a standby's database go on in its primary's place, under a name of its own.

    Everything on the stream must have been taken in first. Events that it accepted before it was a standby,
    and has not handed over yet, it takes over from itself. May be repeated. Raises RedisError or StoreError.
    """
    database = store.database
    published, untold = stream.published_by_source(), nodes.untold(database)
    with database.transaction():
        if nodes.follows(database):
            outboxes = [Outbox(database, each) for each in incarnations(database) if each.source in untold]
            Tail(store).settle(
                [(each, max(untold[each.source], published.get(each.source, 0))) for each in outboxes]
            )
            begin(database, Outbox(database).last())
            for key in (nodes.FOLLOWS, nodes.UNTOLD):
                database.execute("DELETE FROM meta WHERE key = ?", (key,))


class TakingOver:
    """Takes over, at the primary, the events that a standby of its node handed over."""

    def __init__(self, store: Healing, stream: EventStream) -> None:
        self._store = store
        self._database = store.database
        self._stream = stream
        self._key = stream.beside("handed", store.database.service, str(store.database.node))
        self._answers: dict[str, Answers] = {}
        self._merge = Merge(store)
        self._has_found = False  # whether something that was lacking has come in this step

    def step(self) -> int:
        """Take over all that was handed over, and answer how many events were new here.

        May be repeated, also when it was interrupted. Raises RedisError, StoreError or OSError.
        """
        orders: Any = self._stream.client.xrange(self._key, count=AT_ONCE)
        if not orders:
            return 0
        entries = [Entry(id, fields) for id, fields in orders]
        self._know_names(entries)
        published = self._stream.published_by_source()
        count = 0
        self._has_found = False
        with self._database.transaction():  # before it is looked up: requests are answered meanwhile
            self._merge.look_up(filter(None, map(own_event, entries)))
            for entry in entries:
                count += self._take(entry, published)
            if self._has_found:
                apply_left_out(self._store, make_again_beside)
        self._stream.client.xdel(self._key, *(entry.id for entry in entries))
        if count:
            _log.warning("took_over", events=count)
        return count

    def _know_names(self, entries: list[Entry]) -> None:
        """Learn the names that the standby began while it could not reach Redis: they follow ours."""
        sources = {name.source for each in entries if isinstance(name := each.event_name, EventId)}
        if sources <= own_sources(self._database):
            return
        heirs = self._stream.heirs()
        with self._database.transaction():
            if begin_heirs(self._database, heirs):
                begin(self._database, Outbox(self._database).last())

    def _take(self, entry: Entry, published: Mapping[str, int]) -> bool:
        """Take over one event, in the open transaction; False for one that is here already.

        An event that others may have applied stays as it is.
        """
        own, name = own_event(entry), entry.event_name
        ours = {each.source: each for each in incarnations(self._database)}
        if own is None or not isinstance(name, EventId) or name.source not in ours:
            return False  # it comes again once its name is known
        outbox = Outbox(self._database, ours[name.source])
        is_known = _KNOWN in entry.fields
        if name.sequence > max(outbox.last(), published.get(name.source, 0)):
            told = own if is_known else self._fitted(own)
            note_lacking(self._database, name.source, gaps([own.row], outbox.last()))
        elif note_found(self._database, name.source, [Range(name.sequence, name.sequence)]):
            told, self._has_found = own, True
        else:
            return False
        outbox.restore([told.row])
        before = outbox.row(name.sequence) - 1
        if before < (self._database.meta("published") or 0):
            self._database.set_meta("published", before)  # later rows are looked at again, too
        apply = make_again_beside if told is own else make_again
        apply(self._store, outbox, [told])
        at = int(entry.id.partition(b"-")[0]) // 1000
        self._answers.setdefault(name.source, Answers(self._store, name.source)).take([told], at)
        if is_known and type(own.event) in UNDOES and self._merge.is_dropped(own):
            undo(self._store, own)  # others count it, and the repeated request too
        return True

    def _fitted(self, own: OwnEvent) -> OwnEvent:
        merged = self._merge.merged(own)
        return own if merged is own.event else OwnEvent(row_with(own.row, merged), merged)
