"""The time until a page is usable, in a real browser, with a million customers."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

from benchmarks import relay
from benchmarks.apart import apart
from benchmarks.filled import EACH, IN_ACCOUNT, fill, first_name
from benchmarks.plan import Plan, Result, at_most
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running, scratch

SECONDS = 1.0
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
_MOST_SECONDS = 60.0


class Page(NamedTuple):
    """A page to open: its service, its path and fragment, and an element that shows that it is usable."""

    service: str
    at: str
    shows: str


def _pages(customers: int) -> dict[str, Page]:
    account, somebody = customers // IN_ACCOUNT // 2, customers // 2
    listed, invoices = "#customers tbody tr", "#all-invoices tbody tr"
    return {
        "accounts": Page("accounts", "", "#accounts tbody tr"),
        "accounts, searched": Page("accounts", f"#search=Account {account}", "#accounts tbody tr"),
        "an account": Page("accounts", f"#account={account}", "#account-customers tbody tr"),
        "its latest invoices": Page("accounts", f"#account={account}", "#invoices tbody tr"),
        "customers": Page("customers", "", listed),
        "customers, searched": Page("customers", f"#search={first_name(somebody)}", listed),
        "customers by name": Page("customers", "#order=name", listed),
        "customers by revenue": Page("customers", "#order=-revenue", listed),
        "a customer": Page("customers", f"#customer={somebody}", "#entries tbody tr"),
        "invoices": Page("customers", "#invoices", invoices),
        "invoices by date": Page("customers", "#invoices&order=-purchase_date", invoices),
        "invoices of a month": Page("customers", "#invoices&from=1998-01-01&to=1998-01-31", invoices),
        "invoices of an account": Page("customers", f"#invoices&account={account}", invoices),
        "operations": Page("customers", "operations", "#actors tbody tr"),
        "docs": Page("customers", "docs", "#main .opblock"),
    }


def measure(plan: Plan) -> Result:
    """Open each page of a Tally on filled files; none if there is no browser."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        return Result(f"Not measured: there is no {' nor '.join(PROGRAMS)} on PATH.")
    customers = plan.choose(1_000_000, 20_000)
    with scratch(plan.base) as filled:
        plan.say(f"pages: filling the files with {customers * EACH:,} invoices")
        apart(fill, filled, customers)
        with (
            running(plan.base, prepare=lambda directory: relay.copy(filled, directory)) as tally,
            _chromium(program) as browser,
        ):
            sides: dict[str, Callable[[], float]] = {
                name: lambda page=page: _open(browser, tally, page)  # type: ignore[misc]
                for name, page in _pages(customers).items()
            }
            found = plan.alternate(sides)
    rows = [["until one can work with it, s", "median (min..max)"]]
    rows += [[name, spread(seconds, ".2f")] for name, seconds in found.items()]
    targets = [at_most(f"pages: {name}, s", SECONDS, seconds) for name, seconds in found.items()]
    return Result(f"{table(rows)}\n\n{_notes(customers)}", targets)


@contextmanager
def _chromium(program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def _open(browser: Browser, tally: Running, page: Page) -> float:
    """The seconds from the browser's start of loading until the element is there; the cache is empty."""
    port = tally.accounts_port if page.service == "accounts" else tally.customers_port
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    window = context.new_page()
    window.goto(f"http://127.0.0.1:{port}/{page.at}", wait_until="commit")
    handle = window.wait_for_function(
        "(wanted) => document.querySelector(wanted)?.checkVisibility() && performance.now()",
        arg=page.shows,
        polling="raf",
        timeout=_MOST_SECONDS * 1000,
    )
    milliseconds = float(handle.json_value())
    context.close()
    return milliseconds / 1000


def _notes(customers: int) -> str:
    return paragraph(f"""
        Chromium without a window, of 1440 by 900, with an empty cache each time, on the same machine. From
        when it sets out for the address until the rows that one came for are there and visible. {customers:,}
        customers in accounts of {IN_ACCOUNT:,}, with {customers * EACH:,} invoices over 18 months. Of
        customers by revenue, the newest are shown until all invoices have been added up.
    """)
