"""Every request is timed; those that somebody will want to see are logged."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import falcon
import structlog
from structlog.contextvars import bound_contextvars

from tally.http.figures import Family, Figures
from tally.http.service import trace_parent
from tally.store.trace_parent import is_sampled

SLOW_SECONDS = 1.0

DURATION = Family(
    "tally_http_request_duration_seconds",
    "How long requests took, from a thread taking one up until its answer was handed over.",
    ("method", "route", "status"),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    known=(),
)

_METHODS = frozenset(falcon.HTTP_METHODS)


class RequestObserver:
    """Falcon middleware, to be the first: counts each request, and binds its trace parent to what is logged.

    A request is told at level info when it failed (500 and above), was slow, or comes with a trace that
    its caller samples; all others at level debug.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._log = structlog.get_logger().bind()  # bound once: a line that isn't wanted costs nothing

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Called before anything else is done with the request."""
        trace = trace_parent(req)
        req.context.trace = trace
        if trace:
            structlog.contextvars.bind_contextvars(trace_parent=trace)
        req.context.began = time.perf_counter()

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Called with the answer, whatever it is. One that is streamed has not begun yet."""
        if resp.stream is None:
            self._finished(req, resp)
        else:
            resp.stream = self._until_sent(resp.stream, req, resp)
        if req.context.trace:
            structlog.contextvars.unbind_contextvars("trace_parent")

    def _until_sent(self, stream: Any, req: falcon.Request, resp: falcon.Response) -> Iterator[bytes]:
        trace = req.context.trace
        with bound_contextvars(**{"trace_parent": trace} if trace else {}):
            try:
                yield from stream
            finally:
                self._finished(req, resp)

    def _finished(self, req: falcon.Request, resp: falcon.Response) -> None:
        seconds = time.perf_counter() - req.context.began
        method = req.method if req.method in _METHODS else "other"
        route, status = req.uri_template or "none", resp.status_code
        self._figures.observe(DURATION, seconds, (method, route, str(status)))
        trace = req.context.trace
        wanted = status >= 500 or seconds >= SLOW_SECONDS or (trace and is_sampled(trace))
        self._log.log(
            logging.INFO if wanted else logging.DEBUG,
            "request",
            method=method,
            path=req.path[:200],
            route=route,
            status=status,
            seconds=round(seconds, 6),
        )
