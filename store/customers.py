"""customers.db: customers, their invoices, and which accounts exist."""

from collections.abc import Collection, Iterable, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from msgspec import UNSET, Struct, UnsetType, structs, to_builtins

from tally.events import (
    AccountCreated,
    AccountDeleted,
    AccountUpdated,
    CustomerCreated,
    CustomerDeleted,
    CustomerUpdated,
    Day,
    Event,
    Id,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
    Moment,
    encode,
    now,
    rfc3339,
)
from tally.store import history, idempotency, inbox, invoice_index, outbox, updates
from tally.store.cause import UNKNOWN, Cause
from tally.store.database import Database, Migrations, Place, numbers
from tally.store.errors import Changed, NotFound, UnknownReference
from tally.store.history import Happening, History, Kind
from tally.store.ids import give
from tally.store.outbox import Outbox, OwnEvent
from tally.store.trace_parent import TraceParentOf, no_trace

SERVICE = "customers"
FILE = "customers.db"

# Whether a customer is there is asked for each invoice: found in a quarter of the table's pages.
CUSTOMER_NUMBER = "CREATE INDEX customer_number ON customer (id, account_id);"

# Deleted customers of whom invoices are left, which nobody is shown, to be deleted bit by bit.
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

CREATE TABLE invoice (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER NOT NULL REFERENCES customer,
    purchase_price_cents INTEGER NOT NULL,
    purchase_date TEXT NOT NULL,
    created_date TEXT NOT NULL,
    created_by TEXT,
    revision INTEGER NOT NULL DEFAULT 0
) STRICT;
{invoice_index.SCHEMA}
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
    f"DROP INDEX invoice_by_customer; {invoice_index.SCHEMA} {DOOMED_CUSTOMER}",
    CUSTOMER_NUMBER,
    f"{inbox.ASIDE} {outbox.REQUEST_KEY}",
    f"""
    {outbox.BY_USER}
    {history.SCHEMA}
    {updates.SCHEMA}
    ALTER TABLE customer ADD COLUMN created_by TEXT;
    ALTER TABLE customer ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE invoice ADD COLUMN created_by TEXT;
    ALTER TABLE invoice ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    """,
)

MOST_CUSTOMERS_AT_ONCE = 1000  # deleted in one transaction: other writers wait for it
MOST_INVOICES_AT_ONCE = 20_000

# The events that change something here: none of its own.
CONCERNS = (AccountCreated, AccountUpdated, AccountDeleted)


class NewCustomer(Struct, frozen=True):
    """A customer to be recorded."""

    name: str
    account_id: Id


class NewInvoice(Struct, frozen=True):
    """An invoice to be recorded; the amount in cents."""

    customer_id: Id
    purchase_date: date
    purchase_price_cents: int


class CustomerChange(Struct, frozen=True):
    """What is to become of a customer; what is UNSET stays."""

    name: str | UnsetType = UNSET
    account_id: Id | UnsetType = UNSET


class InvoiceChange(Struct, frozen=True):
    """What is to become of an invoice; what is UNSET stays."""

    purchase_date: date | UnsetType = UNSET
    purchase_price_cents: int | UnsetType = UNSET


class Customer(Struct, frozen=True):
    """A recorded customer; `created_date` is RFC 3339 in UTC, `revision` how often it was changed."""

    id: Id
    account_id: Id
    name: str
    created_date: Moment
    revision: int = 0


class Invoice(Struct, frozen=True):
    """A recorded invoice; `purchase_date` is YYYY-MM-DD, `created_date` RFC 3339 in UTC.

    `revision` is how often it was changed.
    """

    id: Id
    customer_id: Id
    purchase_price_cents: int
    purchase_date: Day
    created_date: Moment
    revision: int = 0


def open_database(
    directory: Path, migrate: bool = False, make: bool = True, place: Place | None = None
) -> Database:
    """Open customers.db in `directory`; see Database."""
    return Database(directory / FILE, SERVICE, SCHEMA, MIGRATIONS, migrate, make, place)


