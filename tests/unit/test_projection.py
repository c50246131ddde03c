"""The accounts that result from events, in any order, with any duplicates, in any batches."""

import tempfile
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tally.events import (
    PAYLOAD_FIELD,
    TYPE_FIELD,
    AccountCreated,
    AccountDeleted,
    AccountUpdated,
    CreditCreated,
    CreditDeleted,
    CustomerCreated,
    CustomerDeleted,
    CustomerUpdated,
    Event,
    Id,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
    decode,
    encode,
    rfc3339,
)
from tally.store.accounts import AccountChange, Accounts, NewAccount, open_database
from tally.store.cause import Cause
from tally.store.errors import AccountInUse, NotFound
from tally.store.ids import SPAN
from tally.store.inbox import Inbox
from tally.store.months import Month, Months
from tally.store.outbox import OutboxRow, OwnEvent

_THEN = datetime(2019, 3, 23, tzinfo=UTC)


def _shown(accounts: Accounts) -> dict[int, Any]:
    """Every account: its owner, and its customers with their revenue."""
    return {
        int(account.id): (
            account.owned_by,
            {int(c.customer_id): (c.name, c.total_revenue_cents) for c in accounts.customers_of(account.id)},
        )
        for account in accounts.accounts(-1, 1000)
    }


def _apply(accounts: Accounts, *events: Event) -> None:
    with accounts.database.transaction():
        accounts.apply(events)


DAYS = [date(2019, 1, 6), date(2019, 1, 7), date(2019, 3, 1), date(2018, 12, 31)]


def _invoice(id: int, customer: int, cents: int, day: date = DAYS[0]) -> InvoiceCreated:
    return InvoiceCreated(Id(id), Id(customer), cents, _THEN, day)


def _credit(id: int, customer: int, cents: int, day: date = DAYS[0]) -> CreditCreated:
    return CreditCreated(Id(id), Id(customer), cents, _THEN, day)


def _credit_deleted(id: int, customer: int, cents: int, day: date = DAYS[0]) -> CreditDeleted:
    return CreditDeleted(Id(id), Id(customer), cents, _THEN, day)


def _customer(id: int, account: int, name: str = "n") -> CustomerCreated:
    return CustomerCreated(Id(id), Id(account), name, _THEN)


def _account(id: int, owner: str = "u", seconds: int = 0) -> AccountCreated:
    return AccountCreated(Id(id), "a", "", owner, _THEN + timedelta(seconds=seconds))


def _moved(id: int, account: int, revision: int = 1, name: str = "n") -> CustomerUpdated:
    return CustomerUpdated(Id(id), Id(account), name, revision, _THEN)


def _handed_over(id: int, owner: str, revision: int = 1) -> AccountUpdated:
    return AccountUpdated(Id(id), "a", "", owner, revision, _THEN)


def _corrected(
    id: int, customer: int, before: int, after: int, day: date = DAYS[0], last: date = DAYS[0]
) -> InvoiceUpdated:
    return InvoiceUpdated(Id(id), Id(customer), after, last, before, day, 1, _THEN)


def test_invoices_before_their_customer_and_customers_before_their_account_count(accounts: Accounts) -> None:
    _apply(accounts, _invoice(1, 7, 500), _invoice(2, 7, 250))
    _apply(accounts, _customer(7, 3))
    assert _shown(accounts) == {}
    _apply(accounts, _account(3))
    assert _shown(accounts) == {3: ("u", {7: ("n", 750)})}


def test_a_deleted_invoice_is_subtracted(accounts: Accounts) -> None:
    _apply(accounts, _account(3), _customer(7, 3), InvoiceDeleted(Id(1), Id(7), 500, _THEN))
    _apply(accounts, _invoice(1, 7, 500), _invoice(2, 7, 250))
    assert _shown(accounts) == {3: ("u", {7: ("n", 250)})}


def test_a_deleted_customer_stays_away_whatever_comes_later(accounts: Accounts) -> None:
    _apply(accounts, _account(3), CustomerDeleted(Id(7), Id(3), _THEN))
    _apply(accounts, _customer(7, 3), _invoice(1, 7, 500))
    assert _shown(accounts) == {3: ("u", {})}


def test_a_deleted_account_stays_away_whatever_comes_later(accounts: Accounts) -> None:
    _apply(accounts, AccountDeleted(Id(3), _THEN))
    _apply(accounts, _account(3), _customer(7, 3))
    assert _shown(accounts) == {}
    with pytest.raises(NotFound):
        accounts.account(3)


def test_new_accounts_get_ids_above_any_that_was_seen(accounts: Accounts) -> None:
    _apply(accounts, _account(40), AccountDeleted(Id(50), _THEN))
    with accounts.database.transaction():
        assert accounts.create_account(NewAccount("mine", "me")) == 51


