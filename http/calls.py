"""Every call of the two services, as their OpenAPI documents show it, and what their queries may hold.

A route that is added to a service gets its entry here; a test holds the two together.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from tally.http import answers, params, values
from tally.http.bodies import MOST_IN_BATCH
from tally.http.login import LoginBody
from tally.http.openapi import Call
from tally.http.params import Parameter
from tally.http.reasons import ActorReport
from tally.http.status import NodeStatus, RedisStatus, StatusReport
from tally.store.accounts import Account
from tally.store.records import Credit, Customer, Invoice
from tally.version import VERSION

# Examples

_DATE = "2019-03-23T05:24:50.326000Z"
_NEW_CUSTOMER = {"name": "John Adams", "account_id": "1"}
_CUSTOMER = {"id": "1", **_NEW_CUSTOMER, "created_date": _DATE, "revision": 0}
_NEW_INVOICE = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 10_000}
_INVOICE = {"id": "1", **_NEW_INVOICE, "created_date": _DATE, "revision": 0}
_NEW_CREDIT = {"customer_id": "1", "credit_date": "2019-02-01", "credited_cents": 2_500}
_CREDIT = {**_NEW_CREDIT, "invoice_id": "1", "id": "1", "created_date": _DATE, "reference": None}
_NEW_ACCOUNT = {"name": "one", "owned_by": "user1", "description": "the first"}
_OPENED = {"id": "1", **_NEW_ACCOUNT, "description": "", "created_date": _DATE, "revision": 0}
_REVENUE = {"customer_id": "1", "name": "John Adams", "total_revenue_cents": 10_000}
_ACCOUNT = {"account": _OPENED, "customers": [_REVENUE], "total_revenue_cents": 10_000}
_STATUS = StatusReport(
    "ok",
    reasons=[],
    notes=[],
    service="customers",
    standby=False,
    version=VERSION,
    identity="4f2a9c1e",
    outbox_depth=0,
    redis=RedisStatus(reachable=True, pending=0, dead_letters=0, lag={"accounts@9b1d7f02": 0}),
    nodes=[NodeStatus(0, True, False, "customers@4f2a9c1e", "accounts@9c1e4f2a", lag=0, idle_seconds=0.2)],
    actors=[ActorReport("customers-relay", "running", restarts=0, uptime_seconds=86_400.5)],
    disk_free_bytes=250_000_000_000,
    database_log_bytes=4_120_032,
    sqlite_version="3.54.0",
)

# Calls of the same shape


class _Rows(Struct, frozen=True):
    """The calls on one kind of row, such as `Customer`, which is one of the `customers`.

    `sends` is what one is created from, `new` an example of it; `row` is what is shown, and `example` one of
    those. One can `may` be shown and so on; `leads_to` are further calls that take its id. `creating` is what
    else holds for creating it.
    """

    sends: Any
    new: dict[str, Any]
    row: Any
    example: dict[str, Any]
    may: tuple[str, ...] = ("show", "change", "delete")
    leads_to: tuple[str, ...] = ()
    creating: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What one is called."""
        return str(self.row.__name__)

    @property
    def many(self) -> str:
        """What several are called."""
        return f"{self.name.lower()}s"

    def create(self, does: str, says: str = "", sent: dict[str, Any] | None = None) -> Call:
        """Create one."""
        path = f"/{self.many}"
        location = Parameter("Location", str, "The path of what was created.", f"{path}/1")
        return self._create(
            f"create{self.name}",
            path,
            does,
            says,
            sends=self.sends,
            sent=sent or self.new,
            answer=answers.Made,
            answered={"id": "1"},
            answer_headers=(location,),
            leads_to=(*(f"{verb}{self.name}" for verb in self.may), *self.leads_to),
        )

    def create_many(self, says: str, sent: list[dict[str, Any]] | None = None) -> Call:
        """Create many at once."""
        return self._create(
            f"create{self.name}s",
            f"/{self.many}/batch",
            f"Create many {self.many}, all or none",
            says,
            sends=Annotated[list[self.sends], Meta(max_length=MOST_IN_BATCH)],  # type: ignore[name-defined]
            sent=sent or [self.new, self.new],
            answer=answers.ManyMade,
            answered={"ids": ["1", "2"]},
        )

    def _create(self, id: str, path: str, does: str, says: str, **made: Any) -> Call:
        return Call(id, "POST", path, does, says, headers=(params.ONCE,), status=201, **made, **self.creating)

    def page(self, page: Any, query: tuple[Parameter, ...], csv: str) -> Call:
        """List them, a page at a time."""
        return Call(
            f"list{self.name}s",
            "GET",
            f"/{self.many}",
            f"List {self.many}",
            query=query,
            answer=page,
            answered={self.many: [self.example], "next": None},
            csv=csv,
            answer_headers=(params.OF_NODE,),
        )

    def show(self, does: str, **others: Any) -> Call:
        """Show one."""
        shown = {"answer": self.row, "answered": self.example, "answer_headers": (params.ETAG,)}
        return self._one("GET", f"show{self.name}", does, **{**shown, **others})

    def change(self, does: str, says: str, patch: Any, sent: dict[str, Any], *problems: int) -> Call:
        """Change one; at least one field of `patch` must be given."""
        any_of = [{"required": [name]} for name in patch.__struct_fields__]
        return self._one(
            "PATCH",
            f"change{self.name}",
            does,
            says=f"{says} A change to the same values does nothing.",
            headers=(params.IF_MATCH, params.ONCE),
            sends=Annotated[patch, Meta(extra_json_schema={"anyOf": any_of})],
            sent=sent,
            answer=self.row,
            answered={**self.example, **sent, "revision": 1},
            answer_headers=(params.ETAG,),
            problems=problems,
        )

    def history(self, **others: Any) -> Call:
        """Show what was done to one."""
        happening = {"event": f"{self.name}Created", "at": _DATE, "by": None, "before": None}
        return self._one(
            "GET",
            f"listHistoryOf{self.name}",
            f"Show the history of one of the {self.many}",
            "/history",
            says="Everything that was recorded, changed and deleted, when and by whom, oldest first. Also for"
            " one that is deleted.",
            query=(params.LIMIT, params.AFTER),
            answer=answers.HistoryPage,
            answered={"history": [{**happening, "after": self.example}], "next": None},
            **others,
        )

    def delete(self, does: str, says: str = "", **others: Any) -> Call:
        """Delete one."""
        return self._one("DELETE", f"delete{self.name}", does, says=says, status=204, **others)

    def _one(self, method: str, id: str, does: str, below: str = "", **others: Any) -> Call:
        path = f"/{self.many}/{{id}}{below}"
        return Call(id, method, path, does, parameters=(params.ID,), **{"of_a_node": True, **others})


