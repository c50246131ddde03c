"""The customers service: its HTTP calls, one class for each path."""

from collections.abc import Callable, Sequence

import falcon

from tally.events import Id
from tally.http import bodies
from tally.http.answers import CustomerPage, HistoryPage, InvoicePage
from tally.http.auth import OpenGate, TokenGate, owner
from tally.http.calls import CUSTOMERS, CUSTOMERS_PAGE
from tally.http.health import add_health
from tally.http.openapi import OpenApiResource
from tally.http.overview import add_customers_overview
from tally.http.queries import QueryGuard
from tally.http.service import (
    BATCH_BODY,
    SINGLE_BODY,
    Api,
    Json,
    Page,
    Service,
    cause,
    changed,
    create_app,
    insist_on_some,
    path_id,
    read_body,
    send_changed,
    send_made,
    send_row,
    wanted_revisions,
)
from tally.http.status import StatusReport
from tally.http.tokens import Tokens
from tally.http.values import CustomerBody, CustomerPatch, InvoiceBody, InvoicePatch
from tally.store.cause import Cause
from tally.store.customers import Customers, NewCustomer, NewInvoice
from tally.store.database import Database
from tally.store.history import Kind
from tally.store.idempotency import made, made_many

CustomersService = Service[Customers]


def api(
    open_database: Callable[[], Database],
    after_commit: Callable[[], None],
    require_account: bool,
    status: Callable[[], StatusReport],
    tokens: Tokens | None,
) -> Api:
    """The service over customers.db, which `open_database` opens anew.

    `after_commit` is called after each commit and must not block; `status` answers GET /status. With
    `tokens`, a call wants one; without, everybody may do everything.
    """
    service: CustomersService = Service(lambda: Customers(open_database()), after_commit)
    gate = TokenGate(tokens) if tokens else OpenGate()
    app = create_app(gate, QueryGuard((*CUSTOMERS, *CUSTOMERS_PAGE)))
    # With users, too: else who opens the account later would get what others had recorded under its number.
    customers = CustomersResource(service, require_account or tokens is not None)
    invoices = InvoicesResource(service)
    app.add_route("/customers", customers)
    app.add_route("/customers/batch", customers, suffix="batch")
    app.add_route("/customers/{id}", customers, suffix="one")
    app.add_route("/customers/{id}/history", HistoryResource(service, "customer"))
    app.add_route("/invoices", invoices)
    app.add_route("/invoices/batch", invoices, suffix="batch")
    app.add_route("/invoices/{id}", invoices, suffix="one")
    app.add_route("/invoices/{id}/history", HistoryResource(service, "invoice"))
    add_customers_overview(app, service)
    add_health(app, service, status)
    app.add_route("/openapi.json", OpenApiResource("Tally: customers", CUSTOMERS, bearer=bool(tokens)))
    return Api(app, service, gate)


class CustomersResource:
    """Customers: create one or many, list, show, delete."""

    def __init__(self, service: CustomersService, require_account: bool) -> None:
        self._service = service
        self._require_account = require_account

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a customer."""
        body = read_body(req, SINGLE_BODY)
        new = bodies.decode(body, CustomerBody)
        answer = self._service.write_once(
            req,
            body,
            lambda store, cause: made("/customers", *self._create(store, owner(req), [new], cause)),
        )
        send_made(resp, answer)

    def on_post_batch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create many customers, all or none."""
        body = read_body(req, BATCH_BODY)
        new = bodies.decode_batch(body, CustomerBody)
        answer = self._service.write_once(
            req,
            body,
            lambda store, cause: made_many(self._create(store, owner(req), new, cause)),
        )
        send_made(resp, answer)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List customers by ascending id."""
        page = Page(req, "account_id")
        with self._service.read() as store:
            found = store.customers(page.filters["account_id"], page.after, page.limit + 1, owner(req))
        customers, following = page.cut(found, lambda customer: customer.id)
        Json.send(resp, CustomerPage(customers, following))

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show a customer."""
        with self._service.read() as store:
            send_row(resp, store.customer(path_id(id, "customer"), owner(req)))

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Give a customer another name, or another account."""
        body, number = read_body(req, SINGLE_BODY), path_id(id, "customer")
        change = bodies.decode(body, CustomerPatch)
        insist_on_some(change)
        revisions, insist = wanted_revisions(req), self._require_account
        answer = self._service.write_once(
            req,
            body,
            lambda store, cause: changed(
                store.change_customer(number, change, cause, owner(req), revisions, insist)
            ),
        )
        send_changed(resp, answer)

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete a customer and its invoices."""
        number = path_id(id, "customer")
        self._service.write(lambda store: store.delete_customer(number, cause(req), owner(req)))
        resp.status = falcon.HTTP_204

    def _create(
        self, store: Customers, owner: str | None, new: Sequence[NewCustomer], cause: Cause
    ) -> list[Id]:
        store.insist_on_accounts_of(owner, new)
        return store.create_customers(new, self._require_account, cause)


class InvoicesResource:
    """Invoices: create one or many, list, show, delete."""

    def __init__(self, service: CustomersService) -> None:
        self._service = service

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create an invoice."""
        body = read_body(req, SINGLE_BODY)
        new = bodies.decode(body, InvoiceBody)
        answer = self._service.write_once(
            req, body, lambda store, cause: made("/invoices", *self._create(store, owner(req), [new], cause))
        )
        send_made(resp, answer)

    def on_post_batch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create many invoices, all or none."""
        body = read_body(req, BATCH_BODY)
        new = bodies.decode_batch(body, InvoiceBody)
        answer = self._service.write_once(
            req, body, lambda store, cause: made_many(self._create(store, owner(req), new, cause))
        )
        send_made(resp, answer)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List invoices by ascending id."""
        page = Page(req, "customer_id")
        with self._service.read() as store:
            found = store.invoices(page.filters["customer_id"], page.after, page.limit + 1, owner(req))
        invoices, following = page.cut(found, lambda invoice: invoice.id)
        Json.send(resp, InvoicePage(invoices, following))

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show an invoice."""
        with self._service.read() as store:
            send_row(resp, store.invoice(path_id(id, "invoice"), owner(req)))

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Correct an invoice's amount or date."""
        body, number = read_body(req, SINGLE_BODY), path_id(id, "invoice")
        change = bodies.decode(body, InvoicePatch)
        insist_on_some(change)
        revisions = wanted_revisions(req)
        answer = self._service.write_once(
            req,
            body,
            lambda store, cause: changed(store.change_invoice(number, change, cause, owner(req), revisions)),
        )
        send_changed(resp, answer)

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Take an invoice back."""
        number = path_id(id, "invoice")
        self._service.write(lambda store: store.delete_invoice(number, cause(req), owner(req)))
        resp.status = falcon.HTTP_204

    def _create(
        self, store: Customers, owner: str | None, new: Sequence[NewInvoice], cause: Cause
    ) -> list[Id]:
        store.insist_on_customers_of(owner, new)
        return store.create_invoices(new, cause)


class HistoryResource:
    """What became of a customer or an invoice, also of one that is gone."""

    def __init__(self, service: CustomersService, kind: Kind) -> None:
        self._service = service
        self._kind = kind

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """List what was done to it, and by whom, oldest first."""
        page = Page(req)
        with self._service.read() as store:
            every = store.history(self._kind, path_id(id, self._kind), owner(req))
        first = max(page.after, 0)  # how many were listed before
        found = every[first : first + page.limit]
        following = first + len(found)
        Json.send(resp, HistoryPage(found, Id(following) if following < len(every) else None))
