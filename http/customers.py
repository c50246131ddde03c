"""The customers service: its HTTP calls, one class for each path."""

from collections.abc import Callable, Sequence

import falcon
from msgspec.structs import replace

from tally.events import Id
from tally.http import bodies, exports
from tally.http.after import After, EventsElsewhere
from tally.http.answers import CreditPage, CustomerPage, HistoryPage, InvoicePage
from tally.http.auth import OpenGate, TokenGate, owner
from tally.http.calls import CUSTOMERS, CUSTOMERS_PAGE
from tally.http.customer_views import add_customer_views
from tally.http.demo import add_customers_demo
from tally.http.health import add_health
from tally.http.lists import CustomerListRequest, ListRequest
from tally.http.long_lists import LongLists
from tally.http.neighbours import SESSION, Neighbours
from tally.http.openapi import AsyncApiResource, OpenApiResource
from tally.http.queries import QueryGuard
from tally.http.service import (
    BATCH_BODY,
    NODE,
    SINGLE_BODY,
    Api,
    Json,
    Page,
    Service,
    cause,
    changed,
    create_app,
    flag,
    insist_on_some,
    path_id,
    read_body,
    send_changed,
    send_made,
    send_row,
    wanted_revisions,
)
from tally.http.session import SessionResource, WhoResource
from tally.http.status import StatusReport
from tally.http.tokens import Tokens
from tally.http.values import CreditBody, CustomerBody, CustomerPatch, InvoiceBody, InvoicePatch
from tally.store.cause import Cause
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.group_commit import AnswerAfter
from tally.store.history import Kind
from tally.store.idempotency import made, made_many
from tally.store.listing import ListQuery
from tally.store.records import CSV_COLUMNS, Customer, NewCustomer, NewInvoice

CustomersService = Service[Customers]


def api(
    open_database: Callable[[], Database],
    after_commit: Callable[[], None],
    require_account: bool,
    status: Callable[[], StatusReport],
    tokens: Tokens | None,
    events: EventsElsewhere,
    neighbours: Neighbours,
    answer_after: Callable[[Database], AnswerAfter] | None = None,
) -> Api:
    """The service over customers.db, which `open_database` opens anew.

    `after_commit` is called after each commit and must not block; `status` answers GET /status. With
    `tokens`, a call wants one; without, everybody may do everything. `events` are those it applies. For
    `neighbours` see create_app, for `answer_after` Service.
    """
    service: CustomersService = Service(lambda: Customers(open_database()), after_commit, answer_after)
    gate = TokenGate(tokens) if tokens else OpenGate()
    app = create_app(gate, neighbours, QueryGuard((*CUSTOMERS, *CUSTOMERS_PAGE)), After(service, events))
    app.add_route(SESSION, SessionResource() if tokens else WhoResource())
    long_lists = LongLists()
    # With users, too: else who opens the account later would get what others had recorded under its number.
    customers = CustomersResource(service, require_account or tokens is not None, long_lists)
    invoices, credits = InvoicesResource(service, long_lists), CreditsResource(service, long_lists)
    app.add_route("/customers", customers)
    app.add_route("/customers/batch", customers, suffix="batch")
    app.add_route("/customers/{id}", customers, suffix="one")
    app.add_route("/customers/{id}/history", HistoryResource(service, "customer"))
    app.add_route("/invoices", invoices)
    app.add_route("/invoices/batch", invoices, suffix="batch")
    app.add_route("/invoices/{id}", invoices, suffix="one")
    app.add_route("/invoices/{id}/history", HistoryResource(service, "invoice"))
    app.add_route("/credits", credits)
    app.add_route("/credits/batch", credits, suffix="batch")
    app.add_route("/credits/{id}", credits, suffix="one")
    add_customer_views(app, service)
    add_customers_demo(app, service)
    add_health(app, service, status)
    app.add_route("/asyncapi.json", AsyncApiResource())
    app.add_route("/openapi.json", OpenApiResource("Tally: customers", CUSTOMERS, bearer=bool(tokens)))
    return Api(app, service, gate)


