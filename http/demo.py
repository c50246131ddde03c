"""The demo, which empty pages load: each service records its own part. For admins.

These calls are the pages' and `demo`'s own, and may change with them. They may be repeated: the demo is there
once. An Idempotency-Key is known here alone: events of several kinds can't tell again what was answered.
"""

from typing import Annotated

import falcon
from msgspec import Meta, Struct

from tally.events import Id
from tally.http import bodies
from tally.http.auth import insist_on_admin
from tally.http.problems import Refusal
from tally.http.service import Resource, cause, read_body
from tally.store import demo
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.demo_data import ACCOUNTS
from tally.store.errors import UnknownReference
from tally.store.idempotency import made_many


class Opened(Struct, frozen=True):
    """The body of the customers' part: the demo's accounts, in order."""

    accounts: Annotated[list[Id], Meta(min_length=len(ACCOUNTS), max_length=len(ACCOUNTS))]


class AccountsDemo(Resource[Accounts]):
    """The accounts."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Open them. Raises Forbidden or NotEmpty."""
        insist_on_admin(req, "The demo is")
        self._service.create(
            req, resp, b"", lambda store, _: made_many(demo.open_accounts(store, cause(req)))
        )


class CustomersDemo(Resource[Customers]):
    """The accounts' customers, and their invoices and credits."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record them. Raises Forbidden or NotEmpty, or 503 until the accounts are known here."""
        insist_on_admin(req, "The demo is")
        body = read_body(req)
        accounts, told = bodies.decode(body, Opened).accounts, cause(req)
        try:
            self._service.create(
                req, resp, body, lambda store, _: made_many(demo.record_customers(store, accounts, told))
            )
        except UnknownReference as error:
            raise Refusal(
                503, "Account unknown", "The accounts are not known here yet: try again soon."
            ) from error
