"""The time that a table or an index saves, by file size: `python -m benchmarks.without recent_month`.

Prints the processor time of each invoice, with it and without it, in files of several sizes. Only this
script can do without: Tally has no such switch.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

import click

from benchmarks import filled
from tally.events import Id, InvoiceCreated, now
from tally.store import account_totals, accounts, customers, revenue
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.database import Database, numbers
from tally.store.records import NewInvoice
from tally.store.revenue import Revenue

ROUNDS = 40
Write = Callable[[Sequence[int]], None]


@click.command()
@click.argument("part", type=click.Choice(["recent_month", "recent_account_month", "parts"]))
@click.option("--customers", "sizes", type=int, multiple=True, default=(20_000, 100_000), show_default=True)
@click.option("--batch", type=int, default=500, show_default=True, help="Invoices in a transaction.")
@click.option("--in-account", type=int, default=100, show_default=True, help="Customers of an account.")
def main(part: str, sizes: Sequence[int], batch: int, in_account: int) -> None:
    """Print what an invoice costs with the part and without it."""
    vars(filled)["IN_ACCOUNT"] = in_account
    for size in sizes:
        each = [_measured(part, size, batch, without) for without in (False, True)]
        print(f"{size:,} customers: {each[0]:.2f} µs an invoice, without {part} {each[1]:.2f} µs", flush=True)


def _measured(part: str, size: int, batch: int, without: bool) -> float:
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as directory:
        filled.fill(Path(directory), size)
        database = (customers if part == "parts" else accounts).open_database(Path(directory))
        database.expect_writes()
        if part == "parts":
            write = _recording(database, without)
        else:
            write = _applying(database, part if without else "")
        spent = 0.0
        for _ in range(ROUNDS):
            chosen = [chance.randrange(size) + 1 for _ in range(batch)]
            began = time.process_time()
            with database.transaction():
                write(chosen)
            spent += time.process_time() - began
        database.close()
    return spent / ROUNDS / batch * 1e6


def _recording(database: Database, without: bool) -> Write:
    """Record invoices; their index is by customer alone, or in parts."""
    if without:
        database.execute("DROP INDEX invoice_by_customer")
        database.execute("CREATE INDEX invoice_by_customer ON invoice (customer_id)")
    store = Customers(database)

    def write(chosen: Sequence[int]) -> None:
        store.create_invoices([NewInvoice(Id(id), date(2019, 1, 6), 1) for id in chosen])

    return write


class _AtOnce(Revenue):
    """Revenue that is written to the customers' own rows at once."""

    def add(self, earned: Iterable[revenue.Row]) -> list[revenue.Row]:
        rows = sorted(earned)
        accounts_of = {
            id: account
            for id, _, account in self._database.rows(
                revenue.BEFORE, (numbers(sorted({row[0] for row in rows})),)
            )
        }
        self._database.insert("customer_month", rows, f"ON CONFLICT DO UPDATE SET {revenue.ADD}")
        self._database.insert(
            "customer (id, revenue_cents)",
            [(row[0], row[2]) for row in rows],
            "ON CONFLICT DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents",
        )
        return [(account, *row[1:]) for row in rows if (account := accounts_of[row[0]]) is not None]


def _applying(database: Database, without: str) -> Write:
    """Apply invoices of two years."""
    store, chance = Accounts(database), random.Random(2)
    vars(account_totals)["SMALL"] = -1 if without == "recent_account_month" else revenue.SMALL
    if without == "recent_month":
        store._revenue = _AtOnce(database)

    def write(chosen: Sequence[int]) -> None:
        days = [date(2019 + chance.randrange(2), chance.randint(1, 12), 6) for _ in chosen]
        store.apply(
            [InvoiceCreated(Id(1), Id(id), 1, now(), day) for id, day in zip(chosen, days, strict=True)]
        )

    return write


if __name__ == "__main__":
    main()
