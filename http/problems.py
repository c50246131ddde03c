"""Errors as clients see them: RFC 9457 `application/problem+json`, whatever Accept says.

One table maps what the store can raise to a status; everything a client can do wrong has its own
class below.
"""

import http
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
    """A field of a request and what is wrong with it; `id` is that of what is in the way, if something is."""

    field: str
    message: str
    id: str | None = None


class NodeAddress(Struct, frozen=True):
    """Where another node is found: the address of its service; "" where it has told none."""

    number: int
    url: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused (RFC 9457); `errors` where fields of it are wrong, `node` where to ask
    instead."""

    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    node: NodeAddress | None = None


class MalformedBody(falcon.HTTPBadRequest):
    """400: the body is not the JSON that is due."""

    def __init__(self, detail: str) -> None:
        super().__init__(title="Malformed body", description=detail)


class WrongFields(falcon.HTTPUnprocessableEntity):
    """422: fields are missing, of the wrong type, or out of range."""

    def __init__(self, faults: list[FieldError], detail: str | None = None) -> None:
        shown = ", ".join(dict.fromkeys(fault.field for fault in faults[:10])) or "the body"
        super().__init__(title="Invalid request", description=detail or f"Not acceptable: {shown}.")
        self.faults = faults


class InTheWay(falcon.HTTPConflict):
    """409: something that is there is in the way; each fault names it."""

    def __init__(self, title: str, faults: list[FieldError], detail: str) -> None:
        super().__init__(title=title, description=detail)
        self.faults = faults


class AtAnotherNode(falcon.HTTPError):
    """421: another node has what is asked for (RFC 9110, section 15.5.20)."""

    def __init__(self, node: NodeAddress, detail: str, faults: list[FieldError] | None = None) -> None:
        super().__init__(falcon.HTTP_421, title="At another node", description=detail)
        self.node = node
        self.faults = faults


class AtThePrimary(falcon.HTTPServiceUnavailable):
    """503: this is a standby, and what is asked for is done at the primary."""

    def __init__(self, node: NodeAddress, detail: str) -> None:
        super().__init__(title="At the primary", description=detail, retry_after=RETRY_AFTER_SECONDS)
        self.node = node


class BodyTooLarge(falcon.HTTPContentTooLarge):
    """413: the body is larger than this call takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(title="Body too large", description=f"At most {limit} bytes are taken here.")


class PackedBody(falcon.HTTPUnsupportedMediaType):
    """415: the body comes in a content coding, such as gzip."""

    def __init__(self, coding: str) -> None:
        super().__init__(
            title="Packed body",
            description=f"Bodies are taken as they are, not as Content-Encoding: {coding[:100]}.",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
        )


def render(
    status: int,
    title: str,
    detail: str | None,
    faults: list[FieldError] | None = None,
    node: NodeAddress | None = None,
) -> bytes:
    """The body of an error answer."""
    return msgspec.json.encode(Problem(title, status, detail or title + ".", faults or [], node))


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's error serializer: always JSON, never negotiated."""
    faults = getattr(error, "faults", None)
    phrase = http.HTTPStatus(error.status_code).phrase
    # Falcon's own errors use the status line as the title.
    title = error.title if error.title and not error.title[:3].isdigit() else phrase
    detail = error.description or _DETAILS.get(error.status_code, "").format(req=req)
    resp.data = render(error.status_code, title, detail, faults, getattr(error, "node", None))
    resp.content_type = CONTENT_TYPE


_DETAILS = {
    404: "There is nothing at {req.path}.",
    405: "{req.method} is not offered at {req.path}.",
}


def add_error_handlers(app: Any) -> None:
    """Have `app` answer every error as a problem."""
    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, _handle_unexpected)
    app.add_error_handler(errors.StoreError, _handle_store_error)
    app.add_error_handler(falcon.HTTPError, _handle_http_error)


def _handle_http_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]
) -> None:
    resp.status = error.status
    if error.headers:
        resp.set_headers(error.headers)
    serialize(req, resp, error)


def _handle_store_error(
    req: falcon.Request, resp: falcon.Response, error: errors.StoreError, _params: dict[str, Any]
) -> None:
    _handle_http_error(req, resp, _from_store(req, error), _params)


def _from_store(req: falcon.Request, error: errors.StoreError) -> falcon.HTTPError:
    detail = str(error)
    prefix = "[{}]." if req.path.endswith("/batch") else ""
    match error:
        case errors.NotFound():
            return falcon.HTTPNotFound(description=detail)
        case errors.Misdirected():
            faults = None
            if error.field != "id":
                faults = [
                    FieldError(prefix.format(index) + error.field, f"The {error.kind} {id} is of that node")
                    for index, id in error.named
                ]
            return AtAnotherNode(NodeAddress(error.node, error.url), detail, faults)
        case errors.UnknownReference():
            # Accounts are opened in the other service, whose event is still on its way for a moment.
            hint = "; if it was opened just now, try again in a second" if error.kind == "account" else ""
            return WrongFields(
                [
                    FieldError(prefix.format(index) + error.field, f"There is no {error.kind} {id}{hint}")
                    for index, id in error.missing
                ]
            )
        case errors.KeyReused():
            return WrongFields([FieldError("Idempotency-Key", detail)], detail)
        case errors.Changed():
            return falcon.HTTPPreconditionFailed(title="Changed meanwhile", description=detail)
        case errors.NotEmpty():
            return falcon.HTTPConflict(title="Not empty", description=detail)
        case errors.AccountInUse():
            return falcon.HTTPConflict(title="Account in use", description=detail)
        case errors.CustomerInUse():
            return falcon.HTTPConflict(title="Customer in use", description=detail)
        case errors.InvoiceCredited():
            return falcon.HTTPConflict(title="Invoice credited", description=detail)
        case errors.MoveRefused():
            return falcon.HTTPConflict(title="Reference taken", description=detail)
        case errors.ReferenceTaken():
            faults = [
                FieldError(
                    prefix.format(index) + "reference", f"The {error.kind} {id} has {reference!r}", str(id)
                )
                for index, reference, id in error.taken
            ]
            return InTheWay("Reference taken", faults, detail)
        case errors.RepeatedReference():
            return WrongFields(
                [
                    FieldError(
                        prefix.format(index) + "reference", f"Given twice in one account, as in [{first}]"
                    )
                    for index, first in error.repeated
                ]
            )
        case errors.NotPrimary():
            return AtThePrimary(NodeAddress(error.node, error.url), detail)
        case errors.NotPublished():
            return falcon.HTTPServiceUnavailable(
                title="Not published", description=detail, retry_after=RETRY_AFTER_SECONDS
            )
        case errors.OverCredited():
            return WrongFields(
                [FieldError(prefix.format(index) + error.field, why) for index, why in error.refused]
            )
        case _:
            _log.error("store_unavailable", error=detail)
            return falcon.HTTPServiceUnavailable(
                title="Store unavailable", description=detail, retry_after=RETRY_AFTER_SECONDS
            )


def _handle_unexpected(
    req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]
) -> None:
    _log.exception("request_failed", method=req.method, path=req.path, exc_info=error)
    problem = falcon.HTTPInternalServerError(
        title="Internal error", description="This is a fault of the service; its log tells more."
    )
    _handle_http_error(req, resp, problem, _params)
