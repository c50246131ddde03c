"""Healing: a database put back from an older copy takes back what it had published since.

The stream is the second copy: an entry holds every column of what was recorded. So a copy takes its later
events from it, before the first request is answered. Events between the copy and the oldest entry are lost;
their numbers are never given again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import structlog
from msgspec.structs import replace

from tally import events
from tally.events import (
    EVENT_ID_FIELD,
    PAYLOAD_FIELD,
    SEQUENCE_DIGITS,
    TYPE_FIELD,
    EventId,
    EventRange,
    decode,
)
from tally.store import ranges
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.idempotency import Answer, IdempotencyKeys, encode_answer, made, made_many
from tally.store.ids import begin_block, is_in_block, raise_ids
from tally.store.incarnations import ROOM, begin
from tally.store.lacking import LACKING, LEFT_OUT
from tally.store.outbox import FURTHER, Outbox, OutboxRow, OwnEvent, outboxes
from tally.store.ranges import Range
from tally.store.stream import Entry, EventStream, Published, entry_ms, fingerprint

AT_ONCE = 10_000  # events taken back in one transaction
_LEAST_FIELDS = 3  # of an entry: its name, type and payload

_log = structlog.get_logger()


Store = Accounts | Customers
"""A service's data, in one database."""
MakeAgain = Callable[[Store, Outbox, Sequence[OwnEvent]], object]


def make_again(store: Store, outbox: Outbox, own: Sequence[OwnEvent]) -> list[int]:
    """Apply events of that outbox's name; note those that follow from lost ones, and answer their numbers.

    In the open transaction.
    """
    left_out = store.make_again(own)
    LEFT_OUT.add(store.database, outbox.source, ranges.of(left_out))
    return left_out


def take_back(store: Store, stream: EventStream, outbox: Outbox, apply: MakeAgain = make_again) -> None:
    """Restore the database's own events that only the stream holds: outbox rows and effects.

    Takes the events after the newest one of `outbox`, and applies them with `apply`. They must be the ones
    that followed it once, see `joins`. If its name ends meanwhile, as something is written, the rest waits
    for the next look. Reads the whole stream. May be repeated, also when it was interrupted. Raises
    RedisError or StoreUnavailable.
    """
    database, last, count = store.database, outbox.last(), 0
    was_written_to = outbox.is_written_to
    published = stream.known_by_source().get(outbox.source, 0)
    if published > last:
        _pass_over(database, stream.highest(outbox.source))
    with database.relaxed():  # after a power failure, they are taken back again
        for own, at in _in_order(stream, outbox.source, last, published):
            rows = [each.row for each in own]
            with database.transaction():
                if outbox.is_written_to != was_written_to:
                    return
                LACKING.add(database, outbox.source, gaps(rows, last))
                outbox.restore(rows)
                apply(store, outbox, own)
                remember_answers(store, outbox, own, at)
            last, count = rows[-1].sequence, count + len(rows)
    with database.transaction():
        apply_left_out(store, apply)
    _reach(outbox, stream, published)
    _log.warning("took_back_own_events", source=outbox.source, count=count, newest=outbox.last())


def take_back_lost(store: Store, stream: EventStream, outbox: Outbox, apply: MakeAgain) -> int:
    """Take back events noted as lacking that are on the stream again; answer how many came.

    They were thought lost, and another database with the same name, such as a copy of the machine, published
    them again. Reads the whole stream, as `take_back` does.
    """
    database, count = store.database, 0
    for entries in _gathered(stream.entries_of(outbox.source)):
        with database.transaction():
            if own := find_lacking(outbox, own_events(entries)):
                apply(store, outbox, own)
                remember_answers(store, outbox, own, seconds_of(entries[-1]))
        count += len(own)
    if count:
        with database.transaction():
            apply_left_out(store, apply)
        _log.warning("took_back_own_events", source=outbox.source, count=count, newest=outbox.last())
    return count


def find_lacking(outbox: Outbox, every: Iterable[OwnEvent]) -> list[OwnEvent]:
    """Those of these events that were noted as lacking, in order. They are restored in the outbox.

    In the open transaction.
    """
    came = {each.row.sequence: each for each in every}
    found = ranges.both(LACKING.of(outbox.database).get(outbox.source, []), ranges.of(sorted(came)))
    own = [came[number] for first, last in found for number in range(first, last + 1)]
    if own:
        LACKING.remove(outbox.database, outbox.source, found)
        outbox.restore([each.row for each in own])
    return own