class Customers:
    """The customers and invoices in one database. What changes something runs in a transaction.

    Where an `owner` is given, what is in the accounts of others is as if it did not exist; so is an
    account whose creation has not been heard of yet.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outbox = Outbox(database)

    def create_customers(
        self,
        new: Sequence[NewCustomer],
        require_account: bool = False,
        cause: Cause = UNKNOWN,
    ) -> list[Id]:
        """Record customers and answer their ids in order: all of them or none.

        Raises UnknownReference, with `require_account`, for an account that is unknown or deleted.
        """
        if require_account:
            self._insist_on_accounts([customer.account_id for customer in new])
        created = now()
        shown = rfc3339(created)
        ids = self._give("customer", len(new))
        self.database.insert(
            "customer (id, account_id, name, created_date, created_by)",
            [(id, each.account_id, each.name, shown, cause.by) for id, each in zip(ids, new, strict=True)],
        )
        events = [
            CustomerCreated(id, each.account_id, each.name, created)
            for id, each in zip(ids, new, strict=True)
        ]
        self.outbox.add(events, cause)
        return ids

    def create_invoices(self, new: Sequence[NewInvoice], cause: Cause = UNKNOWN) -> list[Id]:
        """Record invoices and answer their ids in order: all of them or none.

        Raises UnknownReference for a customer that does not exist.
        """
        self._insist_on_customers([invoice.customer_id for invoice in new])
        created = now()
        shown = rfc3339(created)
        ids = self._give("invoice", len(new))
        self.database.insert(
            "invoice (id, customer_id, purchase_price_cents, purchase_date, created_date, created_by)",
            [
                (id, each.customer_id, each.purchase_price_cents, str(each.purchase_date), shown, cause.by)
                for id, each in zip(ids, new, strict=True)
            ],
        )
        events = [
            InvoiceCreated(id, each.customer_id, each.purchase_price_cents, created, each.purchase_date)
            for id, each in zip(ids, new, strict=True)
        ]
        self.outbox.add(events, cause)
        return ids

    def insist_on_accounts_of(self, owner: str | None, new: Sequence[NewCustomer]) -> None:
        """Raise UnknownReference when one of the new customers is to be in another's account."""
        if owner is not None:
            ids = [customer.account_id for customer in new]
            self._insist(ids, "account_id", "account", _OWN_ACCOUNT, owner)

    def insist_on_customers_of(self, owner: str | None, new: Sequence[NewInvoice]) -> None:
        """Raise UnknownReference when one of the new invoices is to be for another's customer."""
        if owner is not None:
            ids = [invoice.customer_id for invoice in new]
            self._insist(ids, "customer_id", "customer", _OWN_CUSTOMER, owner)

    def change_customer(
        self,
        id: int,
        change: CustomerChange,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Collection[int] | None = None,
        require_account: bool = False,
    ) -> Customer:
        """Change a customer and answer it; where nothing is to be different, nothing happens.

        Raises NotFound, Changed unless it has one of the `revisions`, if any are given, and
        UnknownReference like `create_customers`.
        """
        before = self.customer(id, owner)
        _insist_on_revision("customer", before, revisions)
        after = _changed(before, change)
        if after is before:
            return before
        if after.account_id != before.account_id:
            if require_account:
                self._insist_on_accounts([after.account_id])
            if owner is not None:
                self._insist([after.account_id], "account_id", "account", _OWN_ACCOUNT, owner)
        event = CustomerUpdated(after.id, after.account_id, after.name, after.revision, now())
        self._update_customer(event, cause.by)
        self.outbox.add([event], cause)
        return after

    def _update_customer(self, event: CustomerUpdated, by: str | None) -> None:
        """Have the effect of an update, if it counts."""
        payload = encode(event)
        for row in self.database.rows(f"{_CUSTOMER} WHERE id = ?", (event.id,)):
            before = _customer(row)
            if not updates.is_newest(self.database, "customer", event.id, event.revision, payload):
                return
            self.database.execute(
                "UPDATE customer SET account_id = ?, name = ?, revision = ? WHERE id = ?",
                (event.account_id, event.name, event.revision, event.id),
            )
            after = Customer(event.id, event.account_id, event.name, before.created_date, event.revision)
            self._note("customer", before, _happening(event, rfc3339(event.updated_date), by, before, after))

    def change_invoice(
        self,
        id: int,
        change: InvoiceChange,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Collection[int] | None = None,
    ) -> Invoice:
        """Change an invoice and answer it; where nothing is to be different, nothing happens.

        Raises NotFound, and Changed unless it has one of the `revisions`, if any are given.
        """
        before = self.invoice(id, owner)
        _insist_on_revision("invoice", before, revisions)
        after = _changed(before, change)
        if after is before:
            return before
        event = InvoiceUpdated(
            after.id,
            after.customer_id,
            after.purchase_price_cents,
            date.fromisoformat(after.purchase_date),
            before.purchase_price_cents,
            date.fromisoformat(before.purchase_date),
            after.revision,
            now(),
        )
        self._update_invoice(event, cause.by)
        self.outbox.add([event], cause)
        return after

    def _update_invoice(self, event: InvoiceUpdated, by: str | None) -> None:
        """Have the effect of an update, if it counts."""
        for row in self.database.rows(f"{_INVOICE} AND id = ?", (event.id,)):
            before = _invoice(row)
            if before.revision >= event.revision:
                return
            self.database.execute(
                "UPDATE invoice SET purchase_price_cents = ?, purchase_date = ?, revision = ? WHERE id = ?",
                (event.purchase_price_cents, str(event.purchase_date), event.revision, event.id),
            )
            after = structs.replace(
                before,
                purchase_price_cents=event.purchase_price_cents,
                purchase_date=str(event.purchase_date),
                revision=event.revision,
            )
            self._note("invoice", before, _happening(event, rfc3339(event.updated_date), by, before, after))

    def delete_customer(self, id: int, cause: Cause = UNKNOWN, owner: str | None = None) -> None:
        """Delete a customer and its invoices. Raises NotFound."""
        customer = self.customer(id, owner)
        self._delete_customer(customer.id, customer.account_id, cause, MOST_INVOICES_AT_ONCE)

    def delete_invoice(self, id: int, cause: Cause = UNKNOWN, owner: str | None = None) -> None:
        """Take an invoice back. Raises NotFound."""
        invoice = self.invoice(id, owner)
        cents, day = invoice.purchase_price_cents, date.fromisoformat(invoice.purchase_date)
        deleted = InvoiceDeleted(invoice.id, invoice.customer_id, cents, now(), day)
        if invoice.revision:
            created = History(self.database, "invoice").beginning(id)
            deleted = structs.replace(
                deleted,
                purchase_price_cents=created["purchase_price_cents"],
                purchase_date=date.fromisoformat(created["purchase_date"]),
                last_price_cents=cents,
                last_date=day,
            )
        self._remove_invoice(deleted, cause.by)
        self.outbox.add([deleted], cause)

    def _remove_invoice(self, event: InvoiceDeleted, by: str | None) -> None:
        for row in self.database.rows(f"{_INVOICE} AND id = ?", (event.id,)):
            invoice = _invoice(row)
            at = rfc3339(event.deleted_date)
            self._note("invoice", invoice, _happening(event, at, by, invoice, None))
        self.database.execute("DELETE FROM invoice WHERE id = ?", (event.id,))

    def history(self, kind: Kind, id: int, owner: str | None = None) -> list[Happening]:
        """What became of a customer or an invoice, oldest first, also if it is gone. Raises NotFound."""
        noted = History(self.database, kind).of(id)
        rows: list[Customer | Invoice]
        if kind == "customer":
            rows = [_customer(row) for row in self.database.rows(f"{_CUSTOMER} WHERE id = ?", (id,))]
        else:
            rows = [_invoice(row) for row in self.database.rows(f"{_INVOICE} AND id = ?", (id,))]
        if rows and not noted:
            noted = [self._beginning(kind, rows[0])]
        last = _shown(rows[0]) if rows else noted and (noted[-1].after or noted[-1].before)
        if not last or not self._owns_last(owner, last):
            raise NotFound(kind, id)
        if not rows and noted[-1].after is not None:  # it went with its customer
            for gone in History(self.database, "customer").of(int(last["customer_id"]))[-1:]:
                noted.append(Happening(gone.event, gone.at, gone.by, last, None))
        return noted

    def _owns_last(self, owner: str | None, row: dict[str, Any]) -> bool:
        """Whether a row is, or was at last, in that user's account."""
        if owner is None or "account_id" in row:
            return owner is None or self._owns_account(owner, int(row["account_id"]))
        customer = int(row["customer_id"])
        if self._owns_customer(owner, customer):
            return True
        noted = History(self.database, "customer").of(customer)
        return bool(noted) and noted[-1].after is None and self._owns_last(owner, noted[-1].before or {})

    def _beginning(self, kind: Kind, row: Customer | Invoice) -> Happening:
        """How a row began that is as it was then."""
        by = self.database.value(f"SELECT created_by FROM {kind} WHERE id = ?", (row.id,))
        return Happening(f"{kind.title()}Created", row.created_date, by, None, _shown(row))

    def _note(self, kind: Kind, before: Customer | Invoice, change: Happening) -> None:
        """Note a change of a row that is still as it was `before`, or just was."""
        History(self.database, kind).note(before.id, self._beginning(kind, before), change)

    def customer(self, id: int, owner: str | None = None) -> Customer:
        """The customer. Raises NotFound."""
        for row in self.database.rows(f"{_CUSTOMER} WHERE id = ?", (id,)):
            customer = _customer(row)
            if self._owns_account(owner, customer.account_id):
                return customer
        raise NotFound("customer", id)

    def customers(
        self, account_id: int | None, after: int, limit: int, owner: str | None = None
    ) -> list[Customer]:
        """Up to `limit` customers with ids above `after`, ascending; of one account or of all."""
        if account_id is not None and not self._owns_account(owner, account_id):
            return []
        where = ""
        if account_id is not None:
            where = "account_id = :account AND"
        elif owner is not None:
            where = f"id IN ({_IDS_OF_OWN_CUSTOMERS}) AND"
        sql = f"{_CUSTOMER} WHERE {where} id > :bound ORDER BY id LIMIT :limit"
        bindings = {"account": account_id, "owner": owner, "bound": after, "limit": limit}
        return [_customer(row) for row in self.database.rows(sql, bindings)]

    def invoice(self, id: int, owner: str | None = None) -> Invoice:
        """The invoice. Raises NotFound."""
        for row in self.database.rows(f"{_INVOICE} AND id = ?", (id,)):
            invoice = _invoice(row)
            if self._owns_customer(owner, invoice.customer_id):
                return invoice
        raise NotFound("invoice", id)

    def invoices(
        self, customer_id: int | None, after: int, limit: int, owner: str | None = None
    ) -> list[Invoice]:
        """Up to `limit` invoices with ids above `after`, ascending; of one customer or of all."""
        if customer_id is None and owner is None:
            rows = self.database.rows(f"{_INVOICE} AND id > ? ORDER BY id LIMIT ?", (after, limit))
        elif customer_id is None:
            rows = invoice_index.page(self.database, _OWN_INVOICES, {"owner": owner}, after, limit)
        elif self._owns_customer(owner, customer_id):
            rows = invoice_index.page(self.database, _INVOICES_OF, {"customer": customer_id}, after, limit)
        else:
            rows = []
        return [_invoice(row) for row in rows]

    def _owns_account(self, owner: str | None, id: int) -> bool:
        return owner is None or not self._without([id], _OWN_ACCOUNT, owner)

    def _owns_customer(self, owner: str | None, id: int) -> bool:
        return owner is None or not self._without([id], _OWN_CUSTOMER, owner)

    def apply(self, events: Iterable[Event], trace_parent_of: TraceParentOf = no_trace) -> None:
        """React to what the accounts service published. The order of the events does not matter.

        What is published in turn belongs to the trace of the event that caused it.
        """
        doomed = False
        for event in events:
            if isinstance(event, AccountCreated):
                self._account_created(event)
            elif isinstance(event, AccountUpdated):
                self._account_updated(event)
            elif isinstance(event, AccountDeleted):
                self._account_deleted(event, trace_parent_of(event))
                doomed = True
        if doomed:
            self._delete_part()

    def _account_created(self, event: AccountCreated) -> None:
        if updates.is_updated(self.database, "account", event.id):
            return
        # Where two sources created the same number, the first by its date is the one that counts.
        self.database.execute(
            "INSERT INTO known_account (id, owned_by, created_date) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET owned_by = excluded.owned_by,"
            " created_date = excluded.created_date"
            " WHERE created_date IS NULL"
            " OR (excluded.created_date, excluded.owned_by) < (created_date, owned_by)",
            (event.id, event.owned_by, rfc3339(event.created_date)),
        )

    def _account_updated(self, event: AccountUpdated) -> None:
        if updates.is_newest(self.database, "account", event.id, event.revision, encode(event)):
            self.database.execute(
                "INSERT INTO known_account (id, owned_by) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET owned_by = excluded.owned_by",
                (event.id, event.owned_by),
            )

    def _account_deleted(self, event: AccountDeleted, trace_parent: str | None) -> None:
        self.database.execute(
            "INSERT INTO known_account (id, deleted) VALUES (?, TRUE)"
            " ON CONFLICT (id) DO UPDATE SET deleted = TRUE WHERE NOT deleted",
            (event.id,),
        )
        # Told again, it doesn't concern customers that were recorded since.
        if event.cascade and self.database.changes():
            sql = "INSERT OR IGNORE INTO doomed_account VALUES (?, ?)"
            self.database.execute(sql, (event.id, trace_parent))

    def make_again(self, events: Sequence[OwnEvent]) -> None:
        """Have the effects of events that were published from here, in their order; nothing is published.

        An invoice whose customer isn't there, as nobody has its creation any more, is left out.
        """
        for kind, each in groupby(events, lambda own: type(own.event)):
            self._make_again(kind, list(each))

    def _make_again(self, kind: type[Event], own: list[OwnEvent]) -> None:
        events: list[tuple[Any, str | None]] = [(each.event, each.row.by) for each in own]
        if kind is CustomerCreated:
            self.database.insert(
                "customer (id, account_id, name, created_date, created_by)",
                [(e.id, e.account_id, e.name, rfc3339(e.created_date), by) for e, by in events],
            )
        elif kind is InvoiceCreated:
            unknown = self._without([event.customer_id for event, _ in events], _KNOWN_CUSTOMER, None)
            self.database.insert(
                "invoice (id, customer_id, purchase_price_cents, purchase_date, created_date, created_by)",
                [
                    (
                        event.id,
                        event.customer_id,
                        event.purchase_price_cents,
                        str(event.purchase_date),
                        rfc3339(event.created_date),
                        by,
                    )
                    for event, by in events
                    if event.customer_id not in unknown
                ],
            )
        for event, by in events:
            if kind is CustomerUpdated:
                self._update_customer(event, by)
            elif kind is InvoiceUpdated:
                self._update_invoice(event, by)
            elif kind is InvoiceDeleted:
                self._remove_invoice(event, by)
            elif kind is CustomerDeleted:
                self._remove_customer(event, by, MOST_INVOICES_AT_ONCE)

    def as_told(self, event: Event) -> Customer | Invoice | None:
        """A row as an update of it was answered; None for what is no update, or of one that is gone."""
        if isinstance(event, CustomerUpdated):
            for row in self.database.rows(f"{_CUSTOMER} WHERE id = ?", (event.id,)):
                return Customer(event.id, event.account_id, event.name, row[3], event.revision)
        if isinstance(event, InvoiceUpdated):
            for row in self.database.rows(f"{_INVOICE} AND id = ?", (event.id,)):
                told = (event.customer_id, event.purchase_price_cents, str(event.purchase_date))
                return Invoice(event.id, *told, row[4], event.revision)
        return None

    def state(self) -> None:
        """Nothing: what customers and invoices there are is too much to be told in events."""

    def follow_up(self) -> bool:
        """Delete a part of what deleted accounts and customers left, and answer whether there was any to do.

        In a transaction of its own, and to be repeated until there is none: an account may have a million
        customers, and a customer a million invoices.
        """
        if self.database.value(_DOOMED) is None:
            return False
        with self.database.transaction():
            self._delete_part()
        return True

    def _delete_part(self) -> None:
        left = MOST_INVOICES_AT_ONCE
        for (id,) in self.database.rows("SELECT id FROM doomed_customer LIMIT ?", (MOST_CUSTOMERS_AT_ONCE,)):
            left -= self._delete_invoices(id, left)
            if not left:
                return  # it may have more of them
            self.database.execute("DELETE FROM doomed_customer WHERE id = ?", (id,))
        for doomed, trace_parent in self.database.rows("SELECT id, trace_parent FROM doomed_account LIMIT 1"):
            self._delete_part_of(doomed, trace_parent, left)

    def _delete_part_of(self, account_id: int, trace_parent: str | None, left: int) -> None:
        ids = self.database.rows(
            "SELECT id FROM customer WHERE account_id = ? LIMIT ?", (account_id, MOST_CUSTOMERS_AT_ONCE)
        )
        for (id,) in ids:
            left -= self._delete_customer(Id(id), Id(account_id), Cause(trace_parent), left)
            if not left:
                return
        if len(ids) < MOST_CUSTOMERS_AT_ONCE:
            self.database.execute("DELETE FROM doomed_account WHERE id = ?", (account_id,))

    def _delete_customer(self, id: Id, account_id: Id, cause: Cause, most: int) -> int:
        """Delete a customer and up to `most` of its invoices; answer how many. The rest is left for later."""
        event = CustomerDeleted(id, account_id, now())
        self.outbox.add([event], cause)
        return self._remove_customer(event, cause.by, most)

    def _remove_customer(self, event: CustomerDeleted, by: str | None, most: int) -> int:
        for row in self.database.rows(f"{_CUSTOMER} WHERE id = ?", (event.id,)):
            customer = _customer(row)
            at = rfc3339(event.deleted_date)
            self._note("customer", customer, _happening(event, at, by, customer, None))
        self.database.execute("DELETE FROM customer WHERE id = ?", (event.id,))
        deleted = self._delete_invoices(event.id, most)
        if deleted == most:
            self.database.execute("INSERT INTO doomed_customer VALUES (?)", (event.id,))
        return deleted

    def _delete_invoices(self, customer_id: int, most: int) -> int:
        """Delete up to `most` invoices of a customer that is gone; answer how many. Their history stays."""
        ids = self.database.rows(f"{_IDS_OF_INVOICES} WHERE customer_id = ? LIMIT ?", (customer_id, most))
        chosen = (numbers([id for (id,) in ids]),)
        self.database.execute(_NOTE_INVOICES, chosen)
        self.database.execute("DELETE FROM invoice WHERE id IN carray(?)", chosen)
        return len(ids)

    def _give(self, table: str, count: int) -> list[Id]:
        """The ids of new rows: nobody else gets them, as the write lock keeps others out."""
        self.outbox.begin_if_in_doubt()
        return give(self.database, table, count)

    def _insist_on_customers(self, ids: list[Id]) -> None:
        self._insist(ids, "customer_id", "customer", _KNOWN_CUSTOMER)

    def _insist_on_accounts(self, ids: list[Id]) -> None:
        self._insist(ids, "account_id", "account", f"{OPEN_ACCOUNT} AND id = value")

    def _insist(self, ids: list[Id], field: str, kind: str, sql: str, owner: str | None = None) -> None:
        unknown = self._without(ids, sql, owner)
        if unknown:
            missing = [(index, int(id)) for index, id in enumerate(ids) if id in unknown]
            raise UnknownReference(field, kind, missing)

    def _without(self, ids: Iterable[int], sql: str, owner: str | None) -> set[int]:
        """Those of `ids` for which `sql` finds nothing; it knows each as `value`."""
        asked = f"SELECT value FROM carray(:ids) WHERE NOT EXISTS ({sql})"
        bindings = {"ids": numbers(sorted(set(ids))), "owner": owner}
        return {id for (id,) in self.database.rows(asked, bindings)}


