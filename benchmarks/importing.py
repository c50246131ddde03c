"""Files imported by `import`: how long that takes, and how it slows others."""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import Client, Unexpected
from benchmarks.plan import Plan, Result, Target, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import SUPERVISOR, Running, running, scratch

SHOP_ROWS, SHOP_CUSTOMERS, SHOP_LINES = 541_909, 4_372, 20.9  # the shape of UCI's Online Retail
SHOP_SECONDS = 20.0
MANY_ROWS, MANY_CUSTOMERS = 1_000_000, 50_000
SHOWN_SECONDS = 1.0  # for invoices recorded by hand while many rows are imported
BETWEEN_SECONDS = 0.05

_FIRST_DAY = date(2010, 12, 1)
_OF_SHOP = (
    "--customer", "CustomerID", "--date", "InvoiceDate", "--amount", "Amount", "--id-column", "InvoiceNo",
    "--lines", "sum", "--negative", "credit", "--date-format", "%m/%d/%Y %H:%M",
)  # fmt: skip


class Imported(NamedTuple):
    """One import: its seconds, and the seconds of each invoice recorded by hand meanwhile."""

    seconds: float
    by_hand: list[float]


def measure(plan: Plan) -> Result:
    """Import a shop's year with lines and cancellations, and many plain rows."""
    with scratch(plan.base) as directory:
        shop, many = directory / "shop.csv", directory / "many.csv"
        share = plan.choose(1, 50)
        rows = _write_shop(shop, SHOP_ROWS // share)
        _write_many(many, MANY_ROWS // share)
        found = plan.alternate(
            {
                "a shop's year": lambda: _import(plan.base, shop, _OF_SHOP),
                "many rows": lambda: _import(plan.base, many, ()),
            }
        )
    return Result(_table(found, rows, MANY_ROWS // share), _targets(found))


def _import(base: Path | None, file: Path, options: Sequence[str]) -> Imported:
    with running(base) as tally, closing(tally.accounts()) as accounts:
        account = accounts.post("/accounts", {"name": "Imported", "owned_by": "benchmark"})["id"]
        hand = _Hand(tally)
        config = tally.directory.parent / "tally.toml"
        command = [sys.executable, str(SUPERVISOR), "import", "--config", str(config), "--account", account]
        began = time.monotonic()
        with subprocess.Popen([*command, *options, str(file)], stdout=subprocess.PIPE, text=True) as process:
            by_hand = []
            while process.poll() is None:
                by_hand.append(hand.record())
                time.sleep(BETWEEN_SECONDS)
            taken = time.monotonic() - began
            told = process.communicate()[0]
        if process.returncode or "0 bad" not in told:
            raise Unexpected(f"import ended with {process.returncode}: {told}")
        hand.close()
        return Imported(taken, by_hand)


class _Hand:
    """A client that records an invoice and polls until it shows."""

    def __init__(self, tally: Running) -> None:
        self._customers, self._accounts = tally.customers(), tally.accounts()
        account = self._accounts.post("/accounts", {"name": "By hand", "owned_by": "benchmark"})["id"]
        body = {"name": "By hand", "account_id": account}
        self._customer = self._customers.post("/customers", body)["id"]
        self._path, self._cents = f"/accounts/{account}", 0

    def record(self) -> float:
        """Record one; return the seconds until it is shown."""
        began = time.monotonic()
        self._cents += 1
        body = {"customer_id": self._customer, "purchase_date": "2011-12-09", "purchase_price_cents": 1}
        self._customers.post("/invoices", body)
        while self._accounts.get(self._path)["total_revenue_cents"] != self._cents:
            if time.monotonic() - began > 30:
                raise Unexpected("an invoice does not show after 30 s")
            time.sleep(0.002)
        return time.monotonic() - began

    def close(self) -> None:
        for client in (self._customers, self._accounts):
            assert isinstance(client, Client)
            client.close()


def _write_shop(file: Path, rows: int) -> int:
    """A shop's year: invoices of many lines, one in 47 of them a cancellation; returns the number of rows."""
    made = random.Random(2011)
    written, number = 0, 536_365
    with file.open("w") as out:
        out.write(
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country,Amount\n"
        )
        while written < rows:
            number += 1
            day = (_FIRST_DAY + timedelta(days=made.randrange(374))).strftime("%m/%d/%Y")
            customer = 12_346 + made.randrange(SHOP_CUSTOMERS)
            cancelled = made.random() < 1 / 47
            for _ in range(min(rows - written, 1 + int(made.expovariate(1 / SHOP_LINES)))):
                quantity, cents = made.randrange(1, 30), made.randrange(10, 2000)
                amount = f"{'-' if cancelled else ''}{quantity * cents / 100:.2f}"
                out.write(
                    f"{'C' if cancelled else ''}{number},85123A,WHITE HANGING HEART T-LIGHT HOLDER,"
                    f"{-quantity if cancelled else quantity},{day} 08:26,{cents / 100:.2f},{customer},"
                    f"United Kingdom,{amount}\n"
                )
                written += 1
    return written


def _write_many(file: Path, rows: int) -> None:
    made = random.Random(1997)
    with file.open("w") as out:
        out.write("customer,purchase_date,amount\n")
        for _ in range(rows):
            day = _FIRST_DAY + timedelta(days=made.randrange(374))
            out.write(f"Customer {made.randrange(MANY_CUSTOMERS)},{day},{made.randrange(10**6) / 100:.2f}\n")


def _targets(found: dict[str, list[Imported]]) -> list[Target]:
    shop, many = found["a shop's year"], found["many rows"]
    return [
        at_most("import: a shop's year, s", SHOP_SECONDS, [each.seconds for each in shop], ".1f"),
        at_most("import: by hand meanwhile, longest, s", SHOWN_SECONDS, [max(each.by_hand) for each in many]),
    ]


def _table(found: dict[str, list[Imported]], shop_rows: int, many_rows: int) -> str:
    rows = [["import", "rows", "s", "rows a second", "by hand, median, s", "longest, s"]]
    for (what, runs), count in zip(found.items(), (shop_rows, many_rows), strict=True):
        rows.append(
            [
                what,
                f"{count:,}",
                spread([each.seconds for each in runs], ".1f"),
                spread([count / each.seconds for each in runs], ",.0f"),
                spread([sorted(each.by_hand)[len(each.by_hand) // 2] for each in runs], ".3f"),
                spread([max(each.by_hand) for each in runs], ".3f"),
            ]
        )
    return f"{table(rows)}\n\n{_notes()}"


def _notes() -> str:
    return paragraph(
        "The command as a process, from its start to its end, into an account that is empty. A shop's year "
        "has the shape of UCI's Online Retail: rows are lines of invoices, which are summed, and one invoice "
        f"in 47 is a cancellation, which becomes a credit. Many rows have {MANY_CUSTOMERS:,} customers. "
        "Meanwhile somebody records an invoice in another account, looks every 2 ms until GET /accounts "
        f"shows it, and begins again {BETWEEN_SECONDS * 1000:.0f} ms later."
    )
