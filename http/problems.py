"""Errors as clients see them: RFC 9457 `application/problem+json`, whatever Accept says.

One table maps the store's errors to a status. Faults of a request itself have classes of their own below.
"""

import http
from collections.abc import Iterator, Sequence
from typing import Any

import falcon
import msgspec
import structlog
from msgspec import Struct

from tally.store import errors

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_log = structlog.get_logger()


class FieldError(Struct, frozen=True, omit_defaults=True):
    """A field of a request and what is wrong with it; `id` is that of the row it conflicts with, if any."""

    field: str
    message: str
    id: str | None = None


class NodeAddress(Struct, frozen=True):
    """Another node, and the address of its service, "" if that is unknown."""

    number: int
    url: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused (RFC 9457): `errors` names wrong fields, `node` the node to ask instead."""

    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    node: NodeAddress | None = None


class MalformedBody(falcon.HTTPBadRequest):
    """400: the body is not JSON, or not the kind of JSON expected."""

    def __init__(self, detail: str) -> None:
        super().__init__(title="Malformed body", description=detail)


class Refusal(falcon.HTTPError):
    """An error that names the fields at fault, or the node to ask; with 429 and 503, when to try again."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        faults: Sequence[FieldError] = (),
        node: NodeAddress | None = None,
    ) -> None:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else None
        super().__init__(status, title=title, description=detail, headers=headers)
        self.faults = [*faults]
        self.node = node


class WrongFields(Refusal):
    """422: fields are missing, of the wrong type, or out of range."""

    def __init__(self, faults: list[FieldError], detail: str | None = None) -> None:
        shown = ", ".join(dict.fromkeys(fault.field for fault in faults[:10])) or "the body"
        super().__init__(422, "Invalid request", detail or f"Not acceptable: {shown}.", faults)


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's error serializer: always JSON, never negotiated."""
    phrase = http.HTTPStatus(error.status_code).phrase
    # Falcon's own errors use the status line as the title.
    title = error.title if error.title and not error.title[:3].isdigit() else phrase
    detail = error.description or _DETAILS.get(error.status_code, "").format(req=req)
    faults, node = getattr(error, "faults", []), getattr(error, "node", None)
    problem = Problem(title, error.status_code, detail or title + ".", faults, node)
    resp.data = msgspec.json.encode(problem)
    resp.content_type = CONTENT_TYPE


_DETAILS = {404: "There is nothing at {req.path}.", 405: "{req.method} is not offered at {req.path}."}


def add_error_handlers(app: Any) -> None:
    """Make `app` answer every error as a problem."""
    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, _answer_unexpected)
    app.add_error_handler(errors.StoreError, _answer_store_error)


def _answer_store_error(req: falcon.Request, resp: object, error: errors.StoreError, params: object) -> None:
    if isinstance(error, errors.KeyReused):
        raise WrongFields([FieldError("Idempotency-Key", str(error))], str(error))
    status, title = _ANSWERS.get(type(error), (503, "Store unavailable"))
    faults = [
        FieldError(f"[{index}].{field}" if req.path.endswith("/batch") else field, message, id)
        for index, field, message, id in _faults(error)
    ]
    if status == 422:
        raise WrongFields(faults)
    if type(error) not in _ANSWERS:
        _log.error("store_unavailable", error=str(error))
    node = None
    if isinstance(error, errors.Misdirected | errors.NotPrimary):
        node = NodeAddress(error.node, error.url)
    raise Refusal(status, title, str(error), faults, node)


_ANSWERS: dict[type[errors.StoreError], tuple[int, str]] = {
    errors.NotFound: (404, "Not Found"),
    errors.AccountInUse: (409, "Account in use"),
    errors.CustomerInUse: (409, "Customer in use"),
    errors.InvoiceCredited: (409, "Invoice credited"),
    errors.MoveRefused: (409, "Reference taken"),
    errors.NotEmpty: (409, "Not empty"),
    errors.ReferenceTaken: (409, "Reference taken"),
    errors.Changed: (412, "Changed meanwhile"),
    errors.Misdirected: (421, "At another node"),
    errors.OverCredited: (422, ""),
    errors.RepeatedReference: (422, ""),
    errors.UnknownReference: (422, ""),
    errors.NotPrimary: (503, "At the primary"),
    errors.NotPublished: (503, "Not published"),
}
"""Status and title for each of the store's errors; any other means that the database can't be used."""


def _faults(error: errors.StoreError) -> Iterator[tuple[int, str, str, str | None]]:
    """Each field at fault: its row's index in a batch, its name, the message, and the id of the other row."""
    match error:
        case errors.Misdirected() if error.field != "id":
            for index, id in error.named:
                yield index, error.field, f"The {error.kind} {id} is of that node", None
        case errors.UnknownReference():
            # An account is opened in the other service: its event takes a moment to arrive.
            hint = "; if it was opened just now, try again in a second" if error.kind == "account" else ""
            for index, id in error.missing:
                yield index, error.field, f"There is no {error.kind} {id}{hint}", None
        case errors.ReferenceTaken():
            for index, reference, id in error.taken:
                yield index, "reference", f"The {error.kind} {id} has {reference!r}", str(id)
        case errors.RepeatedReference():
            for index, first in error.repeated:
                yield index, "reference", f"Given twice in one account, as in [{first}]", None
        case errors.OverCredited():
            for index, why in error.refused:
                yield index, error.field, why, None


def _answer_unexpected(req: falcon.Request, resp: object, error: Exception, params: object) -> None:
    _log.exception("request_failed", method=req.method, path=req.path, exc_info=error)
    raise Refusal(500, "Internal error", "This is a fault of the service; its log tells more.")
