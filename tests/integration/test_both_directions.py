"""Events in both directions: each service reacts to the events of the other."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis

from support.tally import Tally
from support.waiting import eventually
from tally.events import AccountDeleted, Id, now
from tally.store.customer_list import CustomerQuery
from tally.store.customers import ROWS_AT_ONCE, Customers, open_database
from tally.store.errors import NotFound
from tally.store.listing import ListQuery
from tally.store.records import NewCustomer, NewInvoice


def _types(client: redis.Redis) -> Counter[str]:
    entries: Any = client.xrange("event-stream")
    return Counter(fields[b"EventTypeName"].decode() for _, fields in entries)


def test_deleting_an_account_deletes_its_customers_and_their_invoices_in_the_other_service(
    tally: Tally, client: redis.Redis
) -> None:
    kept, doomed = (
        tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"] for name in ("kept", "doomed")
    )
    ids = {}
    for account in (kept, doomed):
        customers = [{"name": f"c{n}", "account_id": account} for n in range(3)]
        ids[account] = tally.customers.post("/customers/batch", customers)["ids"]
        invoices = [
            {"customer_id": id, "purchase_date": "2019-01-06", "purchase_price_cents": 100}
            for id in ids[account]
        ]
        tally.customers.post("/invoices/batch", invoices)

    def total(account: str) -> int:
        return int(tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"])

    eventually(lambda: total(kept) == total(doomed) == 300)
    assert tally.accounts.request("DELETE", f"/accounts/{doomed}").status == 409
    tally.accounts.delete(f"/accounts/{doomed}?cascade=true")

    eventually(lambda: tally.customers.get("/customers")["customers"][-1]["id"] == ids[kept][-1])
    eventually(lambda: _types(client)["CustomerDeleted"] == 3)
    assert len(tally.customers.get("/invoices")["invoices"]) == 3
    assert [shown["account"]["id"] for shown in tally.accounts.get("/accounts")] == [kept]
    assert total(kept) == 300
    assert _types(client) == Counter(
        AccountCreated=2, CustomerCreated=6, InvoiceCreated=6, AccountDeleted=1, CustomerDeleted=3
    )


def test_deleting_invoices_and_customers_lowers_the_accounts_revenue(tally: Tally) -> None:
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
    first, second = tally.customers.post(
        "/customers/batch", [{"name": "x", "account_id": account}, {"name": "y", "account_id": account}]
    )["ids"]
    invoices = [
        {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}
        for customer, cents in ((first, 1), (first, 10), (second, 100))
    ]
    one, *_ = tally.customers.post("/invoices/batch", invoices)["ids"]

    def shown() -> list[tuple[str, int]]:
        account_shown = tally.accounts.get(f"/accounts/{account}")
        revenue = [(c["customer_id"], c["total_revenue_cents"]) for c in account_shown["customers"]]
        assert sum(cents for _, cents in revenue) == account_shown["total_revenue_cents"]
        return revenue

    eventually(lambda: shown() == [(first, 11), (second, 100)])
    tally.customers.delete(f"/invoices/{one}")
    eventually(lambda: shown() == [(first, 10), (second, 100)])
    tally.customers.delete(f"/customers/{first}")
    eventually(lambda: shown() == [(second, 100)])
    assert [invoice["customer_id"] for invoice in tally.customers.get("/invoices")["invoices"]] == [second]


def test_the_trace_context_of_a_request_is_on_its_event(tally: Tally, client: redis.Redis) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    tally.customers.post("/customers", {"name": "x", "account_id": "1"}, headers={"traceparent": trace})
    tally.customers.post("/customers", {"name": "x", "account_id": "1"}, headers={"traceparent": "nonsense"})
    eventually(lambda: client.xlen("event-stream") == 2)
    entries: Any = client.xrange("event-stream")
    assert [fields.get(b"TraceParent") for _, fields in entries] == [trace.encode(), None]


def _with_invoices(customers: Customers, ids: Iterable[Id], number: int) -> None:
    with customers.database.transaction():
        for id in ids:
            customers.create_invoices([NewInvoice(id, date(2019, 1, 6), 1)] * number)


def _delete_what_is_left(customers: Customers) -> int:
    """Return the number of transactions this took. None of them may change much: other writers wait."""
    held = customers.database.total_changes()
    parts = 0
    while customers.follow_up():
        parts += 1
        before, held = held, customers.database.total_changes()
        assert held - before <= 3 * ROWS_AT_ONCE
    return parts


@pytest.mark.parametrize("each", [0, 5, 2 * ROWS_AT_ONCE])
def test_an_account_goes_in_parts_that_hold_up_no_other_writer(tmp_path: Path, each: int) -> None:
    customers = Customers(open_database(tmp_path))
    with customers.database.transaction():
        ids = customers.create_customers([NewCustomer("c", Id(7))] * (300 if each < ROWS_AT_ONCE else 2))
        other = customers.create_customers([NewCustomer("d", Id(8))])
    _with_invoices(customers, (*ids, *other), each)
    before, held = customers.outbox.last(), customers.database.total_changes()
    with customers.database.transaction():
        customers.apply([AccountDeleted(Id(7), now())])
    assert customers.database.total_changes() - held <= 3 * ROWS_AT_ONCE

    assert _delete_what_is_left(customers) >= 2
    assert [each.id for each in customers.customers(CustomerQuery(limit=10))] == other
    assert customers.database.value("SELECT count(*) FROM invoice") == each
    told = customers.outbox.after(before, 10_000)
    assert sorted(json.loads(row.payload)["id"] for row in told) == sorted(map(str, ids))


def test_a_customer_with_many_invoices_goes_at_once_and_these_in_parts(tmp_path: Path) -> None:
    customers = Customers(open_database(tmp_path))
    with customers.database.transaction():
        gone, kept = customers.create_customers([NewCustomer("c", Id(7))] * 2)
    _with_invoices(customers, (gone, kept, gone, kept), ROWS_AT_ONCE)
    before = customers.outbox.last()
    with customers.database.transaction():
        customers.delete_customer(gone)

    left = customers.database.value("SELECT max(id) FROM invoice WHERE customer_id = ?", (gone,))
    with pytest.raises(NotFound):
        customers.invoice(left)
    assert customers.invoices(ListQuery(customer_id=gone, limit=10)) == []
    assert {each.customer_id for each in customers.invoices(ListQuery(limit=100_000))} == {kept}
    assert [json.loads(row.payload)["id"] for row in customers.outbox.after(before, 10)] == [str(gone)]

    assert _delete_what_is_left(customers) >= 1
    assert customers.database.value("SELECT count(*) FROM invoice") == 2 * ROWS_AT_ONCE
    assert len(customers.invoices(ListQuery(customer_id=kept, limit=100_000))) == 2 * ROWS_AT_ONCE
    assert not customers.follow_up()
