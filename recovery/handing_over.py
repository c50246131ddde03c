"""What a primary had accepted and not published when another was promoted in its place.

It is a standby then, and publishes nothing. So it leaves those events beside the stream, and the primary
takes them over, under the names and numbers that they had: so nobody ever counts one twice. See merging for
what becomes of those that stand against what the primary has by now.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import structlog

from tally.events import EventId
from tally.recovery.merging import Merge, Tail, row_with
from tally.recovery.standing import later_names
from tally.recovery.taking_back import Answers, Healing, gaps, own_event
from tally.store import nodes
from tally.store.asks import published_fields
from tally.store.database import Database
from tally.store.incarnations import begin, incarnations, own_sources
from tally.store.lacking import note_found, note_lacking
from tally.store.outbox import Outbox, OwnEvent
from tally.store.stream import Entry, EventStream

AT_ONCE = 1000  # events that are handed over, or taken over, together

_log = structlog.get_logger()


def hand_over(database: Database, stream: EventStream) -> int:
    """Leave what a standby's database has and the stream does not for the primary; answer how many events.

    To be repeated until there are none: nothing more is left there before the primary has taken what is.
    Raises RedisError or StoreError.
    """
    key = stream.handed_key(database.service, database.node)
    published = stream.published_by_source()
    for incarnation in incarnations(database):
        outbox = Outbox(database, incarnation)
        if rows := outbox.after(published.get(outbox.source, 0), AT_ONCE):
            _note_names(database, stream)
            if stream.client.xlen(key):
                return 0
            with stream.client.pipeline(transaction=True) as transaction:
                for row in rows:
                    transaction.xadd(key, published_fields(outbox.source, row))  # type: ignore[arg-type]
                transaction.execute()
            _log.info("handed_over", source=outbox.source, first=rows[0].sequence, events=len(rows))
            return len(rows)
    return 0


def _note_names(database: Database, stream: EventStream) -> None:
    """See that the primary can know of every name that it is one of the node's."""
    known, names = stream.heirs(), [each.source for each in incarnations(database)]
    stream.note_heirs({heir: former for former, heir in pairwise(names) if heir not in known})


def go_on(store: Healing, stream: EventStream) -> None:
    """Have a standby's database go on in its primary's place, under a name of its own.

    All that the stream has must have been taken in. What it had accepted itself before it was a standby, and
    not handed over yet, it takes over from itself. May be repeated. Raises RedisError or StoreError.
    """
    database = store.database
    told = _told(database, stream)
    with database.transaction():
        if nodes.follows(database):
            Tail(store).settle(told)
            begin(database, Outbox(database).last())
            database.execute("DELETE FROM meta WHERE key = ?", (nodes.FOLLOWS,))


def _told(database: Database, stream: EventStream) -> list[tuple[Outbox, int]]:
    """The names of a database, and up to which number the events of each are known to others."""
    published, applied = stream.published_by_source(), stream.applied_by_source()
    outboxes = [Outbox(database, incarnation) for incarnation in incarnations(database)]
    return [(each, max(published.get(each.source, 0), applied.get(each.source, 0))) for each in outboxes]


class TakingOver:
    """Takes over, at the primary, what a standby of its node has handed over."""

    def __init__(self, store: Healing, stream: EventStream) -> None:
        self._store = store
        self._database = store.database
        self._stream = stream
        self._key = stream.handed_key(store.database.service, store.database.node)
        self._answers: dict[str, Answers] = {}
        self._merge = Merge(store)

    def step(self) -> int:
        """Take over what there is, and answer how many events were new here.

        May be repeated, also when it was interrupted. Raises RedisError, StoreError or OSError.
        """
        orders: Any = self._stream.client.xrange(self._key, count=AT_ONCE)
        if not orders:
            return 0
        entries = [Entry(id, fields) for id, fields in orders]
        self._know_names(entries)
        self._merge.look_up(filter(None, map(own_event, entries)))
        published, applied = self._stream.published_by_source(), self._stream.applied_by_source()
        count = 0
        with self._database.transaction():
            for entry in entries:
                count += self._take(entry, published, applied)
        self._stream.client.xdel(self._key, *(entry.id for entry in entries))
        if count:
            _log.warning("took_over", events=count)
        return count

    def _know_names(self, entries: list[Entry]) -> None:
        """A standby may have begun names of its own while it could not reach Redis: they follow ours."""
        sources = {name.source for each in entries if isinstance(name := each.event_name, EventId)}
        if sources <= own_sources(self._database):
            return
        later = later_names(own_sources(self._database), self._stream.heirs())
        with self._database.transaction():
            for heir in later:
                begin(self._database, Outbox(self._database).last(), heir)
            if later:
                begin(self._database, Outbox(self._database).last())

    def _take(self, entry: Entry, published: Mapping[str, int], applied: Mapping[str, int]) -> bool:
        """Take over one event, in the transaction that is open; False for one that is here already.

        What others have applied stays as it is: Redis had it, and has lost it.
        """
        own, name = own_event(entry), entry.event_name
        ours = {each.source: each for each in incarnations(self._database)}
        if own is None or not isinstance(name, EventId) or name.source not in ours:
            return False  # it comes again once it is known whose it is
        outbox = Outbox(self._database, ours[name.source])
        if name.sequence > max(outbox.last(), published.get(name.source, 0)):
            is_known = name.sequence <= applied.get(name.source, 0)
            told = own if is_known else self._fitted(own)
            note_lacking(self._database, name.source, gaps([own.row], outbox.last()))
        elif note_found(self._database, name.source, name.sequence):
            told = own
        else:
            return False
        outbox.restore([told.row])
        self._store.make_again([told])
        at = int(entry.id.partition(b"-")[0]) // 1000
        self._answers.setdefault(name.source, Answers(self._store, name.source)).take([told], at)
        return True

    def _fitted(self, own: OwnEvent) -> OwnEvent:
        merged = self._merge.merged(own)
        return own if merged is own.event else OwnEvent(row_with(own.row, merged), merged)
