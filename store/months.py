"""The revenue of each month: for all accounts, for one, or for a customer."""

from collections.abc import Sequence
from typing import NamedTuple

from tally.store.account_totals import AccountTotals
from tally.store.database import Database
from tally.store.errors import NotFound
from tally.store.revenue import CENTS, NO_MONTH, halves, whole


class Month(NamedTuple):
    """Cents, and the number of invoices and credits behind them; `month` is a number such as 199703.

    It is None for an unknown month: for invoices that were counted by a release without months, or deleted by
    an event without their date.
    """

    month: int | None
    cents: int
    invoices: int
    credits: int


class Months:
    """The months in one accounts.db, ascending, an unknown month last. Their cents sum up to the total.

    With `owner`, only of that user's accounts.
    """

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self._database = database
        self._accounts = AccountTotals(database, owner)
        self._owner = owner

    def of_all(self) -> list[Month]:
        """Of all accounts together. Takes time in proportion to them."""
        owned = "" if self._owner is None else "AND owned_by = :owner"
        months = self._rows(
            f"({_OF_ACCOUNTS}) JOIN account ON account.id = account_id"
            f" WHERE NOT deleted AND created_date IS NOT NULL {owned}"
        )
        return _with_the_rest(months, self._accounts.sums().total_revenue_cents)

    def of_account(self, id: int) -> list[Month]:
        """Of one account. Raises NotFound."""
        total = self._accounts.one(id).total_revenue_cents
        return _with_the_rest(self._rows(f"({_OF_ACCOUNTS}) WHERE account_id = :account", account=id), total)

    def of_customer(self, account_id: int, id: int) -> list[Month]:
        """Of one customer of an account. Raises NotFound."""
        self._accounts.one(account_id)
        sql = f"SELECT {CENTS} FROM customer WHERE id = ? AND account_id = ? AND NOT deleted"
        total = self._database.value(sql, (id, account_id))
        if total is None:
            raise NotFound("customer", id)
        months = self._rows(
            "(SELECT * FROM customer_month WHERE customer_id = :customer"
            " UNION ALL SELECT * FROM recent_month WHERE customer_id = :customer)",
            customer=id,
        )
        return _with_the_rest(months, total)

    def of_each(self, ids: Sequence[int], last: int, number: int) -> dict[int, list[int]]:
        """Cents of each account in the `number` months up to `last`, which counts months from the year 0.

        Reads those rows by their key, and the recent rows, 10,000 at most. The accounts' owners are not
        checked.
        """
        first = last - number + 1
        cents = {id: [0] * number for id in ids}
        rows = self._database.rows(
            f"SELECT account_id, month, {halves('cents')} FROM ({_OF_ACCOUNTS})"
            f" WHERE account_id IN ({', '.join(map(str, ids))}) AND month BETWEEN ? AND ?"
            " GROUP BY account_id, month",
            (max(_numbered(first), NO_MONTH + 1), _numbered(last)),
        )
        for account, month, high, low in rows:
            year, place = divmod(month, 100)
            cents[account][year * 12 + place - 1 - first] = whole(high, low)
        return cents

    def _rows(self, found_in: str, **ids: int) -> list[Month]:
        sums = f"{halves('cents')}, coalesce(sum(invoices), 0), coalesce(sum(credits), 0)"
        sql = f"SELECT month, {sums} FROM {found_in} GROUP BY month ORDER BY 1"
        found = self._database.rows(sql, {**ids, "owner": self._owner})
        return [Month(month, whole(high, low), *counts) for month, high, low, *counts in found]


def _numbered(month: int) -> int:
    """A month counted from the year 0, as a number such as 199703."""
    return month // 12 * 100 + month % 12 + 1


def _with_the_rest(months: list[Month], total: int) -> list[Month]:
    """The known months without empty ones at both ends, and the rest of the total as an unknown month."""
    known = [each for each in months if each.month != NO_MONTH]
    used = [place for place, each in enumerate(known) if any(each[1:])]
    known = known[used[0] : used[-1] + 1] if used else []
    (rest,) = [each for each in months if each.month == NO_MONTH] or [Month(None, 0, 0, 0)]
    rest = Month(None, total - sum(each.cents for each in known), rest.invoices, rest.credits)
    return [*known, rest] if any(rest[1:]) else known


_OF_ACCOUNTS = "SELECT * FROM account_month UNION ALL SELECT * FROM recent_account_month"