@pytest.mark.parametrize("id", [SPAN + 40, 10 * SPAN, 2**63 - 1])
def test_what_others_call_their_accounts_leaves_this_nodes_ids_as_they_are(
    accounts: Accounts, id: int
) -> None:
    _apply(accounts, _account(40), _account(id))
    with accounts.database.transaction():
        assert accounts.create_account(NewAccount("mine", "me")) == 41
    assert accounts.account(id).id == id


def test_ids_that_are_given_are_above_those_of_other_programs_up_to_the_last_that_is_counted(
    accounts: Accounts,
) -> None:
    _apply(accounts, _account(10**9))
    with accounts.database.transaction():
        (first, second) = (accounts.create_account(NewAccount("mine", "me")) for _ in range(2))
    assert 10**9 < first == second - 1 < SPAN, "from a block that nobody had"


def test_its_own_events_change_nothing(accounts: Accounts) -> None:
    with accounts.database.transaction():
        id = accounts.create_account(NewAccount("mine", "me"))
    before = _shown(accounts)
    row = accounts.account(id)
    _apply(accounts, AccountCreated(id, "mine", "", "me", datetime.fromisoformat(row.created_date)))
    assert _shown(accounts) == before
    assert accounts.account(id) == row


def test_a_copy_that_takes_its_events_back_knows_who_did_it(accounts: Accounts, tmp_path: Path) -> None:
    with accounts.database.transaction():
        id = accounts.create_account(NewAccount("mine", "me"), Cause(by="ana"))
    with accounts.database.transaction():
        accounts.change_account(id, AccountChange(name="yours"), Cause(by="bob"))
    (tmp_path / "other").mkdir()
    other = Accounts(open_database(tmp_path / "other"))
    columns = "sequence, type, payload, trace_parent, request_key, by_user"
    rows = starmap(OutboxRow, accounts.database.rows(f"SELECT {columns} FROM outbox ORDER BY 1"))
    own = [OwnEvent(row, decode({TYPE_FIELD: row.type.encode(), PAYLOAD_FIELD: row.payload})) for row in rows]
    with other.database.transaction():
        other.make_again(own)
    assert other.history(id) == accounts.history(id)
    assert [each.by for each in other.history(id)] == ["ana", "bob"]
    with other.database.transaction():
        other.apply(other.state())  # they tell of no user, and come once more
    assert other.history(id) == accounts.history(id)


