"""Merging what two databases of one node have recorded at the same time.

One was the primary before the other, and nobody else knows some of its events. These keep their names and
numbers, whoever publishes them. A creation stays as it is. A change is made again on top of the other
database's changes. Where that is impossible, or where a client has repeated the request at the other, an
event that changes nothing takes its place.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

from msgspec.structs import replace

from tally.events import (
    AccountDeleted,
    AccountUpdated,
    CreditCreated,
    CreditDeleted,
    CustomerUpdated,
    Event,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
    encode,
    now,
)
from tally.recovery.competing import State, builds_on_what_is_not_here, last_of
from tally.recovery.diverged import (
    CREATIONS,
    DELETIONS,
    TABLES,
    UNDOES,
    UPDATES,
    Numbers,
    made_after,
    renumbered,
    row_of,
    write_csv,
)
from tally.recovery.taking_back import Healing, event_of
from tally.store import notes, references
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.errors import Misdirected, MoveRefused, NotFound, ReferenceTaken
from tally.store.ids import give
from tally.store.outbox import ID, REQUEST, Outbox, OutboxRow, OwnEvent, rows_with
from tally.store.records import NewInvoice

Row = TypeVar("Row")


class AskedAgain:
    """Requests with an Idempotency-Key that were sent to both databases: the other one's rows count."""

    def __init__(self) -> None:
        self.numbers: Numbers = {}
        """For each table: the rows that replace the dropped ones."""
        self._rows: dict[str, list[int]] = {}  # the other database's rows, by the hash of the request
        self._dropped: dict[str, int] = {}  # how many events of a request, by its hash

    def know(self, theirs: Iterable[OutboxRow]) -> None:
        """Learn the other database's events. All events of a request must be among them."""
        for row in theirs:
            if key := row.key:
                self._rows.setdefault(key.request, []).append(event_of(row).id)

    def drops(self, own: OwnEvent) -> bool:
        """Whether an event belongs to such a request. Ask once for each event, in their order."""
        key = own.row.key
        if key is None or key.request not in self._rows:
            return False
        rows, place = self._rows[key.request], self._dropped.get(key.request, 0)
        self._dropped[key.request] = place + 1
        if type(own.event) in CREATIONS and place < len(rows):
            self.numbers.setdefault(TABLES[type(own.event)], {})[own.event.id] = rows[place]
        return True


class CantBe(Exception):
    """A change can't be made again; the message says why."""


