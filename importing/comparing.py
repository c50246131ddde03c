"""Finds the rows of a file that are in Tally already, and those that are ambiguous there."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

from msgspec import Struct

from tally.events import Id
from tally.http.exports import amount
from tally.importing import known
from tally.importing.known import Content, Known, KnownRow
from tally.importing.purchase_file import Purchase, PurchaseFile
from tally.importing.tables import Reading, plain
from tally.store.import_note import Kind

_SHOWN = 5  # names that are alike
_LEFT_OUT = "Was bad when this file was imported, and left out; import it alone (--rejects)"


class Identity(Struct, frozen=True):
    """How rows without a reference are recognised, and what happens to rows that are there already.

    With `overlapping`, rows are recognised by customer, date and amount, as often as there are such rows;
    else they are not searched. With `update`, an invoice whose amount or date differs is changed. With
    `new_customers`, every name is a new customer.
    """

    overlapping: bool = False
    update: bool = False
    new_customers: bool = False


class Comparison:
    """Compares the customers and purchases of `file` with the rows `there`. Raises what `there` raises.

    `account_of` finds the account of a text, or raises ValueError. `known_ids` are the ids of the file's
    first customers, if an earlier import has noted them.

    Results for each of the file's customers: `accounts` has its account, None if unknown, and `ids` its id,
    None for a new one. Results for purchases, by their places: `known` has the ids of those that are there,
    and `updates` the ids of those to change. `bad` has the file's bad rows and the ambiguous ones, by line.
    """

    def __init__(
        self,
        file: PurchaseFile,
        reading: Reading,
        there: Known,
        account_of: Callable[[str], Id],
        identity: Identity,
        known_ids: Collection[int],
    ) -> None:
        self.file = file
        self._purchases = purchases = file.purchases
        self._reading = reading
        self._there = there
        self._identity = identity
        self.ids: list[int | None] = [None] * len(purchases.buyers)
        self.ids[: len(known_ids)] = known_ids
        self.accounts: list[Id | None] = []
        self.known: dict[int, int] = {}
        self.updates: dict[int, int] = {}
        self.bad = dict(file.bad)
        self.warnings = [*file.warnings]
        self._customers_before = len(known_ids)
        self._find_accounts(account_of)

    def compare_customers(self) -> None:
        """Find the file's customers by their names."""
        self._refuse_those_of(
            {place: _LEFT_OUT for place in range(self._customers_before) if not self.ids[place]}
        )
        if self._identity.new_customers:
            return
        several: dict[int, str] = {}
        buyers = self._purchases.buyers
        for account_id, places in self._by_account().items():
            wanted = [place for place in places if self.ids[place] is None]
            if not wanted:
                continue
            found = self._there.customers(account_id, [buyers[place].name for place in wanted])
            for place in wanted:
                ids = found.get(known.normal(buyers[place].name), [])
                if len(ids) == 1:
                    self.ids[place] = ids[0]
                elif ids:
                    several[place] = (
                        f"{self._reading.customer}: Expected one customer of account {account_id} with this "
                        f"name, there are {known.listed(ids)}, got {buyers[place].name!r}"
                    )
            self.warnings += _differing(account_id, [buyers[place].name for place in places], found)
        self._refuse_those_of(several)

    def compare_purchases(self) -> None:
        """Find the file's purchases. Call it after `compare_customers`."""
        if self._reading.id is not None:
            self._compare_by_id()
        elif self._identity.overlapping:
            self.known |= self._alike()
        elif not self._customers_before and (alike := self._alike()):
            self.warnings.append(
                f"{len(alike):,} rows have the customer, date and amount of what is there already: was "
                "it imported before? --overlapping leaves such rows out, --id-column knows rows by their "
                "own reference, and --undo takes this file's back"
            )
        for line in {*self.bad} & self._purchases.rows.keys():  # a mended part would be taken for the whole
            self.bad |= dict.fromkeys(self._purchases.rows[line], self.bad[line])
        self.bad = dict(sorted(self.bad.items()))

    def is_new(self, place: int) -> bool:
        """Whether a purchase must be recorded."""
        is_there = place in self.known or place in self.updates
        return not is_there and self._purchases.lines[place] not in self.bad

    def new_buyers(self) -> set[int]:
        """The customers to create: new ones with purchases that will be recorded."""
        return {
            purchase.buyer
            for place, purchase in enumerate(self._purchases)
            if self.ids[purchase.buyer] is None and self.is_new(place)
        }

    def there(self, kind: Kind, places: Iterable[int]) -> list[int]:
        """The ids of those customers or purchases that are there."""
        if kind == "customers":
            return [id for place in places if (id := self.ids[place]) is not None]
        return [self.known[place] for place in places if self.known.get(place)]

    def _find_accounts(self, account_of: Callable[[str], Id]) -> None:
        """Find the accounts. An account named in two ways is refused: its customers would be made twice."""
        found: dict[str, Id | str] = {}
        told: dict[Id, str] = {}
        for text in dict.fromkeys(buyer.account for buyer in self._purchases.buyers):
            try:
                id = account_of(text)
                first = told.setdefault(id, text)
                found[text] = id
                if first != text:
                    raise ValueError(f"Expected one way to tell the account {id}, {first!r} is another")
            except ValueError as error:
                found[text] = f"{self._reading.account}: {error}, got {text!r}"
        every = [found[buyer.account] for buyer in self._purchases.buyers]
        self.accounts = [each if isinstance(each, Id) else None for each in every]
        self._refuse_those_of({place: why for place, why in enumerate(every) if not isinstance(why, Id)})
        self._refuse_parts()

    def _refuse_parts(self) -> None:
        """Refuse invoices of which other rows may have been refused with their account."""
        if self._reading.lines is None or None not in self.accounts:
            return
        refused = {each.reference for each in self._purchases if self.accounts[each.buyer] is None}
        for each in self._purchases:
            if each.reference in refused:
                why = f"{self._reading.id}: Another row of {each.reference!r} is bad"
                self.bad.setdefault(each.line, why)

    def _by_account(self) -> dict[Id, list[int]]:
        found: defaultdict[Id, list[int]] = defaultdict(list)
        for place, account in enumerate(self.accounts):
            if account is not None:
                found[account].append(place)
        return found

    def _refuse_those_of(self, reasons: dict[int, str]) -> None:
        """Refuse all purchases of these customers of the file."""
        for purchase in self._purchases if reasons else ():
            if purchase.buyer in reasons:
                self.bad.setdefault(purchase.line, reasons[purchase.buyer])

    def _compare_by_id(self) -> None:
        wanted = {*(self._purchases.references or ())}
        rows: dict[tuple[Id, bool, str], KnownRow] = {}
        for account_id in self._by_account():
            for row in self._there.referenced(account_id, wanted):
                rows[account_id, row.is_credit, row.reference] = row
        for place, purchase in enumerate(self._purchases):
            account = self.accounts[purchase.buyer]
            if account is None or purchase.line in self.bad:
                continue
            there = rows.get((account, purchase.cents < 0, purchase.reference or ""))
            if there is None:
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
            f"{self._reading.id}: Expected what is there: {why}, got {purchase.reference!r}"
        )

    def _alike(self) -> dict[int, int]:
        """The purchases that are there, by customer, date and amount; each recorded row counts once."""
        contents = {
            place: (id, each.date, each.cents)
            for place, each in enumerate(self._purchases)
            if (id := self.ids[each.buyer]) is not None and each.line not in self.bad
        }
        if not contents:
            return {}
        wanted, there = {*contents.values()}, defaultdict[Content, list[int]](list)
        for account_id in self._by_account():
            for row in self._there.like(account_id, wanted):
                there[row.customer_id, row.date, row.cents].append(row.id)
        return {place: there[content].pop(0) for place, content in contents.items() if there.get(content)}


def _differing(account_id: Id, names: Collection[str], found: Collection[str]) -> Iterator[str]:
    """Tell of names that differ only in case or blanks."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for name in (*names, *found):
        alike[plain(name)].add(name)
    groups = [sorted(each) for each in alike.values() if len(each) > 1]
    for group in groups[:_SHOWN]:
        shown = ", ".join(map(repr, group))
        yield f"names of account {account_id} that differ in case or blanks alone: {shown}"
    if len(groups) > _SHOWN:
        yield f"and {len(groups) - _SHOWN:,} names more that do"
