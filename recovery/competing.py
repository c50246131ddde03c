"""Changes of the same rows that two databases of a node made without knowing of each other.

All events stay as they are. An invoice's amounts are published as differences, and everybody counts the
differences of both. So the database that learns of the second change publishes a correction. If the
difference may come from a change that is lost, there is none: that change can come again. The same is done
for a credit that both took back, for a request that both answered, and for a name that both changed.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import chain, groupby, zip_longest
from typing import Any, NamedTuple, cast

from msgspec.structs import replace

from tally import events
from tally.recovery.diverged import TABLES, UNDOES
from tally.recovery.taking_back import Store, event_of, make_again
from tally.store import history
from tally.store.accounts import Accounts
from tally.store.credits import Credits
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.idempotency import answered_at
from tally.store.ids import give
from tally.store.incarnations import ROOM
from tally.store.lacking import LEFT_OUT
from tally.store.listing import ListQuery
from tally.store.outbox import CUSTOMER_ID, ID, REQUEST, Outbox, OutboxRow, OwnEvent, outboxes, rows_with
from tally.store.records import find_credit, find_customer, find_invoice


class State(NamedTuple):
    """An invoice's amount and date."""

    cents: int
    day: date


class _Step(NamedTuple):
    """An invoice's state before and after an event; None if it isn't there."""

    before: State | None
    after: State | None
    revision: int = 0


def make_again_beside(store: Store, outbox: Outbox, own: Sequence[OwnEvent]) -> None:
    """Like `apply_beside`. If a client repeated its request under a later name, one answer counts."""
    apply_beside(store, outbox, own)
    ours = [each for each in own if isinstance(each.event, events.InvoiceCreated | events.CreditCreated)]
    for each in repeated(store.database, outbox, ours, outbox.row(ROOM)):
        undo(store, each)


def apply_beside(store: Store, outbox: Outbox, own: Sequence[OwnEvent]) -> None:
    """Apply events of that outbox's name that others count already, and that this database never had.

    Otherwise like `make_again`. It also publishes corrections, if the same invoices or credits were changed
    here meanwhile.
    """
    if store.database.service == "customers":
        _correct(store, *_apply(store, outbox, own))
    else:
        make_again(store, outbox, own)


def reconcile(store: Store, own: Sequence[OwnEvent]) -> None:
    """Publish corrections for events recorded here, if others changed the same invoices or credits.

    The others' events must be here. In the open transaction.
    """
    changed = {
        int(each.event.id): each
        for each in own
        if isinstance(each.event, events.InvoiceUpdated | events.InvoiceDeleted)
    }
    taken_back = {each.event.id: each.event for each in own if isinstance(each.event, events.CreditDeleted)}
    times = Counter(
        each.id for each in _events(store.database, ID, taken_back) if isinstance(each, events.CreditDeleted)
    )
    _correct(store, changed, [each for id, each in taken_back.items() if times[id] > 1])


def _correct(
    store: Store,
    changed: Mapping[int, OwnEvent],
    twice: Sequence[events.CreditDeleted | events.InvoiceUpdated],
) -> None:
    """Publish corrections for invoices, each with its last change, and for credits taken back twice."""
    for invoice, steps in _known(store.database, changed).items():
        each = changed[invoice]
        _publish(store, each, _corrections(store.database, each.event, steps))
    store.outbox.add(_taken_off_again(store.database, twice))


