"""The demo, which empty pages load: each service records its own part. For admins.

These calls are the pages' own, and may change with them. They may be repeated: the demo is there once.
"""

from typing import Annotated

import falcon
from msgspec import Meta, Struct

from tally.events import Id
from tally.http import bodies
from tally.http.auth import insist_on_admin
from tally.http.service import Resource, cause, read_body, send_made
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
        opened = self._service.write_and_tell(lambda store: made_many(demo.open_accounts(store, cause(req))))
        send_made(resp, opened)


class CustomersDemo(Resource[Customers]):
    """The accounts' customers, and their invoices and credits."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record them. Raises Forbidden or NotEmpty, and HTTPConflict until the accounts are known here."""
        insist_on_admin(req, "The demo is")
        accounts = bodies.decode(read_body(req), Opened).accounts
        try:
            answer = self._service.write_and_tell(
                lambda store: made_many(demo.record_customers(store, accounts, cause(req)))
            )
        except UnknownReference as error:
            raise falcon.HTTPConflict(
                title="Account unknown", description="The accounts are not known here yet: try again soon."
            ) from error
        send_made(resp, answer)
