"""A consumer group of the stream: what one of its consumers reads, takes over, acknowledges and buries."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from tally.events import EventId, now, rfc3339
from tally.store.stream import BLOCK_MS, Age, Entry, EventStream, Request, entries_read


class Claim(NamedTuple):
    """Entries taken over from another consumer, and where to go on: `b"0-0"` at the end.

    Redis 6.2 hands over deleted entries as `nameless` ones: they are pending here from then on.
    """

    next: bytes
    entries: list[Entry]
    nameless: int


class Redriven(NamedTuple):
    """An order to a group beside the stream: the entry, and the id of the order.

    It is a dead letter to try again, one that was `discarded`, or an event that the group has asked for.
    """

    order: bytes
    entry: Entry
    discarded: bool = False


class ConsumerGroup:
    """One consumer of a group that reads the stream. Every entry read is pending until acknowledged."""

    def __init__(self, stream: EventStream, group: str, consumer: str, block_ms: int = BLOCK_MS) -> None:
        self._stream = stream
        self._client = stream.client
        self._block_ms = block_ms
        self._ahead: tuple[Request, int] | None = None
        self._acknowledging: tuple[Request, Age] | None = None
        self._key = stream.key
        self._dead_key = stream.beside("dead")
        self._ages_key = stream.beside("ages")
        self._redrive_key = stream.beside("redrive", group)
        self.group = group
        self.consumer = consumer
        self._keep_letter = stream.script("keep_letter")
        self._note_age = stream.script("note_age")
        self._remove_consumer = stream.script("remove_consumer")

    def create(self) -> None:
        """Make the stream and the group, which starts at the oldest entry, unless they are there."""
        if self.group in self._stream.groups():
            return
        self._stream.published("")  # once the groups are there, nobody can see that it was deleted
        try:
            self._client.xgroup_create(self._key, self.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def read_new(self, count: int, ahead: int = 0) -> list[Entry]:
        """Up to `count` entries that no consumer of the group has read. Blocks up to `block_ms`.

        Where there may be more, up to `ahead` of the next ones are asked for already: Redis gathers
        them while these are applied, and the next call answers them, whatever its `count`.
        """
        (request, most), self._ahead = self._ahead or (self._ask(count), count), None
        entries = entries_read(request.answer())
        if ahead and len(entries) == most:
            self._ahead = self._ask(ahead), ahead
        self._hear_of_acknowledged()
        return entries

    @property
    def reads_ahead(self) -> bool:
        """Whether entries have been asked for that the next `read_new` answers."""
        return self._ahead is not None

    def forget_ahead(self) -> None:
        """Give up entries that were asked for: `read_pending` answers them. May be repeated."""
        for asked in (self._ahead, self._acknowledging):
            if asked:
                asked[0].abandon()
        self._ahead = self._acknowledging = None

    def read_pending(self, after: bytes, count: int) -> list[Entry]:
        """Up to `count` of this consumer's own pending entries with ids above `after`, ascending."""
        return entries_read(self._ask(count, after).answer())

    def claim(self, idle_ms: int, start: bytes, count: int) -> Claim:
        """Take over entries that have been pending for `idle_ms`, from the id `start` on.

        An empty list is not the end.
        """
        cursor, entries, *_ = self._client.xautoclaim(
            self._key, self.group, self.consumer, idle_ms, start, count
        )
        named = [Entry(id, fields) for id, fields in entries if id is not None]
        return Claim(cursor, named, nameless=len(entries) - len(named))

    def acknowledge(self, ids: Collection[bytes], age: Age = Age()) -> None:  # noqa: B008 -- a value
        """Acknowledge entries, applied by a database of that age. May be repeated.

        When more entries were asked for already, this doesn't wait: the next call waits for both answers.

        The age goes first: if Redis ends in between, an older database can still be told. XACK is not in the
        script, as it would cost Redis half as much again there.
        """
        if not ids:
            self._note(age)
            return
        self._hear_of_acknowledged()
        note = ("EVALSHA", self._note_age.sha, 1, self._ages_key, self.group, *age)
        self._acknowledging = Request(self._client, note, ("XACK", self._key, self.group, *ids)), age
        if not self._ahead:
            self._hear_of_acknowledged()

    def _hear_of_acknowledged(self) -> None:
        told, self._acknowledging = self._acknowledging, None
        if not told:
            return
        request, age = told
        try:
            request.answer()
        except redis.exceptions.NoScriptError:
            self._note(age)  # which gives Redis the script again; the entries are acknowledged

    def _note(self, age: Age) -> None:
        self._note_age(keys=[self._ages_key], args=[self.group, *age])

    def age(self) -> Age | None:
        """How old the group's database was when it last acknowledged anything; None where nobody knows."""
        noted: bytes | None = self._client.hget(self._ages_key, self.group)  # type: ignore[assignment]
        return None if noted is None else Age.parse(noted.decode(errors="replace"))

    def has_begun(self) -> bool:
        """Whether the group has been handed, or has skipped, anything."""
        known = self._stream.groups().get(self.group)
        return known is not None and known["last-delivered-id"] != b"0-0"

    def deliveries(self, id: bytes) -> int:
        """How often a pending entry has been handed out; 0 when it is no longer pending."""
        pending: list[dict[str, Any]] = self._client.xpending_range(self._key, self.group, id, id, 1)
        return int(pending[0]["times_delivered"]) if pending else 0

    def bury(self, entry: Entry, reason: str, deliveries: int, order: bytes | None = None) -> bool:
        """Acknowledge a pending entry, or settle the `order` that it came by, and keep it as a dead letter.

        False, and no letter, if it is done with already: another consumer took it over meanwhile.
        """
        letter: dict[Any, Any] = {
            **entry.fields,
            **({} if isinstance(entry.event_name, EventId) else {"EventName": entry.event_name}),
            "StreamId": entry.id,
            "Group": self.group,
            "Reason": reason,
            "Deliveries": deliveries,
            "FailedAt": rfc3339(now()),
        }
        key, id, group = (self._redrive_key, order, "") if order else (self._key, entry.id, self.group)
        # The letter is not given to the script, as Lua can't pass on thousands of fields.
        with self._client.pipeline(transaction=True) as transaction:
            transaction.script_load(self._keep_letter.script)
            transaction.xadd(self._dead_key, letter)
            transaction.evalsha(self._keep_letter.sha, 2, self._dead_key, key, id, group)
            return bool(transaction.execute()[-1])

    def redriven(self, count: int) -> list[Redriven]:
        """Up to `count` of the orders for this group, the oldest first."""
        orders: Any = self._client.xrange(self._redrive_key, count=count)
        return [_order(id, told) for id, told in orders]

    def settle(self, orders: Sequence[Redriven]) -> None:
        """These orders, one at least, are done with. May be repeated."""
        self._client.xdel(self._redrive_key, *(each.order for each in orders))

    def set_back(self) -> None:
        """Have the group read the whole stream again."""
        self._client.xgroup_setid(self._key, self.group, "0")

    def remove_others(self, keep: Collection[str], idle_ms: int) -> list[str]:
        """Remove the consumers that are none of `keep`, idle for `idle_ms` and without pending entries."""
        consumers: list[dict[str, Any]] = self._client.xinfo_consumers(self._key, self.group)
        idle = [each["name"].decode(errors="replace") for each in consumers if each["idle"] >= idle_ms]
        gone = [name for name in idle if name not in keep]
        return [name for name in gone if self._remove_consumer(keys=[self._key], args=[self.group, name])]

    def pending(self) -> int:
        """How many entries the group has read and not acknowledged; 0 when there is no group yet."""
        known = self._stream.groups().get(self.group)
        return int(known["pending"]) if known else 0

    def _ask(self, count: int, after: bytes = b">") -> Request:
        """Ask for entries that nobody has read, or for pending ones; the latter Redis answers at once."""
        read = ("XREADGROUP", "GROUP", self.group, self.consumer, "COUNT", count, "BLOCK", self._block_ms)
        return Request(self._client, (*read, "STREAMS", self._key, after))


def _order(id: bytes, told: dict[bytes, bytes]) -> Redriven:
    """An order. Anything else, left there by another program, has no event, and so becomes a dead letter."""
    try:
        fields = msgspec.msgpack.decode(told[b"Fields"], type=dict[bytes, bytes])
        name = told.get(b"Name", b"").decode()
        return Redriven(id, Entry(told[b"StreamId"], fields, name), told.get(b"Order") == b"discard")
    except (KeyError, ValueError):  # msgspec's own errors are ValueErrors
        return Redriven(id, Entry(id, {b"Order": msgspec.msgpack.encode(told)}))
