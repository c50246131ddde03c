"""Every call of the two services, as their OpenAPI documents show it, and what their queries may hold.

A route that is added to a service gets its entry here; a test holds the two together.
"""

from datetime import date
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from tally.events import EVENT_RANGE, Id
from tally.http.after import LONGEST_WAIT_SECONDS
from tally.http.answers import (
    AccountRevenue,
    CreditPage,
    CustomerPage,
    CustomerRevenuePage,
    Healthy,
    HistoryPage,
    InvoicePage,
    Made,
    ManyMade,
    Ownership,
    RevenuePage,
    SignedIn,
)
from tally.http.bodies import MOST_IN_BATCH
from tally.http.lists import Position
from tally.http.login import LoginBody
from tally.http.openapi import Call, Parameter
from tally.http.periods import PERIOD
from tally.http.service import EVENT_ID, LISTED, MOST_LISTED, NODE, VISIBLE_ASCII
from tally.http.status import StatusReport
from tally.http.values import (
    AccountBody,
    AccountPatch,
    CreditBody,
    CustomerBody,
    CustomerPatch,
    InvoiceBody,
    InvoicePatch,
    Reference,
)
from tally.store.accounts import Account
from tally.store.nodes import HIGHEST
from tally.store.records import Credit, Customer, Invoice
from tally.version import VERSION

# Parameters

ID = Parameter(name="id", kind=Id, says="What cannot be an id is unknown: 404.", example="1")
CUSTOMER = Parameter(name="customer", kind=Id, says="What cannot be an id is unknown: 404.", example="1")
USER = Parameter(
    name="user",
    kind=Annotated[str, Meta(min_length=1)],
    says="A name as it was given in `owned_by`; it may contain slashes.",
    example="user1",
)
LIMIT = Parameter(
    name="limit",
    kind=Annotated[int, Meta(ge=1, le=MOST_LISTED)],
    says="How many to list at most.",
    default=LISTED,
    example=10,
)
NO_LIMIT = Parameter(
    name="limit", kind=LIMIT.kind, says="How many to list at most; all when it is missing.", example=10
)
AFTER = Parameter(name="after", kind=Id, says="List what has an id above this one.", example="0")
OF_ACCOUNT = Parameter(name="account_id", kind=Id, says="Only this account's customers.", example="1")
ANY_ID = Parameter(
    name="id",
    kind=Annotated[str, Meta(min_length=1)],
    says="What is the id of no account is owned by nobody.",
    example="1",
)
OF_CUSTOMER = Parameter(name="customer_id", kind=Id, says="Only what is this customer's.", example="1")
OF_CUSTOMERS_OF = Parameter(
    name="account_id", kind=Id, says="Only what this account's customers have.", example="1"
)
REFERENCE = Parameter(name="reference", kind=Reference, says="Only what has this reference.", example="R-1")
FROM = Parameter(name="from", kind=date, says="Only what has this date or a later one.", example="2019-01-01")
TO = Parameter(name="to", kind=date, says="Only what has this date or an earlier one.", example="2019-12-31")
FORMAT = Parameter(
    name="format",
    kind=Literal["csv", "json"],
    says="`csv` is the same as `Accept: text/csv`, for a link: all of the list, without `limit` and `after`.",
    example="json",
)
AFTER_NEXT = Parameter(
    name="after",
    kind=Position,
    says="`next` of the page before, with the same filters and order.",
    example="1",
)
CASCADE = Parameter(
    name="cascade", kind=bool, says="Delete its customers and their invoices too.", example=True
)

NO_CASCADE = Parameter(
    name="cascade", kind=bool, says="`false`: only a customer that has no invoices or credits.", example=True
)

