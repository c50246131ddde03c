"""The revenue of each customer, invoices less credits, in all and by month.

There are large tables by customer, and a small one for recent rows. A batch's customers are all over the
large tables: added there, nearly every invoice would write a page or two. In the small table they share
pages. Once it has grown to a tenth of the file, a stretch of it is added to the large tables in the order of
the customers' ids, many to a page.

The small table is worth it from a few thousand customers on. At 20,000 an invoice costs 5 µs with it and 18
without; at 100,000, 6 and 28: `python -m benchmarks.without recent_month`. Sums beyond 64 bits must be
checked for at any size, because a customer may be invoiced any amount. The indexes make this one lookup for
each batch.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from tally.store.database import Database, numbers

MOST_RECENT = 250_000  # rows, or more in a large file; beyond it, more are settled than come
SETTLED_AT_ONCE = 10_000
RECENT_PER_PAGE = 16  # rows, for each page of the file: about a tenth of what it holds
NO_MONTH = 0  # of amounts without a date

_SAFE = 2**61  # cents: any small recent rows can be added to a sum up to here
SMALL = 2**45  # cents of a recent row: such rows for every month, plus _SAFE, fit into a column

COLUMNS = """
    month INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    invoices INTEGER NOT NULL,
    credits INTEGER NOT NULL
"""

# For two indexes that are nearly always empty. They list the customers whose sums might not fit any more.
_IS_LARGE = f"cents NOT BETWEEN -{SMALL} AND {SMALL}"
IS_HUGE = f"cents NOT BETWEEN -{_SAFE} AND {_SAFE}"

# `month` is a number such as 199703. Cents without a month are the rest of `customer.revenue_cents`.
SCHEMA = f"""
CREATE TABLE customer_month (
    customer_id INTEGER NOT NULL, {COLUMNS}, PRIMARY KEY (customer_id, month)
) STRICT, WITHOUT ROWID;
CREATE INDEX huge_customer_month ON customer_month (customer_id) WHERE {IS_HUGE};

-- To be added to `customer_month`, and to `customer.revenue_cents`.
CREATE TABLE recent_month (
    customer_id INTEGER NOT NULL, {COLUMNS}, PRIMARY KEY (customer_id, month)
) STRICT, WITHOUT ROWID;
CREATE INDEX large_recent_month ON recent_month (customer_id) WHERE {_IS_LARGE};
"""

# A customer's revenue, in a query of `customer`.
CENTS = (
    "(revenue_cents"
    " + coalesce((SELECT sum(cents) FROM recent_month WHERE recent_month.customer_id = customer.id), 0))"
)

ADD = (
    "cents = cents + excluded.cents, invoices = invoices + excluded.invoices,"
    " credits = credits + excluded.credits"
)

_HIGHEST = 2**63 - 1  # the most that a column holds

Row = tuple[int, int, int, int, int]
"""A customer or an account, the month, cents, and the number of invoices and of credits."""


class Cents(int):
    """A sum in cents; a string on the wire, since it may be beyond what a JavaScript number holds."""


def money(cents: int) -> str:
    """Cents as an amount for people, such as -1,234.05."""
    return f"{Decimal(cents) / 100:,.2f}"


def halves(column: str) -> str:
    """A column's sum in two halves, for `whole`: SQLite's sum() fails beyond 2^63."""
    return f"coalesce(sum({column} >> 32), 0), coalesce(sum({column} & 4294967295), 0)"


def whole(high: int, low: int) -> int:
    """The sum from its `halves`."""
    return (high << 32) + low


def invoiced(customer: int, day: date | None, cents: int, count: int) -> Row:
    """A change of the number of invoices and of their cents; both may be negative."""
    return customer, month_of(day), cents, count, 0


def credited(customer: int, day: date, cents: int, count: int) -> Row:
    """A change of the number of credits and of their cents; both may be negative."""
    return customer, month_of(day), -cents, 0, count


def month_of(day: date | None) -> int:
    """The number of a day's month."""
    return NO_MONTH if day is None else day.year * 100 + day.month