_CUSTOMER = "SELECT id, account_id, name, created_date, revision FROM customer"
_INVOICE = (
    "SELECT id, customer_id, purchase_price_cents, purchase_date, created_date, revision FROM invoice"
    " WHERE customer_id NOT IN (SELECT id FROM doomed_customer)"
)
_INVOICES_OF = (
    f"{_INVOICE} AND {invoice_index.IN_PART} AND customer_id = :customer"
    " AND id > :bound ORDER BY id LIMIT :limit"
)
_IDS_OF_INVOICES = f"{invoice_index.EVERY_PART} SELECT invoice.id FROM {invoice_index.INVOICES}"
# The deletion itself is their customer's.
_NOTE_INVOICES = (
    "INSERT INTO history (kind, row_id, event, at, by_user, after)"
    " SELECT 'invoice', id, 'InvoiceCreated', created_date, created_by, json_object('id', CAST(id AS TEXT),"
    " 'customer_id', CAST(customer_id AS TEXT), 'purchase_price_cents', purchase_price_cents,"
    " 'purchase_date', purchase_date, 'created_date', created_date, 'revision', revision)"
    " FROM invoice WHERE id IN carray(?) AND revision = 0"
)
_DOOMED = "SELECT id FROM doomed_customer UNION ALL SELECT id FROM doomed_account LIMIT 1"