KEY = Parameter(
    name="Idempotency-Key",
    kind=Annotated[str, Meta(pattern=VISIBLE_ASCII)],
    says="Sent again within 24 hours with the same path and body, the request is answered as the first time"
    " and makes nothing; with another body it is refused with 422.",
    example="5a1c0c1e-9a5f-4b55-8d6e-3d1f0e1c7f10",
)
TRACE = Parameter(
    name="traceparent",
    kind=str,
    says="W3C trace context, handed on with the event; what is none is passed over.",
    example="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
ONCE = (KEY, TRACE)
IF_MATCH = Parameter(
    name="If-Match",
    kind=str,
    says="The ETag that the row is to have; where it has another, it was changed meanwhile: 412.",
    example="*",
)
ETAG = Parameter(name="ETag", kind=str, says="The row's `revision`, in quotes.", example='"1"')


OF_NODE = Parameter(
    name=NODE,
    kind=Annotated[int, Meta(ge=0, le=HIGHEST)],
    says="The node whose list it is: what others have recorded, they list.",
    example=0,
)
EVENTS = Annotated[str, Meta(pattern=EVENT_RANGE)]
TOLD = Parameter(
    name=EVENT_ID,
    kind=EVENTS,
    says="The events that tell of the change, for `Tally-After`.",
    example="customers@4f2a9c1e:42",
)
AWAITED = Parameter(
    name="Tally-After",
    kind=EVENTS,
    says="`Tally-Event-Id` of a change, in either service: the answer waits until that and all before it are"
    " applied here. 503 where it takes too long, or never will be.",
    example="customers@4f2a9c1e:42",
)
WAIT = Parameter(
    name="Prefer",
    kind=str,
    says=f"`wait=N`: for how many seconds `Tally-After` waits, {LONGEST_WAIT_SECONDS} at the most; 1 unless"
    " given.",
    example="wait=5",
)


def _with_events(call: Call) -> Call:
    """The call with the headers by which one reads one's own writes."""
    if call.public:
        return call
    if call.method == "GET":
        problems = (*{*call.problems, 503},)
        return structs.replace(call, headers=(*call.headers, AWAITED, WAIT), problems=problems)
    return structs.replace(call, answer_headers=(*call.answer_headers, TOLD))


def _with_format(call: Call) -> Call:
    """The call with the parameter by which a link asks for CSV, where it answers that."""
    return structs.replace(call, query=(*call.query, FORMAT)) if call.csv else call


def _some_of(kind: type[Any], *names: str) -> Any:
    """A change that has one of these fields at least."""
    return Annotated[kind, Meta(extra_json_schema={"anyOf": [{"required": [name]} for name in names]})]


WORDS = Parameter(
    name="search",
    kind=Annotated[str, Meta(max_length=200)],
    says="Only whose names have words that begin with these, in any order; case, accents and punctuation"
    " don't matter.",
    example="adams jo",
)
NAME_ORDER = Parameter(
    name="order",
    kind=Literal["id", "-id", "name", "-name"],
    says="What to list by; with `-` from the last to the first.",
    default="id",
    example="-id",
)


REVENUE_ORDER = Parameter(
    name="order",
    kind=Literal["id", "-id", "name", "-name", "revenue", "-revenue"],
    says="What to list by; with `-` from the last, or the largest, on.",
    default="id",
    example="-id",
)


def _listed(day: str) -> tuple[Parameter, ...]:
    """What a list of rows with a date may be asked for."""
    order = Parameter(
        name="order",
        kind=Literal["id", "-id", day, f"-{day}"],
        says="What to list by; with `-` from the last to the first. What has one date is listed by id.",
        default="id",
        example="-id",
    )
    return (OF_CUSTOMER, OF_CUSTOMERS_OF, REFERENCE, FROM, TO, order, LIMIT, AFTER_NEXT)


PERIODS = (
    Parameter(
        name="by",
        kind=Literal["month", "quarter", "year"],
        says="How long a period is.",
        default="month",
        example="month",
    ),
    Parameter(
        name="from",
        kind=Annotated[str, Meta(pattern=PERIOD)],
        says="The first, written as they are shown: `1997-03`, `1997-Q1`, `1997`.",
        example="1997-03",
    ),
    Parameter(
        name="to", kind=Annotated[str, Meta(pattern=PERIOD)], says="The last, as well.", example="1998-06"
    ),
)


def _location(kind: str) -> Parameter:
    return Parameter(name="Location", kind=str, says="The path of what was made.", example=f"/{kind}/1")


NEXT = Parameter(
    name="Link",
    kind=str,
    says='The next page, `<…>; rel="next"`, when a `limit` was asked for and there is more.',
    example='</accounts?limit=10&after=10>; rel="next"',
)

# What the pages' own calls take

SEARCH = Parameter(name="search", kind=str, says="What names begin with, or an id.", example="ada")
RANK = Parameter(name="rank", kind=str, says="Sort by what they spent, or when last.", example="-revenue")
IDS = Parameter(name="ids", kind=str, says="Ids with commas between them.", example="1,2")
OFFSET = Parameter(name="offset", kind=Id, says="How many to pass over.", example="0")
SORT = Parameter(name="sort", kind=str, says="What to sort by.", example="revenue")
ORDER = Parameter(name="order", kind=Literal["asc", "desc"], says="Which comes first.", example="desc")
READ_SO = tuple(
    Parameter(name=name, kind=str, says=f"How a file is read: {says}.", example=example)
    for name, says, example in (
        ("customer", "the column of the customer's name", "Client"),
        ("date", "the column of the day", "Invoice Date"),
        ("amount", "the column of the amount", "Total"),
        ("id", "the column of the row's own reference, by which it is known again", "Invoice Number"),
        ("date_format", "as strptime takes it; ISO without", "%d.%m.%Y"),
        ("decimal", "the decimal mark", ","),
        ("negative", "what becomes of a negative amount", "credit"),
        ("lines", "what rows come to that share a reference", "sum"),
        ("encoding", "how its text is written", "cp1252"),
        ("delimiter", "what is between columns", ";"),
    )
)
SKIP_BAD = Parameter(name="skip_bad", kind=bool, says="Leave bad rows out.", default=False, example="true")
DRY_RUN = Parameter(name="dry_run", kind=bool, says="Record nothing.", default=False, example="true")

# Examples

_DATE = "2019-03-23T05:24:50.326000Z"
_NEW_CUSTOMER = {"name": "John Adams", "account_id": "1"}
_NEW_INVOICE = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 10_000}
_CUSTOMER = {"id": "1", "account_id": "1", "name": "John Adams", "created_date": _DATE, "revision": 0}
_INVOICE = {
    "id": "1",
    "customer_id": "1",
    "purchase_price_cents": 10_000,
    "purchase_date": "2019-01-06",
    "created_date": _DATE,
    "revision": 0,
}
_NEW_CREDIT = {"customer_id": "1", "credit_date": "2019-02-01", "credited_cents": 2_500}
_CREDIT = {**_NEW_CREDIT, "invoice_id": "1", "id": "1", "created_date": _DATE, "reference": None}
_REVENUE = {"customer_id": "1", "name": "John Adams", "total_revenue_cents": 10_000}
_OPENED = {
    "id": "1",
    "name": "one",
    "description": "",
    "owned_by": "user1",
    "created_date": _DATE,
    "revision": 0,
}
_PERIODS = {"revenue": [{"month": "2019-01", "revenue_cents": 10_000, "invoices": 1, "credits": 0}]}
_PERIODS_CSV = "month,revenue,invoices,credits\r\n2019-01,100.00,1,0\r\n"
_ACCOUNT = {
    "account": _OPENED,
    "customers": [_REVENUE],
    "total_revenue_cents": 10_000,
}