def _apply(
    store: Store, outbox: Outbox, own: Sequence[OwnEvent]
) -> tuple[dict[int, OwnEvent], list[events.CreditDeleted | events.InvoiceUpdated]]:
    """Apply the events, and answer those that didn't find what they tell.

    By invoice the last such change or deletion; and the deletions of credits that were taken back before, and
    corrections of such.
    """
    differing: dict[int, OwnEvent] = {}
    twice: list[events.CreditDeleted | events.InvoiceUpdated] = []
    credits = Credits(store.database, store.outbox)
    for kind, some in groupby(own, lambda own: type(own.event)):
        every = [*some]
        if kind is events.CreditDeleted:
            for each in every:
                id = each.event.id
                if find_credit(store.database, id) is None and credits.was_taken_back(id):
                    twice.append(each.event)
                make_again(store, outbox, [each])
        elif kind in (events.InvoiceUpdated, events.InvoiceDeleted):
            for each in every:
                before = _here(store.database, each.event.id)
                left_out = make_again(store, outbox, [each])
                if kind is events.InvoiceUpdated and not each.event.revision:
                    twice.append(each.event)
                elif not left_out and _step(each.event)[:2] != (before, _here(store.database, each.event.id)):
                    differing[int(each.event.id)] = each
        else:
            make_again(store, outbox, every)
    return differing, twice


def _publish(store: Store, after: OwnEvent, told: Sequence[events.Event]) -> None:
    store.make_again([OwnEvent(after.row, event) for event in told])
    store.outbox.add(told)


