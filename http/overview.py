"""What the accounts page asks for: light rows, searched, sorted and added up by the database.

These calls are the page's own, and may change with it; sums are strings, in cents.
"""

from collections.abc import Callable
from typing import Any, get_args

import falcon

from tally.events import Id
from tally.http.account_names import AccountNamesResource
from tally.http.auth import owner
from tally.http.lists import sought
from tally.http.problems import FieldError, WrongFields
from tally.http.service import Json, Page, Service, one_of, path_id, query
from tally.store.account_totals import AccountQuery, AccountTotals, Sort
from tally.store.accounts import Accounts
from tally.store.searching import Cents

_LARGEST = 8  # accounts in the chart
_ORDERS = ("asc", "desc")


def add_accounts_overview(app: Any, service: Service[Accounts]) -> None:
    """Add the accounts page's calls."""
    overview = AccountsOverview(service)
    app.add_route("/accounts/names", AccountNamesResource(service))
    app.add_route("/accounts/summary", overview)
    app.add_route("/accounts/{id}/summary", overview, suffix="one")


class AccountsOverview:
    """Accounts with what they come to."""

    def __init__(self, service: Service[Accounts]) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the accounts that match, all of them added up, and the largest."""
        query = _account_query(req)
        with self._service.read() as store:
            totals = AccountTotals(store.database, owner(req))
            accounts = totals.page(query)
            everything = totals.sums()
            found = totals.sums(query.search).accounts if query.search else everything.accounts
            largest = totals.page(AccountQuery(sort="revenue", descending=True, limit=_LARGEST))
        Json.send(resp, {"accounts": accounts, "found": found, "totals": everything, "largest": largest})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """An account with a part of its customers, by ascending id or the largest revenue first."""
        page, number = Page(req, "offset"), path_id(id, "account")
        by_revenue, offset = _choice(req, "sort", ("id", "revenue")) == "revenue", page.filters["offset"] or 0
        with self._service.read() as store:
            total = AccountTotals(store.database, owner(req)).one(number)
            account = store.account(number, owner(req))
            if by_revenue:
                found = store.largest_customers_of(number, offset, page.limit + 1)
            else:
                found = store.customers_of(number, page.after, page.limit + 1)
        customers, following = page.cut(found, lambda customer: customer.customer_id)
        if by_revenue and following is not None:
            following = Id(offset + page.limit)
        rows = [
            {
                "id": each.customer_id,
                "name": each.name,
                "total_revenue_cents": Cents(each.total_revenue_cents),
            }
            for each in customers
        ]
        answer = {"account": total, "description": account.description, "customers": rows, "next": following}
        Json.send(resp, answer)


def _account_query(req: falcon.Request) -> AccountQuery:
    """Raises WrongFields."""
    page = Page(req, "offset")
    sort: Sort = _choice(req, "sort", get_args(Sort))  # type: ignore[assignment]
    return AccountQuery(
        search=_search(req),
        sort=sort,
        descending=_choice(req, "order", _ORDERS) == "desc",
        limit=page.limit,
        offset=page.filters["offset"] or 0,
    )


def _choice(req: falcon.Request, name: str, choices: tuple[str, ...]) -> str:
    """One of the choices; the first when none is asked for. Raises WrongFields."""
    return str(_parameter(req, name, choices[0], one_of(choices)))


def _search(req: falcon.Request) -> str:
    return _parameter(req, "search", None, sought) or ""


def _parameter(req: falcon.Request, name: str, default: Any, parse: Callable[[str], Any]) -> Any:
    faults: list[FieldError] = []
    found = query(req, name, default, parse, faults)
    if faults:
        raise WrongFields(faults)
    return found
