"""Handing over: events that a primary had accepted, and not published, when another was promoted.

The old primary is a standby now, and publishes nothing. It leaves these events beside the stream. The new
primary takes them over as they are, under their names and numbers, so that nobody counts one twice. Where it
changed the same rows since, `competing.py` publishes corrections. Once all has come, `settling.py` does the
rest, and `conflicts.py` tells what breaks a rule.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import structlog

from tally.events import AccountCreated, CustomerCreated
from tally.recovery import taking_back
from tally.recovery.competing import apply_beside, drop, make_again_beside, repeated
from tally.recovery.settling import HANDED, UNTOLD, note_unsettled, settle, unsettled
from tally.recovery.standing import begin_heirs
from tally.recovery.taking_back import Store
from tally.store import nodes
from tally.store.asks import published_fields
from tally.store.database import Database
from tally.store.incarnations import begin, own_sources
from tally.store.lacking import LACKING
from tally.store.outbox import Outbox, OutboxRow, outboxes
from tally.store.stream import Entry, EventStream

AT_ONCE = 1000  # events that are taken over together
MOST_LEFT = 10 * AT_ONCE  # events that are left beside the stream at a time
_MORE = b"More"  # this field of events that are not the last ones names the database that has more

_log = structlog.get_logger()


def hand_over(database: Database, stream: EventStream) -> int:
    """Leave the primary the events that a standby has and the stream lacks; answer how many.

    Repeat it until there are none: it leaves no more before the primary has taken those that are there.
    Raises RedisError or StoreError.
    """
    key = stream.beside("handed", database.service, str(database.node))
    if stream.client.xlen(key):
        return 0
    published = stream.published_by_source()
    waiting: list[tuple[str, OutboxRow]] = []
    for source, outbox in outboxes(database).items():
        rows = outbox.after(published.get(source, 0), MOST_LEFT + 1 - len(waiting))
        waiting += [(source, row) for row in rows]
    if not waiting:
        return 0
    known, names = stream.heirs(), outboxes(database)  # so the primary knows that all are its node's
    stream.note_heirs({heir: former for former, heir in pairwise(names) if heir not in known})
    left = waiting[:MOST_LEFT]
    with stream.client.pipeline(transaction=True) as transaction:
        for source, row in left:
            more = {_MORE: database.source} if len(waiting) > MOST_LEFT else {}
            transaction.xadd(key, published_fields(source, row) | more)  # type: ignore[arg-type]
        transaction.execute()
    source, first = left[0]
    _log.info("handed_over", source=source, first=first.sequence, events=len(left))
    return len(left)


def go_on(store: Store, stream: EventStream) -> None:
    """Have a standby's database go on in its primary's place, under a name of its own.

    Everything on the stream must have been taken in first. Events that it accepted before it was a standby,
    and has not handed over yet, it settles and publishes itself. May be repeated. Raises RedisError or
    StoreError.
    """
    database = store.database
    published = stream.published_by_source()
    with database.transaction():
        if nodes.follows(database):
            untold = unsettled(database, UNTOLD)
            note_unsettled(
                database, UNTOLD, {each: max(untold[each], published.get(each, 0)) for each in untold}
            )
            begin(database, Outbox(database).last())
            database.execute("DELETE FROM meta WHERE key = ?", (nodes.FOLLOWS,))


class TakingOver:
    """Takes over, at the primary, the events that a standby of its node handed over."""

    def __init__(self, store: Store, stream: EventStream) -> None:
        self._store = store
        self._database = store.database
        self._stream = stream
        self._key = stream.beside("handed", store.database.service, str(store.database.node))

    def step(self) -> int:
        """Take over all that was handed over, and answer how many events were new here.

        May be repeated, also when it was interrupted. Raises RedisError or StoreError.
        """
        orders: Any = self._stream.client.xrange(self._key, count=AT_ONCE)
        if not orders:
            self._give_up_rest()
            return 0
        entries = [Entry(id, fields) for id, fields in orders]
        self._know_names(entries)
        published = self._stream.published_by_source()
        awaited = entries[-1].fields.get(_MORE, b"").decode(errors="replace")
        is_last = not awaited and self._stream.client.xlen(self._key) == len(entries)
        count = 0
        with self._database.transaction():  # requests are answered meanwhile
            for source, some in groupby(entries, taking_back.source_of):
                count += self._take(source, [*some], published.get(source, 0))
            if count:
                taking_back.apply_left_out(self._store, make_again_beside)
            if awaited:
                self._database.set_meta(nodes.AWAITED, awaited)
            if is_last:
                self._settle()
        self._stream.client.xdel(self._key, *(entry.id for entry in entries))
        if count:
            _log.warning("took_over", events=count)
        return count

    def _settle(self) -> None:
        settle(self._store, HANDED)
        self._database.set_meta(nodes.AWAITED, "")

    def _give_up_rest(self) -> None:
        """Settle what has come if the standby that has more was removed from the node."""
        if awaited := nodes.awaited(self._database):
            standby = nodes.known_nodes(self._database).get(awaited)
            if standby and standby.is_removed:
                with self._database.transaction():
                    self._settle()

    def _know_names(self, entries: list[Entry]) -> None:
        """Learn the names that the standby began while it could not reach Redis: they follow ours."""
        sources = {*map(taking_back.source_of, entries)} - {""}
        if sources <= own_sources(self._database):
            return
        heirs = self._stream.heirs()
        with self._database.transaction():
            if begin_heirs(self._database, heirs):
                begin(self._database, Outbox(self._database).last())

    def _take(self, source: str, entries: Sequence[Entry], published: int) -> int:
        """Take over events of one name, in the open transaction; answers how many weren't here already."""
        outbox = outboxes(self._database).get(source)
        if outbox is None:
            return 0  # they come again once the name is known
        every = taking_back.own_events(entries)
        found = taking_back.find_lacking(outbox, every)
        own = taking_back.following(every, max(outbox.last(), published))
        LACKING.add(self._database, source, taking_back.gaps([each.row for each in own], outbox.last()))
        if own:
            outbox.restore([each.row for each in own])
        own = [*found, *own]
        if not own:
            return 0
        first = own[0].row.sequence
        before = outbox.row(first) - 1
        if before < (self._database.meta("published") or 0):
            self._database.set_meta("published", before)  # later rows are looked at again, too
        apply_beside(self._store, outbox, own)
        twice = repeated(self._database, outbox, own)  # what has rows of its own waits until these have come
        gone = [each for each in twice if not isinstance(each.event, CustomerCreated | AccountCreated)]
        drop(self._store, gone)
        handed = unsettled(self._database, HANDED)
        note_unsettled(self._database, HANDED, handed | {source: min(handed.get(source, first), first - 1)})
        taking_back.remember_answers(self._store, outbox, own, taking_back.seconds_of(entries[-1]))
        return len(own)
