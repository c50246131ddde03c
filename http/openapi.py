"""The OpenAPI 3.1 document of a service: its calls as data, and how they are written down.

The schemas are made from the definitions that validate the requests and make the answers.
"""

import re
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any

import falcon
from msgspec import Struct

from tally.http.params import Parameter
from tally.http.problems import CONTENT_TYPE, Problem
from tally.http.schemas import schemas_of
from tally.version import VERSION

_GROUPS = {"auth": "Signing in"} | {
    name: name.capitalize() for name in ("accounts", "customers", "invoices", "credits", "revenue")
}


class Call(Struct, frozen=True):
    """A call of a service: its request and its answers.

    `id` is its name for programs. `path` may hold `{name}`s, each described in `parameters`. `sends` is the
    definition of the request's body, `answer` that of the body that comes with `status`. Each has an example
    that is right for a service with account 1 and its customer 1. `problems` are the error statuses beyond
    those that follow from the parameters and the body. `leads_to` names calls that take the `id` that this
    call answers. A call that isn't JSON has a `media_type`.
    """

    id: str
    method: str
    path: str
    does: str
    says: str = ""
    parameters: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    sends: Any = None
    sent: Any = None
    status: int = 200
    answer: Any = None
    answered: Any = None
    media_type: str = falcon.MEDIA_JSON
    csv: str = ""  # an example of what it answers with `Accept: text/csv`, where it does
    answer_headers: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    leads_to: tuple[str, ...] = ()
    public: bool = False  # wants no token, also where authentication is on
    answers_for_all: bool = False  # also for ids of nothing
    of_a_node: bool = False  # the node that has it answers, and no other

    @property
    def group(self) -> str:
        """What it is about: the calls of one group are shown together."""
        _, first, *rest = self.path.split("/")
        return _GROUPS.get("revenue" if "revenue" in rest else first, "The service itself")

    def refusals(self, bearer: bool) -> list[int]:
        """The statuses of the problems that it may be answered with."""
        found = {403, 422, *self.problems}  # not for everybody, or another site's page; an unknown parameter
        if self.parameters and not self.answers_for_all:
            found.add(404)
        if self.sends:
            found |= {400, 413, 415}
        if self.of_a_node:
            found.add(421)
        if bearer and not self.public:
            found.add(401)
        return sorted(found)


def document(title: str, calls: Collection[Call], bearer: bool = False) -> dict[str, Any]:
    """The OpenAPI document of a service that offers `calls`."""
    schemas, definitions = schemas_of(_kinds(calls))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas, bearer)
    bearers = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION},
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in dict.fromkeys(call.group for call in calls)],
        "paths": paths,
        "components": {"schemas": definitions, **({"securitySchemes": bearers} if bearer else {})},
        **({"security": [{"bearer": []}]} if bearer else {}),
    }


_Schemas = dict[Any, dict[str, Any]]
"""The schema of each kind, or a reference to it."""


def _kinds(calls: Iterable[Call]) -> list[Any]:
    kinds: list[Any] = [Problem]
    for call in calls:
        given = (*call.parameters, *call.query, *call.headers, *call.answer_headers)
        kinds += [parameter.kind for parameter in given]
        kinds += [kind for kind in (call.sends, call.answer) if kind is not None]
    return kinds


def _operation(call: Call, schemas: _Schemas, bearer: bool) -> dict[str, Any]:
    assert set(re.findall("{(.*?)}", call.path)) == {each.name for each in call.parameters}
    operation: dict[str, Any] = {"operationId": call.id, "tags": [call.group], "summary": call.does}
    if call.says:
        operation["description"] = call.says
    given = {"path": call.parameters, "query": call.query, "header": call.headers}
    parameters = [_parameter(place, each, schemas) for place, group in given.items() for each in group]
    if parameters:
        operation["parameters"] = parameters
    if call.sends is not None:
        content = {falcon.MEDIA_JSON: {"schema": schemas[call.sends], "example": call.sent}}
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = {
        str(call.status): _answer(call, schemas),
        **{str(status): _problem(status, schemas) for status in call.refusals(bearer)},
    }
    if bearer and call.public:
        operation["security"] = []
    return operation


def _parameter(place: str, parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    named = {"name": parameter.name, "in": place, "required": place == "path"}
    return named | _described(parameter, schemas)


def _described(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    schema = schemas[parameter.kind]
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    return {"description": parameter.says, "schema": schema, "example": parameter.example}


def _answer(call: Call, schemas: _Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(call.status).phrase}
    if call.answer is not None:
        answer["content"] = {call.media_type: {"schema": schemas[call.answer], "example": call.answered}}
        if call.csv:
            answer["content"]["text/csv"] = {"schema": {"type": "string"}, "example": call.csv}
    if call.answer_headers:
        answer["headers"] = {each.name: _described(each, schemas) for each in call.answer_headers}
    if call.leads_to:
        answer["links"] = {
            other: {"operationId": other, "parameters": {"id": "$response.body#/id"}}
            for other in call.leads_to
        }
    return answer


_RETRY_AFTER = ("Retry-After", "How many seconds to wait before trying again.", "integer")
# The header that comes with a problem of that status.
_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate", "The authentication that is wanted.", "string"),
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def _problem(status: int, schemas: _Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {CONTENT_TYPE: {"schema": schemas[Problem]}},
    }
    if status in _PROBLEM_HEADERS:
        name, says, type = _PROBLEM_HEADERS[status]
        answer["headers"] = {name: {"description": says, "schema": {"type": type}}}
    return answer
