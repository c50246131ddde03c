"""Conflicts: what two databases of a node recorded at the same time, and together breaks a rule.

All of it counts, as clients were told. `status` names a file that tells what is for a person to decide.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tally.events import (
    CreditCreated,
    CustomerDeleted,
    CustomerUpdated,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
)
from tally.recovery.diverged import as_csv, row_of
from tally.store import notes, references
from tally.store.copying import rewrite
from tally.store.credits import Credits
from tally.store.database import Database
from tally.store.errors import MoveRefused
from tally.store.outbox import Outbox, OwnEvent
from tally.store.parts import Table
from tally.store.records import find_credit, find_customer, find_invoice


class Conflict(NamedTuple):
    """An event, and the rule that it breaks."""

    own: OwnEvent
    why: str


def conflicts_of(database: Database, own: Sequence[OwnEvent]) -> list[Conflict]:
    """Those of these events that break a rule as things are now, the last one for each row."""
    deleted = {each.event.id for each in own if isinstance(each.event, CustomerDeleted)}
    judged: set[tuple[str, int]] = set()
    found = []
    for each in reversed(own):
        about = _about(each.event)
        if about in judged or getattr(each.event, "customer_id", None) in deleted:
            continue
        judged.add(about)
        if why := _broken_rule(database, each.event):
            found.append(Conflict(each, why))
    return found[::-1]


def _about(event: Any) -> tuple[str, int]:
    """The row whose rule an event can break: a credit's is its invoice."""
    if isinstance(event, CreditCreated) and event.invoice_id is not None and event.reference is None:
        return "invoice", event.invoice_id
    return row_of(event)


def _broken_rule(database: Database, event: Any) -> str | None:
    """Why an event breaks a rule; None if it doesn't."""
    match event:
        case InvoiceCreated() | CreditCreated() if not find_customer(database, event.customer_id):
            return f"its customer {event.customer_id} was deleted meanwhile, so it counts nowhere"
        case InvoiceCreated() if find_invoice(database, event.id):
            return _over_credited(database, event.id) or _shared_reference(database, "invoice", event)
        case CreditCreated() if find_credit(database, event.id):
            over = event.invoice_id is not None and _over_credited(database, event.invoice_id)
            return over or _shared_reference(database, "credit", event)
        case InvoiceUpdated() if event.revision and find_invoice(database, event.id):
            return _over_credited(database, event.id)
        case InvoiceDeleted():
            return _over_credited(database, event.id)
        case CustomerUpdated() if customer := find_customer(database, event.id):
            try:
                references.insist_on_move(database, event.id, customer.account_id)
            except MoveRefused as error:
                return str(error)
    return None


def _over_credited(database: Database, id: int) -> str | None:
    invoice, credited = find_invoice(database, id), Credits(database, Outbox(database)).of_invoice(id)
    if not credited or (invoice and credited <= invoice.purchase_price_cents):
        return None
    amount = f"has {invoice.purchase_price_cents} cents" if invoice else "was deleted"
    return f"the invoice {id} {amount}, and its credits come to {credited} cents"


def _shared_reference(database: Database, table: Table, event: Any) -> str | None:
    if event.reference is None:
        return None
    others = {*references.holders(database, table, event.customer_id, event.reference)} - {event.id}
    return f"the {table} {min(others)} of the same account has the same reference" if others else None


def keep(database: Database, conflicts: Iterable[Conflict], what: str) -> None:
    """Write these to a file beside the database, each once, and note the file for status.

    `what` tells whose events they are. In the open transaction.
    """
    rows = [(own.row.type, own.row.payload.decode(), own.row.by or "", why) for own, why in conflicts]
    if not rows:
        return
    file = database.directory / f"conflicts-{database.service}.csv"
    header, *lines = (as_csv([row]) for row in [("event", "payload", "by", "why"), *dict.fromkeys(rows)])

    def with_new(there: bytes) -> bytes:  # not read as CSV: another program may have saved it
        before = there.rstrip() + b"\r\n" if there else header
        return before + b"".join(line for line in lines if line not in there)

    rewrite(file, with_new)
    notes.note(
        database,
        f"{what} breaks a rule, together with what was recorded meanwhile: {file} tells what, and why",
    )