# One may be known by its deletion alone, which came first.
OPEN_ACCOUNT = "SELECT 1 FROM known_account WHERE owned_by IS NOT NULL AND NOT deleted"
_OWN_ACCOUNT = "SELECT 1 FROM known_account WHERE id = value AND owned_by = :owner AND NOT deleted"
_NUMBERED = "customer INDEXED BY customer_number"
_KNOWN_CUSTOMER = f"SELECT 1 FROM {_NUMBERED} WHERE id = value"
_OWN_CUSTOMER = (
    f"SELECT 1 FROM {_NUMBERED} JOIN known_account ON known_account.id = account_id"
    " WHERE customer.id = value AND owned_by = :owner AND NOT deleted"
)
# A page of what is in one's own accounts. CROSS JOIN keeps SQLite from looking through everybody's.
_IDS_OF_OWN_CUSTOMERS = (
    "SELECT customer.id FROM known_account CROSS JOIN customer ON account_id = known_account.id"
    " WHERE owned_by = :owner AND NOT deleted AND customer.id > :bound ORDER BY customer.id LIMIT :limit"
)
_IDS_OF_OWN_INVOICES = (
    "SELECT invoice.id FROM known_account CROSS JOIN customer ON account_id = known_account.id"
    f" CROSS JOIN invoice ON {invoice_index.IN_PART} AND customer_id = customer.id"
    " WHERE owned_by = :owner AND NOT deleted AND invoice.id > :bound ORDER BY invoice.id LIMIT :limit"
)
_OWN_INVOICES = f"{_INVOICE} AND id IN ({_IDS_OF_OWN_INVOICES}) ORDER BY id"


