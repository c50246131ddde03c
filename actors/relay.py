"""The relay: each database has one. It publishes the outbox in order, each event once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import structlog
from redis.exceptions import ResponseError

from tally.actors.actor import PASSING, Actor
from tally.actors.doorbell import Doorbell
from tally.actors.housekeeper import Housekeeper
from tally.actors.metrics import EventMetrics
from tally.actors.publication import Publication
from tally.recovery.standing import Stand, stands_of
from tally.recovery.taking_back import agrees
from tally.store import nodes
from tally.store.database import Database
from tally.store.outbox import Outbox, OutboxRow, last_row
from tally.store.stream import EventStream, Publishing, RedisError, fingerprint, is_not_held

BATCH = 500
PACE_SECONDS = 0.001  # between publications without a backlog: each has a fixed cost downstream
PACE_EACH_SECONDS = 0.0005  # and for each event in it: the busier it is, the more events share a publication
LONGEST_PACE_SECONDS = 0.025
MARK_SECONDS = 0.1  # how often, in a backlog, the database notes how far Redis has got
LOOK_SECONDS = 1.0  # how often, while idle, it checks that Redis still has the events

_log = structlog.get_logger()


class _Sent(NamedTuple):
    """A batch on its way, and since when. With `again`, its first event was sent before."""

    rows: list[OutboxRow]
    at: float
    again: bool


@dataclass(eq=False)
class Relay:
    """Moves committed events from a database's outbox to the stream, one source name after another.

    `settle` asks Redis how far it has got, and mends what differs; see Standing. With `pass_over`, the events
    don't concern the service that they come from, and its consumers are spared them. In a backlog, Redis gets
    the next `batch` before it has answered for the last. `publication` is told how far the relay has got. An
    event that it waits for is sent again until enough replicas have it. `holder` names the database that
    holds its node's number: without it, Redis takes nothing.
    """

    database: Database
    stream: EventStream
    settle: Callable[[], Sequence[Stand]] | None = None
    metrics: EventMetrics = field(default_factory=EventMetrics)
    clock: Callable[[], float] = time.monotonic
    _: KW_ONLY
    pass_over: bool = False
    batch: int = BATCH
    publication: Publication | None = None
    holder: str = ""

    def __post_init__(self) -> None:
        self._groups: list[str] = []  # these skip the published events
        replicas = self.publication.replicas if self.publication else 0
        self._publishing = Publishing(self.stream, replicas, self.holder)
        self._sent: list[_Sent] = []  # batches without an answer yet, in order
        self._outbox = Outbox(self.database)
        self._settle = self.settle or partial(stands_of, self.database, self.stream)
        self._last: int | None = None  # the last sequence that Redis holds; None: ask
        self._marked = self._outbox.published()
        self._next_mark = self.clock()
        self.paces = self.publication is None  # if nobody waits, events are gathered for a moment
        self.lack: str | None = None  # why publication is not told of what is published
        self.refusal: str | None = None  # why nothing is published any more

    def step(self) -> int:
        """Publish up to `batch` events, and the rest of a request. Answers how many; 0 when none are left.

        So many may still be on their way when this returns; the next step reads the answer. Raises RedisError
        or StoreUnavailable. May be repeated after either: no event is published twice.
        """
        last, self._last = self._last, None  # unknown again until this step has succeeded
        if last is None:
            last = self._ask()
        if self.refusal:
            return 0
        newest = last_row(self.database) if self.publication else 0  # read first, to leave out later rows
        before, again = last, False
        if self._sent:
            before = self._sent[-1].rows[-1].sequence
        elif self._is_unsure(self._outbox, last):
            before, again = last - 1, True  # WAIT covers only this connection's writes
        rows = _without_gap(self._outbox.batch(before, self.batch))
        if rows:
            self._send(rows, before, again)
        while self._sent and (len(self._sent) > 1 or len(rows) < self.batch):
            sent = self._sent[0]
            if not self._hear():
                return len(sent.rows)  # a gap, or another's event: the next step asks
            last = sent.rows[-1].sequence
        if (not rows and self.paces) or self.clock() >= self._next_mark:
            self._mark(last)
        fresh_rows = len(rows) - again
        if not fresh_rows and not self._outbox.is_written_to:
            return 0 if self.lack else 1  # there is a newer name: the next step asks
        if not rows and not self.lack and self.publication and self.publication.row() < newest:
            self.publication.reached(newest)  # rows that are gone were published or lost
        self._last = last
        return fresh_rows

    def drain(self, beat: Callable[[], None]) -> None:
        """Publish the events that are there by now, and note how far Redis has got.

        Later ones are left to the next relay: while this one is replaced, others go on recording.
        """
        newest = last_row(self.database)
        while self.step() and (self._last is None or self._outbox.row(self._last) < newest):
            beat()
        if self._last is not None:
            self._mark(self._last)

    def _hear(self) -> bool:
        """Read the answer to the first batch on its way; True if Redis took the batch."""
        try:
            answer = self._publishing.answer()
        except RedisError as error:
            if is_not_held(error):
                return False  # the next step settles, which takes the number again
            raise
        sent = self._sent.pop(0)
        newest = sent.rows[-1]
        taken = (answer.last, answer.fingerprint) == (newest.sequence, fingerprint(newest.payload))
        if fresh := sent.rows[sent.again :]:
            self.metrics.after_publish(fresh, taken, self.clock() - sent.at)
        if taken:
            self._tell(self._outbox.row(newest.sequence), answer.replicas)
        return taken

    def _tell(self, row: int, replicas: int) -> None:
        """Tell `publication` that all rows up to this one are published, if enough replicas have them."""
        if not self.publication:
            return
        wanted, self.lack = self.publication.replicas, None
        if replicas >= wanted:
            self.publication.reached(row)
        else:
            self.lack = f"{replicas} of {wanted} replicas have what was published: changes are answered 503"

    @property
    def is_marked(self) -> bool:
        """Whether the database has noted how far Redis has got, as known here."""
        return self._last in (None, self._marked)

    def look_again(self) -> None:
        """Make the next step ask Redis again what it holds."""
        self._last = None

    def _is_unsure(self, outbox: Outbox, last: int) -> bool:
        """Whether somebody still waits for replicas to have this name's last event, which Redis has."""
        if not self.publication or last == 0 or self.publication.row() >= outbox.row(last):
            return False
        return outbox.payload(last) is not None

    def _send(self, rows: list[OutboxRow], before: int, again: bool) -> None:
        """Publish `rows`. Events between `before` and the first row, if any, are lost."""
        source, first = self._outbox.source, rows[0].sequence
        floor = self._outbox.first() - 1 if first == before + 1 else first - 1
        self._sent.append(_Sent(rows, self.clock(), again))
        self._publishing.send(source, floor, rows, self._groups, self._outbox.payload(first - 1))

    def _ask(self) -> int:
        """How far Redis has got with the first name that has more to publish, else with the newest.

        Sets `refusal` when Redis holds events that can't have come from here.
        """
        if self._sent:
            self._sent.clear()
            self._publishing.abandon()
        stands = self._settle()
        if self.pass_over:
            self._groups = self._of_its_kind()
        behind = (stand for stand in stands if stand.outbox.after(stand.published.last, 1))
        told = (stand for stand in reversed(stands) if stand.published.last)  # a replica that has it has all
        unsure = (stand for stand in islice(told, 1) if self._is_unsure(stand.outbox, stand.published.last))
        self._outbox, published = next(chain(behind, unsure), stands[-1])
        row = self._outbox.row(published.last)
        has_more = bool(self._outbox.after(published.last, 1))
        if self.publication and has_more and self.publication.row() > row:
            self.publication.reached(row)  # Redis has lost some
        self._marked = self._outbox.published()
        foreign = next((stand for stand in stands if not agrees(*stand)), None)
        self.refusal = foreign and (
            f"the stream holds events of {foreign.outbox.source}, up to {foreign.published.last}, that this "
            "database does not know: another publishes under its name"
        )
        if not self.refusal and self._outbox.is_written_to and published.last < self._marked:
            _log.warning(
                "redis_lost_events", source=self._outbox.source, had=self._marked, has=published.last
            )
        return published.last

    def _of_its_kind(self) -> list[str]:
        """The groups of this service everywhere: of this node, of others, and of standbys."""
        kind = f"{self.database.service}@"
        known = nodes.known_nodes(self.database).items()
        others = {name for name, node in known if name.startswith(kind) and not node.is_removed}
        return sorted(others | {self.database.source})

    def _mark(self, last: int) -> None:
        """Note how far Redis has got. Rarely under load: it takes the lock that requests wait for."""
        self._next_mark = self.clock() + MARK_SECONDS
        if last != self._marked:
            self._outbox.mark_published(last)
            self.metrics.advanced(last - max(self._marked, 0))
            self._marked = last


