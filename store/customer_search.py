"""The page's queries of customers.db: customers with their spending, and one in full."""

from array import array
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Literal

from msgspec import Struct, structs

from tally.events import Day, Id
from tally.store import belonging, parts, records
from tally.store.customer_list import CustomerList, CustomerQuery
from tally.store.database import Database, numbers
from tally.store.errors import translated
from tally.store.records import CENTS_AND_DAY, CUSTOMER, Customer
from tally.store.revenue import Cents, halves, whole

MOST_RANKED = 10_000  # customers: their spending is added up each time, in half a second at most

Rank = Literal["revenue", "-revenue", "last", "-last"]


class CustomerRow(Customer, frozen=True):
    """A customer, its invoices' sum less its credits, and the day of the last invoice."""

    total_revenue_cents: Cents = Cents(0)
    last_purchase: Day | None = None


class Entry(Struct, frozen=True):
    """An invoice or a credit; `credited_cents` is the sum of the invoice's credits."""

    kind: Literal["invoice", "credit"]
    id: Id
    date: Day
    cents: Cents
    reference: str | None
    revision: int
    invoice_id: Id | None
    credited_cents: Cents


class MonthSum(Struct, frozen=True):
    """The sum of a month's invoices, less its credits; `month` is YYYY-MM."""

    month: str
    cents: Cents


class CustomerSums(Struct, frozen=True):
    """The sum of a customer's invoices, less its credits, and the first and last invoice's day.

    `average_cents` is the mean of the invoices. `months` are the months that have any, ascending.
    """

    invoices: int
    credits: int
    total_revenue_cents: Cents
    average_cents: Cents | None = None
    first_purchase: Day | None = None
    last_purchase: Day | None = None
    months: list[MonthSum] = []


class _Month(Struct, frozen=True):
    """A row of `_by_month`."""

    cents: int
    month: str
    number: int
    first: str
    last: str


