"""customers.db: customers, their invoices, and which accounts exist."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

from msgspec import UNSET

from tally import events
from tally.events import Event, Id, encode, now, rfc3339
from tally.store import (
    belonging,
    credits,
    customer_list,
    history,
    idempotency,
    inbox,
    nodes,
    outbox,
    parts,
    records,
    references,
    updates,
)
from tally.store.cause import UNKNOWN, Cause, CauseOf, unknown
from tally.store.credits import Credits
from tally.store.customer_list import CustomerList, CustomerQuery
from tally.store.database import NEVER_RELEASED, Database, Migrations, OpenDatabase, numbers
from tally.store.errors import CustomerInUse
from tally.store.history import Happening, Kind
from tally.store.listing import Listing, ListQuery
from tally.store.outbox import Outbox, OwnEvent
from tally.store.records import Customer, Invoice
from tally.store.updates import Revisions

SERVICE = "customers"
FILE = "customers.db"

# For each invoice, it is checked that its customer exists. This index has a quarter of the table's pages.
CUSTOMER_NUMBER = "CREATE INDEX customer_number ON customer (id, account_id);"

# Deleted customers with invoices left. No call shows these; they are deleted bit by bit.
DOOMED_CUSTOMER = "CREATE TABLE doomed_customer (id INTEGER PRIMARY KEY) STRICT;"

SCHEMA = f"""
{outbox.SCHEMA}
{inbox.SCHEMA}
{idempotency.SCHEMA}
CREATE TABLE customer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_date TEXT NOT NULL,
    created_by TEXT,
    revision INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX customer_by_account ON customer (account_id);
{CUSTOMER_NUMBER}
{customer_list.SCHEMA}
CREATE TABLE invoice (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER NOT NULL REFERENCES customer,
    purchase_price_cents INTEGER NOT NULL,
    purchase_date TEXT NOT NULL,
    created_date TEXT NOT NULL,
    created_by TEXT,
    revision INTEGER NOT NULL DEFAULT 0,
    reference TEXT
) STRICT;
{parts.schema("invoice")}
{references.schema("invoice")}
{credits.SCHEMA}
{history.SCHEMA}
{updates.SCHEMA}

-- What AccountCreated and AccountDeleted told. A deleted account keeps its row, so that a creation
-- that comes after the deletion does not bring it back; until its creation has come it has no owner.
CREATE TABLE known_account (
    id INTEGER PRIMARY KEY,
    owned_by TEXT,
    created_date TEXT,
    deleted INTEGER NOT NULL DEFAULT FALSE
) STRICT;
CREATE INDEX known_account_by_owner ON known_account (owned_by) WHERE NOT deleted;