def _happening(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"event": f"{kind}Created", "at": _DATE, "by": None, "before": None, "after": row}


_STATUS = {
    "status": "ok",
    "reasons": [],
    "notes": [],
    "service": "customers",
    "standby": False,
    "version": VERSION,
    "identity": "4f2a9c1e",
    "outbox_depth": 0,
    "redis": {"reachable": True, "pending": 0, "dead_letters": 0, "lag": {"accounts@9b1d7f02": 0}},
    "nodes": [
        {
            "number": 0,
            "here": True,
            "standby": False,
            "customers": "customers@4f2a9c1e",
            "accounts": "accounts@9c1e4f2a",
            "url_customers": "",
            "url_accounts": "",
            "lag": 0,
            "idle_seconds": 0.2,
        }
    ],
    "actors": [
        {
            "name": "customers-relay",
            "state": "running",
            "restarts": 0,
            "trouble": None,
            "uptime_seconds": 86_400.5,
        }
    ],
    "disk_free_bytes": 250_000_000_000,
    "database_log_bytes": 4_120_032,
    "sqlite_version": "3.54.0",
}

_OF_PERIODS = (
    "By the dates of invoices and credits; the sum is the total. What has no known month (counted by 0.1.0,"
    " or deleted by an event without its date) is one entry with null at the end, unless `from` or `to` is"
    " given."
)

# Calls

