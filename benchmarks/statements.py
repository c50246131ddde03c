"""The time of each kind of SQL statement while invoices are applied, as SQLite itself measures it."""

import time
from collections import Counter
from datetime import date
from itertools import islice
from pathlib import Path

from benchmarks import entries
from tally.actors.consumer import BACKLOG_BATCHES
from tally.events import Id, InvoiceCreated, now
from tally.store import accounts

AT_ONCE = 500 * BACKLOG_BATCHES  # events: as many as a consumer applies in one transaction in a backlog

ALL = "all, with what is not SQL"
_KINDS = {
    "looking the customers up": ("SELECT value, ",),
    "adding to recent_month": ("INSERT OR FAIL INTO recent_month", "INSERT INTO recent_month"),
    "adding to the account's": ("INSERT OR FAIL INTO account_", "INSERT INTO account_"),
    "moving it to customer": (
        "INSERT INTO customer",
        "DELETE FROM recent_month",
        "SELECT max(customer_id)",
    ),
    "committing": ("COMMIT",),
}
KINDS = (*_KINDS, ALL)


def profile(directory: Path, customers: int, events: int) -> dict[str, float]:
    """Apply invoices for that many customers to the accounts.db there; return µs for each, by KINDS."""
    database = accounts.open_database(directory)
    database.expect_writes()
    store = accounts.Accounts(database)
    spent: Counter[str] = Counter()

    def note(sql: str, nanoseconds: int) -> None:
        for kind, beginnings in _KINDS.items():
            if sql.startswith(beginnings):
                spent[kind] += nanoseconds

    database._connection.set_profile(note)
    made = entries.invoices(events, customers)
    today, moment = date(1998, 6, 30), now()
    while some := [InvoiceCreated(Id(each.id), Id(each.customer), each.cents, moment, today)
                   for each in islice(made, AT_ONCE)]:  # fmt: skip
        began = time.perf_counter_ns()
        with database.transaction():
            store.apply(some)
        spent[ALL] += time.perf_counter_ns() - began
    database.close()
    return {kind: spent[kind] / events / 1000 for kind in KINDS}