class Merge:
    """Fits a standby's events to the primary's data, at the primary. In the open transaction."""

    def __init__(self, store: Healing) -> None:
        self._database = store.database
        self._customers, self._accounts = Customers(store.database), Accounts(store.database)
        self._asked_again = AskedAgain()

    def look_up(self, handed: Iterable[OwnEvent]) -> None:
        """Find which of these events' requests were sent here too. The events must not be here yet.

        In the transaction that takes them over: more requests may come later.
        """
        wanted = {key.request for each in handed if (key := each.row.key)}
        self._asked_again = AskedAgain()
        if wanted:
            self._asked_again.know(rows_with(self._database, REQUEST, wanted))

    def is_dropped(self, own: OwnEvent) -> bool:
        """Whether its request was sent here, too. Then the rows made here are the ones that count."""
        return self._asked_again.drops(own)

    def merged(self, own: OwnEvent) -> Event:
        """The event to record in place of this one; the same event where there is no conflict."""
        event = renumbered(own.event, self._asked_again.numbers)
        if self._asked_again.drops(own):
            return nothing(self._database, event)
        try:
            return self._made_again(own, event)
        except CantBe as error:
            keep(self._database, own, str(error))
            return nothing(self._database, event)

    def _made_again(self, own: OwnEvent, event: Event) -> Event:
        """Raises CantBe."""
        match event:
            case InvoiceCreated():
                _found("customer", self._customers.customer, event.customer_id)
                return self._with_free_reference(own, event)
            case CreditCreated():
                _found("customer", self._customers.customer, event.customer_id)
                if event.invoice_id is not None:
                    self._insist_on_room(event.invoice_id, event.credited_cents)
            case InvoiceUpdated():
                try:
                    invoice = _found("invoice", self._customers.invoice, event.id)
                except CantBe:
                    if builds_on_what_is_not_here(self._database, event.id):
                        return event  # whoever deleted the invoice knew this change
                    raise
                if self._customers.credits.of_invoice(event.id) > event.purchase_price_cents:
                    raise CantBe("the credits of the invoice come to more")
                return replace(
                    event,
                    previous_price_cents=invoice.purchase_price_cents,
                    previous_date=date.fromisoformat(invoice.purchase_date),
                    revision=invoice.revision + 1,
                )
            case InvoiceDeleted():
                return self._deleted_again(event)
            case CreditDeleted():
                try:
                    self._customers.credits.one(event.id)
                except (NotFound, Misdirected):
                    return nothing(self._database, event)
            case CustomerUpdated():
                return self._customer_again(event)
            case AccountUpdated():
                account = _found("account", self._accounts.account, event.id)
                return replace(event, revision=account.revision + 1)
            case _:
                pass
        return event

    def _customer_again(self, event: CustomerUpdated) -> Event:
        customer = _found("customer", self._customers.customer, event.id)
        try:
            if customer.account_id != event.account_id:
                references.insist_on_move(self._database, event.id, event.account_id)
        except MoveRefused as error:
            raise CantBe(str(error)) from None
        return replace(event, revision=customer.revision + 1)

    def _deleted_again(self, event: InvoiceDeleted) -> Event:
        try:
            invoice = self._customers.invoice(event.id)
        except (NotFound, Misdirected):
            return nothing(self._database, event)  # both have deleted it
        if self._customers.credits.of_invoice(event.id):
            raise CantBe("the invoice has credits by now")
        here = State(invoice.purchase_price_cents, date.fromisoformat(invoice.purchase_date))
        if last_of(event) == here:
            return event
        return replace(event, last_price_cents=here.cents, last_date=here.day)

    def _with_free_reference(self, own: OwnEvent, event: InvoiceCreated) -> Event:
        if event.reference is None:
            return event
        new = NewInvoice(event.customer_id, event.purchase_date, event.purchase_price_cents, event.reference)
        try:
            references.insist_on_new(self._database, "invoice", [new])
        except ReferenceTaken as error:
            keep(self._database, own, f"it is recorded without its reference: {error}")
            return replace(event, reference=None)
        return event

    def _insist_on_room(self, invoice: int, cents: int) -> None:
        price = _found("invoice", self._customers.invoice, invoice).purchase_price_cents
        left = price - self._customers.credits.of_invoice(invoice)
        if cents > left:
            raise CantBe(f"only {left} cents of the invoice are left to be credited")


def _found(kind: str, find: Callable[[int], Row], id: int) -> Row:
    """The row of that id, as it is now. Raises CantBe where it is gone."""
    try:
        return find(id)
    except (NotFound, Misdirected):
        raise CantBe(f"the {kind} was deleted meanwhile") from None


class Tail:
    """Events that a promoted standby had accepted, and nobody else knows. In the open transaction.

    Its own rows hold their effects already, and those of the events that the primary recorded since.
    """

    def __init__(self, store: Healing) -> None:
        self._store = store
        self._database = store.database

    def settle(self, told: Sequence[tuple[Outbox, int]]) -> None:
        """Fit them. `told` has the database's names, and how far others know each."""
        tails = [(outbox, outbox.after(last, -1)) for outbox, last in told]
        ours = {outbox.row(row.sequence): row for outbox, rows in tails for row in rows}
        asked_again = self._asked_again(ours)
        known = _Known(map(event_of, self._changes(ours)), map(event_of, ours.values()))
        for outbox, rows in tails:
            self._fit(outbox, rows, asked_again, known)

    def _asked_again(self, ours: Mapping[int, OutboxRow]) -> AskedAgain:
        """Those of their requests that were sent to the other database, too."""
        requests = {key.request for row in ours.values() if (key := row.key)}
        asked_again = AskedAgain()
        if requests:
            found = rows_with(self._database, REQUEST, requests)
            asked_again.know(row for row in found if row.sequence not in ours)
        return asked_again

    def _changes(self, ours: Mapping[int, OutboxRow]) -> list[OutboxRow]:
        """The other database's changes of the same rows."""
        asked_again = self._asked_again(ours)
        ids = set()
        for row in ours.values():
            event = event_of(row)
            ids.add(int(row_of(renumbered(event, asked_again.numbers))[1]))
            asked_again.drops(OwnEvent(row, event))
        found = rows_with(self._database, ID, ids, _IS_CHANGE) if ids else []
        return [row for row in found if row.sequence not in ours]

    def _fit(
        self, outbox: Outbox, ours: Sequence[OutboxRow], asked_again: AskedAgain, known: "_Known"
    ) -> None:
        fitted_rows = set()
        for row in ours:
            was = event_of(row)
            event = None
            if not asked_again.drops(OwnEvent(row, was)):  # no later event builds on a dropped one
                event = known.fitted(renumbered(was, asked_again.numbers))
            if event is was:
                if row_of(was) in fitted_rows:  # what was there before it was made again
                    self._store.make_again([OwnEvent(row, was)])
                continue
            fitted_rows.add(row_of(was))
            if type(was) in CREATIONS:
                self._store.make_again([OwnEvent(row, UNDOES[type(was)](was))])
            told = event or nothing(self._database, was)
            fitted = row_with(row, told)
            outbox.replace(fitted)
            self._store.make_again([OwnEvent(fitted, told)])


