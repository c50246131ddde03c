"""The accounts service: its HTTP calls, one class for each path."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import falcon
from msgspec import UNSET

from tally.events import Id
from tally.http import bodies, exports, params
from tally.http.account_views import AccountsView
from tally.http.answers import CustomerRevenuePage, Ownership, RevenuePage
from tally.http.application import Api, HistoryResource, api_of
from tally.http.auth import Forbidden, owner, principal
from tally.http.calls import ACCOUNTS, ACCOUNTS_PAGE, SIGN_IN
from tally.http.demo import AccountsDemo
from tally.http.lists import RevenueListRequest
from tally.http.login import LoginResource
from tally.http.neighbours import LOGIN
from tally.http.periods import periods_of
from tally.http.service import Outside, Resource, Service, cause, path_id, read_body, wanted_revisions
from tally.http.tokens import Bearer
from tally.http.values import AccountBody, AccountPatch
from tally.store.account_totals import AccountTotals
from tally.store.accounts import Account, Accounts, CustomerOrder, key_of
from tally.store.cause import Cause
from tally.store.errors import NotFound
from tally.store.idempotency import Answer, encode_answer, made
from tally.store.months import Months
from tally.store.updates import insist_on_revision
from tally.store.users import Users

_ACCOUNTS_AT_ONCE = 100  # read in one snapshot while all of them are listed
_CUSTOMERS_AT_ONCE = 1000
_CHUNK = 64 * 1024  # bytes sent at a time
_WHOLE = 512 * 1024  # bytes: an account up to this size is sent in one piece, which keeps its connection open


def api(outside: Outside, threads: int, sign_ins: int) -> Api:
    """The service over accounts.db, for a server with so many threads.

    At most `sign_ins` passwords are checked at a time.
    """
    tokens = outside.tokens
    service = Service(outside, Accounts)

    def is_still_there(bearer: Bearer) -> bool:
        if outside.node:  # only node 0 has users, and it revokes the tokens of removed ones
            return True
        with service.read() as store:
            return Users(store.database).are_there(bearer.uid, bearer.sub)

    api = api_of(service, (*ACCOUNTS, SIGN_IN) if tokens else ACCOUNTS, ACCOUNTS_PAGE, is_still_there)
    app = api.app
    if tokens:
        app.add_route(LOGIN, LoginResource(service, tokens, threads, sign_ins))
    accounts = AccountsResource(service)
    app.add_route("/accounts", accounts)
    app.add_route("/accounts/{id}", accounts, suffix="one")
    app.add_route("/accounts/{id}/customers", accounts, suffix="customers")
    app.add_route("/accounts/{id}/is-owned-by/{user:path}", accounts, suffix="ownership")
    app.add_route("/accounts/{id}/history", HistoryResource(service, "account", Accounts.history))
    revenue = RevenueResource(service)
    app.add_route("/revenue", revenue)
    app.add_route("/accounts/{id}/revenue", revenue)
    app.add_route("/accounts/{id}/customers/{customer}/revenue", revenue)
    view = AccountsView(service)
    app.add_route("/accounts/names", view, suffix="names")
    app.add_route("/accounts/summary", view)
    app.add_route("/accounts/{id}/summary", view, suffix="one")
    app.add_route("/demo", AccountsDemo(service))
    return api


class AccountsResource(Resource[Accounts]):
    """Accounts: open, list with customers and revenue, show, delete."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Open an account."""
        body = read_body(req)
        new = bodies.decode(body, AccountBody)
        if owner(req) not in (None, new.owned_by):
            raise Forbidden(f"Only an admin may open an account for another than {owner(req)}.")
        may_have_customers = owner(req) is None  # else the owner would get customers that others recorded

        def create(store: Accounts, cause: Cause) -> Answer:
            return made("/accounts", store.create_account(new, cause, may_have_customers))

        self._service.create(req, resp, body, create)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List accounts with their customers and revenue; all of them when no limit is asked for."""
        if exports.wants_csv(req, resp):
            self._send_csv(req, resp)
            return
        limit, after = params.NO_LIMIT.of(req), params.AFTER.of(req)
        after = -1 if after is None else after
        if limit:
            with self._service.read() as store:
                found = store.accounts(after, limit + 1, owner(req))
            if len(found) > limit:
                as_json = "&format=json" if params.FORMAT.of(req) else ""
                following_page = f"/accounts?limit={limit}&after={found[limit - 1].id}{as_json}"
                resp.set_header("Link", f'<{following_page}>; rel="next"')
            shown = iter(found[:limit])
        else:
            shown = self._every_account(after, owner(req))
        self._send(req, resp, self._list(shown), _CHUNK)

    def _send_csv(self, req: falcon.Request, resp: falcon.Response) -> None:
        user = owner(req)

        def read(after: tuple[int] | None) -> list[tuple[str, int]]:
            with self._service.read() as store:
                totals = AccountTotals(store.database, user)
                rows = totals.described(after[0] if after else -1, exports.AT_ONCE)
            return [(exports.written(*row[:-1], exports.amount(row.revenue_cents)), row.id) for row in rows]

        lines = exports.paged(read, exports.AT_ONCE)
        header = "id,name,description,owned_by,created_date,customers,revenue"
        exports.send(req, resp, self._service.long_lists, header, lines)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show an account with its customers and revenue."""
        with self._service.read() as store:
            account = store.account(path_id(id, "account"), owner(req))
        resp.etag = str(account.revision)
        self._send(req, resp, self._one(account), _WHOLE)

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Give an account another name, description or owner; the last only an admin."""
        body, number = read_body(req), path_id(id, "account")
        change = bodies.decode_change(body, AccountPatch)
        if owner(req) is not None and change.owned_by not in (UNSET, owner(req)):
            raise Forbidden("Only an admin may hand an account to another.")
        revisions, user = wanted_revisions(req), owner(req)
        self._service.change_row(
            req, resp, body, lambda store, cause: store.change_account(number, change, cause, user, revisions)
        )

    def _send(self, req: falcon.Request, resp: falcon.Response, parts: Iterator[bytes], chunk: int) -> None:
        """Answer with JSON in parts, streamed when there is more than a `chunk` (bytes) of it.

        waitress closes the connection after an answer of unknown length.
        """
        chunks = _in_chunks(parts, chunk)
        first, second = next(chunks), next(chunks, None)
        if second is None:
            resp.data = first
        else:
            resp.stream = self._service.long_lists.begin(principal(req).name, chain([first, second], chunks))

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete an account; with ?cascade=true, its customers too."""
        number, cascade, revisions = path_id(id, "account"), params.CASCADE.of(req), wanted_revisions(req)

        def delete(store: Accounts) -> None:
            insist_on_revision("account", number, store.account(number, owner(req)).revision, revisions)
            store.delete_account(number, cascade, cause(req), owner(req))

        self._service.take_away(resp, delete)

    def on_get_customers(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """List an account's customers."""
        listed, is_csv = RevenueListRequest(req), exports.wants_csv(req, resp)
        with self._service.read() as store:
            account = store.account(path_id(id, "account"), owner(req))
            if is_csv:
                self._send_customers(req, resp, account.id, listed.order)
                return
            found = store.customers_of(account.id, listed.order, listed.after, listed.limit)
        resp.data = encode_answer(CustomerRevenuePage(*listed.cut(found)))

    def _send_customers(
        self, req: falcon.Request, resp: falcon.Response, account: Id, order: CustomerOrder
    ) -> None:
        def read(after: tuple[str | int, int] | None) -> list[tuple[str, str | int, int]]:
            with self._service.read() as store:
                rows = store.customers_of(account, order, after, exports.SORTED_AT_ONCE)
            return [
                (
                    exports.written(row.customer_id, row.name, exports.amount(row.total_revenue_cents)),
                    key_of(row, order),
                    row.customer_id,
                )
                for row in rows
            ]

        lines = exports.paged(read, exports.SORTED_AT_ONCE)
        exports.send(req, resp, self._service.long_lists, "customer_id,customer,revenue", lines)

    def on_get_ownership(self, req: falcon.Request, resp: falcon.Response, id: str, user: str) -> None:
        """Tell whether a user owns an account. Nobody owns one that doesn't exist."""
        owns = False
        with suppress(ValueError, NotFound), self._service.read() as store:
            owns = store.account(Id.parse(id), owner(req)).owned_by == user
        resp.data = encode_answer(Ownership(owns))

    def _list(self, accounts: Iterator[Account]) -> Iterator[bytes]:
        yield b"["
        for place, account in enumerate(accounts):
            yield b"," if place else b""
            yield from self._one(account)
        yield b"]"

    def _one(self, account: Account) -> Iterator[bytes]:
        """One account in parts. The total comes last: it is the sum of the customers that were sent."""
        total, after = 0, -1
        separator = b""
        yield b'{"account":' + encode_answer(account) + b',"customers":['
        while True:
            with self._service.read() as store:
                shown = store.show_customers_of(account.id, after, _CUSTOMERS_AT_ONCE)
            if shown.last is not None:
                yield separator + shown.json
                total += shown.revenue_cents
                separator, after = b",", shown.last
            if shown.customers < _CUSTOMERS_AT_ONCE:
                break
        yield b'],"total_revenue_cents":%d}' % total

    def _every_account(self, after: int, owner: str | None) -> Iterator[Account]:
        while True:
            with self._service.read() as store:
                accounts = store.accounts(after, _ACCOUNTS_AT_ONCE, owner)
            yield from accounts
            if len(accounts) < _ACCOUNTS_AT_ONCE:
                return
            after = accounts[-1].id


def _in_chunks(parts: Iterator[bytes], chunk: int) -> Iterator[bytes]:
    """The same bytes in pieces worth sending."""
    gathered = bytearray()
    for part in parts:
        gathered += part
        if len(gathered) >= chunk:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


class RevenueResource(Resource[Accounts]):
    """Revenue by month, quarter or year."""

    def on_get(
        self, req: falcon.Request, resp: falcon.Response, id: str | None = None, customer: str | None = None
    ) -> None:
        """The revenue of all accounts together, of one account, or of one of its customers."""
        by, first, last = (each.of(req) for each in params.PERIODS)
        with self._service.read() as store:
            months = Months(store.database, owner(req))
            if id is None:
                found = months.of_all()
            elif customer is None:
                found = months.of_account(path_id(id, "account"))
            else:
                found = months.of_customer(path_id(id, "account"), path_id(customer, "customer"))
        periods = periods_of(found, by, first, last)
        if not exports.wants_csv(req, resp):
            resp.data = encode_answer(RevenuePage(periods))
            return
        lines = (
            exports.written(
                getattr(each, by), exports.amount(each.revenue_cents), each.invoices, each.credits
            )
            for each in periods
        )
        exports.send(req, resp, self._service.long_lists, f"{by},revenue,invoices,credits", lines)