-- Deleted accounts whose customers are still to be deleted.
CREATE TABLE doomed_account (
    id INTEGER PRIMARY KEY,
    trace_parent TEXT
) STRICT;
{DOOMED_CUSTOMER}
"""

MIGRATIONS: Migrations = (  # see CONTRIBUTING.md, "A change of the schema"
    *NEVER_RELEASED,
    f"""
    DROP INDEX invoice_by_customer;
    {parts.schema("invoice")}
    {DOOMED_CUSTOMER}
    {CUSTOMER_NUMBER}
    {inbox.ASIDE}
    {outbox.ADDED}
    {idempotency.ADDED}
    {history.SCHEMA}
    {updates.SCHEMA}
    ALTER TABLE customer ADD COLUMN created_by TEXT;
    ALTER TABLE customer ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    {customer_list.SCHEMA}
    {customer_list.FILL}
    ALTER TABLE invoice ADD COLUMN created_by TEXT;
    ALTER TABLE invoice ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE invoice ADD COLUMN reference TEXT;
    {references.schema("invoice")}
    {credits.SCHEMA}
    """,
)

open_database = OpenDatabase(FILE, SERVICE, SCHEMA, MIGRATIONS)

ROWS_AT_ONCE = 1000  # deleted in one transaction: other writers wait for it, some 40 ms
ROWS_OF_A_CUSTOMER = 10  # so many invoices take as long to delete as a customer without any

# The events that this service reacts to: none of its own.
CONCERNS = (events.AccountCreated, events.AccountUpdated, events.AccountDeleted)


class Customers:
    """The customers and invoices in one database. Methods that change something run in a transaction.

    With an `owner`, other users' accounts and all in them are treated as if they did not exist. So is an
    account of which nothing has come yet. For rows of another node, Misdirected is raised instead of
    NotFound. With `revisions`, Changed is raised unless the row has one of them.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outbox = Outbox(database)
        self.credits = Credits(database, self.outbox)
        self.invoice_listing = Listing(database, "invoice")

    def create_customers(
        self,
        new: Sequence[records.NewCustomer],
        require_account: bool = False,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
    ) -> list[Id]:
        """Record customers and answer their ids in order: all of them or none.

        Raises UnknownReference, with `require_account` or an owner, for an unknown or deleted account.
        """
        belonging.insist_on_accounts(self.database, [each.account_id for each in new], owner, require_account)
        created = now()
        made = [
            events.CustomerCreated(id, each.account_id, each.name, created)
            for id, each in zip(self.outbox.give("customer", len(new)), new, strict=True)
        ]
        self._record_customers([(event, cause.by) for event in made])
        self.outbox.add(made, cause)
        return [event.id for event in made]

    def _record_customers(self, made: Sequence[tuple[events.CustomerCreated, str | None]]) -> None:
        """Apply creations, each by a user or None; nothing is published."""
        rows = [(e.id, e.account_id, e.name, _told(e.created_date), by) for e, by in made]
        self.database.insert("customer (id, account_id, name, created_date, created_by)", rows)

    def create_invoices(
        self, new: Sequence[records.NewInvoice], cause: Cause = UNKNOWN, owner: str | None = None
    ) -> list[Id]:
        """Record invoices and answer their ids in order: all of them or none.

        Raises UnknownReference for a customer that does not exist, ReferenceTaken and RepeatedReference.
        """
        belonging.insist_on_customers(self.database, [each.customer_id for each in new], owner)
        references.insist_on_new(self.database, "invoice", new)
        created = now()
        made = [
            events.InvoiceCreated(
                id,
                each.customer_id,
                each.purchase_price_cents,
                created,
                each.purchase_date,
                None if each.reference is UNSET else each.reference,
            )
            for id, each in zip(self.outbox.give("invoice", len(new)), new, strict=True)
        ]
        self._record_invoices([(event, cause.by) for event in made])
        self.outbox.add(made, cause)
        return [event.id for event in made]

    def _record_invoices(self, made: Sequence[tuple[events.InvoiceCreated, str | None]]) -> None:
        """Apply creations, each by a user or None; nothing is published."""
        self.database.insert(
            "invoice"
            " (id, customer_id, purchase_price_cents, purchase_date, created_date, created_by, reference)",
            [
                (
                    event.id,
                    event.customer_id,
                    event.purchase_price_cents,
                    _day(event.purchase_date),
                    _told(event.created_date),
                    by,
                    event.reference,
                )
                for event, by in made
            ],
        )

    def change_customer(
        self,
        id: int,
        change: records.CustomerChange,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Revisions = None,
        require_account: bool = False,
    ) -> Customer:
        """Change a customer and answer it. If nothing differs, nothing happens.

        Raises NotFound, UnknownReference like `create_customers`, and MoveRefused if one of its references is
        taken in its new account.
        """
        before = self.customer(id, owner, revisions)
        after = updates.changed(before, change, before.revision)
        if after is before:
            return before
        if after.account_id != before.account_id:
            belonging.insist_on_accounts(self.database, [after.account_id], owner, require_account)
            references.insist_on_move(self.database, id, after.account_id)
        event = events.CustomerUpdated(after.id, after.account_id, after.name, after.revision, now())
        self._update_customer(event, cause.by)
        self.outbox.add([event], cause)
        return after

    def _update_customer(self, event: events.CustomerUpdated, by: str | None) -> None:
        """Apply an update, if it is newer than what is here."""
        before = records.find_customer(self.database, event.id)
        if before and updates.is_newest(self.database, "customer", event.id, event.revision, encode(event)):
            sql = "UPDATE customer SET account_id = ?, name = ?, revision = ? WHERE id = ?"
            self.database.execute(sql, (event.account_id, event.name, event.revision, event.id))
            records.note(self.database, before, event, by, before, updates.told(before, event))

    def change_invoice(
        self,
        id: int,
        change: records.InvoiceChange,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Revisions = None,
    ) -> Invoice:
        """Change an invoice and answer it. If nothing differs, nothing happens.

        Raises NotFound, and OverCredited if its credits come to more.
        """
        before = self.invoice(id, owner, revisions)
        after = updates.changed(before, change, before.revision)
        if after is before:
            return before
        self.credits.insist_on_amount(id, after.purchase_price_cents)
        new = after.purchase_price_cents, date.fromisoformat(after.purchase_date)
        old = before.purchase_price_cents, date.fromisoformat(before.purchase_date)
        event = events.InvoiceUpdated(after.id, after.customer_id, *new, *old, after.revision, now())
        self._update_invoice(event, cause.by)
        self.outbox.add([event], cause)
        return after

    def _update_invoice(self, event: events.InvoiceUpdated, by: str | None) -> None:
        """Apply an update, if it is newer than what is here."""
        before = records.find_invoice(self.database, event.id)
        if before and before.revision < event.revision:
            self.database.execute(
                "UPDATE invoice SET purchase_price_cents = ?, purchase_date = ?, revision = ? WHERE id = ?",
                (event.purchase_price_cents, str(event.purchase_date), event.revision, event.id),
            )
            records.note(self.database, before, event, by, before, updates.told(before, event))

    def delete_customer(
        self,
        id: int,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Revisions = None,
        cascade: bool = True,
    ) -> None:
        """Delete a customer, its invoices and credits.

        Raises NotFound, and without `cascade` CustomerInUse while it has invoices or credits.
        """
        customer = self.customer(id, owner, revisions)
        one = ListQuery(limit=1, customer_id=id)
        if not cascade and (self.invoice_listing.page(one) or self.credits.page(one)):
            raise CustomerInUse(f"The customer {id} has invoices or credits.")
        self._delete_customer(customer.id, customer.account_id, cause, ROWS_AT_ONCE)

    def delete_invoice(
        self, id: int, cause: Cause = UNKNOWN, owner: str | None = None, revisions: Revisions = None
    ) -> None:
        """Take an invoice back. Raises NotFound, and InvoiceCredited if it has credits."""
        invoice = self.invoice(id, owner, revisions)
        self.credits.insist_on_none(id)
        cents, day = invoice.purchase_price_cents, date.fromisoformat(invoice.purchase_date)
        last: list[Any] = []
        if invoice.revision:
            created, last = history.of(self.database, "invoice", id)[0].after or {}, [cents, day]
            cents, day = created["purchase_price_cents"], date.fromisoformat(created["purchase_date"])
        deleted = events.InvoiceDeleted(invoice.id, invoice.customer_id, cents, now(), day, *last)
        self._remove_invoice(deleted, cause.by)
        self.outbox.add([deleted], cause)

    def _remove_invoice(self, event: events.InvoiceDeleted, by: str | None) -> None:
        if invoice := records.find_invoice(self.database, event.id):
            records.note(self.database, invoice, event, by, invoice, None)
        self.database.execute("DELETE FROM invoice WHERE id = ?", (event.id,))

    def customer_history(self, id: int, owner: str | None = None) -> list[Happening]:
        """The history of a customer, oldest first, even if it is gone. Raises NotFound."""
        return self._history("customer", id, owner, records.find_customer(self.database, id))

    def invoice_history(self, id: int, owner: str | None = None) -> list[Happening]:
        """The history of an invoice, oldest first, even if it is gone. Raises NotFound."""
        return self._history("invoice", id, owner, records.find_invoice(self.database, id))

    def _history(
        self, kind: Kind, id: int, owner: str | None, row: Customer | Invoice | None
    ) -> list[Happening]:
        noted = history.of(self.database, kind, id)
        if row and not noted:
            noted = [records.beginning(self.database, row)]
        # Its credits' events say nothing of the row itself.
        own = [each for each in noted if each.event.startswith(kind.title())]
        last = records.shown(row) if row else own and (own[-1].after or own[-1].before)
        if not last or not self._owns_last(owner, last):
            raise nodes.missing(self.database, kind, id)
        if not row and own[-1].after is not None:  # it was deleted with its customer
            for gone in history.of(self.database, "customer", int(last["customer_id"]))[-1:]:
                noted.append(Happening(gone.event, gone.at, gone.by, last, None))
        return noted

    def _owns_last(self, owner: str | None, row: dict[str, Any]) -> bool:
        """Whether a row is in that user's account, or was at the end."""
        if "account_id" in row:
            return belonging.owns_account(self.database, owner, int(row["account_id"]))
        customer = int(row["customer_id"])
        if belonging.owns_customer(self.database, owner, customer):
            return True
        noted = history.of(self.database, "customer", customer)
        return bool(noted) and noted[-1].after is None and self._owns_last(owner, noted[-1].before or {})

    def customer(self, id: int, owner: str | None = None, revisions: Revisions = None) -> Customer:
        """The customer. Raises NotFound."""
        customer = records.find_customer(self.database, id)
        if customer and belonging.owns_account(self.database, owner, customer.account_id):
            updates.insist_on_revision("customer", id, customer.revision, revisions)
            return customer
        raise nodes.missing(self.database, "customer", id)

    def customers(self, query: CustomerQuery, owner: str | None = None) -> list[Customer]:
        """The customers asked for."""
        return CustomerList(self.database, owner).page(query)

    def invoice(self, id: int, owner: str | None = None, revisions: Revisions = None) -> Invoice:
        """The invoice. Raises NotFound."""
        invoice = records.find_invoice(self.database, id)
        if invoice and belonging.owns_customer(self.database, owner, invoice.customer_id):
            updates.insist_on_revision("invoice", id, invoice.revision, revisions)
            return invoice
        raise nodes.missing(self.database, "invoice", id)

    def invoices(self, query: ListQuery, owner: str | None = None) -> list[Invoice]:
        """The invoices asked for."""
        return [records.invoice(row) for row in self.invoice_listing.page(query, owner)]

    def apply(self, published: Iterable[Event], cause_of: CauseOf = unknown) -> None:
        """React to events of the accounts service. Their order does not matter.

        Events published in turn belong to the trace of the event that caused them.
        """
        doomed = False
        for event in published:
            match event:
                case events.AccountCreated():
                    self._account_created(event)
                case events.AccountUpdated():
                    self._account_updated(event)
                case events.AccountDeleted():
                    self._account_deleted(event, cause_of(event).trace_parent)
                    doomed = True
        if doomed and not self.database.refusal():
            self._delete_part()

    def _account_created(self, event: events.AccountCreated) -> None:
        if updates.is_updated(self.database, "account", event.id):
            return
        # If two sources created the same number, the earlier creation counts, by date.
        self.database.execute(
            "INSERT INTO known_account (id, owned_by, created_date) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET owned_by = excluded.owned_by,"
            " created_date = excluded.created_date"
            " WHERE created_date IS NULL"
            " OR (excluded.created_date, excluded.owned_by) < (created_date, owned_by)",
            (event.id, event.owned_by, rfc3339(event.created_date)),
        )

    def _account_updated(self, event: events.AccountUpdated) -> None:
        if updates.is_newest(self.database, "account", event.id, event.revision, encode(event)):
            self.database.execute(
                "INSERT INTO known_account (id, owned_by) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET owned_by = excluded.owned_by",
                (event.id, event.owned_by),
            )

    def _account_deleted(self, event: events.AccountDeleted, trace_parent: str | None) -> None:
        self.database.execute(
            "INSERT INTO known_account (id, deleted) VALUES (?, TRUE)"
            " ON CONFLICT (id) DO UPDATE SET deleted = TRUE WHERE NOT deleted",
            (event.id,),
        )
        # A repeated deletion doesn't concern customers that were recorded since.
        if event.cascade and self.database.changes():
            sql = "INSERT OR IGNORE INTO doomed_account VALUES (?, ?)"
            self.database.execute(sql, (event.id, trace_parent))

    def make_again(self, own: Sequence[OwnEvent]) -> list[int]:
        """Apply events that were published from here, in their order; nothing is published.

        Those about a row that isn't here are left out, and creations under a number that another row has.
        Answers the numbers of the latter, and of those whose row never was here: its creation is lost.
        """
        together: dict[type[Event], Callable[[list[tuple[Any, str | None]]], None]] = {
            events.CustomerCreated: self._record_customers,
            events.InvoiceCreated: self._record_invoices,
            events.CreditCreated: self.credits.make,
        }
        singly: dict[type[Event], Callable[[Any, str | None], object]] = {
            events.CustomerUpdated: self._update_customer,
            events.CustomerDeleted: self._remove_customer,
            events.InvoiceUpdated: self._update_invoice,
            events.InvoiceDeleted: self._remove_invoice,
            events.CreditDeleted: self.credits.remove,
        }
        left_out: list[int] = []
        for kind, each in groupby(own, lambda own: type(own.event)):
            some = [*each]
            if kind in _ABOUT:
                table, field = _ABOUT[kind]
                sql = f"SELECT id FROM {table} WHERE id IN carray(?)"
                ids = {getattr(one.event, field) for one in some}
                here = {id for (id,) in self.database.rows(sql, (numbers(sorted(ids)),))}
                if ids - here:
                    gone = [one for one in some if getattr(one.event, field) not in here]
                    some = [one for one in some if getattr(one.event, field) in here]
                    left_out += [one.row.sequence for one in gone if not self._was_here(one.event)]
            if some and kind in _CREATED:
                some, taken = self._apart(_CREATED[kind], some)
                left_out += [one.row.sequence for one in taken]
            made = [(one.event, one.row.by) for one in some]
            if kind in together:
                together[kind](made)
            for event, by in made if kind in singly else ():
                singly[kind](event, by)
        return left_out

    def _apart(self, table: str, creations: Sequence[OwnEvent]) -> tuple[list[OwnEvent], list[OwnEvent]]:
        """These creations, apart from those whose number a row here has, or an earlier one of them."""
        asked = {one.event.id for one in creations}
        highest = self.database.value(f"SELECT max(id) FROM {table}")
        if len(asked) == len(creations) and (highest is None or min(asked) > highest):
            return [*creations], []  # as almost always
        rows = self.database.rows(f"SELECT id FROM {table} WHERE id IN carray(?)", (numbers(sorted(asked)),))
        here = {id for (id,) in rows}
        fresh, taken = list[OwnEvent](), list[OwnEvent]()
        for one in creations:
            (taken if one.event.id in here else fresh).append(one)
            here.add(one.event.id)
        return fresh, taken

    def _was_here(self, event: Any) -> bool:
        """Whether what an event is about was here and is gone, or never is anywhere."""
        table, field = _ABOUT[type(event)]
        id = getattr(event, field)
        if not getattr(event, "revision", 1):
            return True  # it corrects revenue, see recovery/competing.py
        if self.credits.was_taken_back(id) if table == "credit" else history.of(self.database, table, id):
            return True
        noted = table != "customer" and history.of(self.database, "customer", event.customer_id)
        return bool(noted) and not records.find_customer(self.database, event.customer_id)

    def as_told(self, event: Event) -> Customer | Invoice | None:
        """The row as the answer to its update had it; None for other events, or when it is gone."""
        if isinstance(event, events.CustomerUpdated):
            customer = records.find_customer(self.database, event.id)
            return customer and updates.told(customer, event)
        if isinstance(event, events.InvoiceUpdated):
            invoice = records.find_invoice(self.database, event.id)
            return invoice and updates.told(invoice, event)
        return None

    def state(self) -> None:
        """Nothing: there are too many customers and invoices to publish them all as events."""

    def follow_up(self) -> bool:
        """Delete a part of the rows of deleted accounts and customers; answer whether there were any.

        Runs in a transaction of its own. Repeat it until there are none: an account may have a million
        customers, and a customer a million invoices. At a standby it does nothing: the primary does it.
        """
        doomed = "SELECT id FROM doomed_customer UNION ALL SELECT id FROM doomed_account LIMIT 1"
        if self.database.value(doomed) is None or self.database.refusal():
            return False
        with self.database.transaction():
            self._delete_part()
        return True

    def _delete_part(self) -> None:
        left = ROWS_AT_ONCE
        while left > 0 and (deleted := self._delete_some(left)):
            left -= deleted

    def _delete_some(self, most: int) -> int:
        """Delete up to `most` invoices and credits of a deleted customer, or a customer of a deleted account.

        Answers for how many rows that counts: 0 if there is nothing left to delete.
        """
        if id := self.database.value("SELECT id FROM doomed_customer LIMIT 1"):
            if (deleted := self._delete_rows_of(id, most)) < most:
                self.database.execute("DELETE FROM doomed_customer WHERE id = ?", (id,))
            return deleted + 1
        for account, trace in self.database.rows("SELECT id, trace_parent FROM doomed_account LIMIT 1"):
            if id := self.database.value("SELECT id FROM customer WHERE account_id = ? LIMIT 1", (account,)):
                deleted = self._delete_customer(Id(id), Id(account), Cause(trace), most)
                return deleted + ROWS_OF_A_CUSTOMER
            self.database.execute("DELETE FROM doomed_account WHERE id = ?", (account,))
            return 1
        return 0

    def _delete_customer(self, id: Id, account_id: Id, cause: Cause, most: int) -> int:
        """Delete a customer and up to `most` of its invoices; answer how many. The rest is deleted later."""
        event = events.CustomerDeleted(id, account_id, now())
        self.outbox.add([event], cause)
        return self._remove_customer(event, cause.by, most)

    def _remove_customer(
        self, event: events.CustomerDeleted, by: str | None, most: int = ROWS_AT_ONCE
    ) -> int:
        if customer := records.find_customer(self.database, event.id):
            records.note(self.database, customer, event, by, customer, None)
        self.database.execute("DELETE FROM customer WHERE id = ?", (event.id,))
        deleted = self._delete_rows_of(event.id, most)
        if deleted == most:
            self.database.execute("INSERT INTO doomed_customer VALUES (?)", (event.id,))
        return deleted

    def _delete_rows_of(self, customer_id: int, most: int) -> int:
        """Delete up to `most` credits and invoices of a customer that is gone; answer how many.

        The invoices' history stays.
        """
        credit_ids = parts.ids_of(self.database, "credit", customer_id, most)
        invoice_ids = parts.ids_of(self.database, "invoice", customer_id, most - len(credit_ids))
        self.database.execute("DELETE FROM credit WHERE id IN carray(?)", (numbers(credit_ids),))
        self.database.execute(_NOTE_INVOICES, (numbers(invoice_ids),))
        self.database.execute("DELETE FROM invoice WHERE id IN carray(?)", (numbers(invoice_ids),))
        return len(credit_ids) + len(invoice_ids)


