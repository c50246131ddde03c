"""Compares a file's purchases with customers.db, and records them there: all or nothing."""

from msgspec import UNSET

from tally.events import Id
from tally.importing.comparing import Comparison, Identity
from tally.importing.known_here import KnownHere
from tally.importing.purchase_file import PurchaseFile
from tally.importing.tables import Reading
from tally.store.cause import Cause, short_hash
from tally.store.customers import Customers
from tally.store.import_note import Kind
from tally.store.records import NewCredit, NewCustomer, NewInvoice


def compare(store: Customers, file: PurchaseFile, reading: Reading, account_id: Id) -> Comparison:
    """Compare a file's rows for one account with the store, in a snapshot, or in the transaction to record.

    A row is recognised by its own reference if the file has references, else by customer, date and amount.
    """
    identity = Identity(overlapping=reading.id is None)
    there = KnownHere(store.database)
    compared = Comparison(file, reading, there, lambda _: account_id, identity, known_ids=[])
    compared.compare_customers()
    compared.compare_purchases()
    return compared


def record(
    store: Customers, compared: Comparison, require_account: bool, owner: str | None, cause: Cause
) -> None:
    """Record new rows that are not bad, in the open transaction in which they were compared."""
    buyers = sorted(compared.new_buyers())
    names = compared.file.purchases.buyers
    new = [NewCustomer(names[place].name, Id(compared.accounts[place] or 0)) for place in buyers]
    if new:
        made = store.create_customers(new, require_account, _part(cause, "customers"))
        for place, id in zip(buyers, made, strict=True):
            compared.ids[place] = id
    invoices, credits = _new(compared)
    if invoices:
        store.create_invoices(invoices, _part(cause, "invoices"))
    if credits:
        store.credits.create(credits, _part(cause, "credits"), owner)


def _new(compared: Comparison) -> tuple[list[NewInvoice], list[NewCredit]]:
    invoices, credits = list[NewInvoice](), list[NewCredit]()
    for place, each in enumerate(compared.file.purchases):
        if not compared.is_new(place):
            continue
        customer = Id(compared.ids[each.buyer] or 0)
        reference = UNSET if each.reference is None else each.reference
        if each.cents < 0:
            credits.append(NewCredit(customer, each.date, -each.cents, reference=reference))
        else:
            invoices.append(NewInvoice(customer, each.date, each.cents, reference))
    return invoices, credits


def _part(cause: Cause, kind: Kind) -> Cause:
    """The cause of one part. For the stream's readers, a part is a batch of its own: all or nothing.

    If a machine is lost, some parts may be lost with it. So no part says that the whole was done: a file that
    is sent again is compared again, and only the missing rows are recorded.
    """
    if cause.request_key is None:
        return cause
    request, _, content = cause.request_key.partition(":")
    return cause._replace(request_key=f"{short_hash(f'{request} {kind}'.encode())}:{content}batch-")
