"""Accounts, customers and invoices to show in a browser."""

import re
from itertools import count

from playwright.sync_api import Page, expect

from support.tally import Tally
from support.waiting import eventually

_numbers = count(1)


def _letters(number: int) -> str:
    """The number in letters: a search for an id would also find a mark with digits."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


class Shop:
    """Accounts, customers and invoices for one test, with names that no other test uses."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.mark = f"T{_letters(next(_numbers))}x"

    def account(self, name: str, *revenues: int, owner: str = "ana") -> str:
        """Open an account with a customer for each revenue in cents, and wait until the invoices count."""
        id: str = self.tally.accounts.post("/accounts", {"name": f"{self.mark} {name}", "owned_by": owner})[
            "id"
        ]
        for number, cents in enumerate(revenues, 1):
            self.invoice(self.customer(f"Customer {number}", id), cents)
        eventually(lambda: self._is_counted(id, revenues))
        return id

    def customer(self, name: str, account_id: str = "1") -> str:
        new = {"name": f"{self.mark} {name}", "account_id": account_id}
        id: str = self.tally.customers.post("/customers", new)["id"]
        return id

    def customers(self) -> set[str]:
        """The ids of this test's customers."""
        found = self.tally.customers.get(f"/customers/search?limit=50&search={self.mark}")["customers"]
        return {customer["id"] for customer in found}

    def invoice(self, customer_id: str, cents: int, date: str = "2026-01-06") -> str:
        new = {"customer_id": customer_id, "purchase_date": date, "purchase_price_cents": cents}
        id: str = self.tally.customers.post("/invoices", new)["id"]
        return id

    def invoices(self, customer_id: str) -> list[int]:
        """The recorded amounts in cents."""
        listed = self.tally.customers.get(f"/invoices?customer_id={customer_id}")["invoices"]
        return [invoice["purchase_price_cents"] for invoice in listed]

    def see_accounts(self, page: Page, hash: str = "") -> None:
        """Open the page with this test's accounts, or with a hash one of them."""
        self._see(page, self.tally.accounts.port, "Search accounts", hash)

    def see_customers(self, page: Page, hash: str = "") -> None:
        """Open the page with this test's customers, or with a hash one of them."""
        self._see(page, self.tally.customers.port, "Search customers", hash)

    def _see(self, page: Page, port: int, search: str, hash: str) -> None:
        page.goto(f"http://127.0.0.1:{port}/{hash}")
        if not hash:
            page.get_by_label(search).fill(self.mark)
            expect(page.locator("#announce")).to_have_text(re.compile("found$"))

    def _is_counted(self, id: str, revenues: tuple[int, ...]) -> bool:
        account = self.tally.accounts.get(f"/accounts/{id}/summary")["account"]
        assert account["customers"] == len(revenues), account
        assert account["total_revenue_cents"] == str(sum(revenues)), account
        return True
