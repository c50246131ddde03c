"""Times every request, and logs those that failed, were slow, or are traced."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import falcon
import structlog
from structlog.contextvars import bound_contextvars

from tally.figures import Family, Figures
from tally.http.application import ROUTE
from tally.store.cause import is_sampled, parse_trace_parent

SLOW_SECONDS = 1.0

DURATION = Family(
    "tally_http_request_duration_seconds",
    "How long requests took, from a thread taking one up until its answer was handed over.",
    ("method", "route", "status"),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    known=(),
)

ANSWERED = "tally.answered"  # in the environment: the status that was answered instead of the application's

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class RequestObserver:
    """WSGI middleware: counts each request of `app`, and binds its trace parent to its log lines.

    A request is counted when its answer is closed (PEP 3333), because then it was handed over. A request
    counts once even if its answer is made again after a failure. It is logged at level info if it failed (500
    and above), was slow, or has a trace that its caller samples; else at level debug.
    """

    def __init__(self, app: Wsgi, figures: Figures) -> None:
        self._app = app
        self._figures = figures
        self._log = structlog.get_logger().bind()  # bound once: a line below the level costs nothing

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        answer = _Answer(environ, self._finished)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            answer.status = status[:3]
            return start_response(status, headers, *more)

        with answer.traced():
            answer.body = self._app(environ, start)
        return answer

    def _finished(self, answer: "_Answer") -> None:
        seconds = time.perf_counter() - answer.began
        environ = answer.environ
        status = environ.get(ANSWERED, answer.status)
        method = environ["REQUEST_METHOD"]
        method = method if method in falcon.HTTP_METHODS else "other"
        route = environ.get(ROUTE) or "none"
        self._figures.observe(DURATION, seconds, (method, route, status))
        wanted = status >= "500" or seconds >= SLOW_SECONDS or (answer.trace and is_sampled(answer.trace))
        level = logging.INFO if wanted else logging.DEBUG
        if self._log.is_enabled_for(level):
            self._log.log(
                level,
                "request",
                method=method,
                path=environ["PATH_INFO"].encode("latin-1").decode(errors="replace")[:200],
                route=route,
                status=int(status),
                seconds=round(seconds, 6),
            )


_UNTRACED = nullcontext()


class _Answer:
    """The answer to a request, from the request's beginning. Its `body` is made in the request's trace.

    It tells when it is closed.
    """

    body: Iterable[bytes]
    status = ""

    def __init__(self, environ: Environ, finished: "Callable[[_Answer], None]") -> None:
        self.environ = environ
        self.began = time.perf_counter()
        self.trace = parse_trace_parent(environ.get("HTTP_TRACEPARENT"))
        self._finished = finished

    def traced(self) -> AbstractContextManager[None]:
        return bound_contextvars(trace_parent=self.trace) if self.trace else _UNTRACED

    def __iter__(self) -> Iterator[bytes]:
        return self._traced() if self.trace else iter(self.body)

    def close(self) -> None:
        with self.traced():
            if hasattr(self.body, "close"):
                self.body.close()
            self._finished(self)

    def _traced(self) -> Iterator[bytes]:
        """Bind the trace for each piece: another thread may make it."""
        pieces = iter(self.body)
        while True:
            with self.traced():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