def _revenue(id: str, path: str, whose: str, *parameters: Parameter) -> Call:
    return Call(
        id,
        "GET",
        f"{path}/revenue",
        f"Show {whose} by month, quarter or year",
        "By the dates of invoices and credits. The sum is the total. What has no known month (because 0.1.0"
        " counted it, or it was deleted by an event without its date) is one entry with null at the end, left"
        " out if `from` or `to` is given.",
        parameters=parameters,
        query=params.PERIODS,
        answer=answers.RevenuePage,
        csv="month,revenue,invoices,credits\r\n2019-01,100.00,1,0\r\n",
        answered={"revenue": [{"month": "2019-01", "revenue_cents": 10_000, "invoices": 1, "credits": 0}]},
    )


def _health(name: str, does: str, says: str = "", problems: tuple[int, ...] = (503,)) -> Call:
    path, told = f"/health/{name}", {"status": "ok"}
    return _about(name, path, does, answers.Healthy, told, says=says, problems=problems, public=True)


def _about(id: str, path: str, does: str, answer: Any, answered: Any, **others: Any) -> Call:
    return Call(id, "GET", path, does, answer=answer, answered=answered, **others)


def _complete(*calls: Call) -> tuple[Call, ...]:
    """The calls with what all of their kind take and answer."""
    return tuple(map(_with_common, calls))


def _with_common(call: Call) -> Call:
    if call.public:
        return call
    call = structs.replace(call, problems=(*call.problems, 503))
    if call.csv:
        call = structs.replace(call, query=(*call.query, params.FORMAT), problems=(*call.problems, 429))
    if params.IF_MATCH in call.headers:
        call = structs.replace(call, problems=(*call.problems, 412))
    if call.method == "GET":
        return structs.replace(call, headers=(*call.headers, *params.READS_OWN_WRITES))
    headers, answer_headers = (*call.headers, params.TRACE), (*call.answer_headers, params.TOLD)
    return structs.replace(call, headers=headers, answer_headers=answer_headers)


