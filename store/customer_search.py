"""The page's questions to customers.db: find a customer, and see its invoices, the newest first."""

from msgspec import Struct

from tally.events import Id
from tally.store import invoice_index
from tally.store.customers import OPEN_ACCOUNT, Customer
from tally.store.database import Database
from tally.store.errors import NotFound
from tally.store.searching import Cents, contains

NEWEST = 2**63 - 1  # as `before`: from the newest on

_CUSTOMER = "SELECT id, account_id, name, created_date FROM customer"
_MINE = " AND account_id IN (SELECT id FROM known_account WHERE owned_by = ? AND NOT deleted)"  # of an owner


class InvoiceRow(Struct, frozen=True):
    """A recorded invoice."""

    id: Id
    purchase_date: str
    purchase_price_cents: Cents


class CustomerSums(Struct, frozen=True):
    """What a customer's invoices come to."""

    invoices: int
    total_revenue_cents: Cents


class CustomerSearch:
    """Customers as people look for them; with `owner`, only those in that user's accounts."""

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self._database = database
        self._where = "" if owner is None else _MINE
        self._bindings: list[object] = [] if owner is None else [owner]

    def find(self, search: str, account_id: int | None, before: int, limit: int) -> list[Customer]:
        """Up to `limit` customers with ids below `before`, descending.

        `search` is part of a name, or an id. Without a match every customer is looked at.
        """
        where, bindings = f"id < ?{self._where}", [before, *self._bindings]
        if account_id is not None:
            where, bindings = where + " AND account_id = ?", [*bindings, account_id]
        if search:
            name, names = contains("name", search)
            where, bindings = f"{where} AND ({name} OR cast(id AS TEXT) = ?)", [*bindings, *names, search]
        sql = f"{_CUSTOMER} WHERE {where} ORDER BY id DESC LIMIT ?"
        return [
            Customer(Id(row[0]), Id(row[1]), *row[2:]) for row in self._database.rows(sql, [*bindings, limit])
        ]

    def one(self, id: int) -> Customer:
        """One customer. Raises NotFound."""
        sql = f"{_CUSTOMER} WHERE id = ?{self._where}"
        for row in self._database.rows(sql, [id, *self._bindings]):
            return Customer(Id(row[0]), Id(row[1]), *row[2:])
        raise NotFound("customer", id)

    def is_open(self, account_id: int) -> bool:
        """Whether this account is known, and not deleted."""
        return self._database.value(f"{OPEN_ACCOUNT} AND id = ?", (account_id,)) is not None

    def sums(self, customer_id: int) -> CustomerSums:
        """A customer's invoices added up. Takes time in proportion to their number."""
        sql = (
            f"{invoice_index.EVERY_PART} SELECT count(*), coalesce(sum(purchase_price_cents >> 20), 0),"
            " coalesce(sum(purchase_price_cents & 1048575), 0)"
            f" FROM {invoice_index.INVOICES} WHERE customer_id = ?"
        )  # halves, since sum() fails beyond 2^63
        ((invoices, high, low),) = self._database.rows(sql, [customer_id])
        return CustomerSums(invoices, Cents((high << 20) + low))

    def invoices(self, customer_id: int, before: int, limit: int) -> list[InvoiceRow]:
        """Up to `limit` of a customer's invoices with ids below `before`, descending."""
        sql = (
            "SELECT id, purchase_date, purchase_price_cents FROM invoice"
            f" WHERE {invoice_index.IN_PART} AND customer_id = :customer AND id < :bound"
            " ORDER BY id DESC LIMIT :limit"
        )
        of = {"customer": customer_id}
        rows = invoice_index.page(self._database, sql, of, before, limit, descending=True)
        return [InvoiceRow(Id(id), date, Cents(cents)) for id, date, cents in rows]