class Revenue:
    """The customers' revenue in one accounts.db. All calls belong in the open transaction."""

    def __init__(
        self,
        database: Database,
        most_recent: int = MOST_RECENT,
        at_once: int = SETTLED_AT_ONCE,
        recent_per_page: int = RECENT_PER_PAGE,
    ) -> None:
        self._database = database
        self._most_recent = most_recent
        self._per_page = recent_per_page
        self._at_once = at_once
        self._added = 0  # rows since the last check
        self._uncounted = 0  # rows since the last count
        self._counts_again = 0  # count again after so many
        self._is_full = False
        self._settled = -1  # the last customer that the present round has settled

    def add(self, earned: Iterable[Row]) -> list[Row]:
        """Add rows of customers, and answer them as rows of their accounts, perhaps several for a month.

        Customers without an account, and deleted ones, are left out of the answer. Raises OverflowError for a
        revenue beyond 64 bits; then nothing was changed.
        """
        rows = sorted(earned)
        large = {id for (id,) in self._database.rows(LARGE_IDS)}
        large.update([row[0] for row in rows if not -SMALL <= row[2] <= SMALL])
        accounts: dict[int, int | None] = {}
        ids = numbers(list(dict.fromkeys([row[0] for row in rows])))
        for id, before, account in self._database.rows(BEFORE, (ids,)):
            accounts[id] = account
            if not -_SAFE <= before <= _SAFE or id in large:
                self._insist_on_room(id, [row for row in rows if row[0] == id])
        self._database.insert("recent_month", rows, f"ON CONFLICT DO UPDATE SET {ADD}")
        self._added += len(rows)
        if 2 * self._added >= self._at_once:  # settles twice as many as came, so the small table shrinks
            self._settle_some()
        return [
            (account, month, cents, invoices, credits)
            for customer, month, cents, invoices, credits in rows
            if (account := accounts[customer]) is not None
        ]

    def settle(self, customer_id: int) -> None:
        """Move a customer's recent rows to the large tables. Call it before its account changes."""
        self._settle(customer_id, customer_id)

    def _insist_on_room(self, id: int, rows: list[Row]) -> None:
        self.settle(id)  # so the small table has only the rows that are added now
        before = self._database.value("SELECT revenue_cents FROM customer WHERE id = ?", (id,)) or 0
        added: Counter[int] = Counter()
        for _, month, cents, *_ in rows:
            added[month] += cents
        sums = [before + sum(added.values()), *added.values()]
        for month, had in self._database.rows(
            "SELECT month, cents FROM customer_month WHERE customer_id = ?", (id,)
        ):
            sums.append(had + added[month])
        if max(map(abs, sums)) > _HIGHEST:
            raise OverflowError(f"the revenue of the customer {id} would not fit into 64 bits")

    def _settle_some(self) -> None:
        self._uncounted += self._added
        self._added = 0
        if self._uncounted >= self._counts_again:
            self._uncounted = 0
            recent = self._database.value("SELECT count(*) FROM recent_month")
            pages = self._database.value("PRAGMA page_count")
            self._is_full = recent > max(self._most_recent, self._per_page * pages)
            self._counts_again = recent // 10
        if not self._is_full:
            return
        for behind in (self._settled, -1):  # when the round is done, begin another
            last: int | None = self._database.value(_STRETCH, (behind, self._at_once))
            if last is not None:
                self._settle(behind + 1, last)
                self._settled = last
                return

    def _settle(self, first: int, last: int) -> None:
        stretch = (first, last)
        self._database.execute(
            "INSERT INTO customer_month"
            " SELECT * FROM recent_month WHERE customer_id BETWEEN ? AND ?"
            f" ON CONFLICT DO UPDATE SET {ADD}",
            stretch,
        )
        self._database.execute(
            "INSERT INTO customer (id, revenue_cents)"
            " SELECT customer_id, sum(cents) FROM recent_month WHERE customer_id BETWEEN ? AND ?"
            " GROUP BY customer_id"
            " ON CONFLICT DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents",
            stretch,
        )
        self._database.execute("DELETE FROM recent_month WHERE customer_id BETWEEN ? AND ?", stretch)


BEFORE = (
    "SELECT value, coalesce(revenue_cents, 0), iif(deleted, NULL, account_id)"
    " FROM carray(?) LEFT JOIN customer ON customer.id = value"
)
LARGE_IDS = (
    f"SELECT customer_id FROM recent_month WHERE {_IS_LARGE}"
    f" UNION ALL SELECT customer_id FROM customer_month WHERE {IS_HUGE}"
)
_STRETCH = (
    "SELECT max(customer_id) FROM"
    " (SELECT customer_id FROM recent_month WHERE customer_id > ? ORDER BY customer_id LIMIT ?)"
)