SHARED = (
    Call(
        id="live",
        method="GET",
        path="/health/live",
        does="Whether the process runs",
        answer=Healthy,
        answered={"status": "ok"},
        problems=(),
        public=True,
    ),
    Call(
        id="ready",
        method="GET",
        path="/health/ready",
        does="Whether the database answers",
        says="Redis need not: writes are taken without it.",
        answer=Healthy,
        answered={"status": "ok"},
        public=True,
    ),
    Call(
        id="primary",
        method="GET",
        path="/health/primary",
        does="Whether this records what is new",
        says="503 at a standby, with the primary's address in `node`: for a load balancer.",
        answer=Healthy,
        answered={"status": "ok"},
        public=True,
    ),
    Call(
        id="status",
        method="GET",
        path="/status",
        does="The service in figures, and what is wrong with it",
        answer=StatusReport,
        answered=_STATUS,
        problems=(),
    ),
    Call(
        id="openapi",
        method="GET",
        path="/openapi.json",
        does="This document",
        answer=dict[str, Any],
        answered={"openapi": "3.1.0", "info": {"title": "Tally: customers", "version": VERSION}, "paths": {}},
        problems=(),
    ),
    Call(
        id="asyncapi",
        method="GET",
        path="/asyncapi.json",
        does="The events of the stream, as an AsyncAPI document",
        answer=dict[str, Any],
        answered={"asyncapi": "3.0.0", "info": {"title": "Tally: the event stream", "version": "1.0.0"}},
        problems=(),
    ),
    Call(
        id="metrics",
        method="GET",
        path="/metrics",
        does="Figures for Prometheus",
        says="In OpenMetrics for those whose Accept asks for it.",
        media_type="text/plain",
        answer=str,
        answered="# HELP tally_outbox_depth Events that wait to be published.",
        problems=(),
    ),
)

