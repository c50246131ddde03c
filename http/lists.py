"""Which part of a list a request asks for: filters, an order, and where the previous page ended."""

import re
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar, get_args

import falcon

from tally.events import MAX_ID, Id
from tally.http.service import LISTED, asking, limit, one_of
from tally.http.values import Reference
from tally.store import customer_list
from tally.store.accounts import CustomerOrder, CustomerRevenue, key_of
from tally.store.customer_list import CustomerQuery
from tally.store.listing import ListQuery, Order

T = TypeVar("T")

MOST_WORDS = 20
_POSITION = re.compile("(?:((?:[0-9a-f]{2})+)-)?([0-9]+)")
MOST_SOUGHT = 200  # characters: no name is longer


class _Listed:
    """A page of a list: `_limit` rows of it, sorted by the field `_key`, or by their ids where that is ""."""

    _limit: int
    _key: str

    def cut(self, rows: list[T]) -> tuple[list[T], str | None]:
        """The page's rows, out of one more than it has, and `after` for the next page if there is one."""
        return _cut(rows, self._limit, lambda row: Position.of(self._key and getattr(row, self._key), row.id))


class ListRequest(_Listed):
    """A page of a list whose rows have a date, in the field `day`.

    Raises WrongFields with every fault of the query.
    """

    def __init__(self, req: falcon.Request, day: str) -> None:
        orders: dict[str, Order] = {"id": "id", "-id": "-id", day: "day", f"-{day}": "-day"}
        with asking(req) as asked:
            self._limit = asked("limit", LISTED, limit)
            self.wanted = ListQuery(
                limit=self._limit + 1,
                order=orders[asked("order", "id", one_of(orders))],
                after=asked("after", None, Position.parse),
                customer_id=asked("customer_id", None, Id.parse),
                account_id=asked("account_id", None, Id.parse),
                reference=asked("reference", None, Reference.parse),
                first=asked("from", None, _date),
                last=asked("to", None, _date),
            )
        self._key = day if self.wanted.order.endswith("day") else ""


class CustomerListRequest(_Listed):
    """A page of customers. Raises WrongFields with every fault of the query."""

    def __init__(self, req: falcon.Request) -> None:
        with asking(req) as asked:
            self._limit = asked("limit", LISTED, limit)
            self.wanted = CustomerQuery(
                limit=self._limit + 1,
                order=asked("order", "id", one_of(get_args(customer_list.Order))),
                after=asked("after", None, Position.parse),
                account_id=asked("account_id", None, Id.parse),
                search=asked("search", None, sought),
            )
        self._key = "name" if self.wanted.order.endswith("name") else ""

    def cut_at(self, rows: list[T], offset: int) -> tuple[list[T], str | None]:
        """Like `cut`, for rows behind the first `offset`: `after` is how many to skip."""
        return _cut(rows, self._limit, lambda _: Position.of("", Id(offset + self._limit)))


class RevenueListRequest:
    """A page of an account's customers. Raises WrongFields with every fault of the query."""

    def __init__(self, req: falcon.Request) -> None:
        with asking(req) as asked:
            self.order: Any = asked("order", "id", one_of(get_args(CustomerOrder)))
            self._limit = asked("limit", LISTED, limit)
            self.limit = self._limit + 1
            self.after = self._place(asked("after", None, Position.parse))

    def cut(self, rows: list[CustomerRevenue]) -> tuple[list[CustomerRevenue], str | None]:
        """The page's rows, out of one more than it has, and `after` for the next page if there is one."""
        by_id = self.order.endswith("id")

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
    """Where a page ends: an id, and before it what the list is sorted by, unless that is the id.

    A position in another order is accepted, and means some place in this one.
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
    """The text to search for, None if it is blank. Raises ValueError for more than a name can have."""
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
