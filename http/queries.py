"""Reads queries, and refuses unknown and repeated parameters: ignored, they would change what was asked."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import falcon
from falcon import uri

from tally.http.bodies import MOST_TOLD
from tally.http.openapi import Call
from tally.http.params import Parameter, Queries
from tally.http.problems import FieldError, WrongFields


class QueryGuard:
    """Reads the parameters that `calls` and `others` declare, so that `Parameter.of` has their values.

    It refuses all others, those that are given twice, and wrong values. A route without a declaration takes
    none.
    """

    def __init__(self, calls: Collection[Call], others: Queries) -> None:
        queries = {**{(call.method, call.path): call.query for call in calls}, **others}
        self._known = {call: {each.name: each for each in query} for call, query in queries.items()}
        self._paths = {path for _, path in queries}

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Raises WrongFields, with every fault of the query."""
        if req.query_string:
            path = (req.uri_template or "").replace(":path}", "}")  # as declared: without converters
            method = "GET" if req.method == "HEAD" else req.method
            known = self._known.get((method, path))
            if known is not None or path not in self._paths:  # else it is a 405, or an OPTIONS
                req.context.asked = _read(known or {}, req)


def _read(known: Mapping[str, Parameter], req: falcon.Request) -> dict[str, Any]:
    fields = [field for field in req.query_string.split("&") if field]
    given = Counter(uri.decode(field.partition("=")[0]) for field in fields)
    values, faults = {}, []
    for name, times in given.items():
        if times > 1 or name not in known:
            unknown = f"Not known here; there is {', '.join(known) or 'none'}"
            faults.append(FieldError(name[:100], "Given twice" if name in known else unknown))
        elif (raw := req.get_param(name)) is not None:
            try:
                values[name] = known[name].read(raw)
            except ValueError as error:
                faults.append(FieldError(name, str(error)))
    if faults:
        raise WrongFields(faults[:MOST_TOLD])
    return values