def repeated(database: Database, outbox: Outbox, own: Iterable[OwnEvent], since: int = 0) -> list[OwnEvent]:
    """The creations that don't count, of requests that were answered under several names.

    The latest answer counts, so whoever asks gets the same: see `answered_at`. Looks at the requests of those
    events that are creations, and at answers from the outbox's row `since` on.
    """
    requests = {key.request for each in own if type(each.event) in UNDOES and (key := each.row.key)}
    if not requests:
        return []
    where = f"sequence >= {since} AND sequence NOT BETWEEN {outbox.row(1)} AND {outbox.row(ROOM)}"
    twice = {key.request for row in rows_with(database, REQUEST, requests, where) if (key := row.key)}
    if not twice:
        return []
    answers: defaultdict[str, defaultdict[int, list[OwnEvent]]] = defaultdict(lambda: defaultdict(list))
    for row in rows_with(database, REQUEST, twice, "type LIKE '%Created'"):
        if key := row.key:
            answers[key.request][row.sequence // ROOM].append(OwnEvent(row, event_of(row)))
    others: list[OwnEvent] = []
    for each in answers.values():
        counts = max(each.values(), key=lambda made: answered_at(made[0].row.payload))
        others += chain.from_iterable(made for made in each.values() if made is not counts)
    return others


def undo(store: Store, created: OwnEvent) -> None:
    """Take back a creation that others count. Does nothing if it is gone here. In the open transaction."""
    event = created.event
    if not _row(store.database, event):
        return
    told = UNDOES[type(event)](event)
    here = _here(store.database, event.id) if isinstance(event, events.InvoiceCreated) else None
    if here and here != _step(event).after:
        told = replace(told, last_price_cents=here.cents, last_date=here.day)
    _publish(store, created, [told])


def _row(database: Database, event: Any) -> Any:
    """The row that an event tells of, as it is here; None if it isn't."""
    match TABLES[type(event)]:
        case "invoice":
            return find_invoice(database, event.id)
        case "credit":
            return find_credit(database, event.id)
        case "customer":
            return find_customer(database, event.id)
        case _:
            return Accounts(database).find(event.id)


def drop(store: Store, twice: Sequence[OwnEvent]) -> list[OwnEvent]:
    """Take back these creations, but for customers and accounts that are in use; answer the latter.

    In the open transaction.
    """
    in_use = []
    for each in reversed(twice):
        if _is_in_use(store.database, each.event):
            in_use.append(each)
        else:
            undo(store, each)
    return in_use


def _is_in_use(database: Database, event: Any) -> bool:
    """Whether a customer has invoices or credits, or an account customers."""
    if isinstance(event, events.AccountCreated):
        return bool(Accounts(database).customers_of(event.id, limit=1)) and bool(_row(database, event))
    one, store = ListQuery(limit=1, customer_id=event.id), Customers(database)
    return isinstance(event, events.CustomerCreated) and bool(store.invoices(one) or store.credits.page(one))


def make_later(store: Store, updates: Sequence[Any]) -> None:
    """Publish updates of names again where others of the same revision count instead: these are the later.

    The last one of each customer or account. In the open transaction.
    """
    last = {each.id: each for each in updates if not isinstance(each, events.InvoiceUpdated)}
    differing = {id: revision for id, each in last.items() if (revision := _counts_instead(store, each))}
    if not differing:
        return
    rows = rows_with(store.database, ID, map(int, differing), "type IN ('CustomerUpdated', 'AccountUpdated')")
    known = [event_of(row) for row in rows]
    for id, revision in differing.items():
        event = last[id]
        others = [each for each in known if each.id == id and each != event]
        is_again = any(each.revision > event.revision and _is_same(each, event) for each in others)
        if not is_again and any(each.revision == event.revision for each in others):
            again = replace(event, revision=revision + 1)
            store.make_again([OwnEvent(OutboxRow(0, "", b"", None), again)])
            store.outbox.add([again])


def _counts_instead(store: Store, event: Any) -> int:
    """The revision of a customer or account if it isn't as the update has it; 0 if it is, or is gone."""
    here, told = _row(store.database, event), cast("Any", store.as_told(event))
    return here.revision if here and replace(told, revision=here.revision) != here else 0


def _is_same(one: Any, other: Any) -> bool:
    return bool(replace(one, revision=0, updated_date=other.updated_date) == replace(other, revision=0))


def _taken_off_again(
    database: Database, twice: Sequence[events.CreditDeleted | events.InvoiceUpdated]
) -> list[events.InvoiceUpdated]:
    """Corrections for credits that were taken back twice: they take the amounts off the revenue again.

    They are about invoices that never exist anywhere. Some may be in the outbox already, if the database was
    made again from the stream, or another has corrected the same: what is too much is given back.
    """
    if not twice:
        return []
    told = [*_events(database, CUSTOMER_ID, [each.customer_id for each in twice])]
    deletions = [each for each in told if isinstance(each, events.CreditDeleted)]
    came = [each for each in twice if isinstance(each, events.CreditDeleted)]
    times = Counter(each.id for each in deletions)
    times |= Counter({each.id: 2 for each in came})  # the first time may be pruned
    owed: Counter[tuple[events.Id, State]] = Counter()
    for each in {each.id: each for each in [*deletions, *came]}.values():
        owed[each.customer_id, State(each.credited_cents, each.credit_date)] += times[each.id] - 1
    known = {*+owed}  # of the others, the deletions may be pruned
    for each in told:
        if isinstance(each, events.InvoiceUpdated) and not each.revision:
            cents = each.previous_price_cents - each.purchase_price_cents
            owed[each.customer_id, State(abs(cents), each.purchase_date)] -= 1 if cents > 0 else -1
    moves = [(customer, State(0, state.day), state) for customer, state in (+owed).elements()]
    moves += [
        (customer, state, State(0, state.day))
        for customer, state in (-owed).elements()
        if (customer, state) in known
    ]
    ids = give(database, "invoice", len(moves)) if moves else []
    return [
        events.InvoiceUpdated(id, customer, *after, *before, 0, events.now())
        for id, (customer, after, before) in zip(ids, moves, strict=True)
    ]


def _here(database: Database, id: int) -> State | None:
    invoice = find_invoice(database, id)
    return State(invoice.purchase_price_cents, date.fromisoformat(invoice.purchase_date)) if invoice else None


def _step(event: Any) -> _Step:
    match event:
        case events.InvoiceUpdated():
            before = State(event.previous_price_cents, event.previous_date)
            return _Step(before, State(event.purchase_price_cents, event.purchase_date), event.revision)
        case events.InvoiceDeleted():
            cents = event.purchase_price_cents if event.last_price_cents is None else event.last_price_cents
            day = event.last_date or event.purchase_date or event.deleted_date.date()
            return _Step(State(cents, day), None)
        case _:
            return _Step(None, State(event.purchase_price_cents, event.purchase_date))


def _known(database: Database, invoices: Collection[int]) -> dict[int, list[_Step]]:
    """The events applied to these invoices: those in the outbox, and older ones from the histories.

    Invoices whose creation nobody has any more are left out.
    """
    known: dict[int, list[_Step]] = {id: [] for id in invoices}
    if not invoices:
        return known
    for event in _events(database, ID, invoices):
        if isinstance(event, events.InvoiceCreated | events.InvoiceUpdated | events.InvoiceDeleted):
            known[int(event.id)].append(_step(event))
    for id, steps in known.items():
        told = {_by_what_is_after(each) for each in steps}
        steps += [each for each in _noted(database, id) if _by_what_is_after(each) not in told]
    return {id: steps for id, steps in known.items() if any(each.before is None for each in steps)}


def _events(database: Database, what: str, numbers: Iterable[int]) -> Iterator[Any]:
    """The events in the outbox with one of these numbers, without those that are left out."""
    left_out = {*_rows_left_out(database)}
    for row in rows_with(database, what, map(int, numbers), _OF_INVOICES):
        if row.sequence not in left_out:
            yield event_of(row)


def _rows_left_out(database: Database) -> Iterator[int]:
    noted = LEFT_OUT.of(database)
    for source, outbox in outboxes(database).items():
        for first, last in noted.get(source, []):
            yield from map(outbox.row, range(first, last + 1))


def _by_what_is_after(step: _Step) -> tuple[Any, ...]:
    """Tells the steps of one invoice apart: its creation, its deletion, and each change."""
    return ("created",) if step.before is None else step[1:]


def _noted(database: Database, id: int) -> Iterator[_Step]:
    for each in history.of(database, "invoice", id):
        if each.event.startswith("Invoice"):  # not a credit of it
            before, after = map(_state_of, (each.before, each.after))
            yield _Step(before, after, (each.after or {}).get("revision", 0))


def _state_of(row: dict[str, Any] | None) -> State | None:
    return State(row["purchase_price_cents"], date.fromisoformat(row["purchase_date"])) if row else None


def _corrections(
    database: Database, event: events.InvoiceUpdated | events.InvoiceDeleted, steps: Sequence[_Step]
) -> list[events.InvoiceUpdated]:
    """The corrections of an invoice. With them, its known events add up to its state here.

    If `event` is a change that competes with one made here, it counts as the later of the two.
    """
    if _is_one_missing(steps) or not find_customer(database, event.customer_id):
        return []
    is_to_be = here = _here(database, event.id)
    came = _step(event)
    is_competing = sum(each.revision == came.revision for each in steps) > 1
    # A correction may have made it the later one already.
    is_again = any(each.revision > came.revision and each.after == came.after for each in steps)
    is_later = here is not None and is_competing and not is_again
    if is_later and came.after:
        is_to_be = came.after
    owed = Counter(filter(None, [is_to_be, *(each.before for each in steps)]))
    owed.subtract(filter(None, [each.after for each in steps]))
    moves: list[tuple[State, State]] = [
        (before or State(0, after.day), after or State(0, before.day))
        for before, after in zip_longest((-owed).elements(), (+owed).elements())
    ]
    if is_to_be and (moves or is_later):
        moves.append((is_to_be, is_to_be))
    revision = max(each.revision for each in steps)
    return [
        events.InvoiceUpdated(event.id, event.customer_id, *after, *before, revision + number, events.now())
        for number, (before, after) in enumerate(moves, 1)
    ]


def _is_one_missing(steps: Sequence[_Step]) -> bool:
    """Whether one of them builds on a change that is not among them."""
    states, revisions = {each.after for each in steps}, {each.revision for each in steps}
    return any(
        each.before not in states or (each.revision > 1 and each.revision - 1 not in revisions)
        for each in steps
        if each.before and each.before.cents  # from nothing, a correction begins
    )


_OF_INVOICES = "(type LIKE 'Invoice%' OR type LIKE 'Credit%')"
