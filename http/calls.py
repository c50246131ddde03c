"""Every call of the two services, as their OpenAPI documents show it, and what their queries may hold.

A route that is added to a service gets its entry here; a test holds the two together.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from tally.events import Id
from tally.http.answers import (
    AccountRevenue,
    CustomerPage,
    CustomerRevenuePage,
    Healthy,
    HistoryPage,
    InvoicePage,
    Made,
    ManyMade,
    Ownership,
    SignedIn,
)
from tally.http.bodies import MOST_IN_BATCH
from tally.http.login import LoginBody
from tally.http.openapi import Call, Parameter
from tally.http.service import LISTED, MOST_LISTED, VISIBLE_ASCII
from tally.http.status import StatusReport
from tally.http.values import (
    AccountBody,
    AccountPatch,
    CustomerBody,
    CustomerPatch,
    InvoiceBody,
    InvoicePatch,
)
from tally.store.accounts import Account
from tally.store.customers import Customer, Invoice
from tally.version import VERSION

# Parameters

ID = Parameter(name="id", kind=Id, says="What cannot be an id is unknown: 404.", example="1")
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
OF_CUSTOMER = Parameter(name="customer_id", kind=Id, says="Only this customer's invoices.", example="1")
CASCADE = Parameter(
    name="cascade", kind=bool, says="Delete its customers and their invoices too.", example=True
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


def _some_of(kind: type[Any], *names: str) -> Any:
    """A change that has one of these fields at least."""
    return Annotated[kind, Meta(extra_json_schema={"anyOf": [{"required": [name]} for name in names]})]


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
BEFORE = Parameter(name="before", kind=Id, says="List what has an id below this one.", example="100")
OFFSET = Parameter(name="offset", kind=Id, says="How many to pass over.", example="0")
SORT = Parameter(name="sort", kind=str, says="What to sort by.", example="revenue")
ORDER = Parameter(name="order", kind=Literal["asc", "desc"], says="Which comes first.", example="desc")

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
_REVENUE = {"customer_id": "1", "name": "John Adams", "total_revenue_cents": 10_000}
_OPENED = {
    "id": "1",
    "name": "one",
    "description": "",
    "owned_by": "user1",
    "created_date": _DATE,
    "revision": 0,
}
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
    "version": VERSION,
    "identity": "4f2a9c1e",
    "outbox_depth": 0,
    "redis": {"reachable": True, "pending": 0, "dead_letters": 0, "lag": {"accounts@9b1d7f02": 0}},
    "actors": [{"name": "customers-relay", "state": "running", "restarts": 0, "trouble": None}],
    "disk_free_bytes": 250_000_000_000,
    "database_log_bytes": 4_120_032,
    "sqlite_version": "3.54.0",
}

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

CUSTOMERS = (
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
        does="List customers by ascending id",
        query=(OF_ACCOUNT, LIMIT, AFTER),
        answer=CustomerPage,
        answered={"customers": [_CUSTOMER], "next": None},
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
        says="Its revenue goes with it. Where nothing is different, nothing happens.",
        parameters=(ID,),
        headers=(IF_MATCH, *ONCE),
        sends=_some_of(CustomerPatch, "name", "account_id"),
        sent={"name": "John Quincy Adams"},
        answer=Customer,
        answered={**_CUSTOMER, "name": "John Quincy Adams", "revision": 1},
        answer_headers=(ETAG,),
        problems=(412, 503),
    ),
    Call(
        id="listHistoryOfCustomer",
        method="GET",
        path="/customers/{id}/history",
        does="Tell what became of a customer",
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
        does="Delete a customer and its invoices",
        parameters=(ID,),
        headers=(TRACE,),
        status=204,
    ),
    Call(
        id="createInvoice",
        method="POST",
        path="/invoices",
        does="Create an invoice",
        says="422 for a customer that does not exist.",
        headers=ONCE,
        sends=InvoiceBody,
        sent=_NEW_INVOICE,
        status=201,
        answer=Made,
        answered={"id": "1"},
        answer_headers=(_location("invoices"),),
        leads_to=("showInvoice", "changeInvoice", "deleteInvoice"),
    ),
    Call(
        id="listInvoices",
        method="GET",
        path="/invoices",
        does="List invoices by ascending id",
        query=(OF_CUSTOMER, LIMIT, AFTER),
        answer=InvoicePage,
        answered={"invoices": [_INVOICE], "next": None},
    ),
    Call(
        id="createInvoices",
        method="POST",
        path="/invoices/batch",
        does="Create many invoices, all or none",
        says="422 for customers that do not exist. Errors name the index, as `[3].purchase_date`.",
        headers=ONCE,
        sends=Annotated[list[InvoiceBody], Meta(max_length=MOST_IN_BATCH)],
        sent=[_NEW_INVOICE, _NEW_INVOICE],
        status=201,
        answer=ManyMade,
        answered={"ids": ["1", "2"]},
    ),
    Call(
        id="showInvoice",
        method="GET",
        path="/invoices/{id}",
        does="Show an invoice",
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
        says="Where nothing is different, nothing happens.",
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
        parameters=(ID,),
        headers=(TRACE,),
        status=204,
    ),
    *SHARED,
)

ACCOUNTS = (
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
        does="List an account's customers by ascending id",
        parameters=(ID,),
        query=(LIMIT, AFTER),
        answer=CustomerRevenuePage,
        answered={"customers": [_REVENUE], "next": None},
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

# The pages' own calls, which are in no document: they may change with the pages.
CUSTOMERS_PAGE = (
    Call(
        id="searchCustomers",
        method="GET",
        path="/customers/search",
        does="Find customers, the newest first",
        query=(SEARCH, OF_ACCOUNT, BEFORE, LIMIT),
    ),
    Call(
        id="summarizeCustomer",
        method="GET",
        path="/customers/{id}/summary",
        does="Show a customer and its invoices, the newest first",
        parameters=(ID,),
        query=(BEFORE, LIMIT),
    ),
)
ACCOUNTS_PAGE = (
    Call(
        id="summarizeAccounts",
        method="GET",
        path="/accounts/summary",
        does="Find accounts, and add all of them up",
        query=(SEARCH, SORT, ORDER, LIMIT, OFFSET),
    ),
    Call(
        id="summarizeAccount",
        method="GET",
        path="/accounts/{id}/summary",
        does="Show an account and its customers, by id or revenue",
        parameters=(ID,),
        query=(SORT, LIMIT, AFTER, OFFSET),
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
    problems=(401, 429, 503),
    public=True,
)
"""Offered by the accounts service where auth.mode is "jwt"."""
