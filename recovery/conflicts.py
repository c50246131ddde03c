"""What two databases of a node recorded at the same time, and what breaks a rule together.

All of it counts, as clients were told. `status` names a file that tells what is for a person to decide.
"""

import os
from typing import Any

from tally.events import (
    CreditCreated,
    CustomerUpdated,
    Event,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
)
from tally.recovery.diverged import write_csv
from tally.store import notes, references
from tally.store.credits import Credits
from tally.store.database import Database
from tally.store.errors import MoveRefused
from tally.store.outbox import Outbox, OwnEvent
from tally.store.parts import Table
from tally.store.records import find_customer, find_invoice


def note_conflict(database: Database, own: OwnEvent) -> None:
    """Note an event, just applied, if it breaks a rule. In the open transaction."""
    if why := _conflict(database, own.event):
        keep(database, own, why)


def _conflict(database: Database, event: Event) -> str | None:
    """Why an event breaks a rule; None if it doesn't."""
    match event:
        case InvoiceCreated() | CreditCreated() if not find_customer(database, event.customer_id):
            return f"its customer {event.customer_id} was deleted meanwhile, so it counts nowhere"
        case CreditCreated() if event.invoice_id is not None:
            return _over_credited(database, event.invoice_id)
        case InvoiceUpdated() if event.revision:
            return _over_credited(database, event.id) if find_invoice(database, event.id) else None
        case InvoiceDeleted():
            return _over_credited(database, event.id)
    return _shared_reference(database, event)


def _over_credited(database: Database, id: int) -> str | None:
    invoice, credited = find_invoice(database, id), Credits(database, Outbox(database)).of_invoice(id)
    if not credited or (invoice and credited <= invoice.purchase_price_cents):
        return None
    amount = f"has {invoice.purchase_price_cents} cents" if invoice else "was deleted"
    return f"the invoice {id} {amount}, and its credits come to {credited} cents"


def _shared_reference(database: Database, event: Any) -> str | None:
    if isinstance(event, InvoiceCreated | CreditCreated) and event.reference is not None:
        table: Table = "invoice" if isinstance(event, InvoiceCreated) else "credit"
        others = {*references.holders(database, table, event.customer_id, event.reference)} - {event.id}
        return f"the {table} {min(others)} of the same account has the same reference" if others else None
    if isinstance(event, CustomerUpdated):
        try:
            references.insist_on_move(database, event.id, event.account_id)
        except MoveRefused as error:
            return str(error)
    return None


def keep(database: Database, own: OwnEvent, why: str) -> None:
    """Write an event to a file beside the database, with a reason, and note the file for status.

    In the open transaction.
    """
    file = database.path.with_name(f"conflicts-{database.service}.csv")
    header = [] if file.exists() else [("event", "payload", "by", "why")]
    row = (own.row.type, own.row.payload.decode(), own.row.by or "", why)
    write_csv(file, [*header, row], os.O_APPEND)
    notes.note(
        database,
        "what a standby had accepted while it was the primary breaks a rule, together with what was recorded "
        f"here meanwhile: {file} tells what, and why",
    )