_CUSTOMERS = (
    Call(
        id="createCustomer",
        method="POST",
        path="/customers",
        does="Create a customer",
        says="The account is not checked, unless there are users, or `require_account` is set.",
        headers=ONCE,
        sends=CustomerBody,
        sent=_NEW_CUSTOMER,
        status=201,
        answer=Made,
        answered={"id": "1"},
        answer_headers=(_location("customers"),),
        leads_to=("showCustomer", "changeCustomer", "deleteCustomer"),
    ),
    Call(
        id="listCustomers",
        method="GET",
        path="/customers",
        does="List customers",
        answer_headers=(OF_NODE,),
        query=(OF_ACCOUNT, WORDS, NAME_ORDER, LIMIT, AFTER_NEXT),
        answer=CustomerPage,
        csv="customer,id,account_id,created_date\r\nJohn Adams,1,1,2019-03-23T05:24:50.326000Z\r\n",
        answered={"customers": [_CUSTOMER], "next": None},
        problems=(429, 503),
    ),
    Call(
        id="createCustomers",
        method="POST",
        path="/customers/batch",
        does="Create many customers, all or none",
        says="Errors name the index, as `[3].name`.",
        headers=ONCE,
        sends=Annotated[list[CustomerBody], Meta(max_length=MOST_IN_BATCH)],
        sent=[_NEW_CUSTOMER, _NEW_CUSTOMER],
        status=201,
        answer=ManyMade,
        answered={"ids": ["1", "2"]},
    ),
    Call(
        id="showCustomer",
        method="GET",
        path="/customers/{id}",
        does="Show a customer",
        of_a_node=True,
        parameters=(ID,),
        answer=Customer,
        answered=_CUSTOMER,
        answer_headers=(ETAG,),
    ),
    Call(
        id="changeCustomer",
        method="PATCH",
        path="/customers/{id}",
        does="Give a customer another name, or another account",
        of_a_node=True,
        says="Its revenue goes with it. Where nothing is different, nothing happens. 409 where a `reference`"
        " of its invoices or credits is taken in the account that it is to move to.",
        parameters=(ID,),
        headers=(IF_MATCH, *ONCE),
        sends=_some_of(CustomerPatch, "name", "account_id"),
        sent={"name": "John Quincy Adams"},
        answer=Customer,
        answered={**_CUSTOMER, "name": "John Quincy Adams", "revision": 1},
        answer_headers=(ETAG,),
        problems=(409, 412, 503),
    ),
    Call(
        id="listHistoryOfCustomer",
        method="GET",
        path="/customers/{id}/history",
        does="Tell what became of a customer",
        of_a_node=True,
        says="What was recorded, changed and deleted, when and by whom, oldest first; also if it is gone.",
        parameters=(ID,),
        query=(LIMIT, AFTER),
        answer=HistoryPage,
        answered={"history": [_happening("Customer", _CUSTOMER)], "next": None},
    ),
    Call(
        id="deleteCustomer",
        method="DELETE",
        path="/customers/{id}",
        does="Delete a customer, its invoices and credits",
        of_a_node=True,
        parameters=(ID,),
        query=(NO_CASCADE,),
        headers=(IF_MATCH, TRACE),
        status=204,
        problems=(409, 412, 503),
    ),
    Call(
        id="createInvoice",
        method="POST",
        path="/invoices",
        does="Create an invoice",
        of_a_node=True,
        says="422 for a customer that does not exist, 409 where its account has the `reference`.",
        headers=ONCE,
        sends=InvoiceBody,
        sent=_NEW_INVOICE,
        status=201,
        answer=Made,
        answered={"id": "1"},
        answer_headers=(_location("invoices"),),
        problems=(409, 503),
        leads_to=("showInvoice", "changeInvoice", "deleteInvoice"),
    ),
    Call(
        id="listInvoices",
        method="GET",
        path="/invoices",
        does="List invoices",
        answer_headers=(OF_NODE,),
        query=_listed("purchase_date"),
        answer=InvoicePage,
        csv="customer,purchase_date,amount,reference,id,customer_id,account_id\r\n"
        '"John Adams",2019-01-06,100.00,,1,1,1\r\n',
        answered={"invoices": [_INVOICE], "next": None},
        problems=(429, 503),
    ),
    Call(
        id="createInvoices",
        method="POST",
        path="/invoices/batch",
        does="Create many invoices, all or none",
        of_a_node=True,
        says="422 for customers that do not exist. Errors name the index, as `[3].purchase_date`.",
        headers=ONCE,
        sends=Annotated[list[InvoiceBody], Meta(max_length=MOST_IN_BATCH)],
        sent=[_NEW_INVOICE, _NEW_INVOICE],
        status=201,
        answer=ManyMade,
        answered={"ids": ["1", "2"]},
        problems=(409, 503),
    ),
    Call(
        id="showInvoice",
        method="GET",
        path="/invoices/{id}",
        does="Show an invoice",
        of_a_node=True,
        parameters=(ID,),
        answer=Invoice,
        answered=_INVOICE,
        answer_headers=(ETAG,),
    ),
    Call(
        id="changeInvoice",
        method="PATCH",
        path="/invoices/{id}",
        does="Correct an invoice's amount or date",
        of_a_node=True,
        says="Where nothing is different, nothing happens. 422 for less than its credits.",
        parameters=(ID,),
        headers=(IF_MATCH, *ONCE),
        sends=_some_of(InvoicePatch, "purchase_date", "purchase_price_cents"),
        sent={"purchase_price_cents": 9_900},
        answer=Invoice,
        answered={**_INVOICE, "purchase_price_cents": 9_900, "revision": 1},
        answer_headers=(ETAG,),
        problems=(412, 503),
    ),
    Call(
        id="listHistoryOfInvoice",
        method="GET",
        path="/invoices/{id}/history",
        does="Tell what became of an invoice",
        of_a_node=True,
        says="What was recorded, changed and deleted, when and by whom, oldest first; also if it is gone.",
        parameters=(ID,),
        query=(LIMIT, AFTER),
        answer=HistoryPage,
        answered={"history": [_happening("Invoice", _INVOICE)], "next": None},
    ),
    Call(
        id="deleteInvoice",
        method="DELETE",
        path="/invoices/{id}",
        does="Take an invoice back",
        of_a_node=True,
        says="409 while it has credits.",
        parameters=(ID,),
        headers=(IF_MATCH, TRACE),
        status=204,
        problems=(409, 412, 503),
    ),
    Call(
        id="createCredit",
        method="POST",
        path="/credits",
        does="Record a refund or a credit note",
        of_a_node=True,
        says="It counts against the customer's revenue. With `invoice_id` it is for that invoice of the"
        " customer's; all credits of one never exceed its amount: 422.",
        headers=ONCE,
        sends=CreditBody,
        sent={**_NEW_CREDIT, "invoice_id": "1"},
        status=201,
        answer=Made,
        answered={"id": "1"},
        answer_headers=(_location("credits"),),
        leads_to=("showCredit", "deleteCredit"),
        problems=(409, 503),
    ),
    Call(
        id="listCredits",
        method="GET",
        path="/credits",
        does="List credits",
        answer_headers=(OF_NODE,),
        query=_listed("credit_date"),
        answer=CreditPage,
        csv="customer,purchase_date,amount,reference,id,customer_id,account_id,invoice_id\r\n",
        answered={"credits": [_CREDIT], "next": None},
        problems=(429, 503),
    ),
    Call(
        id="createCredits",
        method="POST",
        path="/credits/batch",
        does="Record many credits, all or none",
        of_a_node=True,
        says="Errors name the index, as `[3].credited_cents`.",
        headers=ONCE,
        sends=Annotated[list[CreditBody], Meta(max_length=MOST_IN_BATCH)],
        sent=[{**_NEW_CREDIT, "reference": "CN-2"}, {**_NEW_CREDIT, "credited_cents": 1}],
        status=201,
        answer=ManyMade,
        answered={"ids": ["1", "2"]},
        problems=(409, 503),
    ),
    Call(
        id="showCredit",
        method="GET",
        path="/credits/{id}",
        does="Show a credit",
        of_a_node=True,
        parameters=(ID,),
        answer=Credit,
        answered=_CREDIT,
    ),
    Call(
        id="deleteCredit",
        method="DELETE",
        path="/credits/{id}",
        does="Take a credit back",
        of_a_node=True,
        parameters=(ID,),
        headers=(TRACE,),
        status=204,
    ),
    *SHARED,
)

