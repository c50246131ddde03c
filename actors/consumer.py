"""The consumers of a service: each reads the stream as a member of its group, and applies the events.

A batch is applied in one transaction, together with its ids in the inbox. It is committed, and only then
acknowledged. An event that is delivered again, by anyone, has no effect the second time.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

import redis
import structlog

from tally.actors.actor import Actor
from tally.actors.metrics import DEAD, FAILURES, UNKNOWN, Delivery, EventMetrics, traced
from tally.config import ConsumersSettings
from tally.events import EVENT_TYPES, TYPE_FIELD, Event, EventId, InvalidEvent, UnknownEventType, decode
from tally.recovery.missing import Missing
from tally.store import inbox
from tally.store.asks import ASKED, COVERS_FIELD, LACKS_FIELD
from tally.store.cause import Cause, CauseOf, cause_in
from tally.store.consumer_group import ConsumerGroup, Redriven
from tally.store.database import Database
from tally.store.errors import StoreError
from tally.store.inbox import Inbox
from tally.store.ranges import Range, parsed
from tally.store.stream import Age, Entry, RedisError, entry_ms, is_missing

T = TypeVar("T")

_log = structlog.get_logger()

SWEEP_SECONDS = 1.0  # the longest time between looks for entries that others left behind
BACKLOG_BATCHES = 16  # in a backlog, this many share one transaction, so each page is written less often
MOST_REDRIVEN_BATCHES = 20  # then it is the stream's turn again
MOST_AT_ONCE = 10_000  # entries in one transaction: memory holds them
HOLD_SECONDS = 0.1  # how long such a transaction should take: requests wait meanwhile, up to PATIENT_SECONDS
NICE = 5  # requests go first where processors are scarce
REST_SECONDS = 0.05  # after a batch that doesn't concern it, so that more events share a commit


@dataclass(eq=False)
class Consumer:
    """One consumer. `apply` applies a batch of events to the database, within a transaction.

    `after_commit` is called after that transaction, and must not block. `siblings` are the names of all
    consumers that belong in the group. `group` must be the group of this database and no other's. Events of
    types outside `concerns` are noted as read, and not decoded. `follow_up` does a part of the work that
    events deferred, in a transaction of its own, and answers whether there was any. `missing` looks for
    events that the group will not be handed any more.
    """

    group: ConsumerGroup
    database: Database
    apply: Callable[[Sequence[Event], CauseOf], None]
    _: KW_ONLY
    after_commit: Callable[[], None]
    settings: ConsumersSettings
    siblings: Collection[str]
    concerns: tuple[type[Event], ...] = (Event,)
    follow_up: Callable[[], bool] = lambda: False
    missing: Missing | None = None
    metrics: EventMetrics = field(default_factory=EventMetrics)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._inbox = Inbox(self.database)
        self._batch = self._together = self.settings.batch
        self._passed_over = {
            name.encode() for name, kind in EVENT_TYPES.items() if not issubclass(kind, self.concerns)
        }
        self._recovered = False
        self._age = Age()
        self._next_claim = 0.0
        self.may_rest = False  # the last step's events didn't concern it; likely the next one's won't

    def step(self) -> None:
        """One turn: recover, or take over entries that others left, or read and apply. Blocks up to a second.

        Raises RedisError or StoreError. Then nothing uncommitted was acknowledged, and the next step begins
        with the entries that are still pending.
        """
        self.may_rest = False
        try:
            if not self._recovered:
                self._recover()
                self._recovered = True
            elif self._claim_is_due() and not self.group.reads_ahead:
                self._claim()
            elif self.follow_up():
                self.after_commit()
            else:
                self._handle(self.group.read_new(self._batch, 0 if self._claim_is_due() else self._together))
        except (RedisError, StoreError) as error:
            self._recovered = False
            if not (isinstance(error, redis.ResponseError) and is_missing(error)):
                raise
            _log.warning("stream_or_group_missing", group=self.group.group, reason=str(error))

    def _recover(self) -> None:
        """Make sure that the group exists, and finish the entries that this consumer had read before."""
        self.group.forget_ahead()
        self.group.create()
        self._compare()
        if self.missing:
            self.missing.begin_again()
        self._finish_pending()

    def _finish_pending(self) -> None:
        after = b"0-0"
        while entries := self.group.read_pending(after, self._batch):
            self._handle(entries)
            after = entries[-1].id

    def _compare(self) -> None:
        """The database decides which events are applied: set the group back if it is ahead of the database.

        Their ages tell: either this is the database that acknowledged last, or a later state of it, or it is
        a copy. Events with an EventId would be asked for by number anyway.
        """
        if not self._has_what_was_acknowledged():
            with self.database.transaction():  # one sibling does it, and the others wait
                if not self._has_what_was_acknowledged():
                    _log.warning("group_set_back", group=self.group.group, age=str(self._age))
                    self.group.set_back()
                    self._age = self._inbox.branch_off()
                    self.group.acknowledge([], self._age)
        self.group.acknowledge([], self._age)

    def _has_what_was_acknowledged(self) -> bool:
        """Whether this database has applied everything that the group has acknowledged.

        A group that was made again has acknowledged nothing. If an age that a lost database left stayed,
        trimming would wait until this one is older.
        """
        has_begun = self.group.has_begun()  # asked first: a sibling notes its age before it begins the group
        noted, self._age = self.group.age(), self._inbox.age()
        return not has_begun if noted is None else self._age.includes(noted)

    def _claim_is_due(self) -> bool:
        return self.clock() >= self._next_claim

    def _claim(self) -> None:
        """Take over entries that a consumer held for too long, including this one's own failures."""
        cursor, nameless = b"0-0", 0
        while True:
            claim = self.group.claim(self.settings.claim_idle_ms, cursor, self._batch)
            self._handle(claim.entries)
            cursor, nameless = claim.next, nameless + claim.nameless
            if cursor == b"0-0":
                break
        if nameless:
            self._finish_pending()
        self._redrive()
        self.group.remove_others(self.siblings, self.settings.claim_idle_ms)
        self._next_claim = self.clock() + min(SWEEP_SECONDS, self.settings.claim_idle_ms / 2000)

    def _handle(self, entries: Sequence[Entry]) -> None:
        """Apply entries, acknowledge those that are done, and bury unreadable ones as dead letters."""
        events: list[Delivery] = []
        unreadable: list[tuple[Entry, str]] = []
        unknown: list[Entry] = []
        done, passed_over = [], self._passed_over
        for entry in entries:
            fields = entry.fields
            try:
                if fields.get(TYPE_FIELD) in passed_over:
                    events.append(Delivery(entry, None))
                elif fields:
                    events.append(Delivery(entry, decode(fields)))
                else:
                    done.append(entry.id)  # deleted from the stream
            except UnknownEventType as error:
                _log.info("unknown_event_type", entry=entry.id.decode(), type=str(error), **traced(entry))
                self.metrics.count(UNKNOWN)
                unknown.append(entry)
            except InvalidEvent as error:
                unreadable.append((entry, str(error)))
        done += [each.entry.id for each in _together_or_alone(events, self._apply_together, self._failed)]
        self._put_aside(unknown, inbox.UNKNOWN)
        done += [entry.id for entry in unknown]
        for entry, reason in unreadable:
            self._bury(entry, reason)
        if done:
            self.group.acknowledge(done, self._age)

    def _apply_together(self, events: Sequence[Delivery], order: bytes | None = None) -> None:
        """Apply events in one transaction; `order` is the newest order, if they came by orders."""
        newest = order or events[-1].entry.id  # Redis hands both out in ascending order
        concerned = any(each.event for each in events)
        self.may_rest = not concerned and len(events) < self._batch
        began = time.perf_counter()
        with self.database.transaction():
            held_since = self.clock()
            taken = self._inbox.take_delivered(events, entry_ms(newest))
            self.apply([each.event for each in taken if each.event], partial(_cause, taken))
            age = self._inbox.grow()
        self._set_pace(len(events), self.clock() - held_since)
        self._age = age
        if concerned:
            self.after_commit()
        self.metrics.after_apply(events, taken, time.perf_counter() - began)

    def _set_pace(self, count: int, seconds: float) -> None:
        """Of `count` events that took `seconds`, derive how many may share a transaction in a backlog."""
        most = min(self._batch * BACKLOG_BATCHES, MOST_AT_ONCE)
        quick = int(count * HOLD_SECONDS / seconds) if seconds else most
        self._together = max(self._batch, min(quick, most))

    def _redrive(self) -> None:
        """Carry out the orders for the group: letters to try again, and events that it asked for.

        One consumer of the group does it, and also looks for missing events.
        """
        if self.group.consumer != min(self.siblings):
            return
        for _ in range(MOST_REDRIVEN_BATCHES):
            orders = self.group.redriven(self._batch)
            if done := _together_or_alone(orders, self._carry_out, self._redriven_in_vain):
                self.group.acknowledge([], self._age)
                self.group.settle(done)
            for order in done:
                if order.entry.id != ASKED and not order.discarded:
                    _log.info("redriven_event_applied", entry=order.entry.id.decode(), **traced(order.entry))
            if len(orders) < self._batch:
                break
        if self.missing:
            self.missing.look()

    def _carry_out(self, orders: Sequence[Redriven]) -> None:
        events = [decoded for order in orders if (decoded := self._decoded(order))]
        if events:
            self._apply_together(events, orders[-1].order)
        self._note_covered(orders)

    def _decoded(self, order: Redriven) -> Delivery | None:
        """The event of an order, None if there is nothing to apply. Raises InvalidEvent."""
        if order.discarded or not order.entry.fields.keys().isdisjoint((COVERS_FIELD, LACKS_FIELD)):
            return None
        try:
            return Delivery(order.entry, decode(order.entry.fields))
        except UnknownEventType:
            self._put_aside([order.entry], inbox.UNKNOWN)
            return None

    def _note_covered(self, orders: Sequence[Redriven]) -> None:
        self._put_aside([order.entry for order in orders if order.discarded], inbox.DISCARDED)
        for order in orders:
            if covers := order.entry.fields.get(COVERS_FIELD):
                with self.database.transaction():
                    self._inbox.note(*_told_ranges(covers))
            if lacks := order.entry.fields.get(LACKS_FIELD):
                source, ranges = _told_ranges(lacks)
                numbers = chain.from_iterable(range(each.first, each.last + 1) for each in ranges)
                with self.database.transaction():
                    self._inbox.put_aside((EventId(source, number) for number in numbers), inbox.NOWHERE)

    def _put_aside(self, entries: Sequence[Entry], why: str) -> None:
        names = [entry.event_name for entry in entries]
        if any(isinstance(name, EventId) for name in names):
            with self.database.transaction():
                self._inbox.put_aside(names, why)

    def _redriven_in_vain(self, order: Redriven, error: Exception) -> None:
        self.metrics.count(FAILURES)
        _log.exception("redriven_event_failed", entry=order.entry.id.decode(), **traced(order.entry))
        if self._is_dead(order.entry):
            self.group.bury(order.entry, f"redriven: {type(error).__name__}: {error}", 1, order.order)
        else:
            self.group.settle([order])

    def _failed(self, event: Delivery, _error: Exception) -> None:
        """Count a failed attempt; bury the entry at the last one. Called while its exception is handled."""
        entry = event.entry
        deliveries = self.group.deliveries(entry.id)
        _log.exception("event_failed", entry=entry.id.decode(), deliveries=deliveries, **traced(entry))
        self.metrics.count(FAILURES)
        if deliveries >= self.settings.max_deliveries:
            self._bury(entry, "its handling raises; the log tells more", deliveries)

    def _bury(self, entry: Entry, reason: str, deliveries: int | None = None) -> None:
        if deliveries is None:
            deliveries = self.group.deliveries(entry.id)
        if not self._is_dead(entry):
            self.group.acknowledge([entry.id], self._age)
        elif self.group.bury(entry, reason, deliveries):
            _log.error("dead_letter", entry=entry.id.decode(), reason=reason, **traced(entry))
            self.metrics.count(DEAD)

    def _is_dead(self, entry: Entry) -> bool:
        """Note it, unless the event counts or was discarded: another consumer had buried it before."""
        with self.database.transaction():
            if self._inbox.is_settled(entry.event_name):
                return False
            if isinstance(entry.event_name, EventId):
                self._inbox.put_aside([entry.event_name], inbox.DEAD)
        return True


