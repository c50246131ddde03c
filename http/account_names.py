"""GET /accounts/names: the names of accounts, for the customers page."""

import falcon

from tally.events import Id
from tally.http.auth import owner
from tally.http.lists import sought
from tally.http.service import Json, Service, asking, limit
from tally.store.account_names import AccountNames
from tally.store.accounts import Accounts

MOST = 1000  # ids at once: as many as a page of a list may have
SUGGESTED = 8


class AccountNamesResource:
    """Accounts by their ids, or by a part of their names."""

    def __init__(self, service: Service[Accounts]) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The names of the accounts with the `ids`; without these, of those that match `search`."""
        with asking(req) as asked:
            ids = asked("ids", None, _ids)
            text = asked("search", None, sought) or ""
            most = asked("limit", SUGGESTED, limit)
        with self._service.read() as store:
            names = AccountNames(store.database, owner(req))
            found = names.like(text, most) if ids is None else names.of(ids)
        Json.send(resp, {"accounts": found})


def _ids(raw: str) -> list[Id]:
    parts = raw.split(",")
    if len(parts) > MOST:
        raise ValueError(f"Expected at most {MOST} ids")
    return [Id.parse(part) for part in parts]
