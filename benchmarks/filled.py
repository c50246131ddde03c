"""Database files with very many invoiced customers, made by SQL in big transactions."""

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.running import Running
from benchmarks.scene import Scene
from tally.events import AccountCreated, Id, InvoiceCreated, encode, now, rfc3339
from tally.store import accounts, customers
from tally.store.database import Database

IN_ACCOUNT = 1_000
EACH = 10  # invoices for each customer
_AT_ONCE = 1_000_000  # rows in a transaction


class Everyone(Scene):
    """All customers of a filled Tally; the revenue is the sum over all of them."""

    def __init__(self, tally: Running, count: int) -> None:
        self.tally = tally
        self.customers = [str(number) for number in range(1, count + 1)]
        self.sent = 0
        self._before = in_database(tally)

    def revenue(self) -> int:
        """The cents that have reached accounts.db."""
        return in_database(self.tally) - self._before


def in_database(tally: Running) -> int:
    """The cents in accounts.db, of all customers together."""
    file = tally.directory / accounts.FILE
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return revenue(connection)


def revenue(connection: sqlite3.Connection) -> int:
    """The cents of all customers together."""
    [[cents]] = connection.execute(
        "SELECT (SELECT coalesce(sum(revenue_cents), 0) FROM customer)"
        " + (SELECT coalesce(sum(cents), 0) FROM recent_month)"
    )
    return int(cents)


def fill(directory: Path, count: int) -> None:
    """Make both databases in `directory`, with `count` customers and EACH invoices for each."""
    ours, theirs = customers.open_database(directory), accounts.open_database(directory)
    _fill_customers(ours, count)
    _fill_accounts(theirs, count, EACH, ours.source)
    for database in (ours, theirs):
        _finish(database)


def fill_accounts(directory: Path, count: int) -> None:
    """Make an accounts.db in `directory`, with `count` customers and no invoices."""
    database = accounts.open_database(directory)
    _fill_accounts(database, count, 0, "customers@00000000")
    _finish(database)


def _finish(database: Database) -> None:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _fill_customers(database: Database, count: int) -> None:
    created, invoices, customer = rfc3339(now()), count * EACH, f"((n - 1) / {EACH} + 1)"
    _insert(
        database,
        count,
        "INSERT INTO customer (id, account_id, name, created_date)"
        f" SELECT n, (n - 1) / {IN_ACCOUNT} + 1, {_NAME}, '{created}'"
        " FROM numbers",
    )
    _insert(
        database,
        invoices,
        "INSERT INTO invoice (id, customer_id, purchase_price_cents, purchase_date, created_date)"
        f" SELECT n, {customer}, {_cents(customer)}, date('1997-01-15', {_MONTH} || ' months'), '{created}'"
        " FROM numbers",
    )
    last = InvoiceCreated(Id(invoices), Id(count), _cents_of(count), now(), now().date())
    with database.transaction():
        database.execute(
            "INSERT INTO outbox (sequence, type, payload) VALUES (?, 'InvoiceCreated', ?)",
            (count + invoices, encode(last)),
        )
        database.set_meta("published", count + invoices)


def _fill_accounts(database: Database, count: int, each: int, source: str) -> None:
    created = now()
    if each:
        customer = f"((n - 1) / {each} + 1)"
        _insert(  # before the customers: their account gets their months
            database,
            count * each,
            f"INSERT INTO customer_month SELECT {customer}, (1997 + {_MONTH} / 12) * 100 + {_MONTH} % 12 + 1,"
            f" {_cents(customer)}, 1, 0 FROM numbers",
        )
    _insert(
        database,
        count,
        f"INSERT INTO customer SELECT n, (n - 1) / {IN_ACCOUNT} + 1, {each} * ({_cents('n')}), FALSE"
        " FROM numbers",
    )
    _insert(
        database,
        count,
        f"INSERT INTO customer_name SELECT n, {_NAME}, '{rfc3339(created)}' FROM numbers",
    )
    opened = [
        AccountCreated(Id(number), f"Account {number}", "", "benchmark", created)
        for number in range(1, -(-count // IN_ACCOUNT) + 1)
    ]
    with database.transaction():
        database.executemany(
            "INSERT INTO account (id, name, description, owned_by, created_date) VALUES (?, ?, ?, ?, ?)",
            [(each.id, each.name, each.description, each.owned_by, rfc3339(created)) for each in opened],
        )
        database.executemany(
            "INSERT INTO outbox (type, payload) VALUES ('AccountCreated', ?)", [(encode(e),) for e in opened]
        )
        database.execute("INSERT INTO inbox_range VALUES (?, 1, ?)", (source, count * (1 + each)))


_MONTH = "(n * 7 % 18)"  # of an invoice, among 18: a customer's ten invoices have ten different ones


_NAME = (
    "char(65 + n % 26, 97 + n / 26 % 5) || 'na ' || char(65 + n % 26, 97 + n / 26 % 26, 97 + n / 676 % 26)"
    " || 'son ' || n"
)


def first_name(customer: int) -> str:
    """The first word of a customer's name: one of 130."""
    return f"{chr(65 + customer % 26)}{chr(97 + customer // 26 % 5)}na"


def last_name(customer: int) -> str:
    """The second word of a customer's name: one of 17,576."""
    return f"{chr(65 + customer % 26)}{chr(97 + customer // 26 % 26)}{chr(97 + customer // 676 % 26)}son"


def _cents(customer: str) -> str:
    """The amount of each of a customer's invoices, as SQL."""
    return f"1000 + ({customer}) % 1000"


def _cents_of(customer: int) -> int:
    return 1000 + customer % 1000


def _insert(database: Database, count: int, sql: str) -> None:
    """Run `sql` over the numbers from 1 to `count`, which are in its table `numbers`."""
    for first in range(1, count + 1, _AT_ONCE):
        last = min(count, first + _AT_ONCE - 1)
        numbers = (
            f"WITH RECURSIVE numbers (n) AS"
            f" (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
        )
        with database.transaction():
            database.execute(numbers + sql)