class _Known:
    """The other database's changes, by row. `ours` are the events that are to be fitted to them."""

    def __init__(self, events: Iterable[Any], ours: Iterable[Any]) -> None:
        self._newest: dict[tuple[str, int], Any] = {}
        self._revisions: set[tuple[str, int, int]] = set()
        self._gone: dict[tuple[str, int], Any] = {}
        self._known_to_it: dict[tuple[str, int], int] = {}  # the newest revision that a deletion builds on
        for event in events:
            row = row_of(event)
            if type(event) in UPDATES:
                self._revisions.add((*row, event.revision))
                if event.revision >= getattr(self._newest.get(row), "revision", 0):
                    self._newest[row] = event
            elif type(event) in DELETIONS:
                self._gone[row] = event
        for event in ours:
            gone = self._gone.get(row := row_of(event)) if isinstance(event, InvoiceUpdated) else None
            if gone and last_of(gone).cents == event.purchase_price_cents:
                self._known_to_it[row] = event.revision

    def fitted(self, event: Any) -> Event | None:
        """The event fitted on top of the other database's changes; the same event where there is no conflict.

        None where nothing is left for it to change.
        """
        row, newest = row_of(event), self._newest.get(row_of(event))
        if isinstance(event, InvoiceDeleted | CreditDeleted) and row in self._gone:
            return None
        if isinstance(event, InvoiceUpdated) and row in self._gone:
            return event if event.revision <= self._known_to_it.get(row, 0) else None
        if type(event) in UPDATES:
            if (*row, event.revision) in self._revisions:
                event = made_after(newest, event)
                self._revisions.add((*row, event.revision))
            if newest is None or event.revision > newest.revision:
                self._newest[row] = event  # the next change builds on this one
        elif (
            isinstance(event, InvoiceDeleted)
            and newest
            and newest.purchase_price_cents != last_of(event).cents
        ):
            event = made_after(newest, event)
        return event  # type: ignore[no-any-return]


def nothing(database: Database, event: Any) -> Event:
    """An event that changes nothing, in place of another: about a row that never exists anywhere."""
    if database.service == "accounts":
        (account,) = give(database, "account", 1)
        return AccountDeleted(account, now(), cascade=False)
    customer = event.id if TABLES[type(event)] == "customer" else event.customer_id
    (invoice,) = give(database, "invoice", 1)
    day = now().date()
    return InvoiceUpdated(invoice, customer, 0, day, 0, day, 0, now())


def row_with(row: OutboxRow, event: Event) -> OutboxRow:
    """The row with another event in it; one that changes nothing answers no request."""
    key = None if is_nothing(event) else row.request_key
    return row._replace(type=type(event).__name__, payload=encode(event), request_key=key)


def is_nothing(event: Event) -> bool:
    """Whether the event can be one that changes nothing."""
    if isinstance(event, InvoiceUpdated):
        return event.revision == 0
    return isinstance(event, AccountDeleted)


def keep(database: Database, own: OwnEvent, why: str) -> None:
    """Write an event that can't be taken over to a file beside the database, and note it for status.

    In the open transaction.
    """
    file = database.path.with_name(f"not-taken-over-{database.service}.csv")
    header = [] if file.exists() else [("event", "payload", "by", "why")]
    row = (own.row.type, own.row.payload.decode(), own.row.by or "", why)
    write_csv(file, [*header, row], os.O_APPEND)
    notes.note(
        database,
        f"what a standby had accepted while it was the primary could not all be taken over: {file} tells "
        "what, and why",
    )


_IS_CHANGE = "(type LIKE '%Updated' OR type LIKE '%Deleted')"
