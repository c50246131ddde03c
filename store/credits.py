"""Credits: refunds and credit notes, for a customer, or for one of its invoices."""

from collections.abc import Iterable, Sequence
from datetime import date

from msgspec import UNSET, structs

from tally.events import CreditCreated, CreditDeleted, Id, now, rfc3339
from tally.store import belonging, nodes, parts, records, references
from tally.store.cause import UNKNOWN, Cause
from tally.store.database import Database, numbers
from tally.store.errors import InvoiceCredited, OverCredited
from tally.store.listing import Listing, ListQuery
from tally.store.outbox import Outbox
from tally.store.records import Credit, Customer, Invoice, NewCredit

SCHEMA = f"""
CREATE TABLE credit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER NOT NULL REFERENCES customer,
    invoice_id INTEGER,
    credited_cents INTEGER NOT NULL,
    credit_date TEXT NOT NULL,
    created_date TEXT NOT NULL,
    created_by TEXT,
    reference TEXT
) STRICT;
CREATE INDEX credit_by_invoice ON credit (invoice_id, credited_cents) WHERE invoice_id IS NOT NULL;
{parts.schema("credit")}
{references.schema("credit")}
"""


class Credits:
    """The credits in one customers.db; for transactions and an `owner`, see Customers."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self.listing = Listing(database, "credit")

    def create(self, new: Sequence[NewCredit], cause: Cause = UNKNOWN, owner: str | None = None) -> list[Id]:
        """Record credits and answer their ids in order: all of them or none.

        Raises UnknownReference for a customer that does not exist, and for an invoice that isn't the
        customer's; OverCredited if an invoice's credits would exceed its amount; ReferenceTaken or
        RepeatedReference.
        """
        belonging.insist_on_customers(self._database, [each.customer_id for each in new], owner)
        self._insist_on_room(new)
        references.insist_on_new(self._database, "credit", new)
        created = now()
        ids = self._outbox.give("credit", len(new))
        events = [
            CreditCreated(
                id,
                each.customer_id,
                each.credited_cents,
                created,
                each.credit_date,
                None if each.invoice_id is UNSET else each.invoice_id,
                None if each.reference is UNSET else each.reference,
            )
            for id, each in zip(ids, new, strict=True)
        ]
        self.make([(event, cause.by) for event in events])
        self._outbox.add(events, cause)
        return ids

    def make(self, events: Iterable[tuple[CreditCreated, str | None]]) -> None:
        """Apply creations, each by a user or None; nothing is published."""
        made = [(event, by, _credit(event)) for event, by in events]
        rows = [(*structs.astuple(credit), by) for _, by, credit in made]
        self._database.insert(f"credit ({records.COLUMNS['credit']}, created_by)", rows)
        for event, by, credit in made:
            self._note(event, by, credit)

    def delete(self, id: int, cause: Cause = UNKNOWN, owner: str | None = None) -> None:
        """Take a credit back. Raises NotFound or Misdirected."""
        credit = self.one(id, owner)
        day = date.fromisoformat(credit.credit_date)
        event = CreditDeleted(credit.id, credit.customer_id, credit.credited_cents, now(), day)
        self.remove(event, cause.by)
        self._outbox.add([event], cause)

    def remove(self, event: CreditDeleted, by: str | None) -> None:
        """Apply a deletion; nothing is published."""
        if credit := records.find_credit(self._database, event.id):
            self._note(event, by, credit)
        self._database.execute("DELETE FROM credit WHERE id = ?", (event.id,))

    def was_taken_back(self, id: int) -> bool:
        """Whether its deletion was applied here. Reads all notes of the history."""
        sql = "SELECT 1 FROM history WHERE event = 'CreditDeleted' AND json_extract(before, '$.id') = ?"
        return bool(self._database.value(sql, (str(id),)))

    def one(self, id: int, owner: str | None = None) -> Credit:
        """The credit. Raises NotFound or Misdirected."""
        credit = records.find_credit(self._database, id)
        if credit and belonging.owns_customer(self._database, owner, credit.customer_id):
            return credit
        raise nodes.missing(self._database, "credit", id)

    def page(self, query: ListQuery, owner: str | None = None) -> list[Credit]:
        """The credits that are asked for."""
        return [records.credit(row) for row in self.listing.page(query, owner)]

    def of_invoice(self, invoice_id: int) -> int:
        """The sum of an invoice's credits, in cents."""
        sql = "SELECT coalesce(sum(credited_cents), 0) FROM credit WHERE invoice_id = ?"
        return int(self._database.value(sql, (invoice_id,)))

    def insist_on_amount(self, invoice_id: int, cents: int) -> None:
        """Raise OverCredited if an invoice's credits come to more than that amount."""
        credited = self.of_invoice(invoice_id)
        if cents < credited:
            why = f"The credits of the invoice {invoice_id} come to {credited} cents"
            raise OverCredited("purchase_price_cents", [(0, why)])

    def insist_on_none(self, invoice_id: int) -> None:
        """Raise InvoiceCredited if an invoice has credits."""
        sql = "SELECT id FROM credit WHERE invoice_id = ? LIMIT 3"
        ids = [id for (id,) in self._database.rows(sql, (invoice_id,))]
        if ids:
            listed = ", ".join(map(str, ids[:2])) + (" and more" if len(ids) > 2 else "")
            raise InvoiceCredited(f"The invoice {invoice_id} has credits ({listed}); take these back first.")

    def _insist_on_room(self, new: Sequence[NewCredit]) -> None:
        """Check that each invoice exists, is that customer's, and is credited at most by its amount."""
        named = {
            index: int(each.invoice_id) for index, each in enumerate(new) if each.invoice_id is not UNSET
        }
        rows = self._database.rows(_ROOM, (numbers(sorted(set(named.values()))),))
        customer_of, left = {id: customer for id, customer, _ in rows}, {id: cents for id, _, cents in rows}
        strange = {index: id for index, id in named.items() if customer_of.get(id) != new[index].customer_id}
        belonging.insist(self._database, strange, "invoice_id", "invoice", "invoice of that customer")
        refused = []
        for index, id in named.items():
            cents = new[index].credited_cents
            if left[id] < cents:
                there = f"Of the invoice {id}, {max(0, left[id])} cents are left to be credited"
                refused.append((index, there))
            left[id] -= cents
        if refused:
            raise OverCredited("credited_cents", refused)

    def _note(self, told: CreditCreated | CreditDeleted, by: str | None, credit: Credit) -> None:
        """Note it in the history of the invoice, or else of the customer: the invoice may be lost."""
        before, after = (None, credit) if isinstance(told, CreditCreated) else (credit, None)
        of: Customer | Invoice | None = None
        if credit.invoice_id is not None:
            of = records.find_invoice(self._database, credit.invoice_id)
        if of := of or records.find_customer(self._database, credit.customer_id):
            records.note(self._database, of, told, by, before, after)


def _credit(e: CreditCreated) -> Credit:
    day, created = str(e.credit_date), rfc3339(e.created_date)
    return Credit(e.id, e.customer_id, e.invoice_id, e.credited_cents, day, created, e.reference)


_ROOM = (
    "SELECT id, customer_id, purchase_price_cents - coalesce("
    "(SELECT sum(credited_cents) FROM credit WHERE invoice_id = invoice.id), 0) FROM invoice"
    " WHERE id IN carray(?)"
)