_ACCOUNTS = (
    Call(
        id="createAccount",
        method="POST",
        path="/accounts",
        does="Open an account",
        headers=ONCE,
        sends=AccountBody,
        sent={"name": "one", "owned_by": "user1", "description": "the first"},
        status=201,
        answer=Made,
        answered={"id": "1"},
        answer_headers=(_location("accounts"),),
        leads_to=("showAccount", "changeAccount", "deleteAccount", "listCustomersOfAccount", "isOwnedBy"),
    ),
    Call(
        id="listAccounts",
        method="GET",
        path="/accounts",
        does="List accounts with their customers and revenue",
        says="Of answers that are sent in parts, 429 after 8 of one user, or 32, at once.",
        query=(NO_LIMIT, AFTER),
        answer=list[AccountRevenue],
        csv="id,name,description,owned_by,created_date,customers,revenue\r\n",
        answered=[_ACCOUNT],
        answer_headers=(NEXT,),
        problems=(429, 503),
    ),
    Call(
        id="showAccount",
        method="GET",
        path="/accounts/{id}",
        does="Show an account with its customers and revenue",
        parameters=(ID,),
        answer=AccountRevenue,
        answered=_ACCOUNT,
        answer_headers=(ETAG,),
        problems=(429, 503),
    ),
    Call(
        id="changeAccount",
        method="PATCH",
        path="/accounts/{id}",
        does="Give an account another name, description or owner",
        of_a_node=True,
        says="Where nothing is different, nothing happens. With users, only an admin changes the owner.",
        parameters=(ID,),
        headers=(IF_MATCH, *ONCE),
        sends=_some_of(AccountPatch, "name", "owned_by", "description"),
        sent={"name": "the first"},
        answer=Account,
        answered={**_OPENED, "name": "the first", "revision": 1},
        answer_headers=(ETAG,),
        problems=(412, 503),
    ),
    Call(
        id="deleteAccount",
        method="DELETE",
        path="/accounts/{id}",
        does="Delete an account",
        of_a_node=True,
        says="409 while it lists customers, unless they are to go too.",
        parameters=(ID,),
        query=(CASCADE,),
        headers=(TRACE,),
        status=204,
        problems=(409, 503),
    ),
    Call(
        id="listCustomersOfAccount",
        method="GET",
        path="/accounts/{id}/customers",
        does="List an account's customers with their revenue",
        parameters=(ID,),
        query=(REVENUE_ORDER, LIMIT, AFTER_NEXT),
        answer=CustomerRevenuePage,
        csv="customer_id,customer,revenue\r\n1,John Adams,100.00\r\n",
        answered={"customers": [_REVENUE], "next": None},
        problems=(429, 503),
    ),
    Call(
        id="revenue",
        method="GET",
        path="/revenue",
        does="Show the revenue of all accounts by month, quarter or year",
        says=_OF_PERIODS,
        query=PERIODS,
        answer=RevenuePage,
        csv=_PERIODS_CSV,
        answered=_PERIODS,
        problems=(429, 503),
    ),
    Call(
        id="revenueOfAccount",
        method="GET",
        path="/accounts/{id}/revenue",
        does="Show an account's revenue by month, quarter or year",
        says=_OF_PERIODS,
        parameters=(ID,),
        query=PERIODS,
        answer=RevenuePage,
        csv=_PERIODS_CSV,
        answered=_PERIODS,
        problems=(429, 503),
    ),
    Call(
        id="revenueOfCustomer",
        method="GET",
        path="/accounts/{id}/customers/{customer}/revenue",
        does="Show a customer's revenue by month, quarter or year",
        says=_OF_PERIODS,
        parameters=(ID, CUSTOMER),
        query=PERIODS,
        answer=RevenuePage,
        csv=_PERIODS_CSV,
        answered=_PERIODS,
        problems=(429, 503),
    ),
    Call(
        id="isOwnedBy",
        method="GET",
        path="/accounts/{id}/is-owned-by/{user}",
        does="Tell whether a user owns an account",
        says="False for an account that isn't there, or that one may not see.",
        parameters=(ANY_ID, USER),
        answer=Ownership,
        answered={"ok": True},
        answers_for_all=True,
    ),
    *SHARED,
)


