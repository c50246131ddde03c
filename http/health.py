"""How a service is: /health/live, /health/ready, /health/primary and /status."""

from collections.abc import Callable
from typing import Any

import falcon

from tally.http.answers import Healthy
from tally.http.service import HasDatabase, Json, Service
from tally.http.status import StatusReport


def add_health(app: Any, service: "Service[Any]", status: Callable[[], StatusReport]) -> None:
    """Add the calls to `app`. None of them waits for an unreachable Redis longer than half a second."""
    health = HealthResource(service, status)
    app.add_route("/health/live", health, suffix="live")
    app.add_route("/health/ready", health, suffix="ready")
    app.add_route("/health/primary", health, suffix="primary")
    app.add_route("/status", health, suffix="status")


class HealthResource:
    """Whether the process runs, whether it can serve, and what it knows of its service."""

    def __init__(self, service: "Service[HasDatabase]", status: Callable[[], StatusReport]) -> None:
        self._service = service
        self._status = status

    def on_get_live(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The process answers."""
        Json.send(resp, Healthy())

    def on_get_ready(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The database answers. Redis need not: writes are taken without it."""
        with self._service.read():
            Json.send(resp, Healthy())

    def on_get_primary(self, req: falcon.Request, resp: falcon.Response) -> None:
        """This records what is new, and is no standby: for a load balancer."""
        self._service.insist_on_permission()
        Json.send(resp, Healthy())

    def on_get_status(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The service in figures, and what is wrong with it."""
        Json.send(resp, self._status())
