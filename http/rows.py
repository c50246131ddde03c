"""The calls of customers, invoices and credits: create one or many, list, show, change, delete."""

from collections.abc import Callable
from typing import Any, NamedTuple

import falcon
from msgspec import Struct, structs

from tally.events import Id
from tally.http import bodies, exports
from tally.http.auth import owner
from tally.http.lists import CustomerListRequest, ListRequest
from tally.http.service import BATCH_BODY, NODE, Resource, path_id, read_body, wanted_revisions
from tally.store.cause import Cause
from tally.store.customers import Customers
from tally.store.idempotency import Answer, encode_answer, made, made_many


class Kind(NamedTuple):
    """A kind of rows: its name, its body type, a page of its list, and the store's methods.

    `asked` parses a request's query. `create` records rows in the given order. All methods get an owner, or
    the request, and are about that user's accounts only; None is for all. A line of CSV comes with its
    position in the list. `change` is the type of a change's body, and what applies it and answers the row.
    """

    name: str
    body: type[Struct]
    page: type[Struct]
    csv_header: str
    asked: Callable[[falcon.Request], CustomerListRequest | ListRequest]
    create: Callable[[Customers, list[Any], Cause, str | None], list[Id]]
    rows: Callable[[Customers, Any, str | None], list[Any]]
    lines: Callable[[Customers, Any, str | None], list[tuple[str, str, int]]]
    one: Callable[[Customers, Id, str | None], Any]
    delete: Callable[[Customers, Id, falcon.Request], None]
    change: tuple[type[Struct], Callable[..., Any]] | None = None


class RowsResource(Resource[Customers]):
    """The rows of one kind."""

    _kind: Kind

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one."""
        body = read_body(req)
        new = bodies.decode(body, self._kind.body)

        def create(store: Customers, cause: Cause) -> Answer:
            return made(f"/{self._kind.name}s", *self._kind.create(store, [new], cause, owner(req)))

        self._service.create(req, resp, body, create)

    def on_post_batch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create many, all or none."""
        body = read_body(req, BATCH_BODY)
        new = bodies.decode_batch(body, self._kind.body)

        def create(store: Customers, cause: Cause) -> Answer:
            return made_many(self._kind.create(store, new, cause, owner(req)))

        self._service.create(req, resp, body, create)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        listed = self._kind.asked(req)
        resp.set_header(NODE, str(self._service.outside.node))
        if exports.wants_csv(req, resp):
            self._send_csv(req, resp, listed.wanted)
            return
        with self._service.read() as store:
            found = self._kind.rows(store, listed.wanted, owner(req))
        resp.data = encode_answer(self._kind.page(*listed.cut(found)))

    def _send_csv(self, req: falcon.Request, resp: falcon.Response, wanted: Any) -> None:
        user, goes_on = owner(req), wanted.order in ("id", "-id") and not getattr(wanted, "search", None)
        most = exports.AT_ONCE if goes_on else exports.SORTED_AT_ONCE

        def read(after: tuple[str, int] | None) -> list[tuple[str, str, int]]:
            with self._service.read() as store:
                return self._kind.lines(store, structs.replace(wanted, limit=most, after=after), user)

        lines = exports.paged(read, most)
        exports.send(req, resp, self._service.long_lists, self._kind.csv_header, lines)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show one."""
        with self._service.read() as store:
            row = self._kind.one(store, path_id(id, self._kind.name), owner(req))
        resp.data = encode_answer(row)
        if hasattr(row, "revision"):
            resp.etag = str(row.revision)

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete one."""
        number = path_id(id, self._kind.name)
        self._service.take_away(resp, lambda store: self._kind.delete(store, number, req))


class ChangeableRowsResource(RowsResource):
    """The rows of a kind that can be changed."""

    def on_patch_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Change one."""
        assert self._kind.change
        patch, apply = self._kind.change
        body, number = read_body(req), path_id(id, self._kind.name)
        change, revisions, user = bodies.decode_change(body, patch), wanted_revisions(req), owner(req)
        self._service.change_row(
            req, resp, body, lambda store, cause: apply(store, number, change, cause, user, revisions)
        )
