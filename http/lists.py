"""What lists are asked for: filters, an order, and where the last page ended."""

import re
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar, get_args

import falcon

from tally.events import MAX_ID, Id
from tally.http.problems import FieldError, WrongFields
from tally.http.service import LISTED, limit, one_of, query
from tally.http.values import Reference
from tally.store import customer_list
from tally.store.accounts import CustomerOrder, CustomerRevenue, key_of
from tally.store.customer_list import CustomerQuery
from tally.store.listing import ListQuery, Order
from tally.store.records import Customer

T = TypeVar("T")

MOST_WORDS = 20
_POSITION = re.compile("(?:((?:[0-9a-f]{2})+)-)?([0-9]+)")
MOST_SOUGHT = 200  # characters: no name is longer


class ListRequest:
    """A page of a list whose rows have a date, in the field `day`.

    Raises WrongFields with every fault of the query.
    """

    def __init__(self, req: falcon.Request, day: str) -> None:
        faults: list[FieldError] = []
        orders: dict[str, Order] = {"id": "id", "-id": "-id", day: "day", f"-{day}": "-day"}
        self._day = day
        self._order = orders[query(req, "order", "id", one_of(orders), faults)]
        self._limit = query(req, "limit", LISTED, limit, faults)
        self.wanted = ListQuery(
            limit=self._limit + 1,
            order=self._order,
            after=query(req, "after", None, Position.parse, faults),
            customer_id=query(req, "customer_id", None, Id.parse, faults),
            account_id=query(req, "account_id", None, Id.parse, faults),
            reference=query(req, "reference", None, Reference.parse, faults),
            first=query(req, "from", None, _date, faults),
            last=query(req, "to", None, _date, faults),
        )
        if faults:
            raise WrongFields(faults)

    def cut(self, rows: list[T]) -> tuple[list[T], str | None]:
        """The rows of this page out of what was asked for, and what `after` is to be for the next, if any."""
        by_day = self._order in ("day", "-day")
        return _cut(
            rows, self._limit, lambda row: Position.of(getattr(row, self._day) if by_day else "", row.id)
        )


class CustomerListRequest:
    """A page of customers. Raises WrongFields with every fault of the query."""

    def __init__(self, req: falcon.Request) -> None:
        faults: list[FieldError] = []
        order: Any = query(req, "order", "id", one_of(get_args(customer_list.Order)), faults)
        self._by_name = order in ("name", "-name")
        self._limit = query(req, "limit", LISTED, limit, faults)
        self.wanted = CustomerQuery(
            limit=self._limit + 1,
            order=order,
            after=query(req, "after", None, Position.parse, faults),
            account_id=query(req, "account_id", None, Id.parse, faults),
            search=query(req, "search", None, sought, faults),
        )
        if faults:
            raise WrongFields(faults)

    def cut(self, rows: list[Customer]) -> tuple[list[Customer], str | None]:
        """The rows of this page out of what was asked for, and what `after` is to be for the next, if any."""
        return _cut(rows, self._limit, lambda row: Position.of(row.name if self._by_name else "", row.id))

    def cut_at(self, rows: list[T], offset: int) -> tuple[list[T], str | None]:
        """The like for rows of which so many were passed over, as `after` then says."""
        return _cut(rows, self._limit, lambda _: Position.of("", Id(offset + self._limit)))


class RevenueListRequest:
    """A page of an account's customers. Raises WrongFields with every fault of the query."""

    def __init__(self, req: falcon.Request) -> None:
        faults: list[FieldError] = []
        self.order: Any = query(req, "order", "id", one_of(get_args(CustomerOrder)), faults)
        self._limit = query(req, "limit", LISTED, limit, faults)
        self.limit = self._limit + 1
        self.after = self._place(query(req, "after", None, Position.parse, faults))
        if faults:
            raise WrongFields(faults)

    def cut(self, rows: list[CustomerRevenue]) -> tuple[list[CustomerRevenue], str | None]:
        """The rows of this page out of what was asked for, and what `after` is to be for the next, if any."""
        by_id = self.order in ("id", "-id")

        def position(row: CustomerRevenue) -> str:
            return Position.of("" if by_id else str(key_of(row, self.order)), row.customer_id)

        return _cut(rows, self._limit, position)

    def _place(self, told: tuple[str, int] | None) -> tuple[str | int, int] | None:
        if told is None or self.order.endswith("name"):
            return told
        key, id = told
        if self.order.endswith("id"):
            return id, id
        cents = int(key) if re.fullmatch("-?[0-9]{1,19}", key) else 0
        return max(-MAX_ID, min(cents, MAX_ID)), id  # what SQLite takes


def _cut(rows: list[T], limit: int, position: Callable[[Any], str]) -> tuple[list[T], str | None]:
    """The first `limit` rows, and the position of the last of them where there are more."""
    found = rows[:limit]
    return found, position(found[-1]) if len(rows) > limit else None


class Position(str):
    """Where a page ends: an id, and before it what the list is ordered by, if that isn't the id.

    Of another order, it is some place or other; nothing is refused that has the form.
    """

    @classmethod
    def of(cls, key: str, id: Id) -> str:
        """As it is shown."""
        return f"{key.encode().hex()}-{id}" if key else str(id)

    @classmethod
    def parse(cls, raw: str) -> tuple[str, int]:
        """The key and the id. Raises ValueError."""
        try:
            found = _POSITION.fullmatch(raw)
            if found is None:
                raise ValueError
            return bytes.fromhex(found[1] or "").decode(errors="replace"), Id.parse(found[2])
        except ValueError:
            raise ValueError("Expected what `next` was in the page before") from None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The form as JSON Schema."""
        return {
            "type": "string",
            "pattern": f"^(([0-9a-f]{{2}})+-)?{Id.json_schema()['pattern'].strip('^$')}$",
            "description": "What `next` was in the page before.",
        }


def sought(raw: str) -> str | None:
    """What is searched for, None where that is nothing. Raises ValueError for more than a name can have."""
    if len(raw) > MOST_SOUGHT:
        raise ValueError(f"Expected at most {MOST_SOUGHT} characters")
    if len(customer_list.words_of(raw)) > MOST_WORDS:
        raise ValueError(f"Expected at most {MOST_WORDS} words")
    return raw.strip() or None


def _date(raw: str) -> date:
    try:
        if len(raw) == len("2019-01-06"):
            return date.fromisoformat(raw)
    except ValueError:
        pass
    raise ValueError("Expected a date, YYYY-MM-DD")