def _complete(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    return tuple(_with_format(_with_events(call)) for call in calls)


CUSTOMERS, ACCOUNTS = _complete(_CUSTOMERS), _complete(_ACCOUNTS)

# The pages' own calls, which are in no document: they may change with the pages.
_SESSION = (
    Call(id="whoAmI", method="GET", path="/auth/session", does="Tell who is signed in"),
    Call(id="keepSession", method="POST", path="/auth/session", does="Keep the token in a cookie"),
    Call(id="forgetSession", method="DELETE", path="/auth/session", does="Forget it"),
)
_DEMO = Call(id="loadDemo", method="POST", path="/demo", does="Record this service's part of the demo")
CUSTOMERS_PAGE = (
    *_SESSION,
    _DEMO,
    Call(
        id="searchCustomers",
        method="GET",
        path="/customers/search",
        does="Find customers, with what they spent",
        query=(SEARCH, OF_ACCOUNT, NAME_ORDER, RANK, LIMIT, AFTER_NEXT),
    ),
    Call(
        id="summarizeCustomer",
        method="GET",
        path="/customers/{id}/summary",
        does="Show a customer with its invoices and credits, the newest first",
        parameters=(ID,),
        query=(LIMIT, OFFSET),
    ),
    Call(
        id="searchInvoices",
        method="GET",
        path="/invoices/search",
        does="List invoices, with whose they are",
        query=_listed("purchase_date"),
    ),
    Call(
        id="importFile",
        method="POST",
        path="/imports",
        does="Record the purchases of a file, or tell what that would do",
        query=(OF_ACCOUNT, *READ_SO, SKIP_BAD, DRY_RUN),
    ),
)
ACCOUNTS_PAGE = (
    *_SESSION,
    _DEMO,
    Call(
        id="nameAccounts",
        method="GET",
        path="/accounts/names",
        does="Tell what accounts are called",
        query=(IDS, SEARCH, LIMIT),
    ),
    Call(
        id="summarizeAccounts",
        method="GET",
        path="/accounts/summary",
        does="Find accounts, and add all of them up",
        query=(SEARCH, SORT, ORDER, LIMIT, OFFSET, PERIODS[2]),
    ),
    Call(
        id="summarizeAccount",
        method="GET",
        path="/accounts/{id}/summary",
        does="Show an account and its customers",
        parameters=(ID,),
        query=(REVENUE_ORDER, LIMIT, OFFSET),
    ),
)

SIGN_IN = Call(
    id="signIn",
    method="POST",
    path="/auth/login",
    does="Sign in: a name and a password for a token",
    says="After failures, the answer is 429 for the longer the more there were.",
    sends=LoginBody,
    sent={"username": "alice", "password": "correct horse"},
    answer=SignedIn,
    answered={"token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", "expires_at": _DATE},
    problems=(401, 421, 429, 503),
    public=True,
)
"""Offered by the accounts service where auth.mode is "jwt"."""
