"""Looks up what a running Tally has: accounts, customers, invoices and credits."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from datetime import date
from urllib.parse import urlencode

from tally.commands.service_client import ServiceClient
from tally.events import Id
from tally.http.exports import meant
from tally.importing.known import Content, KnownRow, listed, normal
from tally.importing.tables import plain


def accounts_by_name(accounts: ServiceClient) -> Callable[[str], Id]:
    """Makes a function that finds an existing account by id or name; it raises ValueError."""
    ids: set[int] = set()
    named: defaultdict[str, list[int]] = defaultdict(list)
    for id, name, *_ in accounts.rows("/accounts"):
        ids.add(int(id))
        named[normal(meant(name))].append(int(id))

    def account_of(text: str) -> Id:
        found = {*named.get(normal(text), [])}
        if text.isascii() and text.isdigit() and int(text[:19]) in ids and text == str(int(text[:19])):
            found.add(int(text))
        if len(found) > 1:
            raise ValueError(f"Expected one account, there are {listed(sorted(found))}")
        if not found:
            raise ValueError("Expected the id or the name of an account")
        return Id(found.pop())

    return account_of


class KnownOverHttp:
    """The lists of the customers service. Every call raises Unavailable or Refused."""

    def __init__(self, customers: ServiceClient) -> None:
        self._customers = customers

    def customers(self, account_id: Id, names: Collection[str]) -> dict[str, list[int]]:
        """See Known."""
        wanted = {plain(name) for name in names}
        found: defaultdict[str, list[int]] = defaultdict(list)
        for name, id, *_ in self._customers.rows(f"/customers?account_id={account_id}"):
            told = normal(meant(name))
            if plain(told) in wanted:
                found[told].append(int(id))
        return dict(found)

    def referenced(self, account_id: Id, references: Collection[str]) -> list[KnownRow]:
        """See Known."""
        return [row for row in self._rows({"account_id": account_id}) if row.reference in references]

    def like(self, account_id: Id, wanted: Collection[Content]) -> list[KnownRow]:
        """See Known."""
        days = [day for _, day, _ in wanted]
        rows = self._rows({"account_id": account_id, "from": min(days), "to": max(days)})
        return [row for row in rows if (row.customer_id, row.date, row.cents) in wanted]

    def _rows(self, asked: dict[str, object]) -> Iterator[KnownRow]:
        """The invoices and credits that are asked for."""
        for path in ("/invoices", "/credits"):
            rows = self._customers.rows(f"{path}?{urlencode(asked)}")
            for _, day, amount, reference, id, customer_id, *_ in rows:
                cents, when = int(amount.replace(".", "")), date.fromisoformat(day)
                yield KnownRow(int(id), int(customer_id), when, cents, meant(reference))