def test_of_two_creations_of_one_account_the_first_by_date_counts_in_either_order(
    accounts: Accounts, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Accounts(open_database(tmp_path / "other"))
    early, late = _account(3, "early"), _account(3, "late", seconds=1)
    _apply(accounts, early, late)
    _apply(other, late)
    _apply(other, early)
    assert _shown(accounts) == _shown(other) == {3: ("early", {})}


def test_an_account_with_customers_is_only_deleted_with_cascade(accounts: Accounts) -> None:
    _apply(accounts, _account(3), _customer(7, 3))
    with pytest.raises(AccountInUse), accounts.database.transaction():
        accounts.delete_account(3)
    with accounts.database.transaction():
        accounts.delete_account(3, cascade=True)
    assert _shown(accounts) == {}


def test_a_sum_beyond_64_bits_is_refused_and_never_becomes_a_float(accounts: Accounts) -> None:
    _apply(accounts, _account(3), _customer(7, 3), _invoice(1, 7, 700))
    accounts.database.execute("UPDATE customer SET revenue_cents = 9223372036854775000")
    with pytest.raises(OverflowError, match="the revenue of the customer 7"):
        _apply(accounts, _invoice(2, 7, 108))
    assert _shown(accounts) == {3: ("u", {7: ("n", 9223372036854775700)})}
    _apply(accounts, _invoice(3, 7, 107))
    assert _shown(accounts) == {3: ("u", {7: ("n", 2**63 - 1)})}


def test_a_customer_that_moves_takes_its_revenue_along(accounts: Accounts) -> None:
    _apply(accounts, _account(3), _account(4), _customer(7, 3), _customer(8, 3), _invoice(1, 7, 500))
    _apply(accounts, _moved(7, 4, name="m"), _invoice(2, 7, 20))
    assert _shown(accounts) == {3: ("u", {8: ("n", 0)}), 4: ("u", {7: ("m", 520)})}
    totals = accounts.database.rows("SELECT * FROM account_total ORDER BY account_id")
    assert totals == [(3, 1, 0), (4, 1, 520)]


def test_of_several_moves_the_highest_revision_counts_whenever_it_comes(accounts: Accounts) -> None:
    _apply(accounts, _account(3), _account(4), _moved(7, 4, revision=2))
    _apply(accounts, _moved(7, 3, revision=1), _customer(7, 3))
    assert _shown(accounts) == {3: ("u", {}), 4: ("u", {7: ("n", 0)})}


def test_an_amount_that_was_corrected_and_taken_back_counts_no_more(accounts: Accounts) -> None:
    day = date(2019, 1, 6)
    deleted = InvoiceDeleted(Id(1), Id(7), 500, _THEN, day, 450, day)
    _apply(accounts, _account(3), _customer(7, 3), deleted)
    _apply(accounts, _corrected(1, 7, 500, 450), _invoice(1, 7, 500))
    assert _shown(accounts) == {3: ("u", {7: ("n", 0)})}


def test_an_account_whose_creation_has_not_come_or_is_lost_is_there_from_its_first_change_on(
    accounts: Accounts,
) -> None:
    """Its customers' revenue used to be shown nowhere for good, once no outbox had the creation any more."""
    later = structs.replace(_handed_over(3, "w", 2), updated_date=_THEN + timedelta(seconds=9))
    _apply(accounts, later)
    assert _shown(accounts) == {3: ("w", {})}
    _apply(accounts, structs.replace(_handed_over(3, "v"), updated_date=_THEN + timedelta(seconds=5)))
    assert _shown(accounts) == {3: ("w", {})}
    assert accounts.account(3).created_date == rfc3339(_THEN + timedelta(seconds=5))
    _apply(accounts, _account(3, seconds=7))  # the clock went back since
    assert accounts.account(3).created_date == rfc3339(_THEN + timedelta(seconds=7))
    _apply(accounts, later)
    assert accounts.account(3).created_date == rfc3339(_THEN + timedelta(seconds=7))


def test_how_things_stand_tells_all_that_changes_told(accounts: Accounts, tmp_path: Path) -> None:
    _apply(
        accounts, _account(3), _handed_over(3, "v"), _account(4), AccountDeleted(Id(4), _THEN, cascade=False)
    )
    (tmp_path / "other").mkdir()
    other = Accounts(open_database(tmp_path / "other"))
    told = [*accounts.state()]
    _apply(other, *reversed(told))
    assert _shown(other) == _shown(accounts) == {3: ("v", {})}
    assert [event.cascade for event in told if isinstance(event, AccountDeleted)] == [False]


_IDS = st.integers(1, 3)
_DAYS = st.sampled_from(DAYS)
_EVENTS = st.one_of(
    st.builds(_account, _IDS, st.sampled_from(["u", "v"]), st.integers(0, 2)),
    st.builds(lambda id: AccountDeleted(Id(id), _THEN), _IDS),
    st.builds(_customer, _IDS, _IDS, st.sampled_from(["n", "m"])),
    st.builds(lambda id: CustomerDeleted(Id(id), Id(1), _THEN), _IDS),
    st.builds(_invoice, _IDS, _IDS, st.integers(0, 9), _DAYS),
    st.builds(_credit, _IDS, _IDS, st.integers(1, 9), _DAYS),
    st.builds(_credit_deleted, _IDS, _IDS, st.integers(1, 9), _DAYS),
    st.builds(lambda id, customer, cents: InvoiceDeleted(Id(id), Id(customer), cents, _THEN),
              _IDS, _IDS, st.integers(0, 9)),
    st.builds(_moved, _IDS, _IDS, st.integers(1, 3), st.sampled_from(["n", "m"])),
    st.builds(_handed_over, _IDS, st.sampled_from(["u", "v", "w"]), st.integers(1, 3)),
    st.builds(_corrected, _IDS, _IDS, st.integers(0, 9), st.integers(0, 9), _DAYS, _DAYS),
    st.builds(lambda id, customer, cents, last: InvoiceDeleted(
                  Id(id), Id(customer), cents, _THEN, date(2019, 1, 6), last, date(2019, 1, 7)),
              _IDS, _IDS, st.integers(0, 9), st.integers(0, 9)),
)  # fmt: skip


def _model(events: list[Event]) -> dict[int, Any]:
    """The result of the events, whatever their order."""
    gone = {(type(e), e.id) for e in events if isinstance(e, CustomerDeleted | AccountDeleted)}
    made: dict[Any, Any] = {}
    for a in sorted(
        (e for e in events if isinstance(e, AccountCreated)), key=lambda e: (e.created_date, e.owned_by)
    ):
        made.setdefault(a.id, a)
    homes: dict[Any, Any] = {}
    for c in sorted(
        (e for e in events if isinstance(e, CustomerCreated)), key=lambda e: (e.account_id, e.name)
    ):
        homes.setdefault(c.id, (c.account_id, c.name))
    owners = {id: account.owned_by for id, account in made.items()}
    updates = [e for e in events if isinstance(e, CustomerUpdated | AccountUpdated)]
    for u in sorted(updates, key=lambda e: (e.revision, encode(e))):
        if isinstance(u, AccountUpdated):
            owners[u.id] = u.owned_by
        else:
            homes[u.id] = (u.account_id, u.name)
    revenue: dict[Any, int] = dict.fromkeys(homes, 0)
    for i in events:
        for customer, _, cents in _earned(i):
            if customer in homes:
                revenue[customer] += cents
    return {
        int(id): (owners[id], {int(c): (name, revenue[c]) for c, (home, name) in homes.items()
                               if home == id and (CustomerDeleted, c) not in gone})
        for id in owners if (AccountDeleted, id) not in gone
    }  # fmt: skip


def _earned(event: Event) -> list[tuple[int, str | None, int]]:
    """The changes an event makes: customer, month, cents."""

    def of(day: date | None, cents: int) -> tuple[int, str | None, int]:
        return event.customer_id, str(day)[:7] if day else None, cents  # type: ignore[attr-defined]

    match event:
        case InvoiceCreated():
            return [of(event.purchase_date, event.purchase_price_cents)]
        case InvoiceUpdated():
            return [
                of(event.previous_date, -event.previous_price_cents),
                of(event.purchase_date, event.purchase_price_cents),
            ]
        case InvoiceDeleted(last_price_cents=None):
            return [of(event.purchase_date, -event.purchase_price_cents)]
        case InvoiceDeleted():
            return [of(event.last_date, -(event.last_price_cents or 0))]
        case CreditCreated():
            return [of(event.credit_date, -event.credited_cents)]
        case CreditDeleted():
            return [of(event.credit_date, event.credited_cents)]
        case _:
            return []


def _months(months: list[Month]) -> dict[str | None, int]:
    """The months whose sum is not zero."""
    shown = ((each.month and f"{each.month // 100}-{each.month % 100:02}", each.cents) for each in months)
    return {str(month) if month else None: cents for month, cents in shown if cents}


def _assert_months(accounts: Accounts, events: list[Event], model: dict[int, Any]) -> None:
    """The months of each customer, each account and all accounts match the events, and so does the total."""
    of_customer: defaultdict[int, Counter[str | None]] = defaultdict(Counter)
    for event in events:
        for customer, month, cents in _earned(event):
            of_customer[customer][month] += cents
    months, everything = Months(accounts.database), Counter[str | None]()
    for account, (_, customers) in model.items():
        together = Counter[str | None]()
        for customer, (_, total) in customers.items():
            found = _months(months.of_customer(account, customer))
            assert found == {month: cents for month, cents in of_customer[customer].items() if cents}
            assert sum(found.values()) == total
            together.update(of_customer[customer])
        assert _months(months.of_account(account)) == {key: cents for key, cents in together.items() if cents}
        everything.update(together)
    assert _months(months.of_all()) == {key: cents for key, cents in everything.items() if cents}


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(_EVENTS, max_size=15))
def test_any_order_duplication_and_batching_leaves_what_the_events_mean(
    data: st.DataObject, events: list[Event]
) -> None:
    named = {f"{index}-0": event for index, event in enumerate(events)}
    deliveries = data.draw(
        st.permutations([*named, *data.draw(st.lists(st.sampled_from([*named])) if named else st.just([]))])
    )
    with tempfile.TemporaryDirectory() as directory:
        accounts = Accounts(open_database(Path(directory)))
        while deliveries:
            size = data.draw(st.integers(1, len(deliveries)))
            batch, deliveries = deliveries[:size], deliveries[size:]
            with accounts.database.transaction():
                accounts.apply(Inbox(accounts.database).take({name: named[name] for name in batch}, 0))
        model = _model(events)
        assert _shown(accounts) == model
        _assert_months(accounts, events, model)
        _assert_histories(accounts, events)
        accounts.database.close()


def _assert_histories(accounts: Accounts, events: list[Event]) -> None:
    """Each account's history tells each of its events once, in the order of its revisions."""
    kinds = (AccountCreated, AccountUpdated, AccountDeleted)
    for id in {event.id for event in events if isinstance(event, AccountCreated | AccountUpdated)}:
        told = [event for event in events if isinstance(event, kinds) and event.id == id]
        expected = {
            (isinstance(e, AccountDeleted), getattr(e, "revision", 0), rfc3339(e.happened),
             getattr(e, "owned_by", ""))
            for e in told
        }  # fmt: skip
        creations = sorted(each for each in expected if each[1] == 0 and not each[0])
        expected -= {*creations[1:]}
        found = accounts.history(id)
        rows = [(each, each.after or {}) for each in found]
        assert [
            (each.after is None, row.get("revision", 0), each.at, row.get("owned_by", ""))
            for each, row in rows
        ] == sorted(expected)
        assert [each.before for each in found] == [None, *(each.after for each in found[:-1])]
