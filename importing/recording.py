"""Compares a file's purchases with customers.db, and records them there: all or nothing."""

from msgspec import UNSET

from tally.events import Id
from tally.importing.comparing import Comparison, Identity
from tally.importing.import_report import Report
from tally.importing.known_here import KnownHere
from tally.importing.purchase_file import PurchaseFile, Reading
from tally.store.cause import Cause, short_hash
from tally.store.customers import Customers
from tally.store.import_note import Kind
from tally.store.records import NewCredit, NewCustomer, NewInvoice


class Import:
    """A file's rows for one account, compared with the store, to be recorded there.

    A row is recognised by its own reference if the file has references, else by customer, date and amount.
    Make it in a snapshot, or, to `record`, in the transaction.
    """

    def __init__(self, store: Customers, file: PurchaseFile, reading: Reading, account_id: Id) -> None:
        self._store = store
        self._account_id = account_id
        self._purchases = file.purchases
        self._compared = Comparison(
            file,
            reading,
            KnownHere(store.database),
            lambda _: account_id,
            Identity(overlapping=reading.id is None),
            known_ids=[],
        )
        self._compared.compare_customers()
        self._compared.compare_purchases()
        self.bad, self.warnings = self._compared.bad, self._compared.warnings
        self._buyers = sorted(self._compared.new_buyers())
        self.report = Report(file, self._compared, len(self._buyers), dry_run=True)

    def record(self, require_account: bool, owner: str | None, cause: Cause) -> None:
        """Record new rows that are not bad, in the open transaction."""
        store, purchases = self._store, self._purchases
        new = [NewCustomer(purchases.buyers[place].name, self._account_id) for place in self._buyers]
        if new:
            made = store.create_customers(new, require_account, _part(cause, "customers"))
            for place, id in zip(self._buyers, made, strict=True):
                self._compared.ids[place] = id
        invoices, credits = self._new()
        if invoices:
            store.create_invoices(invoices, _part(cause, "invoices"))
        if credits:
            store.credits.create(credits, _part(cause, "credits"), owner)

    def _new(self) -> tuple[list[NewInvoice], list[NewCredit]]:
        invoices, credits = list[NewInvoice](), list[NewCredit]()
        for place, each in enumerate(self._purchases):
            if not self._compared.is_new(place):
                continue
            customer = Id(self._compared.ids[each.buyer] or 0)
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