class CustomersResource:
    """Customers: create one or many, list, show, delete."""

    def __init__(self, service: CustomersService, require_account: bool, long_lists: LongLists) -> None:
        self._service = service
        self._long_lists = long_lists
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
        """List customers."""
        listed = CustomerListRequest(req)
        resp.set_header(NODE, str(self._service.node))
        if exports.wants_csv(req):
            self._send_csv(req, resp, listed.wanted)
            return
        with self._service.read() as store:
            found = store.customers(listed.wanted, owner(req))
        Json.send(resp, CustomerPage(*listed.cut(found)))

    def _send_csv(self, req: falcon.Request, resp: falcon.Response, wanted: CustomerQuery) -> None:
        user, most = owner(req), exports.at_once(wanted.order)

        def read(after: tuple[str, int] | None) -> list[Customer]:
            with self._service.read() as store:
                return store.customers(replace(wanted, limit=most, after=after), user)

        lines = exports.paged(
            read,
            lambda row: (row.name, row.id),
            lambda row: exports.written(row.name, row.id, row.account_id, row.created_date),
            most,
        )
        exports.send(req, resp, self._long_lists, "customers", "customer,id,account_id,created_date", lines)

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
        """Delete a customer and its invoices; with ?cascade=false, only one that has none."""
        number, revisions = path_id(id, "customer"), wanted_revisions(req)
        cascade = flag(req, "cascade", default=True)
        self._service.take_away(
            resp,
            lambda store: store.delete_customer(number, cause(req), owner(req), revisions, cascade),
        )

    def _create(
        self, store: Customers, owner: str | None, new: Sequence[NewCustomer], cause: Cause
    ) -> list[Id]:
        store.insist_on_accounts_of(owner, new)
        return store.create_customers(new, self._require_account, cause)


class InvoicesResource:
    """Invoices: create one or many, list, show, delete."""

    def __init__(self, service: CustomersService, long_lists: LongLists) -> None:
        self._service = service
        self._long_lists = long_lists

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
        """List invoices."""
        listed = ListRequest(req, "purchase_date")
        resp.set_header(NODE, str(self._service.node))
        if exports.wants_csv(req):
            _send_lines(
                req, resp, self._service, self._long_lists, "invoices", listed, Customers.invoice_lines
            )
            return
        with self._service.read() as store:
            found = store.invoices(listed.wanted, owner(req))
        Json.send(resp, InvoicePage(*listed.cut(found)))

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
        number, revisions = path_id(id, "invoice"), wanted_revisions(req)
        self._service.take_away(
            resp, lambda store: store.delete_invoice(number, cause(req), owner(req), revisions)
        )

    def _create(
        self, store: Customers, owner: str | None, new: Sequence[NewInvoice], cause: Cause
    ) -> list[Id]:
        store.insist_on_customers_of(owner, new)
        return store.create_invoices(new, cause)


class CreditsResource:
    """Credits: create one or many, list, show, delete."""

    def __init__(self, service: CustomersService, long_lists: LongLists) -> None:
        self._service = service
        self._long_lists = long_lists

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record a credit."""
        body = read_body(req, SINGLE_BODY)
        new = bodies.decode(body, CreditBody)
        answer = self._service.write_once(
            req,
            body,
            lambda store, cause: made("/credits", *store.credits.create([new], cause, owner(req))),
        )
        send_made(resp, answer)

    def on_post_batch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record many credits, all or none."""
        body = read_body(req, BATCH_BODY)
        new = bodies.decode_batch(body, CreditBody)
        answer = self._service.write_once(
            req, body, lambda store, cause: made_many(store.credits.create(new, cause, owner(req)))
        )
        send_made(resp, answer)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List credits."""
        listed = ListRequest(req, "credit_date")
        resp.set_header(NODE, str(self._service.node))
        if exports.wants_csv(req):
            lines = Customers.credit_lines
            _send_lines(req, resp, self._service, self._long_lists, "credits", listed, lines)
            return
        with self._service.read() as store:
            found = store.credits.page(listed.wanted, owner(req))
        Json.send(resp, CreditPage(*listed.cut(found)))

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show a credit."""
        with self._service.read() as store:
            Json.send(resp, store.credits.one(path_id(id, "credit"), owner(req)))

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Take a credit back."""
        number = path_id(id, "credit")
        self._service.take_away(resp, lambda store: store.credits.delete(number, cause(req), owner(req)))


_Lines = Callable[[Customers, ListQuery, str | None], list[tuple[str, str, int]]]


def _send_lines(
    req: falcon.Request,
    resp: falcon.Response,
    service: CustomersService,
    long_lists: LongLists,
    name: str,
    listed: ListRequest,
    lines: _Lines,
) -> None:
    """Answer with all invoices, or credits, that are asked for."""
    user, most = owner(req), exports.at_once(listed.wanted.order)

    def read(after: tuple[str, int] | None) -> list[tuple[str, str, int]]:
        with service.read() as store:
            return lines(store, replace(listed.wanted, limit=most, after=after), user)

    header = CSV_COLUMNS + (",invoice_id" if name == "credits" else "")
    every = exports.paged(read, lambda row: row[1:], lambda row: row[0], most)
    exports.send(req, resp, long_lists, name, header, every)


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
