"""The customers service: its HTTP calls, one class for each path."""

import falcon

from tally.http import bodies, exports, params
from tally.http.answers import CreditPage, CustomerPage, InvoicePage
from tally.http.application import Api
from tally.http.auth import OpenGate, TokenGate, owner
from tally.http.calls import CUSTOMERS, CUSTOMERS_PAGE
from tally.http.customer_views import CustomersView, InvoicesView
from tally.http.demo import CustomersDemo
from tally.http.lists import CustomerListRequest, ListRequest
from tally.http.rows import Kind, RowsResource
from tally.http.service import Outside, Service, cause, path_id, read_body, wanted_revisions
from tally.http.shared import HistoryResource, api_of
from tally.http.values import CreditBody, CustomerBody, CustomerPatch, InvoiceBody, InvoicePatch
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.group_commit import AnswerAfter
from tally.store.records import CSV_COLUMNS


def api(outside: Outside, require_account: bool, answer_after: AnswerAfter | None) -> Api:
    """The service over customers.db; for `answer_after` see GroupCommit."""
    service = Service(outside, Customers, answer_after)
    gate = TokenGate(outside.tokens) if outside.tokens else OpenGate()
    api = api_of(service, gate, CUSTOMERS, CUSTOMERS_PAGE)
    app = api.app
    # With users, too: else the user who opens the account later would get customers that others recorded
    # there.
    customers = CustomersResource(service, require_account or outside.tokens is not None)
    for rows in (customers, InvoicesResource(service), CreditsResource(service)):
        app.add_route(f"/{rows.kind.name}s", rows)
        app.add_route(f"/{rows.kind.name}s/batch", rows, suffix="batch")
        app.add_route(f"/{rows.kind.name}s/{{id}}", rows, suffix="one")
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


class CustomersResource(RowsResource):
    """Customers."""

    def __init__(self, service: Service[Customers], require_account: bool) -> None:
        super().__init__(service)
        self._require_account = require_account
        self.kind = Kind(
            "customer",
            CustomerBody,
            CustomerPage,
            "customer,id,account_id,created_date",
            CustomerListRequest,
            lambda store, new, cause, owner: store.create_customers(new, require_account, cause, owner),
            Customers.customers,
            _lines,
            Customers.customer,
        )

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Give a customer another name, or another account."""
        body, number = read_body(req), path_id(id, "customer")
        change = bodies.decode_change(body, CustomerPatch)
        revisions, insist = wanted_revisions(req), self._require_account
        self._service.change_row(
            req,
            resp,
            body,
            lambda store, cause: store.change_customer(number, change, cause, owner(req), revisions, insist),
        )

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete a customer and its invoices; with ?cascade=false, only a customer without any."""
        number, revisions = path_id(id, "customer"), wanted_revisions(req)
        cascade = params.NO_CASCADE.of(req)
        self._service.take_away(
            resp, lambda store: store.delete_customer(number, cause(req), owner(req), revisions, cascade)
        )


class InvoicesResource(RowsResource):
    """Invoices."""

    kind = Kind(
        "invoice",
        InvoiceBody,
        InvoicePage,
        CSV_COLUMNS,
        lambda req: ListRequest(req, "purchase_date"),
        Customers.create_invoices,
        Customers.invoices,
        lambda store, wanted, owner: store.invoice_listing.lines(wanted, owner),
        Customers.invoice,
    )

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Correct an invoice's amount or date."""
        body, number = read_body(req), path_id(id, "invoice")
        change = bodies.decode_change(body, InvoicePatch)
        revisions, user = wanted_revisions(req), owner(req)
        self._service.change_row(
            req, resp, body, lambda store, cause: store.change_invoice(number, change, cause, user, revisions)
        )

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete an invoice that has no credits."""
        number, revisions = path_id(id, "invoice"), wanted_revisions(req)
        self._service.take_away(
            resp, lambda store: store.delete_invoice(number, cause(req), owner(req), revisions)
        )


class CreditsResource(RowsResource):
    """Credits."""

    kind = Kind(
        "credit",
        CreditBody,
        CreditPage,
        f"{CSV_COLUMNS},invoice_id",
        lambda req: ListRequest(req, "credit_date"),
        lambda store, new, cause, owner: store.credits.create(new, cause, owner),
        lambda store, wanted, owner: store.credits.page(wanted, owner),
        lambda store, wanted, owner: store.credits.listing.lines(wanted, owner),
        lambda store, id, owner: store.credits.one(id, owner),
    )

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete a credit."""
        number = path_id(id, "credit")
        self._service.take_away(resp, lambda store: store.credits.delete(number, cause(req), owner(req)))
