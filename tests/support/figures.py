"""The figures of the accounts service, and the customers service's records to compare with."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from support.tally import Client, Tally, is_settled
from support.waiting import eventually
from tally.store.database import Database

Figures = dict[str, dict[str, int]]
"""The revenue of each customer, by account."""


def shown(tally: Tally) -> Figures:
    """Every account as the accounts service shows it; each total must be the sum of its customers."""
    figures: Figures = {}
    for each in tally.accounts.get("/accounts"):
        customers = {c["customer_id"]: c["total_revenue_cents"] for c in each["customers"]}
        assert each["total_revenue_cents"] == sum(customers.values())
        figures[each["account"]["id"]] = customers
    return figures


def recorded(tally: Tally) -> Figures:
    """The sums of the customers service's invoices, for open accounts."""
    cents: defaultdict[str, int] = defaultdict(int)
    for invoice in _all(tally.customers, "invoices"):
        cents[invoice["customer_id"]] += invoice["purchase_price_cents"]
    figures: Figures = {each["account"]["id"]: {} for each in tally.accounts.get("/accounts")}
    for customer in _all(tally.customers, "customers"):
        if customer["account_id"] in figures:
            figures[customer["account_id"]][customer["id"]] = cents[customer["id"]]
    return figures


def agree(tally: Tally) -> None:
    """Wait until all is applied; then the shown figures and the kept totals must equal the recorded ones."""
    eventually(lambda: _insist_on_settled(tally))
    assert shown(tally) == recorded(tally)
    assert kept_totals(tally) == {
        account: (len(customers), sum(customers.values())) for account, customers in shown(tally).items()
    }


def _insist_on_settled(tally: Tally) -> bool:
    reports = tally.reports()
    if not is_settled(reports):
        raise AssertionError(  # the failure shows these
            [(report["service"], report["outbox_depth"], report["redis"]) for report in reports]
        )
    return True


def kept_totals(tally: Tally) -> dict[str, tuple[int, int]]:
    """Customers and revenue of each open account, from the totals in accounts.db."""
    sql = (
        "SELECT account_id, customers, revenue_cents FROM account_total"
        " JOIN account ON id = account_id WHERE NOT deleted AND created_date IS NOT NULL"
    )
    with closing(sqlite3.connect(accounts_db(tally), timeout=10)) as database:
        return {str(id): (customers, cents) for id, customers, cents in database.execute(sql)}


def spoil(tally: Tally) -> None:
    """Make the figures wrong in every way, whether or not Tally runs."""
    with closing(sqlite3.connect(accounts_db(tally), timeout=10)) as database, database:
        database.execute("UPDATE customer SET revenue_cents = revenue_cents * 2 + 1")
        database.execute("UPDATE customer SET account_id = account_id + 1 WHERE id % 3 = 0")
        database.execute("UPDATE customer_name SET name = 'nobody' WHERE id % 3 = 0")
        database.execute("DELETE FROM customer WHERE id % 3 = 1")
        database.execute("UPDATE account_total SET customers = 77, revenue_cents = 77")


def revenue_by_customer(database: Database) -> dict[int, int]:
    """The revenue of each customer in an accounts.db, also of customers in no account."""
    sql = (
        "SELECT id, sum(cents) FROM (SELECT id, revenue_cents AS cents FROM customer"
        " UNION ALL SELECT customer_id, cents FROM recent_month)"
        " WHERE id NOT IN (SELECT id FROM customer WHERE deleted) GROUP BY id"
    )
    return dict(database.rows(sql))


def accounts_db(tally: Tally) -> Path:
    """The path of its accounts.db."""
    return Path(tally.settings["data"]["directory"]) / "accounts.db"


def _all(client: Client, kind: str) -> Iterator[dict[str, Any]]:
    after: str | None = "0"
    while after is not None:
        page = client.get(f"/{kind}?limit=1000&after={after}")
        yield from page[kind]
        after = page["next"]