class CustomerSearch:
    """Customers as the page shows them; with `owner`, only those in that user's accounts."""

    def __init__(self, database: Database, owner: str | None = None, most: int = MOST_RANKED) -> None:
        self._database = database
        self._owner = owner
        self._list = CustomerList(database, owner)
        self._most = most

    def named(self, ids: Collection[int]) -> dict[int, Customer]:
        """Those of these customers that exist, whoever owns them."""
        found = self._database.rows(f"{CUSTOMER} WHERE id IN carray(?)", (numbers(sorted(set(ids))),))
        return {row[0]: records.customer(row) for row in found}

    def those(self, ids: Collection[int]) -> list[CustomerRow]:
        """Those of these customers that exist, in this order, with their spending.

        An owner's were found a while ago: another may have them meanwhile.
        """
        found, database = self.named(ids), self._database
        accounts = {each.account_id for each in found.values()}
        own = {id for id in accounts if belonging.owns_account(database, self._owner, id)}
        return self.rows([found[id] for id in ids if id in found and found[id].account_id in own])

    def is_open(self, account_id: int) -> bool:
        """Whether this account is known and not deleted."""
        return self._database.value(f"{belonging.OPEN_ACCOUNT} AND id = ?", (account_id,)) is not None

    def rows(self, customers: Sequence[Customer]) -> list[CustomerRow]:
        """The customers with their spending. Takes time in proportion to their invoices."""
        ids = numbers(sorted(each.id for each in customers))
        earned = {id: (cents, last) for id, cents, last in self._spent("invoice", ids)}
        credited = {id: cents for id, cents, _ in self._spent("credit", ids)}
        found = []
        for each in customers:
            cents, last = earned.get(each.id, (0, None))
            spent = Cents(cents - credited.get(each.id, 0))
            found.append(CustomerRow(**structs.asdict(each), total_revenue_cents=spent, last_purchase=last))
        return found

    def ranked(self, query: CustomerQuery, rank: Rank, offset: int) -> list[CustomerRow] | None:
        """The customers asked for, by spending or last purchase; None if they are more than 10,000.

        The spending of all of them is added up each time.
        """
        found = self._list.page(structs.replace(query, limit=self._most + 1, order="id", after=None))
        if len(found) > self._most:
            return None
        rows = self.rows(found)
        if rank.endswith("revenue"):
            rows.sort(key=attrgetter("total_revenue_cents", "id"), reverse=rank.startswith("-"))
        else:
            rows.sort(key=lambda row: (row.last_purchase or "", row.id), reverse=rank.startswith("-"))
        return rows[offset : offset + query.limit]

    def newest(self, query: CustomerQuery) -> list[CustomerRow]:
        """The newest of the customers asked for, with their spending."""
        return self.rows(self._list.page(structs.replace(query, order="-id", after=None)))

    def in_order(self, query: CustomerQuery, rank: Rank) -> "array[int]":
        """The ids of all customers asked for, by spending or last purchase.

        Takes time in proportion to all invoices, some 4 s of a processor for ten million.
        """
        wanted, bindings = self._list.all_of(query)
        direction = "DESC" if rank.startswith("-") else "ASC"
        sql = _IN_ORDER[rank.removeprefix("-")].format(wanted=wanted, direction=direction)
        with translated(str(self._database.path)):
            return array("q", (id for (id,) in self._database.execute(sql, bindings)))

    def _spent(self, table: parts.Table, ids: Any) -> list[tuple[int, int, str]]:
        """Customer, cents and last day, for the customers who have any invoices or credits."""
        column, day = CENTS_AND_DAY[table]
        sql = (
            f"{parts.every_part(table)} SELECT customer_id, {halves(column)}, max({day})"
            f" FROM part CROSS JOIN carray(?) AS wanted CROSS JOIN {parts.joined(table)}"
            f" AND customer_id = wanted.value GROUP BY customer_id"
        )
        rows = self._database.rows(sql, (ids,))
        return [(id, whole(high, low), last) for id, high, low, last in rows]

    def sums(self, customer_id: int) -> CustomerSums:
        """A customer's invoices, less its credits. Takes time in proportion to their number."""
        invoices, credits = (self._by_month(table, customer_id) for table in ("invoice", "credit"))
        number, earned = (sum(each.number for each in invoices), sum(each.cents for each in invoices))
        months = {each.month: each.cents for each in invoices}
        for each in credits:
            months[each.month] = months.get(each.month, 0) - each.cents
        return CustomerSums(
            number,
            sum(each.number for each in credits),
            Cents(earned - sum(each.cents for each in credits)),
            Cents((2 * earned + number) // (2 * number)) if number else None,
            min((each.first for each in invoices), default=None),
            max((each.last for each in invoices), default=None),
            [MonthSum(month, Cents(cents)) for month, cents in sorted(months.items())],
        )

    def _by_month(self, table: parts.Table, customer_id: int) -> list[_Month]:
        column, day = CENTS_AND_DAY[table]
        sql = (
            f"{parts.every_part(table)} SELECT {halves(column)}, substr({day}, 1, 7) AS month, count(*),"
            f" min({day}), max({day}) FROM {parts.rows_of(table)} WHERE customer_id = ? GROUP BY month"
        )
        rows = self._database.rows(sql, [customer_id])
        return [_Month(whole(high, low), *told) for high, low, *told in rows]

    def entries(self, customer_id: int, offset: int, limit: int) -> list[Entry]:
        """A customer's invoices and credits by their days, the newest first.

        Takes time in proportion to their number.
        """
        rows = self._database.rows(_ENTRIES, {"customer": customer_id, "offset": offset, "limit": limit})
        found = []
        for kind, id, day, cents, reference, revision, invoice, credited in rows:
            of = None if invoice is None else Id(invoice)
            found.append(Entry(kind, Id(id), day, Cents(cents), reference, revision, of, Cents(credited)))
        return found


# All rows are read and sorted by customer once. Looking up each customer's takes four times as long.
_IN_ORDER = {
    "revenue": (
        "SELECT id FROM (SELECT id, TRUE AS wanted, 0 AS high, 0 AS low FROM ({wanted})"
        " UNION ALL SELECT customer_id, FALSE, purchase_price_cents >> 20, purchase_price_cents & 1048575"
        " FROM invoice"
        " UNION ALL SELECT customer_id, FALSE, -(credited_cents >> 20), -(credited_cents & 1048575)"
        " FROM credit)"
        " GROUP BY id HAVING max(wanted) ORDER BY sum(high) * 1048576 + sum(low) {direction}, id {direction}"
    ),
    "last": (
        "SELECT id FROM (SELECT id, TRUE AS wanted, '' AS day FROM ({wanted})"
        " UNION ALL SELECT customer_id, FALSE, purchase_date FROM invoice)"
        " GROUP BY id HAVING max(wanted) ORDER BY max(day) {direction}, id {direction}"
    ),
}


def _entries(table: parts.Table, further: str) -> str:
    cents, day = CENTS_AND_DAY[table]
    return (
        f"SELECT * FROM ({parts.every_part(table)} SELECT '{table}' AS kind, {table}.id AS id, {day} AS day,"
        f" {cents} AS cents, reference, {further} FROM {parts.rows_of(table)} WHERE customer_id = :customer)"
    )


_ENTRIES = (
    "SELECT kind, id, day, cents, reference, revision, invoice_id, iif(kind = 'invoice',"
    " (SELECT coalesce(sum(credited_cents), 0) FROM credit WHERE credit.invoice_id = found.id), 0) FROM ("
    + _entries("invoice", "revision, NULL AS invoice_id")
    + " UNION ALL "
    + _entries("credit", "0 AS revision, invoice_id")
    + " ORDER BY day DESC, kind, id DESC LIMIT :limit OFFSET :offset) AS found"
)