# Calls

SHARED = (
    _health("live", "Whether the process runs", problems=()),
    _health("ready", "Whether the database answers", "Redis need not: writes are accepted without it."),
    _health(
        "primary",
        "Whether new records are accepted here",
        "503 at a standby, with the primary's address in `node`: for a load balancer.",
    ),
    _about("status", "/status", "The service in figures, and what is wrong with it", StatusReport, _STATUS),
    _about(
        "openapi",
        "/openapi.json",
        "This document",
        dict[str, Any],
        {"openapi": "3.1.0", "info": {"title": "Tally: customers", "version": VERSION}, "paths": {}},
    ),
    _about(
        "asyncapi",
        "/asyncapi.json",
        "The events of the stream, as an AsyncAPI document",
        dict[str, Any],
        {"asyncapi": "3.0.0", "info": {"title": "Tally: the event stream", "version": "1.0.0"}},
    ),
    _about(
        "metrics",
        "/metrics",
        "Figures for Prometheus",
        str,
        "# HELP tally_outbox_depth Events that wait to be published.",
        says="In OpenMetrics if Accept asks for it.",
        media_type="text/plain",
    ),
)

_FOR_CUSTOMERS = {"of_a_node": True, "problems": (409,)}
_customers = _Rows(values.CustomerBody, _NEW_CUSTOMER, Customer, _CUSTOMER)
_invoices = _Rows(values.InvoiceBody, _NEW_INVOICE, Invoice, _INVOICE, creating=_FOR_CUSTOMERS)
_credits = _Rows(
    values.CreditBody, _NEW_CREDIT, Credit, _CREDIT, may=("show", "delete"), creating=_FOR_CUSTOMERS
)
_accounts = _Rows(
    values.AccountBody, _NEW_ACCOUNT, Account, _OPENED, leads_to=("listCustomersOfAccount", "isOwnedBy")
)

CUSTOMERS = _complete(
    _customers.create(
        "Create a customer",
        "The account is not checked, unless there are users, or `require_account` is set.",
    ),
    _customers.page(
        answers.CustomerPage,
        (params.OF_ACCOUNT, params.WORDS, params.NAME_ORDER, *params.PAGE),
        "customer,id,account_id,created_date\r\nJohn Adams,1,1,2019-03-23T05:24:50.326000Z\r\n",
    ),
    _customers.create_many("Errors name the index, as `[3].name`."),
    _customers.show("Show a customer"),
    _customers.change(
        "Change a customer's name or account",
        "Its revenue goes with it. 409 if the new account has a `reference` of its invoices or credits.",
        values.CustomerPatch,
        {"name": "John Quincy Adams"},
        409,
    ),
    _customers.history(),
    _customers.delete(
        "Delete a customer, its invoices and credits",
        query=(params.NO_CASCADE,),
        headers=(params.IF_MATCH,),
        problems=(409,),
    ),
    _invoices.create(
        "Create an invoice", "422 if the customer does not exist, 409 if its account has the `reference`."
    ),
    _invoices.page(
        answers.InvoicePage,
        params.dated("purchase_date"),
        "customer,purchase_date,amount,reference,id,customer_id,account_id\r\n"
        '"John Adams",2019-01-06,100.00,,1,1,1\r\n',
    ),
    _invoices.create_many("422 if customers do not exist. Errors name the index, as `[3].purchase_date`."),
    _invoices.show("Show an invoice"),
    _invoices.change(
        "Correct an invoice's amount or date",
        "422 for an amount below its credits.",
        values.InvoicePatch,
        {"purchase_price_cents": 9_900},
    ),
    _invoices.history(),
    _invoices.delete(
        "Delete an invoice", "409 while it has credits.", headers=(params.IF_MATCH,), problems=(409,)
    ),
    _credits.create(
        "Create a credit: a refund or a credit note",
        "It is subtracted from the customer's revenue. With `invoice_id` it is for that invoice of the"
        " customer; the credits of an invoice must not exceed its amount: 422.",
        {**_NEW_CREDIT, "invoice_id": "1"},
    ),
    _credits.page(
        answers.CreditPage,
        params.dated("credit_date"),
        "customer,purchase_date,amount,reference,id,customer_id,account_id,invoice_id\r\n",
    ),
    _credits.create_many(
        "Errors name the index, as `[3].credited_cents`.",
        [{**_NEW_CREDIT, "reference": "CN-2"}, {**_NEW_CREDIT, "credited_cents": 1}],
    ),
    _credits.show("Show a credit", answer_headers=()),
    _credits.delete("Delete a credit"),
    *SHARED,
)

