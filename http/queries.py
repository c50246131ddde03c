"""Refuses unknown and repeated parameters: ignored, they would get an answer that nobody asked for."""

from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import falcon
from falcon import uri

from tally.http.openapi import Call
from tally.http.problems import FieldError, WrongFields

_MOST_TOLD = 100


class QueryGuard:
    """Refuses parameters that the call's declaration among `calls` doesn't have, and those given twice.

    A route without a declaration takes none.
    """

    def __init__(self, calls: Collection[Call]) -> None:
        self._known = {
            (call.method, call.path): tuple(parameter.name for parameter in call.query) for call in calls
        }
        self._paths = {call.path for call in calls}

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Raises WrongFields."""
        if req.query_string:
            path = _as_declared(req.uri_template or "")
            method = "GET" if req.method == "HEAD" else req.method
            known = self._known.get((method, path))
            if known is not None or path not in self._paths:  # else it is a 405, or an OPTIONS
                _insist_on(known or (), req.query_string)


def _insist_on(known: tuple[str, ...], query: str) -> None:
    fields = [field for field in query.split("&") if field]
    given = Counter(uri.decode(field.partition("=")[0]) for field in fields)
    faults = [
        FieldError(name[:100], "Given twice" if name in known else _unknown(known))
        for name, times in given.items()
        if times > 1 or name not in known
    ]
    if faults:
        raise WrongFields(faults[:_MOST_TOLD])


def _unknown(known: tuple[str, ...]) -> str:
    return f"Not known here; there is {', '.join(known)}" if known else "Not known here; there is none"


@lru_cache
def _as_declared(template: str) -> str:
    """The route's path as the documents have it: without Falcon's converters."""
    return template.replace(":path}", "}")