def _together_or_alone(
    items: Sequence[T], do: Callable[[Sequence[T]], None], failed: Callable[[T, Exception], None]
) -> Sequence[T]:
    """Do all items together; if that raises, each half, down to single items. Answer those that were done.

    That way, a few faults among many items cost only a few more transactions. `failed` is called with an item
    that raises alone, while its exception is handled. Raises StoreError, which is no fault of the items.
    """
    try:
        if items:
            do(items)
    except StoreError:
        raise
    except Exception as error:
        if middle := len(items) // 2:
            halves = items[:middle], items[middle:]
            return [done for half in halves for done in _together_or_alone(half, do, failed)]
        failed(items[0], error)
        return []
    return items


def _told_ranges(told: bytes) -> tuple[str, list[Range]]:
    """The source and the sequences in a COVERS_FIELD or LACKS_FIELD of an order."""
    source, _, numbers = told.decode().rpartition(":")
    return source, parsed(numbers)


def _cause(events: Sequence[Delivery], event: Event) -> Cause:
    """The cause of one of the events. Only a few are asked for."""
    return cause_in(next(each.entry.fields for each in events if each.event is event))


def run(actor: Actor, consumer: Consumer) -> None:
    """Consume until told to stop; a batch that has begun is finished."""

    def step() -> None:
        consumer.step()
        if consumer.may_rest:
            actor.wait(REST_SECONDS)

    os.nice(NICE)
    actor.ready()
    actor.repeat(step)
