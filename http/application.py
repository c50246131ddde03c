"""The Falcon application of a service: who is let in, how errors are answered, what every answer carries."""

from typing import Any, NamedTuple, Protocol

import falcon

from tally.http import problems
from tally.http.auth import Gate
from tally.http.neighbours import Neighbours
from tally.http.service import Service

ROUTE = "tally.route"  # in a request's environment: the template of the route that it took, if any


class Api(NamedTuple):
    """A service as an HTTP process serves it: the application, what it works on, and who lets people in."""

    app: "falcon.App[falcon.Request, falcon.Response]"
    service: Service[Any]
    gate: Gate


class Guard(Protocol):
    """Looks at a request before its resource does."""

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Raises an HTTPError where it may not go on."""
        ...


def create_app(
    gate: Gate, neighbours: Neighbours, *guards: Guard
) -> "falcon.App[falcon.Request, falcon.Response]":
    """A Falcon app that answers JSON and nothing else, to those whom `gate` lets in, what `guards` let by.

    In a browser, the page of the other of the `neighbours` may read what it answers.
    """
    app = falcon.App(middleware=[_Route(), _SafeInBrowsers(), neighbours, gate, *guards], router=Router())
    problems.add_error_handlers(app)
    return app


class Router(falcon.routing.CompiledRouter):
    """Offers HEAD wherever there is GET (RFC 9110, section 9.1); Falcon leaves out the body."""

    def map_http_methods(self, resource: object, **kwargs: Any) -> Any:
        """Falcon's hook: the responder of each method that `resource` has."""
        methods: Any = super().map_http_methods(resource, **kwargs)
        if "GET" in methods:
            methods["HEAD"] = methods["GET"]
        return methods


class _Route:
    """Tells what observes the request from outside of Falcon which route it took."""

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        req.env[ROUTE] = req.uri_template


class _SafeInBrowsers:
    """No answer is taken for another type than it says, or shown within another site's page."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("X-Frame-Options", "DENY")
