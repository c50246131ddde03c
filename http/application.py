"""The Falcon application of a service: access, error answers, and the calls that both services have."""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, NamedTuple

import falcon

from tally.events import Id
from tally.http import asyncapi, openapi, params, problems
from tally.http.after import After
from tally.http.answers import Healthy, HistoryPage
from tally.http.auth import COOKIE, Gate, OpenGate, TokenGate, bearer_token, owner, principal
from tally.http.neighbours import SESSION, Neighbours
from tally.http.openapi import Call
from tally.http.params import Queries
from tally.http.queries import QueryGuard
from tally.http.service import Resource, S, Service, path_id
from tally.http.tokens import Bearer
from tally.store.history import Happening
from tally.store.idempotency import encode_answer

ROUTE = "tally.route"  # in a request's environment: the template of its route, if any


class Api(NamedTuple):
    """A service in an HTTP process: the application, the service behind it, and the gate."""

    app: "falcon.App[falcon.Request, falcon.Response]"
    service: Service[Any]
    gate: Gate


def api_of(
    service: Service[Any],
    calls: Collection[Call],
    page: Queries,
    is_still_there: Callable[[Bearer], bool] = lambda _: True,
) -> Api:
    """A service with the calls that both have. Its document has `calls`, and not those of its `page`.

    No call that both have waits for an unreachable Redis longer than half a second.
    """
    outside = service.outside
    gate = TokenGate(outside.tokens, is_still_there) if outside.tokens else OpenGate()
    app = create_app(gate, outside.neighbours, QueryGuard(calls, page), After(service))
    has_users = outside.tokens is not None
    health = HealthResource(service)
    app.add_route("/health/live", DocumentResource(lambda: encode_answer(Healthy())))
    for name in ("ready", "primary"):
        app.add_route(f"/health/{name}", health, suffix=name)
    app.add_route("/status", health, suffix="status")
    app.add_route("/asyncapi.json", DocumentResource(lambda: asyncapi.render().encode()))
    title = f"Tally: {outside.service}"
    described = DocumentResource(lambda: encode_answer(openapi.document(title, calls, bearer=has_users)))
    app.add_route("/openapi.json", described)
    app.add_route(SESSION, SessionResource() if has_users else WhoResource())
    return Api(app, service, gate)


def create_app(
    gate: Gate, neighbours: Neighbours, *guards: QueryGuard | After
) -> "falcon.App[falcon.Request, falcon.Response]":
    """A Falcon app that answers JSON by default, to requests that pass `gate` and `guards`.

    In a browser, the page of the other service of `neighbours` may read its answers.
    """
    app = falcon.App(middleware=[_Route(), _SafeInBrowsers(), neighbours, gate, *guards], router=Router())
    problems.add_error_handlers(app)
    return app


class Router(falcon.routing.CompiledRouter):
    """Offers HEAD with every GET (RFC 9110, section 9.1); Falcon leaves out the body."""

    def map_http_methods(self, resource: object, **kwargs: Any) -> Any:
        """Falcon's hook: the responder of each method that `resource` has."""
        methods: Any = super().map_http_methods(resource, **kwargs)
        if "GET" in methods:
            methods["HEAD"] = methods["GET"]
        return methods


class _Route:
    """Notes a request's route for the observer outside of Falcon."""

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        req.env[ROUTE] = req.uri_template


class _SafeInBrowsers:
    """Keeps browsers from guessing another type for an answer, or framing it in another site's page."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("X-Frame-Options", "DENY")


class DocumentResource:
    """A JSON document that never changes. It is made for who asks first: a process is ready sooner so."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._made = cache(make)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The document."""
        resp.data = self._made()


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
        resp.data = encode_answer(self._service.outside.status(owner(req) is None))


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
