"""A stand-in for both services with authentication on: the real pages, and calls that require a token."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import falcon

from support.engines import free_port
from tally.http.application import SessionResource, create_app
from tally.http.auth import COOKIE, EVERYBODY
from tally.http.calls import ACCOUNTS, ACCOUNTS_PAGE, CUSTOMERS, CUSTOMERS_PAGE
from tally.http.neighbours import LOGIN, SESSION, Neighbours
from tally.http.pages import add_pages
from tally.http.queries import QueryGuard

TOKEN = "a.signed.token"
_STATUS = {"status": "ok", "reasons": [], "outbox_depth": 0, "actors": [],
           "redis": {"reachable": True, "pending": 0, "dead_letters": 0, "lag": {}}}  # fmt: skip
_ACCOUNT = {
    "id": "1",
    "name": "A secret account",
    "owned_by": "ana",
    "customers": 0,
    "total_revenue_cents": "5",
    "months": ["0"] * 12,
}
_ANSWERS = {
    SESSION: {"username": "ana", "admin": False},
    "/status": _STATUS,
    "/accounts/summary": {
        "accounts": [_ACCOUNT],
        "found": 1,
        "totals": {"accounts": 1, "customers": 0, "total_revenue_cents": "5"},
        "largest_revenue_cents": "5",
    },
    "/revenue": {"revenue": []},
    "/customers/search": {
        "customers": [
            {
                "id": "1",
                "account_id": "1",
                "name": "A secret customer",
                "created_date": "2026-01-06",
                "revision": 0,
                "total_revenue_cents": "5",
                "last_purchase": None,
            }
        ],
        "next": None,
    },
    "/accounts/names": {"accounts": [{"id": "1", "name": "The first account"}]},
}


class _Call:
    def __init__(self, revoked: threading.Event) -> None:
        self._revoked = revoked

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.cookies.get(COOKIE) != TOKEN or self._revoked.is_set():
            raise falcon.HTTPUnauthorized(challenges=["Bearer"])
        resp.media = _ANSWERS[req.path]


class _Session(_Call, SessionResource):
    """The real session, except that without sign-in it answers like the other calls."""


class _Login:
    def __init__(self, revoked: threading.Event) -> None:
        self._revoked = revoked

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = falcon.media.JSONHandler().deserialize(req.bounded_stream, None, None)
        if body != {"username": "ana", "password": "correct horse"}:
            raise falcon.HTTPUnauthorized(description="The user name or the password is wrong.")
        self._revoked.clear()
        resp.media = {"token": TOKEN, "expires_at": "2026-11-25T00:00:00Z"}


class _Anybody:
    """Lets everybody in, as the real gate does with a valid token; `_Call` checks the tokens."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Lets every request pass."""
        req.context.principal = EVERYBODY


class Guarded:
    """The stand-ins' addresses. Once set, `revoked` refuses the token until the next login."""

    def __init__(self) -> None:
        self.ports = {"customers": free_port(), "accounts": free_port()}
        self.revoked = threading.Event()

    def app(self, service: str) -> Any:
        guard = QueryGuard((*CUSTOMERS, *ACCOUNTS), {**CUSTOMERS_PAGE, **ACCOUNTS_PAGE})
        neighbours = Neighbours(service, self.ports, {})
        app = create_app(_Anybody(), neighbours, guard)  # type: ignore[arg-type]
        add_pages(app, neighbours)
        for path in _ANSWERS:
            app.add_route(path, (_Session if path == SESSION else _Call)(self.revoked))
        if service == "accounts":
            app.add_route(LOGIN, _Login(self.revoked))
        return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        return


@contextmanager
def guarded() -> Iterator[Guarded]:
    """Both stand-ins, for as long as the context lasts."""
    stand_in = Guarded()
    servers = [
        make_server("127.0.0.1", port, stand_in.app(service), _Server, _Quiet)
        for service, port in stand_in.ports.items()
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    try:
        yield stand_in
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