def _customer(row: tuple[int, int, str, str, int]) -> Customer:
    return Customer(Id(row[0]), Id(row[1]), *row[2:])


def _invoice(row: tuple[int, int, int, str, str, int]) -> Invoice:
    return Invoice(Id(row[0]), Id(row[1]), *row[2:])


Row = TypeVar("Row", Customer, Invoice)


def _insist_on_revision(kind: str, row: Customer | Invoice, revisions: Collection[int] | None) -> None:
    if revisions is not None and row.revision not in revisions:
        raise Changed(kind, row.id, row.revision)


def _changed(row: Row, change: CustomerChange | InvoiceChange) -> Row:
    """The row with what the change tells, and the next revision; itself where nothing is different."""
    told = {name: value for name, value in structs.asdict(change).items() if value is not UNSET}
    told = {name: str(value) if isinstance(value, date) else value for name, value in told.items()}
    changed = structs.replace(row, **told)
    return row if changed == row else structs.replace(changed, revision=row.revision + 1)


def _shown(row: Customer | Invoice) -> dict[str, Any]:
    shown: dict[str, Any] = to_builtins(row, enc_hook=str)
    return shown


def _happening(
    event: Event, at: str, by: str | None, before: Customer | Invoice, after: Customer | Invoice | None
) -> Happening:
    return Happening(type(event).__name__, at, by, _shown(before), _shown(after) if after else None)