ACCOUNTS = _complete(
    _accounts.create("Open an account"),
    Call(
        "listAccounts",
        "GET",
        "/accounts",
        "List accounts with their customers and revenue",
        "429 if more than 8 answers for one user, or 32 in all, are being sent in parts.",
        query=(params.NO_LIMIT, params.AFTER),
        answer=list[answers.AccountRevenue],
        csv="id,name,description,owned_by,created_date,customers,revenue\r\n",
        answered=[_ACCOUNT],
        answer_headers=(params.NEXT,),
    ),
    _accounts.show(
        "Show an account with its customers and revenue",
        of_a_node=False,
        answer=answers.AccountRevenue,
        answered=_ACCOUNT,
        problems=(429,),
    ),
    _accounts.change(
        "Change an account's name, description or owner",
        "With users, only an admin may change the owner.",
        values.AccountPatch,
        {"name": "the first"},
    ),
    _accounts.history(of_a_node=False),
    _accounts.delete(
        "Delete an account",
        "409 while it lists customers, unless they are deleted too.",
        headers=(params.IF_MATCH,),
        query=(params.CASCADE,),
        problems=(409,),
    ),
    Call(
        "listCustomersOfAccount",
        "GET",
        "/accounts/{id}/customers",
        "List an account's customers with their revenue",
        parameters=(params.ID,),
        query=(params.REVENUE_ORDER, *params.PAGE),
        answer=answers.CustomerRevenuePage,
        csv="customer_id,customer,revenue\r\n1,John Adams,100.00\r\n",
        answered={"customers": [_REVENUE], "next": None},
    ),
    _revenue("revenue", "", "the revenue of all accounts"),
    _revenue("revenueOfAccount", "/accounts/{id}", "an account's revenue", params.ID),
    _revenue(
        "revenueOfCustomer",
        "/accounts/{id}/customers/{customer}",
        "a customer's revenue",
        params.ID,
        params.CUSTOMER,
    ),
    Call(
        "isOwnedBy",
        "GET",
        "/accounts/{id}/is-owned-by/{user}",
        "Tell whether a user owns an account",
        "False for an account that doesn't exist, or that the asking user may not see.",
        parameters=(params.ANY_ID, params.USER),
        answer=answers.Ownership,
        answered={"ok": True},
        answers_for_all=True,
    ),
    *SHARED,
)

SIGN_IN = Call(
    "signIn",
    "POST",
    "/auth/login",
    "Sign in: a name and a password for a token",
    "After failures it answers 429, the longer the more there were.",
    sends=LoginBody,
    sent={"username": "alice", "password": "correct horse"},
    answer=answers.SignedIn,
    answered={"token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", "expires_at": _DATE},
    problems=(401, 421, 429, 503),
    public=True,
)
"""Offered by the accounts service where auth.mode is "jwt"."""

# The queries of the pages' own calls, which are in no document: they may change with the pages.

_OF_BOTH_PAGES: params.Queries = {
    **{(method, "/auth/session"): () for method in ("GET", "POST", "DELETE")},
    ("POST", "/demo"): (),
}
CUSTOMERS_PAGE: params.Queries = {
    **_OF_BOTH_PAGES,
    ("GET", "/customers/search"): (
        params.SEARCH,
        params.OF_ACCOUNT,
        params.NAME_ORDER,
        params.RANK,
        *params.PAGE,
    ),
    ("GET", "/customers/{id}/summary"): params.PART,
    ("GET", "/invoices/search"): params.dated("purchase_date"),
    ("POST", "/imports"): params.IMPORTED,
}
ACCOUNTS_PAGE: params.Queries = {
    **_OF_BOTH_PAGES,
    ("GET", "/accounts/names"): (params.IDS, params.SEARCH, params.FEW),
    ("GET", "/accounts/summary"): (params.SEARCH, params.SORT, params.ORDER, *params.PART, params.LAST_MONTH),
    ("GET", "/accounts/{id}/summary"): (params.ANY_REVENUE_ORDER, *params.PART),
}