def apply_left_out(store: Store, apply: MakeAgain = make_again) -> None:
    """Apply what was left out, as far as what it follows from has come. In the open transaction."""
    noted = LEFT_OUT.of(store.database)
    for source, outbox in outboxes(store.database).items():
        if source in noted:
            own = [OwnEvent(row, event_of(row)) for row in outbox.of(noted[source])]
            LEFT_OUT.remove(store.database, source, ranges.of(each.row.sequence for each in own))
            apply(store, outbox, own)


def _in_order(
    stream: EventStream, source: str, last: int, published: int
) -> Iterator[tuple[list[OwnEvent], int]]:
    """A source's events after `last`, up to `published`, in the order of their numbers, each once, by parts.

    With each part comes the time (s) by which it was published. After Redis had lost something, events were
    published once more, and may stand behind later ones. So the rest of the stream is searched for missing
    numbers.
    """
    late: dict[int, bytes] | None = None
    for entries in _gathered(stream.entries_of(source)):
        own = following(own_events(entries), last, published)
        if not own:
            continue
        missing, at = gaps([each.row for each in own], last), seconds_of(entries[-1])
        if missing and late is None:
            late = _late(stream, source, entries[-1].id, own[-1].row.sequence)
        if missing and late:
            yield from _with_late(stream, own, late, missing, at)
        else:
            yield own, at
        last = own[-1].row.sequence


def _with_late(
    stream: EventStream, own: list[OwnEvent], late: Mapping[int, bytes], missing: Sequence[Range], at: int
) -> Iterator[tuple[list[OwnEvent], int]]:
    """The events, and the missing ones among the late entries, in order and by parts."""
    found = {each.row.sequence: each for each in own}
    those = [n for first, last in ranges.both(missing, ranges.of(late)) for n in range(first, last + 1)]
    numbers = sorted([*found, *those])
    for start in range(0, len(numbers), AT_ONCE):
        part = numbers[start : start + AT_ONCE]
        apart = own_events(stream.entries_at([late[each] for each in part if each not in found]))
        came = found | {each.row.sequence: each for each in apart}
        yield [came[each] for each in part if each in came], at


def _late(stream: EventStream, source: str, after: bytes, highest: int) -> dict[int, bytes]:
    """By number, the entries of a source that stand behind a later event, beyond the entry `after`."""
    late: dict[int, bytes] = {}
    for entry in stream.entries_of(source, after):
        if isinstance(name := entry.event_name, EventId):
            highest = max(highest, name.sequence)
            if name.sequence < highest:
                late.setdefault(name.sequence, entry.id)
    return late


def seconds_of(entry: Entry) -> int:
    """The time (s) by which an entry was published."""
    return entry_ms(entry.id) // 1000


def source_of(entry: Entry) -> str:
    """The source of an entry's event; "" without one."""
    return name.source if isinstance(name := entry.event_name, EventId) else ""


def event_of(row: OutboxRow) -> Any:
    """The event that a row of an outbox has."""
    return decode({TYPE_FIELD: row.type.encode(), PAYLOAD_FIELD: row.payload})


