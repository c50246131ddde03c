"""The pages' own calls to accounts. The database finds, sorts and adds up; sums are strings, in cents."""

import falcon
from msgspec.structs import asdict, astuple

from tally.events import now
from tally.http import params
from tally.http.auth import owner
from tally.http.service import Resource, path_id
from tally.store import demo
from tally.store.account_totals import AccountQuery, AccountTotals
from tally.store.accounts import Accounts, CustomerOrder
from tally.store.idempotency import encode_answer
from tally.store.months import Months
from tally.store.revenue import Cents

_TREND = 12  # months shown for each account in the list
_MOST_SORTED = 100_000  # customers: 0.14 s by revenue


class AccountsView(Resource[Accounts]):
    """Accounts with their totals, or their names alone."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the matching accounts, the sum of all of them, and the largest one's total.

        Each account also has its revenue in the twelve months up to `to`, by default this month.
        """
        query = AccountQuery(
            search=params.SEARCH.of(req) or "",
            sort=params.SORT.of(req),
            descending=params.ORDER.of(req) == "desc",
            limit=params.LIMIT.of(req),
            offset=params.OFFSET.of(req),
        )
        last, today = params.LAST_MONTH.of(req), now()
        last = today.year * 12 + today.month - 1 if last is None else last
        with self._service.read() as store:
            totals = AccountTotals(store.database, owner(req))
            accounts = totals.page(query)
            months = Months(store.database).of_each([each.id for each in accounts], last, _TREND)
            everything = totals.sums()
            found = totals.sums(query.search).accounts if query.search else everything.accounts
            largest = totals.largest()
            may_load_demo = owner(req) is None and not everything.accounts and demo.is_empty(store)
        rows = [{**asdict(each), "months": [*map(Cents, months[each.id])]} for each in accounts]
        answer = {"accounts": rows, "found": found, "totals": everything, "may_load_demo": may_load_demo}
        resp.data = encode_answer({**answer, "largest_revenue_cents": largest})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """An account with a part of its customers, in an order."""
        number, limit, offset = path_id(id, "account"), params.LIMIT.of(req), params.OFFSET.of(req)
        with self._service.read() as store:
            total = AccountTotals(store.database, owner(req)).one(number)
            order: CustomerOrder = params.ANY_REVENUE_ORDER.of(req) or first_order(total.customers)
            account = store.account(number, owner(req))
            customers = store.customers_of(number, order, None, limit, offset)
        rows = [
            {"id": id, "name": name, "total_revenue_cents": Cents(cents)}
            for id, name, cents in map(astuple, customers)
        ]
        answer = {"account": {**asdict(account), **asdict(total)}, "customers": rows, "order": order}
        resp.data = encode_answer(answer)

    def on_get_names(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The names of the accounts with the `ids`; without these, of those that match `search`."""
        ids, text, most = params.IDS.of(req), params.SEARCH.of(req) or "", params.FEW.of(req)
        with self._service.read() as store:
            accounts = AccountTotals(store.database, owner(req))
            found = accounts.names_like(text, most) if ids is None else accounts.names_of(ids)
        resp.data = encode_answer({"accounts": found})


def first_order(customers: int) -> CustomerOrder:
    """The first order of so many customers: by revenue, unless sorting them takes long."""
    return "-revenue" if customers <= _MOST_SORTED else "id"
