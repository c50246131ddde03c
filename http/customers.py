"""The customers service: its HTTP calls, and the kinds of rows that most of them are about."""

from functools import partial

from tally.http import exports, params
from tally.http.answers import CreditPage, CustomerPage, InvoicePage
from tally.http.application import Api, HistoryResource, api_of
from tally.http.auth import owner
from tally.http.calls import CUSTOMERS, CUSTOMERS_PAGE
from tally.http.customer_views import CustomersView, InvoicesView
from tally.http.demo import CustomersDemo
from tally.http.lists import CustomerListRequest, ListRequest
from tally.http.rows import ChangeableRowsResource, Kind, RowsResource
from tally.http.service import Outside, Service, cause, wanted_revisions
from tally.http.values import CreditBody, CustomerBody, CustomerPatch, InvoiceBody, InvoicePatch
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.group_commit import AnswerAfter
from tally.store.records import CSV_COLUMNS


def api(outside: Outside, require_account: bool, answer_after: AnswerAfter | None) -> Api:
    """The service over customers.db; for `answer_after` see GroupCommit."""
    service = Service(outside, Customers, answer_after)
    api = api_of(service, CUSTOMERS, CUSTOMERS_PAGE)
    app = api.app
    # With users, too: else the user who opens the account later would get customers that others recorded
    # there.
    customers = _customers(require_account or outside.tokens is not None)
    for kind in (customers, _INVOICES, _CREDITS):
        rows = ChangeableRowsResource(service, kind) if kind.change else RowsResource(service, kind)
        app.add_route(f"/{kind.name}s", rows)
        app.add_route(f"/{kind.name}s/batch", rows, suffix="batch")
        app.add_route(f"/{kind.name}s/{{id}}", rows, suffix="one")
    app.add_route("/customers/{id}/history", HistoryResource(service, "customer", Customers.customer_history))
    app.add_route("/invoices/{id}/history", HistoryResource(service, "invoice", Customers.invoice_history))
    view = CustomersView(service)
    app.add_route("/customers/search", view)
    app.add_route("/customers/{id}/summary", view, suffix="one")
    app.add_route("/invoices/search", InvoicesView(service))
    app.add_route("/demo", CustomersDemo(service))
    return api


def _lines(store: Customers, wanted: CustomerQuery, owner: str | None) -> list[tuple[str, str, int]]:
    return [
        (exports.written(row.name, row.id, row.account_id, row.created_date), row.name, row.id)
        for row in store.customers(wanted, owner)
    ]


def _customers(require_account: bool) -> Kind:
    return Kind(
        "customer",
        CustomerBody,
        CustomerPage,
        "customer,id,account_id,created_date",
        CustomerListRequest,
        create=lambda store, new, cause, owner: store.create_customers(new, require_account, cause, owner),
        rows=Customers.customers,
        lines=_lines,
        one=Customers.customer,
        # With ?cascade=false, only one without invoices and credits.
        delete=lambda store, id, req: store.delete_customer(
            id, cause(req), owner(req), wanted_revisions(req), params.NO_CASCADE.of(req)
        ),
        change=(CustomerPatch, partial(Customers.change_customer, require_account=require_account)),
    )


_INVOICES = Kind(
    "invoice",
    InvoiceBody,
    InvoicePage,
    CSV_COLUMNS,
    lambda req: ListRequest(req, "purchase_date"),
    create=Customers.create_invoices,
    rows=Customers.invoices,
    lines=lambda store, wanted, owner: store.invoice_listing.lines(wanted, owner),
    one=Customers.invoice,
    delete=lambda store, id, req: store.delete_invoice(id, cause(req), owner(req), wanted_revisions(req)),
    change=(InvoicePatch, Customers.change_invoice),
)

_CREDITS = Kind(
    "credit",
    CreditBody,
    CreditPage,
    f"{CSV_COLUMNS},invoice_id",
    lambda req: ListRequest(req, "credit_date"),
    create=lambda store, new, cause, owner: store.credits.create(new, cause, owner),
    rows=lambda store, wanted, owner: store.credits.page(wanted, owner),
    lines=lambda store, wanted, owner: store.credits.listing.lines(wanted, owner),
    one=lambda store, id, owner: store.credits.one(id, owner),
    delete=lambda store, id, req: store.credits.delete(id, cause(req), owner(req)),
)
