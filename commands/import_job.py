"""An `import` as a job: its name, which is always the same for a file, and its requests."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tally.events import Id
from tally.importing.comparing import Comparison, Identity
from tally.importing.purchase_file import Purchase, PurchaseFile
from tally.importing.tables import Reading
from tally.store.import_note import Kind

BATCH = 1000  # rows in a request: it holds the database for some 50 ms, and others come in between

_FORMAT = "tally import 1"  # a part of every key: change it when a file gives other rows than before
_NAMES = {"invoices": ("purchase_date", "purchase_price_cents"), "credits": ("credit_date", "credited_cents")}


class Options(NamedTuple):
    """How to read the file, how its rows are known again, and what to do with it.

    Without an `account_id`, each row has its own.
    """

    reading: Reading
    account_id: Id | None
    identity: Identity
    skip_bad: bool = False
    resend: bool = False
    dry_run: bool = False
    rejects: Path | None = None


class Job:
    """The rows to make from a file. The same content, account and way of reading give the same `name`."""

    def __init__(self, file: PurchaseFile, options: Options) -> None:
        self.file = file
        self.options = options
        self.purchases = file.purchases
        self.buyers = file.purchases.buyers
        reading, account = options.reading, options.account_id
        columns = (reading.customer, reading.date, reading.amount)  # all that 0.1.0 had; its names stay valid
        told: list[Any] = [_FORMAT, file.digest, str(account or ""), columns, file.delimiter]
        others = msgspec.structs.replace(
            reading, customer="customer", date="purchase_date", amount="amount", delimiter=None
        )
        if others != Reading():
            told.append(others)
        if options.identity.overlapping:
            told.append("content")
        self.name = hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def batch(self, kind: Kind, places: Sequence[int], compared: Comparison) -> list[dict[str, Any]]:
        """The rows of a request for these. None in place of an unknown account or customer."""
        if kind == "customers":
            return [
                {"name": self.buyers[place].name, "account_id": compared.accounts[place]} for place in places
            ]
        return [self._purchase(kind, self.purchases[place], compared.ids) for place in places]

    def _purchase(self, kind: Kind, purchase: Purchase, ids: Sequence[int | None]) -> dict[str, Any]:
        day, cents = _NAMES[kind]
        customer = ids[purchase.buyer]
        new = {
            "customer_id": None if customer is None else str(customer),
            day: purchase.date,
            cents: abs(purchase.cents),
        }
        return new if purchase.reference is None else {**new, "reference": purchase.reference}

    def requests(self) -> Iterator["Request"]:
        """The requests for the file's purchases, always the same ones."""
        for start in range(0, len(self.purchases), BATCH):
            places = range(start, min(start + BATCH, len(self.purchases)))
            credits = [place for place in places if self.purchases.cents[place] < 0]
            invoices = [place for place in places if self.purchases.cents[place] >= 0]
            if invoices:
                yield Request("invoices", start, invoices)
            if credits:
                yield Request("credits", start, credits)


class Request(NamedTuple):
    """The places of purchases that are sent together; the batch begins with number `start`."""

    kind: Kind
    start: int
    places: list[int]
