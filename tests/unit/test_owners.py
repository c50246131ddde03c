"""An owner sees exactly their own rows in both databases, page by page."""

import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tally.events import AccountCreated, AccountDeleted, Id
from tally.store import accounts, belonging, customers
from tally.store.accounts import Accounts, NewAccount
from tally.store.customer_list import CustomerQuery
from tally.store.customer_search import CustomerSearch
from tally.store.customers import Customers
from tally.store.errors import NotFound, UnknownReference
from tally.store.listing import ListQuery, Order
from tally.store.records import Customer, Invoice, NewCredit, NewCustomer, NewInvoice

DAY = datetime(2026, 1, 1, tzinfo=UTC)
OWNERS = ("alice", "bob", "")
ACCOUNTS = st.lists(st.sampled_from(OWNERS), max_size=5)  # the owner of each account, by its number
PLACES = st.lists(st.integers(0, 6), max_size=12)  # the account or customer number of each new row


def _paged(page: Callable[[int, int], list[Any]], limit: int) -> list[int]:
    """All the ids, read page by page."""
    ids: list[int] = []
    while found := page(ids[-1] if ids else -1, limit):
        assert len(found) <= limit
        ids += [each.id for each in found]
    return ids


def _customers(store: Customers, owner: str, after: int, limit: int, **wanted: Any) -> list[Customer]:
    return store.customers(CustomerQuery(limit=limit, after=("", after), **wanted), owner)


def _invoices(store: Customers, owner: str, after: int, limit: int, **wanted: Any) -> list[Invoice]:
    return store.invoices(ListQuery(limit=limit, after=("", after), **wanted), owner)


def _can(do: Callable[..., object], *arguments: Any) -> bool:
    try:
        do(*arguments)
    except (NotFound, UnknownReference):
        return False
    return True


def _kept(known: Iterable[str], deleted: set[int], owner: str) -> set[int]:
    return {id for id, name in enumerate(known, 1) if name == owner and id not in deleted}


@settings(max_examples=40, deadline=None)
@given(ACCOUNTS, st.sets(st.integers(1, 5)), PLACES, PLACES, st.integers(1, 4))
def test_an_owner_sees_the_customers_and_invoices_in_its_accounts_and_no_others(
    known: list[str], deleted: set[int], placed: list[int], billed: list[int], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, closing(customers.open_database(Path(directory))) as db:
        store = Customers(db)
        with db.transaction():
            made = store.create_customers([NewCustomer("n", Id(account)) for account in placed])
            in_account = dict(zip(made, placed, strict=True))
            wanted = [Id(customer) for customer in billed if customer in in_account]
            invoices = store.create_invoices([NewInvoice(id, date(2026, 1, 1), 1) for id in wanted])
            of_customer = dict(zip(invoices, wanted, strict=True))
            store.apply(AccountCreated(Id(id), "n", "", owner, DAY) for id, owner in enumerate(known, 1))
            store.apply(AccountDeleted(Id(id), DAY) for id in deleted)
        for owner in OWNERS:
            own = _kept(known, deleted, owner)
            theirs = [id for id in made if in_account[id] in own]
            bills = [id for id in invoices if of_customer[id] in theirs]
            assert _paged(partial(_customers, store, owner), limit) == theirs
            assert _paged(partial(_invoices, store, owner), limit) == bills
            assert [id for id in made if _can(store.customer, id, owner)] == theirs
            assert [each.id for each in CustomerSearch(db, owner).those(made)] == theirs
            assert [id for id in invoices if _can(store.invoice, id, owner)] == bills
            for account in range(7):
                expected = [id for id in theirs if in_account[id] == account]
                assert _paged(partial(_customers, store, owner, account_id=account), limit) == expected
                expected = [id for id in bills if in_account[of_customer[id]] == account]
                assert _paged(partial(_invoices, store, owner, account_id=account), limit) == expected
                assert _can(belonging.insist_on_accounts, db, [account], owner, False) == (account in own)
            for customer in range(13):
                expected = [id for id in bills if of_customer[id] == customer]
                assert _paged(partial(_invoices, store, owner, customer_id=customer), limit) == expected
                assert _can(belonging.insist_on_customers, db, [customer], owner) == (customer in theirs)


@settings(max_examples=30, deadline=None)
@given(ACCOUNTS, st.sets(st.integers(1, 5)), st.integers(1, 4))
def test_an_owner_sees_its_accounts_and_no_others(known: list[str], deleted: set[int], limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory, closing(accounts.open_database(Path(directory))) as db:
        store = Accounts(db)
        with db.transaction():
            made = [store.create_account(NewAccount("n", owner)) for owner in known]
            store.apply(AccountDeleted(Id(id), DAY) for id in deleted)
        for owner in OWNERS:
            own = sorted(_kept(known, deleted, owner))
            assert _paged(partial(store.accounts, owner=owner), limit) == own
            assert [id for id in made if _can(store.account, id, owner)] == own


def test_a_batch_names_each_row_that_is_not_in_an_own_account_unknown_or_another_s(tmp_path: Path) -> None:
    with closing(customers.open_database(tmp_path)) as db:
        store = Customers(db)
        with db.transaction():
            store.apply([AccountCreated(Id(1), "n", "", "alice", DAY)])
            store.apply([AccountCreated(Id(2), "n", "", "bob", DAY)])
        new = [NewCustomer("n", Id(account)) for account in (1, 2, 3, 1, 2)]
        with pytest.raises(UnknownReference) as caught:
            store.create_customers(new, owner="alice")
        assert caught.value.missing == [(1, 2), (2, 3), (4, 2)]
        assert caught.value.field == "account_id"


def test_an_account_is_nobody_s_until_its_creation_was_heard_of(tmp_path: Path) -> None:
    with closing(customers.open_database(tmp_path)) as db:
        store = Customers(db)
        with db.transaction():
            (id,) = store.create_customers([NewCustomer("n", Id(1))])
            assert not _can(store.customer, id, "alice")
            store.apply([AccountCreated(Id(1), "n", "", "alice", DAY)])
            assert _can(store.customer, id, "alice")


@pytest.mark.parametrize("order", ["id", "-id", "day", "-day"])
def test_a_page_of_one_s_own_never_looks_through_everybody_s(tmp_path: Path, order: Order) -> None:
    everybody_s = re.compile("SCAN (customer|invoice|credit|known_account)")
    with closing(customers.open_database(tmp_path)) as db:
        store, asked = Customers(db), list[tuple[str, Any]]()
        with db.transaction():
            (customer,) = store.create_customers([NewCustomer("n", Id(1))])
            store.create_invoices([NewInvoice(customer, date(2026, 1, 1), 1)])
            store.credits.create([NewCredit(customer, date(2026, 1, 1), 1)])

        def note(_cursor: object, sql: str, bindings: Any) -> bool:
            asked.append((sql, bindings))
            return True

        db._connection.exec_trace = note
        store.customers(CustomerQuery(limit=100), "alice")
        store.invoices(ListQuery(limit=100, order=order), "alice")
        store.credits.page(ListQuery(limit=100, order=order), "alice")
        db._connection.exec_trace = None
        owned = [each for each in asked if "owned_by" in each[0]]
        assert len(owned) == 3
        for sql, bindings in owned:
            steps = [str(row[-1]) for row in db.rows(f"EXPLAIN QUERY PLAN {sql}", bindings)]
            assert "known_account_by_owner (owned_by=?)" in " ".join(steps), steps
            assert not [step for step in steps if everybody_s.match(step)], steps