def _gathered(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """The entries, many at a time, so that one transaction writes each table page once."""
    while gathered := [*islice(entries, AT_ONCE)]:
        yield gathered


def _pass_over(database: Database, highest: Mapping[str, int]) -> None:
    """Make sure that no row's number is given again, even if the stream no longer has its entry.

    Call it before anything is taken back: after a later interruption, the database no longer looks behind.
    `highest` has each table's highest number. Nobody knows how far a random block was used, so another is
    begun.
    """
    with database.transaction():
        for table, id in highest.items():
            raise_ids(database, table, id)
        if is_in_block(database):
            begin_block(database)


def _reach(outbox: Outbox, stream: EventStream, published: int) -> None:
    """Make sure that no event's number is given again, even if the stream no longer has the event.

    If even Redis never heard of the newest events, it doesn't know their rows' numbers either. A number that
    another program made up may leave too few for what is recorded later.
    """
    database, last = outbox.database, outbox.last()
    is_behind = published > last and stream.published(outbox.source).ever < published
    with database.transaction():
        if published > last:
            LACKING.add(database, outbox.source, [Range(last + 1, published)])
            outbox.reach(published)
        if (is_behind or outbox.last() >= ROOM // 2) and outbox.is_written_to:
            begin(database, outbox.last())


def remember_answers(store: Store, outbox: Outbox, own: Sequence[OwnEvent], at: int) -> None:
    """Keep the answers to requests with an Idempotency-Key again, once all events of a request have come.

    For events of the outbox's name, just restored, in order; published before `at` (seconds). Other events of
    their requests may have come before. In the open transaction.
    """
    keys = IdempotencyKeys(store.database)
    for _, some in groupby(own, attrgetter("row.request_key")):
        every = [*some]
        if not (key := every[0].row.key):
            continue
        if len(every) < key.events:
            every = _of_the_request(outbox, every[0].row, key.events)
        if len(every) != key.events:
            continue
        last = every[-1]
        if last.row.type.endswith("Created"):
            table = last.row.type.removesuffix("Created").lower()
            ids = [each.event.id for each in every]
            answer = made_many(ids) if key.is_batch else made(f"/{table}s", ids[0])
        elif told := store.as_told(last.event):
            answer = Answer(None, encode_answer(told))
        else:
            continue
        span = EventRange(outbox.source, every[0].row.sequence, last.row.sequence)
        keys.remember(key, replace(answer, events=str(span)), at)


def _of_the_request(outbox: Outbox, row: OutboxRow, count: int) -> list[OwnEvent]:
    """The events of the row's request that have come; it has `count` in all."""
    around = outbox.after(max(0, row.sequence - count), 2 * count)
    return [OwnEvent(each, event_of(each)) for each in around if each.request_key == row.request_key]


def agrees(outbox: Outbox, published: Published) -> bool:
    """Whether the last event on the stream can have come from here.

    The outbox still knows the number of an event that it no longer keeps, or lost when it was put back.
    """
    own = outbox.payload(published.last)
    if own is None:
        return published.last <= outbox.last()
    return published.fingerprint in (None, fingerprint(own))


def joins(outbox: Outbox, stream: EventStream) -> bool:
    """Whether outbox and stream have the same event under the newest number that both still have.

    If it differs, the database has diverged since. Reads the stream up to there.
    """
    newest, last, is_same = 0, outbox.last(), True
    if outbox.first() > last:
        return True  # it holds none
    for own in filter(None, map(own_event, stream.entries_of(outbox.source))):
        row = own.row
        here = outbox.payload(row.sequence) if newest < row.sequence <= last else None
        if here is not None:
            newest, is_same = row.sequence, here == row.payload
            if newest == last:
                return is_same
    return is_same


def following(own: Iterable[OwnEvent], last: int, published: int = ROOM) -> list[OwnEvent]:
    """The events after `last`, each once: one that Redis had lost may be there twice, or be another's."""
    fresh = []
    for each in own:
        if last < each.row.sequence <= published:
            fresh.append(each)
            last = each.row.sequence
    return fresh


def gaps(rows: Sequence[OutboxRow], last: int) -> list[Range]:
    """The ranges missing after `last`, before and between the rows, which are in order."""
    if rows and rows[-1].sequence - last == len(rows):
        return []
    befores = [last, *(row.sequence for row in rows)]
    return [
        Range(before + 1, row.sequence - 1)
        for before, row in zip(befores, rows, strict=False)
        if row.sequence > before + 1
    ]


def own_events(entries: Iterable[Entry]) -> list[OwnEvent]:
    """The events of those entries that a relay of ours published, in the order of their numbers."""
    return sorted(filter(None, map(own_event, entries)), key=attrgetter("row.sequence"))


def own_event(entry: Entry) -> OwnEvent | None:
    """The event of an entry, and its row; None for an entry that no relay of ours published in this form."""
    fields = entry.fields
    digits = fields.get(EVENT_ID_FIELD, b"").rpartition(b":")[2]  # an EventId for each would cost 1 µs
    if not digits.isdigit() or digits < b"1" or len(digits) > SEQUENCE_DIGITS:
        return None
    if (sequence := int(digits)) >= ROOM:
        return None
    try:
        event = decode(fields)
    except (events.InvalidEvent, events.UnknownEventType):
        return None
    kind = type(event).__name__
    if len(fields) <= _LEAST_FIELDS:
        return OwnEvent(OutboxRow(sequence, kind, fields[PAYLOAD_FIELD]), event)
    further = [fields.get(each, b"").decode(errors="replace") or None for each in FURTHER]
    return OwnEvent(OutboxRow(sequence, kind, fields[PAYLOAD_FIELD], *further), event)
