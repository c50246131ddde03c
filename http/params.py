"""The parameters of calls, in paths, queries and headers: described for OpenAPI, and parsed."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Annotated, Any, Literal, get_args, get_origin

import falcon
from msgspec import Meta, Struct, ValidationError, convert, structs

from tally.events import EVENT_RANGE, Id
from tally.http.after import LONGEST_WAIT_SECONDS
from tally.http.periods import PERIOD, By, months_of
from tally.http.service import EVENT_ID, NODE, VISIBLE_ASCII
from tally.http.values import Reference
from tally.store import customer_list
from tally.store.account_totals import Sort
from tally.store.customer_search import Rank
from tally.store.nodes import HIGHEST

MOST_LISTED = 1000
_MOST_WORDS = 20
_MOST_SOUGHT = 200  # characters: no name is longer
_MOST_NAMED = 1000  # ids at once: as many as a page of a list may have
_POSITION = re.compile("(?:((?:[0-9a-f]{2})+)-)?([0-9]+)")


class Parameter(Struct, frozen=True):
    """Something that a call takes, or a header that it answers with.

    A query's is read by `parse`, or else as `kind` tells.
    """

    name: str
    kind: Any
    says: str
    example: Any
    default: Any = None
    parse: Callable[[str], Any] | None = None

    def read(self, raw: str) -> Any:
        """The value that a query gives. Raises ValueError."""
        if self.parse:
            return self.parse(raw)
        if self.kind is bool:
            return _choice(raw, ("true", "false")) == "true"
        if self.kind is date:
            return _date(raw)
        if get_origin(self.kind) is Literal:
            return _choice(raw, get_args(self.kind))
        return getattr(self.kind, "parse", str)(raw)

    def of(self, req: falcon.Request) -> Any:
        """The value that a request's query has, or else the default. Its call must declare this parameter."""
        values: dict[str, Any] = req.context.get("asked") or {}
        return values.get(self.name, self.default)


