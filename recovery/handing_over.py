"""What a primary had accepted and not published when another was promoted in its place.

It is a standby then, and publishes nothing. So it leaves those events beside the stream, and the primary
takes them over: under the names and numbers that they had, so that nobody ever counts one twice. A creation
stays what it was. A change is made again on what the primary has by now, with its amounts and the next
revision. What can't be any more, or was asked for again at the primary, gives way to an event that changes
nothing, in its place: a name's numbers have no gaps.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from tally.events import (
    AccountDeleted,
    AccountUpdated,
    CreditCreated,
    CreditDeleted,
    CustomerUpdated,
    Event,
    EventId,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
    decode,
    encode,
    now,
)
from tally.recovery.diverged import CREATIONS, TABLES, Numbers, renumbered
from tally.recovery.standing import later_names
from tally.recovery.taking_back import Answers, Healing, own_event
from tally.store import notes, references
from tally.store.accounts import Accounts
from tally.store.asks import published_fields
from tally.store.cause import RequestKey
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.errors import Misdirected, MoveRefused, NotFound, ReferenceTaken
from tally.store.ids import give
from tally.store.incarnations import begin, incarnations, own_sources
from tally.store.outbox import Outbox, OwnEvent
from tally.store.records import NewInvoice
from tally.store.stream import Entry, EventStream

AT_ONCE = 1000  # events that are handed over, or taken over, together

_log = structlog.get_logger()


def hand_over(database: Database, stream: EventStream) -> int:
    """Leave what a standby's database has and the stream does not for the primary; answer how many events.

    To be repeated until there are none: nothing more is left there before the primary has taken what is.
    Raises RedisError or StoreError.
    """
    key = stream.handed_key(database.service, database.node)
    if stream.client.xlen(key):
        return 0
    published = stream.published_by_source()
    for incarnation in incarnations(database):
        outbox = Outbox(database, incarnation)
        told = max(published.get(outbox.source, 0), stream.applied(outbox.source))
        if rows := outbox.after(told, AT_ONCE):
            with stream.client.pipeline(transaction=True) as transaction:
                for row in rows:
                    transaction.xadd(key, published_fields(outbox.source, row))  # type: ignore[arg-type]
                transaction.execute()
            _log.info("handed_over", source=outbox.source, first=rows[0].sequence, events=len(rows))
            return len(rows)
    return 0


class TakingOver:
    """Takes over, at the primary, what a standby of its node has handed over."""

    def __init__(self, store: Healing, stream: EventStream) -> None:
        self._store = store
        self._database = store.database
        self._stream = stream
        self._key = stream.handed_key(store.database.service, store.database.node)
        self._answers: dict[str, Answers] = {}
        self._merge = _Merge(store)

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
        published = self._stream.published_by_source()
        count = 0
        with self._database.transaction():
            for entry in entries:
                count += self._take(entry, published)
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

    def _take(self, entry: Entry, published: Mapping[str, int]) -> bool:
        """Take over one event, in the transaction that is open; False for one that is here already."""
        own, name = own_event(entry), entry.event_name
        if own is None or not isinstance(name, EventId):
            return False
        ours = {each.source: each for each in incarnations(self._database)}
        if name.source not in ours:
            self._merge.keep(own, f"it is {name.source}'s, which this database does not follow")
            return False
        outbox = Outbox(self._database, ours[name.source])
        last = max(outbox.last(), published.get(name.source, 0))
        if name.sequence <= last:
            return False
        merged = self._merge.merged(own)
        row = own.row._replace(
            sequence=name.sequence,
            type=type(merged).__name__,
            payload=own.row.payload if merged is own.event else encode(merged),
        )
        outbox.restore([row])
        told = OwnEvent(row, merged)
        self._store.make_again([told])
        at = int(entry.id.partition(b"-")[0]) // 1000
        self._answers.setdefault(name.source, Answers(self._store, name.source)).take([told], at)
        return True


class _Merge:
    """Fits what a standby had accepted to what the primary has by now. In the transaction that is open."""

    def __init__(self, store: Healing) -> None:
        self._database = store.database
        self._customers, self._accounts = Customers(store.database), Accounts(store.database)
        self._asked_again: dict[str, list[int]] = {}  # by hash: the rows of a request that came here, too
        self._dropped: dict[str, int] = {}  # by RequestKey: how many of its events
        self._numbers: Numbers = {}

    def look_up(self, handed: Iterable[OwnEvent]) -> None:
        """Look which of the requests with an Idempotency-Key have come here, too."""
        keys = {each.row.request_key for each in handed if each.row.request_key}
        wanted = {key.request for text in keys if (key := RequestKey.parse(text))}
        if not wanted:
            return
        names = msgspec.json.encode(sorted(wanted)).decode()
        for type_, payload, text in self._database.rows(_ASKED, (names,)):
            event: Any = decode({b"EventTypeName": type_.encode(), b"Payload": payload})
            self._asked_again.setdefault(text.partition(":")[0], []).append(event.id)

    def merged(self, own: OwnEvent) -> Event:
        """The event that takes the place of this one; the same where nothing stands against it."""
        event: Any = renumbered(own.event, self._numbers)
        if self._is_asked_again(own):
            return self._nothing(event)
        try:
            return self._made_again(own, event)
        except _CantBe as error:
            self.keep(own, str(error))
            return self._nothing(event)

    def keep(self, own: OwnEvent, why: str) -> None:
        """Keep what can't be in a file beside the database, and note it for status."""
        file = self._database.path.with_name(f"not-taken-over-{self._database.service}.csv")
        is_new = not file.exists()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "a", encoding="utf-8", newline="") as content:
            rows = csv.writer(content)
            if is_new:
                rows.writerow(("event", "payload", "by", "why"))
            rows.writerow((own.row.type, own.row.payload.decode(), own.row.by or "", why))
            content.flush()
            os.fsync(descriptor)
        notes.note(
            self._database,
            f"what a standby had accepted while it was the primary could not all be taken over: {file} tells "
            "what, and why. Move it away once that is settled",
        )

    def _is_asked_again(self, own: OwnEvent) -> bool:
        """Whether the client has sent the request here, too: its rows are those that count."""
        key = RequestKey.parse(own.row.request_key or "")
        ids = self._asked_again.get(key.request) if key else None
        if ids is None or own.row.request_key is None:
            return False
        place = self._dropped.get(own.row.request_key, 0)
        self._dropped[own.row.request_key] = place + 1
        if type(own.event) in CREATIONS and place < len(ids):
            self._numbers.setdefault(TABLES[type(own.event)], {})[own.event.id] = ids[place]
        return True

    def _nothing(self, event: Any) -> Event:
        """An event that changes nothing: of something that nobody has, or will ever have."""
        if self._database.service == "accounts":
            (account,) = give(self._database, "account", 1)
            return AccountDeleted(account, now(), cascade=False)
        customer = event.id if TABLES[type(event)] == "customer" else event.customer_id
        (invoice,) = give(self._database, "invoice", 1)
        day = now().date()
        return InvoiceUpdated(invoice, customer, 0, day, 0, day, 0, now())

    def _made_again(self, own: OwnEvent, event: Event) -> Event:
        """Raises _CantBe."""
        match event:
            case InvoiceCreated():
                self._insist_on_customer(event.customer_id)
                return self._with_free_reference(own, event)
            case CreditCreated():
                self._insist_on_customer(event.customer_id)
                if event.invoice_id is not None:
                    self._insist_on_room(event.invoice_id, event.credited_cents)
            case InvoiceUpdated():
                invoice = self._invoice(event.id)
                if self._customers.credits.of_invoice(event.id) > event.purchase_price_cents:
                    raise _CantBe("the credits of the invoice come to more")
                return replace(
                    event,
                    previous_price_cents=invoice.purchase_price_cents,
                    previous_date=event.previous_date.fromisoformat(invoice.purchase_date),
                    revision=invoice.revision + 1,
                )
            case InvoiceDeleted():
                return self._deleted_again(event)
            case CreditDeleted():
                try:
                    self._customers.credits.one(event.id)
                except (NotFound, Misdirected):
                    return self._nothing(event)
            case CustomerUpdated():
                return self._customer_again(event)
            case AccountUpdated():
                try:
                    account = self._accounts.account(event.id)
                except NotFound:
                    raise _CantBe("the account was deleted meanwhile") from None
                return replace(event, revision=account.revision + 1)
            case _:
                pass
        return event

    def _customer_again(self, event: CustomerUpdated) -> Event:
        try:
            customer = self._customers.customer(event.id)
            if customer.account_id != event.account_id:
                references.insist_on_move(self._database, event.id, event.account_id)
        except (NotFound, Misdirected):
            raise _CantBe("the customer was deleted meanwhile") from None
        except MoveRefused as error:
            raise _CantBe(str(error)) from None
        return replace(event, revision=customer.revision + 1)

    def _deleted_again(self, event: InvoiceDeleted) -> Event:
        try:
            invoice = self._customers.invoice(event.id)
        except (NotFound, Misdirected):
            return self._nothing(event)  # both have deleted it
        if self._customers.credits.of_invoice(event.id):
            raise _CantBe("the invoice has credits by now")
        day = event.deleted_date.date().fromisoformat(invoice.purchase_date)
        before = (
            event.last_price_cents or event.purchase_price_cents,
            event.last_date or event.purchase_date,
        )
        if before == (invoice.purchase_price_cents, day):
            return event
        return replace(event, last_price_cents=invoice.purchase_price_cents, last_date=day)

    def _with_free_reference(self, own: OwnEvent, event: InvoiceCreated) -> Event:
        if event.reference is None:
            return event
        new = NewInvoice(event.customer_id, event.purchase_date, event.purchase_price_cents, event.reference)
        try:
            references.insist_on_new(self._database, "invoice", [new])
        except ReferenceTaken as error:
            self.keep(own, f"it is recorded without its reference: {error}")
            return replace(event, reference=None)
        return event

    def _invoice(self, id: int) -> Any:
        try:
            return self._customers.invoice(id)
        except (NotFound, Misdirected):
            raise _CantBe("the invoice was deleted meanwhile") from None

    def _insist_on_customer(self, id: int) -> None:
        try:
            self._customers.customer(id)
        except (NotFound, Misdirected):
            raise _CantBe("the customer was deleted meanwhile") from None

    def _insist_on_room(self, invoice: int, cents: int) -> None:
        left = self._invoice(invoice).purchase_price_cents - self._customers.credits.of_invoice(invoice)
        if cents > left:
            raise _CantBe(f"only {left} cents of the invoice are left to be credited")


class _CantBe(Exception):
    """A change can't be made again; the message says why."""


_ASKED = (
    "SELECT type, payload, request_key FROM outbox WHERE request_key IS NOT NULL"
    " AND substr(request_key, 1, instr(request_key, ':') - 1) IN (SELECT value FROM json_each(?))"
    " ORDER BY sequence"
)
