"""The page's questions to customers.db: a customer, and its invoices, the newest first."""

from msgspec import Struct

from tally.events import Id
from tally.store import nodes, parts, records
from tally.store.belonging import OPEN_ACCOUNT
from tally.store.database import Database
from tally.store.records import CUSTOMER, Customer
from tally.store.searching import Cents

_MINE = " AND account_id IN (SELECT id FROM known_account WHERE owned_by = ? AND NOT deleted)"  # of an owner


class InvoiceRow(Struct, frozen=True):
    """A recorded invoice."""

    id: Id
    purchase_date: str
    purchase_price_cents: Cents


class CustomerSums(Struct, frozen=True):
    """What a customer's invoices, less its credits, come to."""

    invoices: int
    credits: int
    total_revenue_cents: Cents


class CustomerSearch:
    """Customers as the page shows them; with `owner`, only those in that user's accounts."""

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self._database = database
        self._where = "" if owner is None else _MINE
        self._bindings: list[object] = [] if owner is None else [owner]

    def one(self, id: int) -> Customer:
        """One customer. Raises NotFound."""
        sql = f"{CUSTOMER} WHERE id = ?{self._where}"
        for row in self._database.rows(sql, [id, *self._bindings]):
            return records.customer(row)
        raise nodes.missing(self._database, "customer", id)

    def is_open(self, account_id: int) -> bool:
        """Whether this account is known, and not deleted."""
        return self._database.value(f"{OPEN_ACCOUNT} AND id = ?", (account_id,)) is not None

    def sums(self, customer_id: int) -> CustomerSums:
        """A customer's invoices, less its credits. Takes time in proportion to their number."""
        invoices, earned = self._sum("invoice", "purchase_price_cents", customer_id)
        credits, credited = self._sum("credit", "credited_cents", customer_id)
        return CustomerSums(invoices, credits, Cents(earned - credited))

    def _sum(self, table: parts.Table, column: str, customer_id: int) -> tuple[int, int]:
        sql = (
            f"{parts.every_part(table)} SELECT count(*), coalesce(sum({column} >> 20), 0),"
            f" coalesce(sum({column} & 1048575), 0) FROM {parts.rows_of(table)} WHERE customer_id = ?"
        )  # halves, since sum() fails beyond 2^63
        ((count, high, low),) = self._database.rows(sql, [customer_id])
        return count, (high << 20) + low

    def invoices(self, customer_id: int, before: int, limit: int) -> list[InvoiceRow]:
        """Up to `limit` of a customer's invoices with ids below `before`, descending."""
        sql = (
            "SELECT id, purchase_date, purchase_price_cents FROM invoice"
            f" WHERE {parts.in_part('invoice')} AND customer_id = :customer AND id < :bound"
            " ORDER BY id DESC LIMIT :limit"
        )
        of = {"customer": customer_id}
        rows = parts.page(self._database, "invoice", sql, of, before, limit, descending=True)
        return [InvoiceRow(Id(id), date, Cents(cents)) for id, date, cents in rows]