def _without_gap(rows: list[OutboxRow]) -> list[OutboxRow]:
    """The rows up to the first gap: a database that was put back lacks the events that were lost."""
    if not rows or rows[-1].sequence - rows[0].sequence == len(rows) - 1:
        return rows
    first = rows[0].sequence
    return [row for place, row in enumerate(rows) if row.sequence == first + place]


def run(
    actor: Actor, relay: Relay, doorbell: Doorbell, housekeeper: Housekeeper, answer: Callable[[], bool]
) -> None:
    """Publish whenever the doorbell rings, and look every second; at the end, drain the outbox once.

    `answer` sends groups a part of the events that they asked for, and tells whether there are more.

    The actor is ready once it has compared the database with the stream, and healed it if possible.
    """

    def step() -> str | None:
        doorbell.silence()
        try:
            published = relay.step()
        except ResponseError:  # not one that is away: that would be waited for twice
            housekeeper.step()  # Redis may be full until something is trimmed
            raise
        more = housekeeper.step()
        if not relay.refusal:
            more |= answer()
        if 0 < published < BATCH and relay.paces:
            actor.wait(min(PACE_SECONDS + published * PACE_EACH_SECONDS, LONGEST_PACE_SECONDS))
        elif not published and not more:
            rests = relay.is_marked
            actor.wait(LOOK_SECONDS if rests else MARK_SECONDS, doorbell)
            if rests and not doorbell.is_rung():
                relay.look_again()
        return relay.refusal or relay.lack

    actor.attempt(relay.step)  # if Redis is away, events are published once it is back
    actor.ready()
    actor.repeat(step)
    try:
        relay.drain(actor.beat)
    except PASSING as error:
        _log.warning("outbox_not_drained", reason=str(error))
