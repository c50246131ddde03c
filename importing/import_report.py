"""The result of an import, or of a dry run, in a few lines."""

import re
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from tally.http.exports import amount
from tally.importing.comparing import Comparison
from tally.importing.purchase_file import Purchase

_SHOWN = 5


class Sum(Struct, frozen=True):
    """A number of rows, and their sum in cents."""

    count: int
    cents: str

    def __str__(self) -> str:
        return f"{self.count:,} ({amount(int(self.cents))})" if self.count else "0"


class Report:
    """The result of an import, or of a trial. Make it before the rows are recorded.

    When it `is_refused`, nothing is imported, because rows are bad. `first` and `last` are days, None without
    a good row.
    """

    def __init__(self, compared: Comparison, dry_run: bool = False, is_refused: bool = False) -> None:
        self.file, self.bad, self.warnings = compared.file, compared.bad, compared.warnings
        self._dry_run = dry_run
        self._rows, self._cents = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        used: set[int] = set()
        days = []
        for place, each in enumerate(self.file.purchases):
            if each.line in compared.bad:
                continue
            used.add(each.buyer)
            days.append(each.date)
            what = "credits" if each.cents < 0 else "invoices"
            state = "known" if place in compared.known else "updated" if place in compared.updates else "new"
            self._rows[what, state] += 1
            self._cents[what, state] += each.cents
        self.first, self.last = min(days, default=None), max(days, default=None)
        self.new_customers = len(compared.new_buyers())
        self.known_customers = len(used) - self.new_customers
        self.is_refused = is_refused

    def counted(self, what: str, state: str) -> Sum:
        """How many invoices or credits are new, known or updated."""
        return Sum(self._rows[what, state], str(self._cents[what, state]))

    def reasons(self) -> Counter[str]:
        """The number of bad rows for each reason."""
        return Counter(_kind(reason) for reason in self.bad.values())

    def sample(self, most: int) -> Iterator[tuple[Purchase, str]]:
        """The first rows as they were read, each with its customer's name."""
        purchases = self.file.purchases
        for each, _ in zip(purchases, range(most), strict=False):
            yield each, purchases.buyers[each.buyer].name

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.is_refused:
            yield "Nothing would be imported, as there are bad rows. What the others have:"
        elif all(state == "known" for _, state in self._rows):
            yield "Nothing new: all of it was there before."
        elif self._dry_run:
            yield "Nothing was recorded (--dry-run). The import would do this:"
        else:
            yield "Imported."
        file = self.file
        passed = f", {file.passed_over:,} not asked for" if file.passed_over else ""
        yield f"rows       {file.rows:,}{passed}, {len(self.bad):,} bad"
        yield f"customers  {self.new_customers:,} new, {self.known_customers:,} known"
        for what in ("invoices", "credits"):
            new, known, updated = (self.counted(what, each) for each in ("new", "known", "updated"))
            if what == "invoices" or new.count or known.count:
                changed = f", {updated} changed" if updated.count else ""
                yield f"{what:9}  {new} new, {known} known{changed}"
        if self.first:
            yield f"together   {amount(self._cents.total())}, from {self.first} to {self.last}"
        yield from self._reasons()
        if self._dry_run:
            yield from self._sample()

    def _reasons(self) -> Iterator[str]:
        kinds = self.reasons()
        for kind, count in kinds.most_common(_SHOWN):
            yield f"bad        {count:,}: {kind}"
        if len(kinds) > _SHOWN:
            yield f"bad        {sum(count for _, count in kinds.most_common()[_SHOWN:]):,} for other reasons"

    def _sample(self) -> Iterator[str]:
        for each, name in self.sample(_SHOWN):
            reference = f", {each.reference!r}" if each.reference is not None else ""
            yield f"line {each.line}: {each.date}, {amount(each.cents)}, {name!r}{reference}"


def _kind(reason: str) -> str:
    """The kind of a reason: without the row's own texts and numbers."""
    bare = re.sub(r", got .*", "", reason, flags=re.DOTALL)
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", bare)