_CREATED: dict[type[Event], str] = {
    events.CustomerCreated: "customer",
    events.InvoiceCreated: "invoice",
    events.CreditCreated: "credit",
}
"""The tables in which events make a row."""
_ABOUT: dict[type[Event], tuple[Literal["customer", "invoice", "credit"], str]] = {
    events.CustomerUpdated: ("customer", "id"),
    events.CustomerDeleted: ("customer", "id"),
    events.InvoiceCreated: ("customer", "customer_id"),
    events.CreditCreated: ("customer", "customer_id"),
    events.InvoiceUpdated: ("invoice", "id"),
    events.InvoiceDeleted: ("invoice", "id"),
    events.CreditDeleted: ("credit", "id"),
}
"""What must be here before an event can be applied: the table, and the field that has its number."""
_told = lru_cache(maxsize=2)(rfc3339)  # all rows of a batch have the same time
_day = lru_cache(maxsize=1024)(date.isoformat)
# The deletion's event is their customer's.
_NOTE_INVOICES = (
    "INSERT INTO history (kind, row_id, event, at, by_user, after)"
    " SELECT 'invoice', id, 'InvoiceCreated', created_date, created_by, json_patch(json_object("
    "'id', CAST(id AS TEXT),"
    " 'customer_id', CAST(customer_id AS TEXT), 'purchase_price_cents', purchase_price_cents,"
    " 'purchase_date', purchase_date, 'created_date', created_date, 'revision', revision),"
    " json_object('reference', reference))"
    " FROM invoice WHERE id IN carray(?)"
    " AND NOT EXISTS (SELECT 1 FROM history WHERE row_id = invoice.id AND kind = 'invoice')"
)
