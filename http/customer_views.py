"""The customers page's own calls. The database finds, sorts and adds up; sums are strings, in cents."""

from array import array
from contextlib import suppress
from typing import Any

import falcon
from msgspec import UNSET, structs

from tally.events import Id
from tally.http import params
from tally.http.auth import owner
from tally.http.lists import CustomerListRequest, ListRequest
from tally.http.rankings import Ranked, Rankings
from tally.http.service import Resource, Service, path_id
from tally.store.customer_list import CustomerQuery
from tally.store.customer_search import CustomerSearch
from tally.store.customers import Customers
from tally.store.errors import Misdirected, NotFound
from tally.store.idempotency import encode_answer
from tally.store.records import Customer, Invoice


class CustomersView:
    """Customers, for people who search them."""

    def __init__(self, service: Service[Customers]) -> None:
        self._service = service
        self._rankings = Rankings(self._in_order)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A part of the matching customers, with their spending.

        `rank` sorts by spending or last purchase; `next` tells how many to skip. More than 10,000 come in the
        order that they had at an earlier moment, `as_of`. Until that order is known, `ranked` is false, and
        the list has the newest customers.
        """
        listed, rank = CustomerListRequest(req), params.RANK.of(req)
        wanted = listed.wanted
        with self._service.read() as store:
            customers = CustomerSearch(store.database, owner(req))
            if rank:
                ranked = Ranked(owner(req), wanted.account_id, wanted.search, rank)
                answer = self._ranked(customers, listed, ranked)
            else:
                found, following = listed.cut(store.customers(wanted, owner(req)))
                if by_id := _by_id(store, wanted, owner(req)):  # first, and beside the page
                    found = [*([] if wanted.after else [by_id]), *(each for each in found if each != by_id)]
                answer = {"customers": customers.rows(found), "next": following}
        resp.data = encode_answer(answer)

    def _ranked(
        self, customers: CustomerSearch, listed: CustomerListRequest, wanted: Ranked
    ) -> dict[str, object]:
        offset = listed.wanted.after[1] if listed.wanted.after else 0
        until = offset + listed.wanted.limit - 1  # one more was asked for
        rows, as_of = customers.ranked(listed.wanted, wanted.rank, offset), None
        if rows is None:
            ranking = self._rankings.ask(wanted)
            if ranking is None:
                newest, _ = listed.cut(customers.newest(listed.wanted))
                return {"customers": newest, "next": None, "ranked": False}
            # Deleted ones are still in the order, and count as shown.
            rows, as_of = customers.those(ranking.ids[offset:until]), ranking.as_of
            more = len(ranking.ids) > until
        else:
            rows, more = rows[: until - offset], len(rows) > until - offset
        return {"customers": rows, "next": str(until) if more else None, "ranked": True, "as_of": as_of}

    def _in_order(self, wanted: Ranked) -> "array[int]":
        query = CustomerQuery(limit=0, account_id=wanted.account_id, search=wanted.search)
        with self._service.read() as store:
            return CustomerSearch(store.database, wanted.owner).in_order(query, wanted.rank)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """A customer with a part of its invoices and credits, the newest first."""
        number, limit, offset = path_id(id, "customer"), params.LIMIT.of(req), params.OFFSET.of(req)
        with self._service.read() as store:
            customers = CustomerSearch(store.database)
            customer, sums = store.customer(number, owner(req)), customers.sums(number)
            is_open = customers.is_open(customer.account_id)
            entries = customers.entries(number, offset, limit)
        answer = {"customer": customer, "account_is_open": is_open, "totals": sums, "entries": entries}
        resp.data = encode_answer(answer)


class InvoicesView(Resource[Customers]):
    """Invoices of all customers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of GET /invoices, with the customers."""
        listed = ListRequest(req, "purchase_date")
        with self._service.read() as store:
            invoices, following = listed.cut(store.invoices(listed.wanted, owner(req)))
            found = CustomerSearch(store.database).named([each.customer_id for each in invoices])
        rows = [_with_whose(each, found[each.customer_id]) for each in invoices]
        resp.data = encode_answer({"invoices": rows, "next": following})


def _with_whose(invoice: Invoice, customer: Customer) -> dict[str, Any]:
    told = structs.asdict(invoice)
    told["reference"] = None if invoice.reference is UNSET else invoice.reference
    return {**told, "customer": customer.name, "account_id": customer.account_id}


def _by_id(store: Customers, wanted: CustomerQuery, owner: str | None) -> Customer | None:
    """The customer whose number is the search text."""
    with suppress(ValueError, NotFound, Misdirected):
        customer = store.customer(Id.parse(wanted.search), owner)
        return customer if wanted.account_id in (None, customer.account_id) else None
    return None
