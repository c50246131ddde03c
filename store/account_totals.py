"""The total of each account, kept up to date, and the pages' queries of accounts.

Other calls add up the customers that they show. The page asks every second, and a sum takes seconds for an
account with a million customers. A row that triggers keep up to date is one lookup. It changes in the same
transaction as the customer.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from msgspec import Struct

from tally.events import Id
from tally.store.database import Database, numbers
from tally.store.errors import NotFound
from tally.store.revenue import ADD, COLUMNS, IS_HUGE, SMALL, Cents, Row, halves, whole

# By month, as `customer_month`. Cents without a month are the rest of `account_total.revenue_cents`.
MONTHS = f"""
CREATE TABLE account_month (
    account_id INTEGER NOT NULL, {COLUMNS}, PRIMARY KEY (account_id, month)
) STRICT, WITHOUT ROWID;
CREATE INDEX huge_account_month ON account_month (account_id) WHERE {IS_HUGE};

-- Recent rows in no order, to be added to `account_month`: a batch's rows are on a few pages here.
CREATE TABLE recent_account_month (account_id INTEGER NOT NULL, {COLUMNS}) STRICT;
"""

# `recent_account_month` pays 10 % from some 200 accounts on; with 1,000, an invoice costs 6.9 µs instead of
# 8.4, in batches of 500: `python -m benchmarks.without recent_account_month`.
MOST_RECENT = 10_000  # rows: a query of an account's months reads all of them, in a millisecond


def _months(account: str, sign: str) -> str:
    """Add a customer's months to an account's, or take them away."""
    return (
        f"INSERT INTO account_month SELECT {account}, month, {sign}cents, {sign}invoices, {sign}credits"
        f" FROM customer_month WHERE customer_id = NEW.id AND {account} IS NOT NULL"
        f" ON CONFLICT DO UPDATE SET {ADD}"
    )


# A customer counts in its account from its creation to its deletion. The triggers do that, after
# `Revenue.settle`. `earned` adds the invoices' amounts once for a batch; a trigger would run for each
# customer.
TRIGGERS = f"""
CREATE TRIGGER account_total_came AFTER INSERT ON customer
WHEN NEW.account_id IS NOT NULL AND NOT NEW.deleted BEGIN
    INSERT INTO account_total VALUES (NEW.account_id, 1, NEW.revenue_cents)
    ON CONFLICT DO UPDATE SET customers = customers + 1, revenue_cents = revenue_cents + NEW.revenue_cents;
    {_months("NEW.account_id", "")};
END;

CREATE TRIGGER account_total_moved AFTER UPDATE OF account_id, deleted ON customer
WHEN NEW.account_id IS NOT OLD.account_id OR NEW.deleted <> OLD.deleted BEGIN
    UPDATE account_total SET customers = customers - 1, revenue_cents = revenue_cents - OLD.revenue_cents
    WHERE account_id = OLD.account_id AND NOT OLD.deleted;
    {_months("iif(OLD.deleted, NULL, OLD.account_id)", "-")};
    INSERT INTO account_total SELECT NEW.account_id, 1, NEW.revenue_cents
    WHERE NEW.account_id IS NOT NULL AND NOT NEW.deleted
    ON CONFLICT DO UPDATE SET customers = customers + 1, revenue_cents = revenue_cents + NEW.revenue_cents;
    {_months("iif(NEW.deleted, NULL, NEW.account_id)", "")};
