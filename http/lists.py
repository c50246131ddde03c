"""The part of a list that a request asks for: filters, an order, and the end of the previous page."""

import re
from typing import Any, TypeVar

import falcon

from tally.events import MAX_ID
from tally.http import params
from tally.http.params import Position
from tally.store.accounts import CustomerOrder, CustomerRevenue, key_of
from tally.store.customer_list import CustomerQuery
from tally.store.listing import ListQuery

T = TypeVar("T")


class _Listed:
    """A page of a list: `_limit` rows, sorted by the field `_key`, or by id if that is ""."""

    _key: str

    def __init__(self, req: falcon.Request) -> None:
        self._limit: int = params.LIMIT.of(req)

    def cut(self, rows: list[T]) -> tuple[list[T], str | None]:
        """The page's rows, given one row more, and `after` for the next page if there is one."""
        found = rows[: self._limit]
        return found, self._position(found[-1]) if len(rows) > self._limit else None

    def _position(self, row: Any) -> str:
        return Position.of(self._key and getattr(row, self._key), row.id)


class ListRequest(_Listed):
    """A page of a list whose rows have a date, in the field `day`."""

    def __init__(self, req: falcon.Request, day: str) -> None:
        super().__init__(req)
        self.wanted = ListQuery(
            limit=self._limit + 1,
            order=params.DATE_ORDER[day].of(req).replace(day, "day"),
            after=params.AFTER_NEXT.of(req),
            customer_id=params.OF_CUSTOMER.of(req),
            account_id=params.OF_ACCOUNTS_CUSTOMERS.of(req),
            reference=params.REFERENCE.of(req),
            first=params.FIRST.of(req),
            last=params.LAST.of(req),
        )
        self._key = day if self.wanted.order.endswith("day") else ""


class CustomerListRequest(_Listed):
    """A page of customers."""

    def __init__(self, req: falcon.Request) -> None:
        super().__init__(req)
        self.wanted = CustomerQuery(
            limit=self._limit + 1,
            order=params.NAME_ORDER.of(req),
            after=params.AFTER_NEXT.of(req),
            account_id=params.OF_ACCOUNT.of(req),
            search=params.WORDS.of(req),
        )
        self._key = "name" if self.wanted.order.endswith("name") else ""


class RevenueListRequest(_Listed):
    """A page of an account's customers."""

    def __init__(self, req: falcon.Request) -> None:
        super().__init__(req)
        self.order: CustomerOrder = params.REVENUE_ORDER.of(req)
        self.limit = self._limit + 1
        self.after = self._place(params.AFTER_NEXT.of(req))

    def _position(self, row: CustomerRevenue) -> str:
        key = "" if self.order.endswith("id") else str(key_of(row, self.order))
        return Position.of(key, row.customer_id)

    def _place(self, told: tuple[str, int] | None) -> tuple[str | int, int] | None:
        if told is None or self.order.endswith("name"):
            return told
        key, id = told
        if self.order.endswith("id"):
            return id, id
        cents = int(key) if re.fullmatch("-?[0-9]{1,19}", key) else 0
        return max(-MAX_ID, min(cents, MAX_ID)), id  # within the range of SQLite
