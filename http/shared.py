"""The calls of both services: the service's state, its documents, and the signed-in user."""

from collections.abc import Callable, Collection
from typing import Any

import falcon
from msgspec import Struct

from tally.events import Id
from tally.http import asyncapi, openapi, params
from tally.http.after import After
from tally.http.answers import Healthy, HistoryPage
from tally.http.application import Api, create_app
from tally.http.auth import COOKIE, Gate, bearer_token, owner, principal
from tally.http.neighbours import SESSION
from tally.http.openapi import Call
from tally.http.params import Queries
from tally.http.queries import QueryGuard
from tally.http.service import Resource, S, Service, path_id
from tally.store.history import Happening
from tally.store.idempotency import encode_answer


def api_of(service: Service[Any], gate: Gate, calls: Collection[Call], page: Queries) -> Api:
    """A service with the calls that both have. Its document has `calls`, and not those of its `page`.

    No call that both have waits for an unreachable Redis longer than half a second.
    """
    outside = service.outside
    app = create_app(gate, outside.neighbours, QueryGuard(calls, page), After(service))
    has_users = outside.tokens is not None
    health = HealthResource(service)
    app.add_route("/health/live", DocumentResource(encode_answer(Healthy())))
    for name in ("ready", "primary"):
        app.add_route(f"/health/{name}", health, suffix=name)
    app.add_route("/status", health, suffix="status")
    app.add_route("/asyncapi.json", DocumentResource(asyncapi.render().encode()))
    described = openapi.document(f"Tally: {outside.service}", calls, bearer=has_users)
    app.add_route("/openapi.json", DocumentResource(encode_answer(described)))
    app.add_route(SESSION, SessionResource() if has_users else WhoResource())
    return Api(app, service, gate)


class DocumentResource(Struct, frozen=True):
    """A JSON document that never changes."""

    _document: bytes

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The document."""
        resp.data = self._document


class HealthResource(Resource[Any]):
    """Whether the process can serve, and its service's status."""

    def on_get_ready(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The database answers. Redis need not: writes are accepted without it."""
        with self._service.read():
            resp.data = encode_answer(Healthy())

    def on_get_primary(self, req: falcon.Request, resp: falcon.Response) -> None:
        """This one records changes, and is no standby: for a load balancer."""
        self._service.insist_on_permission()
        self.on_get_ready(req, resp)

    def on_get_status(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The service in figures, and what is wrong with it."""
        resp.data = encode_answer(self._service.outside.status())


class HistoryResource(Resource[S]):
    """The history of a row, even a deleted one; `read` gets the row's number and the owner."""

    _kind: str
    _read: Callable[[S, int, str | None], list[Happening]]

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """List what was done to it, and by whom, oldest first."""
        with self._service.read() as store:
            every = self._read(store, path_id(id, self._kind), owner(req))
        first = params.AFTER.of(req) or 0  # how many were listed before
        found = every[first : first + params.LIMIT.of(req)]
        following = first + len(found)
        resp.data = encode_answer(HistoryPage(found, Id(following) if following < len(every) else None))


class WhoResource:
    """Tells who is signed in."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The user's name, "" if nobody signs in, and whether it is an admin."""
        resp.set_header("Cache-Control", "no-store")
        who = principal(req)
        resp.data = encode_answer({"username": who.name, "admin": who.admin})


class SessionResource(WhoResource):
    """Also makes the browser keep a token until it is closed, or forget it: the pages' sign-in.

    The token is in a cookie that scripts can't read. A cookie is sent to all ports and paths of a host (RFC
    6265, section 8.5). So one sign-in is enough for the pages of both services. If the services have
    different host names, the page sets the cookie at both.
    """

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Keep the token that came in the header Authorization. Raises Unauthorized."""
        token = bearer_token(req.get_header("Authorization"))
        secure = req.scheme == "https"
        resp.set_cookie(COOKIE, token, path="/", secure=secure, http_only=True, same_site="Strict")
        resp.status = falcon.HTTP_204

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Forget it."""
        resp.unset_cookie(COOKIE, path="/", same_site="Strict")
        resp.status = falcon.HTTP_204