END;
"""

SCHEMA = f"""
CREATE TABLE account_total (
    account_id INTEGER PRIMARY KEY,
    customers INTEGER NOT NULL DEFAULT 0,
    revenue_cents INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX account_by_name ON account (name COLLATE NOCASE);
CREATE INDEX account_by_owner ON account (owned_by COLLATE NOCASE);

CREATE TRIGGER account_total_opened AFTER INSERT ON account BEGIN
    INSERT INTO account_total (account_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
END;
{MONTHS}
{TRIGGERS}
"""

Sort = Literal["id", "name", "owner", "customers", "revenue"]

_KEYS: dict[Sort, str] = {
    "id": "a.id",
    "name": "a.name COLLATE NOCASE",
    "owner": "a.owned_by COLLATE NOCASE",
    "customers": "t.customers",
    "revenue": "t.revenue_cents",
}
_FROM = "FROM account a JOIN account_total t ON t.account_id = a.id"
_ROWS = f"SELECT a.id, a.name, a.owned_by, t.customers, t.revenue_cents {_FROM}"
_OPEN = " WHERE NOT a.deleted AND a.created_date IS NOT NULL"
_SUMS = f"SELECT count(*), coalesce(sum(t.customers), 0), {halves('t.revenue_cents')}"


class Described(NamedTuple):
    """An account, the number of its customers, and their total."""

    id: int
    name: str
    description: str
    owned_by: str
    created_date: str
    customers: int
    revenue_cents: int


class AccountName(Struct, frozen=True):
    """An account and its name."""

    id: Id
    name: str


class AccountRow(AccountName, frozen=True):
    """An account and its total."""

    owned_by: str
    customers: int
    total_revenue_cents: Cents


class Totals(Struct, frozen=True):
    """All accounts together."""

    accounts: int
    customers: int
    total_revenue_cents: Cents


class AccountQuery(Struct, frozen=True):
    """A query of accounts; `search` is part of a name or an owner, or an id."""

    search: str = ""
    sort: Sort = "id"
    descending: bool = False
    limit: int = 50
    offset: int = 0


class AccountTotals:
    """The open accounts in one database and their totals; with `owner`, only that user's."""

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self._database = database
        self._where = _OPEN if owner is None else f"{_OPEN} AND a.owned_by = :owner"
        self._owner = owner

    def page(self, query: AccountQuery) -> list[AccountRow]:
        """The accounts asked for. Equal ones are in order of their ids."""
        matching, bindings = _matching(query.search, "a.name", "a.owned_by")
        direction = "DESC" if query.descending else "ASC"
        order = f"ORDER BY {_KEYS[query.sort]} {direction}, a.id {direction} LIMIT :limit OFFSET :offset"
        bindings |= {"limit": query.limit, "offset": query.offset}
        return [_row(row) for row in self._rows(_ROWS, f"{matching} {order}", **bindings)]

    def described(self, after: int, limit: int) -> list[Described]:
        """Up to `limit` accounts with ids above `after`, ascending, with all their details."""
        columns = "a.id, a.name, a.description, a.owned_by, a.created_date, t.customers, t.revenue_cents"
        beyond = "AND a.id > :after ORDER BY a.id LIMIT :limit"
        rows = self._rows(f"SELECT {columns} {_FROM}", beyond, after=after, limit=limit)
        return list(map(Described._make, rows))

    def sums(self, search: str = "") -> Totals:
        """All accounts that match, added up. Takes time in proportion to their number."""
        matching, bindings = _matching(search, "a.name", "a.owned_by")
        return _totals(self._rows(f"{_SUMS} {_FROM}", matching, **bindings))

    def largest(self) -> Cents:
        """The largest revenue of an account; 0 without accounts. Takes time in proportion to all."""
        [(largest,)] = self._rows(f"SELECT max(t.revenue_cents) {_FROM}")
        return Cents(largest or 0)

    def one(self, id: int) -> AccountRow:
        """One account. Raises NotFound."""
        for row in self._rows(_ROWS, "AND a.id = :id", id=id):
            return _row(row)
        raise NotFound("account", id)

    def names_of(self, ids: Collection[int]) -> list[AccountName]:
        """The names of those of these accounts that exist, with a lookup for each."""
        return self._names("AND a.id IN carray(:ids)", ids=numbers(sorted(set(ids))))

    def names_like(self, text: str, limit: int) -> list[AccountName]:
        """Up to `limit` names that contain the text, or whose account's id is the text, in order.

        Reads accounts until enough are found.
        """
        matching, bindings = _matching(text, "a.name")
        order = "ORDER BY a.name COLLATE NOCASE, a.id LIMIT :limit"
        return self._names(f"{matching} {order}", **bindings, limit=limit)

    def _names(self, further: str, **bindings: object) -> list[AccountName]:
        rows = self._rows("SELECT a.id, a.name FROM account a", further, **bindings)
        return [AccountName(Id(id), name) for id, name in rows]

    def _rows(self, select: str, further: str = "", **bindings: object) -> list[tuple[Any, ...]]:
        """Rows of accounts that may be seen; `further` follows the conditions for that."""
        return self._database.rows(f"{select}{self._where} {further}", {"owner": self._owner, **bindings})


def unopened(database: Database) -> Totals:
    """The totals of accounts that were never opened, or were deleted: no account shows them.

    Takes time in proportion to all accounts, some 10 ms for 100,000.
    """
    sql = f"{_SUMS} FROM account_total t LEFT JOIN account a ON a.id = t.account_id"
    return _totals(database.rows(f"{sql} WHERE t.customers > 0 AND (a.created_date IS NULL OR a.deleted)"))


def _matching(text: str, *columns: str) -> tuple[str, dict[str, object]]:
    """A condition and its bindings: a column contains the text, ignoring case, or the id is the text.

    SQLite folds only the case of ASCII, so the text is searched in each of its cases, each composed and
    decomposed: a name may be either. Empty for no text.
    """
    if not text:
        return "", {}
    cases = (text, text.lower(), text.upper(), text.title())
    forms = {normalize(form, case) for form in ("NFC", "NFD") for case in cases}
    texts = {form.encode().lower().decode() for form in forms}
    bindings = {f"text{place}": each for place, each in enumerate(sorted(texts))}
    found = [f"instr(lower({column}), :{each})" for column in columns for each in bindings]
    return f"AND ({' OR '.join(found)} OR cast(a.id AS TEXT) = :text)", {**bindings, "text": text}


def _totals(rows: Sequence[tuple[Any, ...]]) -> Totals:
    [(accounts, customers, *revenue)] = rows
    return Totals(accounts, customers, Cents(whole(*revenue)))


def _row(row: tuple[int, str, str, int, int]) -> AccountRow:
    id, name, owned_by, customers, revenue = row
    return AccountRow(Id(id), name, owned_by, customers, Cents(revenue))


def earned(database: Database, months: Sequence[Row]) -> None:
    """Add their customers' revenue to the accounts, in the open transaction."""
    totals: dict[int, int] = {}
    for account, _, cents, *_ in months:
        totals[account] = totals.get(account, 0) + cents
    added = "ON CONFLICT DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents"
    database.insert("account_total (account_id, revenue_cents)", [*totals.items()], added)
    is_large = any(abs(row[2]) > SMALL for row in months)
    if is_large or database.value(f"SELECT 1 FROM account_month WHERE {IS_HUGE} LIMIT 1"):
        fold(database)  # afterwards, a sum that doesn't fit is this batch's fault
        database.insert("account_month", months, f"ON CONFLICT DO UPDATE SET {ADD}")
        return
    database.insert("recent_account_month", months)
    if (database.value("SELECT max(rowid) FROM recent_account_month") or 0) > MOST_RECENT:
        fold(database)


def fold(database: Database) -> None:
    """Add the recent rows to the accounts' months, in the open transaction."""
    database.execute(
        "INSERT INTO account_month"
        " SELECT account_id, month, sum(cents), sum(invoices), sum(credits) FROM recent_account_month"
        f" GROUP BY account_id, month ON CONFLICT DO UPDATE SET {ADD}"
    )
    database.execute("DELETE FROM recent_account_month")
