"""What of a file is in Tally already, and what can't be told apart there."""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator
from datetime import date
from typing import Literal

from msgspec import Struct

from tally.commands import known
from tally.commands.known import KnownRow
from tally.commands.purchase_file import Purchase, PurchaseFile
from tally.commands.service_client import ServiceClient
from tally.events import Id
from tally.http.exports import amount
from tally.store.import_note import Kind

_SHOWN = 5  # names that are alike
_LEFT_OUT = "Was bad when this file was imported, and left out; import it alone (--rejects)"


class Identity(Struct, frozen=True):
    """By what rows are known: "id" is their own reference in the column `id`, "content" is customer, date and
    amount, and how many alike there are; by "file", nothing is looked for.

    With `update`, an invoice whose amount or date differ is to be changed. With `new_customers`, no name is
    looked for.
    """

    by: Literal["file", "id", "content"]
    id: str = ""
    customer: str = "customer"
    update: bool = False
    new_customers: bool = False


class Comparison:
    """What is there of a file's customers and purchases. `known_ids` are those of its first customers.

    `ids` are those of its customers, None for who isn't there. `known` has the purchases that are there, by
    their places, with their ids; `updates` those that are to be changed. What can't be decided is `bad`, by
    line.
    Every call raises Unavailable or Refused.
    """

    def __init__(
        self, file: PurchaseFile, service: ServiceClient, identity: Identity, known_ids: Collection[int]
    ) -> None:
        self._file = file
        self._service = service
        self._identity = identity
        self._purchases = file.purchases
        self.ids: list[int | None] = [None] * len(file.purchases.buyers)
        self.ids[: len(known_ids)] = known_ids
        self.known: dict[int, int] = {}
        self.updates: dict[int, int] = {}
        self.bad: dict[int, str] = {}
        self.warnings: list[str] = []
        self._customers_before = len(known_ids)

    def compare_customers(self) -> None:
        """Find the file's customers by their names."""
        left_out = {place for place in range(self._customers_before) if not self.ids[place]}
        for purchase in self._purchases:
            if purchase.buyer in left_out:
                self.bad[purchase.line] = _LEFT_OUT
        if self._identity.new_customers:
            return
        several: dict[int, list[int]] = {}
        buyers = self._purchases.buyers
        for account_id, places in self._by_account().items():
            wanted = [place for place in places if self.ids[place] is None]
            if not wanted:
                continue
            found = known.customers_by_name(
                self._service, account_id, [buyers[place].name for place in wanted]
            )
            for place in wanted:
                ids = found.get(known.normal(buyers[place].name), [])
                if len(ids) == 1:
                    self.ids[place] = ids[0]
                elif ids:
                    several[place] = ids
            self.warnings += _differing(account_id, [buyers[place].name for place in places], found)
        if several:
            self._refuse_those_of(several)

    def compare_purchases(self) -> None:
        """Find the file's purchases. After its customers."""
        if self._identity.by == "id":
            self._compare_by_id()
        elif self._identity.by == "content":
            self._take_alike(self.known)
        elif not self._customers_before:
            alike: dict[int, int] = {}
            self._take_alike(alike)
            if alike:
                self.warnings.append(
                    f"{len(alike):,} rows have the customer, date and amount of what is there already: was "
                    "it imported before? --overlapping leaves such rows out, --id-column knows rows by their "
                    "own reference, and --undo takes this file's back"
                )

    def is_new(self, place: int) -> bool:
        """Whether a purchase is to be recorded."""
        return place not in self.known and place not in self.updates

    def new_buyers(self, bad: Container[int]) -> set[int]:
        """The customers that are to be made: for what is recorded."""
        return {
            purchase.buyer
            for place, purchase in enumerate(self._purchases)
            if self.ids[purchase.buyer] is None and self.is_new(place) and purchase.line not in bad
        }

    def there(self, kind: Kind, places: Iterable[int]) -> list[int]:
        """The ids of those customers, or purchases, that are there."""
        if kind == "customers":
            return [id for place in places if (id := self.ids[place]) is not None]
        return [self.known[place] for place in places if self.known.get(place)]

    def _by_account(self) -> dict[Id, list[int]]:
        found: defaultdict[Id, list[int]] = defaultdict(list)
        for place, buyer in enumerate(self._purchases.buyers):
            found[buyer.account_id].append(place)
        return found

    def _refuse_those_of(self, several: dict[int, list[int]]) -> None:
        for purchase in self._purchases:
            if (ids := several.get(purchase.buyer)) is not None:
                buyer = self._purchases.buyers[purchase.buyer]
                *others, last = map(str, ids)
                self.bad[purchase.line] = (
                    f"{self._identity.customer}: Expected one customer of account {buyer.account_id} with "
                    f"this name, there are {', '.join(others)} and {last}, got {buyer.name!r}"
                )

    def _days(self) -> tuple[date | None, date | None]:
        days = [purchase.date for purchase in self._purchases]
        return min(days, default=None), max(days, default=None)

    def _compare_by_id(self) -> None:
        wanted = {*(self._purchases.references or ())}
        rows: dict[tuple[Id, bool, str], KnownRow] = {}
        for account_id in self._by_account():
            for row in known.recorded(self._service, account_id, lambda row: row.reference in wanted):
                rows[account_id, row.is_credit, row.reference] = row
        for place, purchase in enumerate(self._purchases):
            buyer = self._purchases.buyers[purchase.buyer]
            there = rows.get((buyer.account_id, purchase.cents < 0, purchase.reference or ""))
            if there is None or purchase.line in self.bad:
                continue
            what = f"the {'credit' if there.is_credit else 'invoice'} {there.id}"
            if there.customer_id != self.ids[purchase.buyer]:
                self._refuse(purchase, f"{what} with it is of another customer ({there.customer_id})")
            elif (there.date, there.cents) == (purchase.date, purchase.cents):
                self.known[place] = there.id
            elif self._identity.update and not there.is_credit:
                self.updates[place] = there.id
            else:
                remedy = "" if there.is_credit else "; --update changes it"
                self._refuse(purchase, f"{what} with it is of {there.date}, {amount(there.cents)}{remedy}")

    def _refuse(self, purchase: Purchase, why: str) -> None:
        self.bad[purchase.line] = (
            f"{self._identity.id}: Expected what is there: {why}, got {purchase.reference!r}"
        )

    def _take_alike(self, known_rows: dict[int, int]) -> None:
        """Find the purchases that are there by customer, date and amount, each row for one of the file's."""
        if not any(id is not None for id in self.ids):
            return
        wanted = Counter(
            (self.ids[each.buyer], each.date, each.cents)
            for each in self._purchases
            if self.ids[each.buyer] is not None
        )
        there: defaultdict[tuple[int, date, int], list[int]] = defaultdict(list)
        for account_id in self._by_account():
            for row in known.recorded(
                self._service,
                account_id,
                lambda row: (row.customer_id, row.date, row.cents) in wanted,
                *self._days(),
            ):
                there[row.customer_id, row.date, row.cents].append(row.id)
        for place, each in enumerate(self._purchases):
            id = self.ids[each.buyer]
            if (
                id is not None
                and each.line not in self.bad
                and (ids := there.get((id, each.date, each.cents)))
            ):
                known_rows[place] = ids.pop(0)


def _differing(account_id: Id, names: Collection[str], found: Collection[str]) -> Iterator[str]:
    """Tell of names that differ in case or blanks alone."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for name in (*names, *found):
        alike[known.alike(name)].add(name)
    groups = [sorted(each) for each in alike.values() if len(each) > 1]
    for group in groups[:_SHOWN]:
        shown = ", ".join(map(repr, group))
        yield f"names of account {account_id} that differ in case or blanks alone: {shown}"
    if len(groups) > _SHOWN:
        yield f"and {len(groups) - _SHOWN:,} names more that do"