Queries = Mapping[tuple[str, str], tuple[Parameter, ...]]
"""The parameters of calls' queries, by method and path."""


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
        if found := _POSITION.fullmatch(raw):
            with suppress(ValueError):
                return bytes.fromhex(found[1] or "").decode(errors="replace"), Id.parse(found[2])
        raise ValueError("Expected what `next` was in the page before")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The form as JSON Schema."""
        return {
            "type": "string",
            "pattern": f"^(([0-9a-f]{{2}})+-)?{Id.json_schema()['pattern'].strip('^$')}$",
            "description": "What `next` was in the page before.",
        }


def _choice(raw: str, choices: Sequence[str]) -> str:
    if raw not in choices:
        raise ValueError(f"Expected {', '.join(choices[:-1])} or {choices[-1]}")
    return raw


def _date(raw: str) -> date:
    try:
        return convert(raw, date)  # date.fromisoformat also takes 2019-W01-1 and 20190106
    except ValidationError:
        raise ValueError("Expected a date, YYYY-MM-DD") from None


def _limit(raw: str) -> int:
    if raw.isascii() and raw.isdigit() and len(raw) <= 4 and 1 <= int(raw) <= MOST_LISTED:
        return int(raw)
    raise ValueError(f"Expected a number from 1 to {MOST_LISTED}")


def _words(raw: str) -> str | None:
    """The text to search for, None if it is blank."""
    if len(raw) > _MOST_SOUGHT:
        raise ValueError(f"Expected at most {_MOST_SOUGHT} characters")
    if len(customer_list.words_of(raw)) > _MOST_WORDS:
        raise ValueError(f"Expected at most {_MOST_WORDS} words")
    return raw.strip() or None


def _ids(raw: str) -> list[Id]:
    parts = raw.split(",")
    if len(parts) > _MOST_NAMED:
        raise ValueError(f"Expected at most {_MOST_NAMED} ids")
    return [Id.parse(part) for part in parts]


def _order(*keys: str) -> Parameter:
    """What a list can be sorted by."""
    choices = tuple(sign + key for key in keys for sign in ("", "-"))
    says = "What to sort by; `-` before it sorts in descending order. Equal keys are sorted by id."
    return Parameter("order", Literal[choices], says, "-id", default="id")


def _most(default: int | None, says: str = "How many to list at most.") -> Parameter:
    kind = Annotated[int, Meta(ge=1, le=MOST_LISTED)]
    return Parameter("limit", kind, says, 10, default, _limit)


_SOME = Annotated[str, Meta(min_length=1)]
_PERIOD = Annotated[str, Meta(pattern=PERIOD)]
_EVENTS = Annotated[str, Meta(pattern=EVENT_RANGE)]

# In paths

ID = Parameter("id", Id, "Anything that can't be an id answers 404.", "1")
CUSTOMER = Parameter("customer", Id, ID.says, "1")
ANY_ID = Parameter("id", _SOME, "Anything that is no account's id is owned by nobody.", "1")
USER = Parameter("user", _SOME, "A name as it was given in `owned_by`; it may contain slashes.", "user1")

# In queries: which part of a list

LIMIT = _most(100)
FEW = _most(8)
NO_LIMIT = _most(None, "How many to list at most; all of them if it is missing.")
AFTER = Parameter("after", Id, "List only ids above this one.", "0")
AFTER_NEXT = Parameter(
    "after", Position, "`next` of the previous page, with the same filters and order.", "1"
)
PAGE = (LIMIT, AFTER_NEXT)
OFFSET = Parameter("offset", Id, "How many to skip.", "0", default=0)
PART = (LIMIT, OFFSET)
FORMAT = Parameter(
    "format",
    Literal["csv", "json"],
    "`csv` is the same as `Accept: text/csv`, for a link: the whole list, without `limit` and `after`.",
    "json",
)

# In queries: filters and order

OF_ACCOUNT = Parameter("account_id", Id, "Only this account's customers.", "1")
WORDS = Parameter(
    "search",
    Annotated[str, Meta(max_length=_MOST_SOUGHT)],
    "Only customers whose names have words that begin with these, in any order. Case, accents and"
    " punctuation don't matter.",
    "adams jo",
    parse=_words,
)
NAME_ORDER = _order("id", "name")
REVENUE_ORDER = _order("id", "name", "revenue")
ANY_REVENUE_ORDER = structs.replace(REVENUE_ORDER, default=None)  # the service chooses


# Of lists whose rows have a date; what they can be sorted by goes with the field that has it.
OF_CUSTOMER = Parameter("customer_id", Id, "Only this customer's.", "1")
OF_ACCOUNTS_CUSTOMERS = Parameter("account_id", Id, "Only those of this account's customers.", "1")
REFERENCE = Parameter("reference", Reference, "Only those with this reference.", "R-1")
FIRST = Parameter("from", date, "Only those with this date or a later one.", "2019-01-01")
LAST = Parameter("to", date, "Only those with this date or an earlier one.", "2019-12-31")
DATE_ORDER = {day: _order("id", day) for day in ("purchase_date", "credit_date")}


def dated(day: str) -> tuple[Parameter, ...]:
    """The parameters of a list whose rows have a date, in the field `day`."""
    return OF_CUSTOMER, OF_ACCOUNTS_CUSTOMERS, REFERENCE, FIRST, LAST, DATE_ORDER[day], *PAGE


LAST_MONTH = Parameter(
    "to", _PERIOD, "The last period, in the same forms.", "1998-06", parse=lambda raw: months_of(raw)[1]
)
PERIODS = (
    Parameter("by", By, "How long a period is.", "month", default="month"),
    Parameter(
        "from",
        _PERIOD,
        "The first period: `1997-03`, `1997-Q1` or `1997`.",
        "1997-03",
        parse=lambda raw: months_of(raw)[0],
    ),
    LAST_MONTH,
)

# In queries: what is deleted

CASCADE = Parameter(
    "cascade", bool, "`true`: delete its customers and their invoices too.", True, default=False
)
NO_CASCADE = Parameter(
    "cascade", bool, "`false`: only if the customer has no invoices or credits.", True, default=True
)

# In headers

TRACE = Parameter(
    "traceparent",
    str,
    "W3C trace context, passed on with the event. An invalid one is ignored.",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
ONCE = Parameter(
    "Idempotency-Key",
    Annotated[str, Meta(pattern=VISIBLE_ASCII)],
    "A request that is repeated within 24 hours with the same key, path and body gets the first answer"
    " and changes nothing. The same key with another body is refused: 422.",
    "5a1c0c1e-9a5f-4b55-8d6e-3d1f0e1c7f10",
)
IF_MATCH = Parameter(
    "If-Match",
    str,
    "The ETag that the row must have. If it has another, it was changed in the meantime: 412.",
    "*",
)
READS_OWN_WRITES = (
    Parameter(
        "Tally-After",
        _EVENTS,
        "`Tally-Event-Id` of a change to either service: the answer waits until that event and all before it"
        " are applied here. 503 if that takes too long, or will never happen.",
        "customers@4f2a9c1e:42",
    ),
    Parameter(
        "Prefer",
        str,
        f"`wait=N`: for how many seconds `Tally-After` waits, at most {LONGEST_WAIT_SECONDS}; the default"
        " is 1.",
        "wait=5",
    ),
)

# In headers of answers

ETAG = Parameter("ETag", str, "The row's `revision`, in quotes.", '"1"')
TOLD = Parameter(
    EVENT_ID, _EVENTS, "The events that tell of the change, for `Tally-After`.", "customers@4f2a9c1e:42"
)
OF_NODE = Parameter(
    NODE,
    Annotated[int, Meta(ge=0, le=HIGHEST)],
    "The node whose list this is; what other nodes recorded, they list themselves.",
    0,
)
NEXT = Parameter(
    "Link",
    str,
    'The next page, `<…>; rel="next"`, if a `limit` was given and there is more.',
    '</accounts?limit=10&after=10>; rel="next"',
)

# In queries of the pages' own calls

SEARCH = Parameter("search", str, "What names begin with, or an id.", "ada", parse=_words)
RANK = Parameter("rank", Rank, "Sort by what they spent, or by their last purchase.", "-revenue")
IDS = Parameter("ids", str, "Ids, separated by commas.", "1,2", parse=_ids)
SORT = Parameter("sort", Sort, "What to sort by.", "revenue", default="id")
ORDER = Parameter("order", Literal["asc", "desc"], "In which direction to sort.", "desc", default="asc")
_Encoding = Literal["utf-8", "cp1252", "iso-8859-15", "mac-roman", "utf-16", "utf-16-le", "utf-16-be"]
DATE_FORMATS = (
    *(f"%d{mark}%m{mark}{year}" for year in ("%Y", "%y") for mark in ".-/"),
    *(f"%m{mark}%d{mark}{year}" for year in ("%Y", "%y") for mark in "-/"),
    *("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
    *("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"),
)
IMPORTED = (
    OF_ACCOUNT,
    Parameter("customer", str, "The column of the customer's name.", "Client", default=""),
    Parameter("date", str, "The column of the date.", "Invoice Date", default=""),
    Parameter("amount", str, "The column of the amount.", "Total", default=""),
    Parameter("id", str, "The column of the row's reference, which identifies it.", "Invoice Number"),
    Parameter(
        "date_format",
        Literal[DATE_FORMATS],
        "The date's format, as strptime takes it; ISO if missing.",
        "%d.%m.%Y",
    ),
    Parameter("decimal", Literal[".", ","], "The decimal mark.", ",", default="."),
    Parameter(
        "negative", Literal["refuse", "credit"], "What a negative amount becomes.", "credit", default="refuse"
    ),
    Parameter("lines", Literal["sum", "first"], "How rows with the same reference are put together.", "sum"),
    Parameter("encoding", _Encoding, "The text's encoding.", "cp1252"),
    Parameter("delimiter", Literal[",", ";", "\t", "|"], "What separates columns.", ";"),
    Parameter("skip_bad", bool, "Leave bad rows out.", "true", default=False),
    Parameter("dry_run", bool, "Record nothing.", "true", default=False),
)
