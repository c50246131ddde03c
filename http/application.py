"""The Falcon application of a service: access, error answers, and the headers of every answer."""

from typing import Any, NamedTuple

import falcon

from tally.http import problems
from tally.http.after import After
from tally.http.auth import Gate
from tally.http.neighbours import Neighbours
from tally.http.queries import QueryGuard
from tally.http.service import Service

ROUTE = "tally.route"  # in a request's environment: the template of its route, if any


class Api(NamedTuple):
    """A service in an HTTP process: the application, the service behind it, and the gate."""

    app: "falcon.App[falcon.Request, falcon.Response]"
    service: Service[Any]
    gate: Gate


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
