"""What calls take in paths, queries and headers, as the OpenAPI documents describe it."""

from datetime import date
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from tally.events import EVENT_RANGE, Id
from tally.http.after import LONGEST_WAIT_SECONDS
from tally.http.lists import Position
from tally.http.periods import PERIOD
from tally.http.service import EVENT_ID, LISTED, MOST_LISTED, NODE, VISIBLE_ASCII
from tally.http.values import Reference
from tally.store.nodes import HIGHEST


class Parameter(Struct, frozen=True):
    """Something that a call takes, or a header that it answers with."""

    name: str
    kind: Any
    says: str
    example: Any
    default: Any = None


def _order(*keys: str) -> Parameter:
    """What a list can be sorted by."""
    choices = tuple(sign + key for key in keys for sign in ("", "-"))
    says = "What to sort by; `-` before it sorts in descending order. Equal keys are sorted by id."
    return Parameter("order", Literal[choices], says, "-id", default="id")


_SOME = Annotated[str, Meta(min_length=1)]
_ANY_PERIOD = Annotated[str, Meta(pattern=PERIOD)]
_EVENTS = Annotated[str, Meta(pattern=EVENT_RANGE)]

# In paths

ID = Parameter("id", Id, "Anything that can't be an id answers 404.", "1")
CUSTOMER = Parameter("customer", Id, ID.says, "1")
ANY_ID = Parameter("id", _SOME, "Anything that is no account's id is owned by nobody.", "1")
USER = Parameter("user", _SOME, "A name as it was given in `owned_by`; it may contain slashes.", "user1")

# In queries: which part of a list

LIMIT = Parameter(
    "limit", Annotated[int, Meta(ge=1, le=MOST_LISTED)], "How many to list at most.", 10, default=LISTED
)
NO_LIMIT = Parameter("limit", LIMIT.kind, "How many to list at most; all of them if it is missing.", 10)
AFTER = Parameter("after", Id, "List only ids above this one.", "0")
AFTER_NEXT = Parameter(
    "after", Position, "`next` of the previous page, with the same filters and order.", "1"
)
PAGE = (LIMIT, AFTER_NEXT)
OFFSET = Parameter("offset", Id, "How many to skip.", "0")
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
    Annotated[str, Meta(max_length=200)],
    "Only customers whose names have words that begin with these, in any order. Case, accents and"
    " punctuation don't matter.",
    "adams jo",
)
NAME_ORDER = _order("id", "name")
REVENUE_ORDER = _order("id", "name", "revenue")


def dated(day: str) -> tuple[Parameter, ...]:
    """What a list may be asked for whose rows have a date, in the field `day`."""
    return (
        Parameter("customer_id", Id, "Only this customer's.", "1"),
        Parameter("account_id", Id, "Only those of this account's customers.", "1"),
        Parameter("reference", Reference, "Only those with this reference.", "R-1"),
        Parameter("from", date, "Only those with this date or a later one.", "2019-01-01"),
        Parameter("to", date, "Only those with this date or an earlier one.", "2019-12-31"),
        _order("id", day),
        *PAGE,
    )


PERIODS_TO = Parameter("to", _ANY_PERIOD, "The last period, in the same forms.", "1998-06")
PERIODS = (
    Parameter("by", Literal["month", "quarter", "year"], "How long a period is.", "month", default="month"),
    Parameter("from", _ANY_PERIOD, "The first period: `1997-03`, `1997-Q1` or `1997`.", "1997-03"),
    PERIODS_TO,
)

# In queries: what is deleted

CASCADE = Parameter("cascade", bool, "`true`: delete its customers and their invoices too.", True)
NO_CASCADE = Parameter("cascade", bool, "`false`: only if the customer has no invoices or credits.", True)

# In headers

TRACE = Parameter(
    "traceparent",
    str,
    "W3C trace context, passed on with the event. An invalid one is ignored.",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
ONCE = (
    Parameter(
        "Idempotency-Key",
        Annotated[str, Meta(pattern=VISIBLE_ASCII)],
        "A request that is repeated within 24 hours with the same key, path and body gets the first answer"
        " and changes nothing. The same key with another body is refused: 422.",
        "5a1c0c1e-9a5f-4b55-8d6e-3d1f0e1c7f10",
    ),
    TRACE,
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

SEARCH = Parameter("search", str, "What names begin with, or an id.", "ada")
RANK = Parameter("rank", str, "Sort by what they spent, or by their last purchase.", "-revenue")
IDS = Parameter("ids", str, "Ids, separated by commas.", "1,2")
SORT = Parameter("sort", str, "What to sort by.", "revenue")
ORDER = Parameter("order", Literal["asc", "desc"], "In which direction to sort.", "desc")
IMPORTED = (
    OF_ACCOUNT,
    Parameter("customer", str, "The column of the customer's name.", "Client"),
    Parameter("date", str, "The column of the date.", "Invoice Date"),
    Parameter("amount", str, "The column of the amount.", "Total"),
    Parameter("id", str, "The column of the row's reference, which identifies it.", "Invoice Number"),
    Parameter("date_format", str, "The date's format, as strptime takes it; ISO if missing.", "%d.%m.%Y"),
    Parameter("decimal", str, "The decimal mark.", ","),
    Parameter("negative", str, "What a negative amount becomes.", "credit"),
    Parameter("lines", str, "How rows with the same reference are put together.", "sum"),
    Parameter("encoding", str, "The text's encoding.", "cp1252"),
    Parameter("delimiter", str, "What separates columns.", ";"),
    Parameter("skip_bad", bool, "Leave bad rows out.", "true", default=False),
    Parameter("dry_run", bool, "Record nothing.", "true", default=False),
)
