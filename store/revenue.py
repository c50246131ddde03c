"""What the invoices of each customer come to: a large table, and a small one for what came lately.

Invoices are for customers all over the table. To add each to its customer's row would write, sync and
checkpoint a page for nearly every one; those of the small table share its few pages. When it has grown,
a stretch of it is added to the customers in the order of their ids, many to a page.
"""

from collections.abc import Mapping

from tally.store.database import Database, numbers

MOST_RECENT = 100_000  # customers; beyond, more are settled than come
SETTLED_AT_ONCE = 10_000

_SAFE = 2**61  # cents: three that are no larger fit into a column together

TABLE = """
-- To be added to `customer.revenue_cents`.
CREATE TABLE recent_revenue (
    customer_id INTEGER PRIMARY KEY,
    cents INTEGER NOT NULL
) STRICT;
"""

# Hardly ever has a row: it spares looking for each customer whether more would still fit.
_IS_LARGE = f"cents NOT BETWEEN -{_SAFE} AND {_SAFE}"
LARGE_INDEX = f"CREATE INDEX large_recent_revenue ON recent_revenue (customer_id) WHERE {_IS_LARGE};"

SCHEMA = TABLE + LARGE_INDEX

# What a customer's revenue is, in a query of `customer` LEFT JOIN RECENT.
CENTS = "(revenue_cents + coalesce(cents, 0))"
RECENT = "recent_revenue ON customer_id = customer.id"

_HIGHEST = 2**63 - 1  # what a column holds


class Revenue:
    """The customers' revenue in one accounts.db. All calls belong into the transaction that is open."""

    def __init__(
        self, database: Database, most_recent: int = MOST_RECENT, at_once: int = SETTLED_AT_ONCE
    ) -> None:
        self._database = database
        self._most_recent = most_recent
        self._at_once = at_once
        self._added = 0  # rows, since the last look
        self._settled = -1  # the customer up to whom the present round has come

    def add(self, cents_by_customer: Mapping[int, int]) -> dict[int, int]:
        """Add cents, and answer what that comes to for each account.

        Customers of no account, or deleted ones, count in none. Raises OverflowError for a revenue beyond
        64 bits, and has changed nothing then.
        """
        ids = sorted(map(int, cents_by_customer))  # plain numbers, which sort and bind faster
        by_account: dict[int, int] = {}
        large = {id for (id,) in self._database.rows(LARGE_IDS)}
        for id, before, account_id in self._database.rows(_BEFORE, (numbers(ids),)):
            cents = cents_by_customer[id]
            if abs(before) > _SAFE or abs(cents) > _SAFE or id in large:
                self._insist_on_room(id, cents)
            if account_id is not None:
                by_account[account_id] = by_account.get(account_id, 0) + cents
        self._database.insert("recent_revenue", [(id, cents_by_customer[id]) for id in ids], _ADD)
        self._added += len(cents_by_customer)
        if 2 * self._added >= self._at_once:  # twice as many are settled as came, so they get fewer
            self._added = 0
            self._settle_some()
        return by_account

    def settle(self, customer_id: int) -> None:
        """Have all that a customer earned in its row of `customer`. Before its account changes."""
        self._settle(customer_id, customer_id)

    def _insist_on_room(self, id: int, cents: int) -> None:
        self.settle(id)  # then what is added is all that there is in the small table
        before = self._database.value("SELECT revenue_cents FROM customer WHERE id = ?", (id,)) or 0
        if abs(before + cents) > _HIGHEST:
            raise OverflowError(f"the revenue of the customer {id} would not fit into 64 bits")

    def _settle_some(self) -> None:
        if self._database.value("SELECT count(*) FROM recent_revenue") <= self._most_recent:
            return
        last: int | None = self._database.value(_STRETCH, (self._settled, self._at_once))
        if last is None:  # the round is done: another begins
            self._settled = -1
            last = self._database.value(_STRETCH, (self._settled, self._at_once))
        assert last is not None
        self._settle(self._settled + 1, last)
        self._settled = last

    def _settle(self, first: int, last: int) -> None:
        self._database.execute(
            "INSERT INTO customer (id, revenue_cents)"
            " SELECT customer_id, cents FROM recent_revenue WHERE customer_id BETWEEN ? AND ?"
            " ON CONFLICT DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents",
            (first, last),
        )
        self._database.execute("DELETE FROM recent_revenue WHERE customer_id BETWEEN ? AND ?", (first, last))


_BEFORE = (
    "SELECT value, coalesce(revenue_cents, 0), iif(deleted, NULL, account_id)"
    " FROM carray(?) LEFT JOIN customer ON customer.id = value"
)
LARGE_IDS = f"SELECT customer_id FROM recent_revenue WHERE {_IS_LARGE}"
_ADD = "ON CONFLICT DO UPDATE SET cents = cents + excluded.cents"
_STRETCH = (
    "SELECT max(customer_id) FROM"
    " (SELECT customer_id FROM recent_revenue WHERE customer_id > ? ORDER BY customer_id LIMIT ?)"
)
