"""The read model of accounts.db, built again beside the one in use, and then put in its place.

It has everything that came from events: the customers, the totals, and the inbox that tells which events
these are. The accounts' own rows, the outbox and the rest of accounts.db exist nowhere else, and stay.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec

from tally import events
from tally.events import Event, EventId, InvalidEvent, UnknownEventType, decode
from tally.store import accounts
from tally.store.accounts import Accounts, events_of, state_of
from tally.store.cause import cause_in
from tally.store.database import Database
from tally.store.errors import StoreError, StoreUnavailable
from tally.store.ids import given
from tally.store.inbox import Inbox
from tally.store.outbox import known_of
from tally.store.ranges import Range, merge, without
from tally.store.revenue import ADD, halves, whole
from tally.store.stream import Entry, EventStream, entry_ms

FOLDER = "rebuild.partial"  # nobody keeps a backup in a folder of that name
STREAM = "the stream"

_DUE = "rebuild_due"  # in meta of accounts.db, from an earlier release: why it must be built again
_POSITION = "newest_entry"  # in meta of the shadow: the last entry of the stream that is in it
_TABLES = (
    *("customer", "customer_name", "customer_month", "recent_month", "inbox_range", "inbox_name"),
    *("account_total", "account_month", "recent_account_month"),
)
# In meta of a customers.db, by table: the highest id of a row taken over from another system.
ADOPTED = {"customer": "adopted_customer", "invoice": "adopted_invoice"}
_CACHE = "PRAGMA cache_size = -131072"  # KiB: keeps pages in memory that are written all over the table
_CUSTOMERS_AT_ONCE = 1000


class Shadow:
    """An accounts.db in a folder of its own, made to replace the read model in use.

    It begins with `base`: STREAM, or the source of a customers.db that is copied first. It notes its
    progress, so the work can go on later.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._database = accounts.open_database(folder)
        self._database.execute(_CACHE)
        self._database.execute(_SET_ASIDE)
        self._accounts = Accounts(self._database)
        self._inbox = Inbox(self._database)
        self._seen = msgspec.json.decode(self._database.meta("seen") or "{}", type=dict[str, list[Range]])

    @classmethod
    def at(cls, directory: Path) -> Self:
        """The shadow in a data directory, as it was left, or a new one."""
        try:
            return cls(directory / FOLDER)
        except StoreUnavailable:
            raise
        except StoreError:  # perhaps of another release
            _remove(directory / FOLDER)
            return cls(directory / FOLDER)

    @classmethod
    def of(cls, live: Database, bases: Sequence[str], stream: EventStream, edited: str = "") -> Self:
        """The shadow that was left, or a new one from the first of `bases`.

        An old one is used only if it is for this accounts.db, from one of `bases`, with the same events
        `edited`, and from the present stream.
        """
        shadow = cls.at(live.path.parent)
        is_for = shadow._database.meta("for") or "", shadow._database.meta("edited") or ""
        if is_for == (live.source, edited) and shadow.base in bases and stream.holds(shadow.position):
            return shadow
        shadow.discard()
        shadow = cls.at(live.path.parent)
        with shadow._database.transaction():
            shadow._database.set_meta("for", live.source)
            shadow._database.set_meta("edited", edited)
            shadow._database.set_meta("base", bases[0])
        return shadow

    @property
    def base(self) -> str:
        """The base that it begins with."""
        return str(self._database.meta("base") or "")

    @property
    def is_begun(self) -> bool:
        """Whether it has its base; if not, call `copy`."""
        return self.base == STREAM or bool(self._database.meta("copied"))

    @property
    def position(self) -> bytes:
        """The last entry of the stream that was applied here."""
        return str(self._database.meta(_POSITION) or "0-0").encode()

    @property
    def count(self) -> int:
        """How many entries of the stream were applied here."""
        return int(self._database.meta("count") or 0)

    @property
    def has_failures(self) -> bool:
        """Whether the handling of some events raised: the consumers must try these again."""
        return bool(self._database.meta("failed"))

    def copy(self, customers: Database, advance: Callable[[int], None]) -> None:
        """Begin with a snapshot of customers.db, all of it or nothing."""
        done = 0
        with self._database.relaxed(), self._database.transaction(), customers.snapshot():
            known = known_of(customers)
            for source, last in known.items():
                self._inbox.fill(source, last)
            adopted = {table: customers.meta(key) or 0 for table, key in ADOPTED.items()}
            own = _Own([*known], given(customers, "customer"), adopted)
            self._database.set_meta("own", msgspec.json.encode(own).decode())
            months = customers.execute(_CUSTOMER_MONTHS)
            while some := list(islice(months, _CUSTOMERS_AT_ONCE)):
                self._database.insert("customer_month", some)
            every = customers.execute(_CUSTOMERS)
            while rows := list(islice(every, _CUSTOMERS_AT_ONCE)):
                self._database.insert("customer (id, account_id, revenue_cents)", [row[:3] for row in rows])
                self._database.insert("customer_name", [(id, *told) for id, _, _, *told in rows])
                done += len(rows)
                advance(done)
            self._database.insert("updated", customers.rows("SELECT * FROM updated WHERE kind = 'customer'"))
            self._database.set_meta("copied", 1)

    def take(self, entries: Sequence[Entry]) -> None:
        """Apply entries that follow `position`. Skips those that can't be applied, like dead letters."""
        try:
            self._take(entries, _decoded(entries))
        except StoreError:
            raise  # no fault of the events
        except Exception:
            if len(entries) == 1:
                self._take(entries, {}, failed=True)
            else:
                for entry in entries:
                    self.take([entry])

    def _take(
        self, entries: Sequence[Entry], named: Mapping[str | EventId, Event], failed: bool = False
    ) -> None:
        seen = _with(self._seen, entries)
        if own := self._own:
            self._keep_others(own, entries, named)
            named = {name: event for name, event in named.items() if own.is_of(name)}
        with self._database.relaxed(), self._database.transaction():
            came = self._inbox.take(named, entry_ms(entries[-1].id))
            fields = {id(named[e.event_name]): e.fields for e in entries if e.event_name in named}
            self._accounts.apply(came, lambda event: cause_in(fields[id(event)]))
            self._database.insert("undated", [*_undated(came)], "ON CONFLICT DO NOTHING")
            self._database.set_meta(_POSITION, entries[-1].id.decode())
            self._database.set_meta("count", self.count + len(entries))
            self._database.set_meta("seen", msgspec.json.encode(seen).decode())
            if failed:
                self._database.set_meta("failed", 1)
        self._seen = seen

    @property
    def _own(self) -> "_Own | None":
        """The knowledge of the customers.db that this was made from, if it was."""
        noted = self._database.meta("own")
        return msgspec.json.decode(noted, type=_Own) if noted else None

    def _keep_others(
        self, own: "_Own", entries: Sequence[Entry], named: Mapping[str | EventId, Event]
    ) -> None:
        """Keep others' events about replaced customers: their effects must be applied again."""
        kept = [
            (entry.id.decode(), msgspec.msgpack.encode(entry))
            for entry in entries
            if (event := named.get(entry.event_name))
            and not own.is_of(entry.event_name)
            and own.has(event)
            and not own.has_adopted(entry.event_name, event)
        ]
        if kept:
            with self._database.relaxed(), self._database.transaction():
                self._database.executemany("INSERT OR IGNORE INTO other_entry VALUES (?, ?)", kept)

    def date_deletions(self, pages: Iterable[Sequence[Entry]]) -> None:
        """Find the dates of deleted invoices whose deletions had no date. May be repeated."""
        for entries in pages:
            undated = {id: rest for id, *rest in self._database.rows("SELECT * FROM undated")}
            if not undated:
                return
            found = {
                event.id: (*undated[event.id], event.purchase_date)
                for event in _decoded(entries).values()
                if isinstance(event, events.InvoiceCreated) and event.id in undated
            }
            with self._database.relaxed(), self._database.transaction():
                self._accounts.date_deletions(found.values())
                self._database.executemany(
                    "DELETE FROM undated WHERE invoice_id = ?", [(id,) for id in found]
                )

    def has_seen(self, source: str, wanted: Range) -> bool:
        """Whether all of these events of a source were on the stream."""
        return not without([wanted], self._seen.get(source, []))

    def vanishing(self, live: Database, read_on: Callable[[], None]) -> int:
        """How many customers in `live` would be replaced, but are unknown here.

        `read_on` reads what has come on the stream: `live` may have applied some of it by now.
        Counts those that are shown, and for the stream also those that have revenue. Customers that a
        customers.db has numbered and doesn't know were deleted there.
        """
        is_replaced = f"account_id IS NOT NULL AND {self._own.replaces('shown.id')}" if self._own else "true"
        live.execute("ATTACH ? AS shadow", (str(self._database.path),))
        try:
            with live.snapshot():
                live.meta(_DUE)  # from here on `live` stays as it is, and the shadow not yet
                read_on()
                return int(live.value(f"{_VANISHING} AND {is_replaced}"))
        finally:
            live.execute("DETACH shadow")

    def take_place_in(self, live: Database) -> tuple[int, int]:
        """Replace the read model of `live`, in the transaction that is open there.

        If made from a customers.db, it replaces only that one's customers. It copies the rest here first, and
        can't be used again after that.
        Answers the revenue of all customers in cents, before and now.
        """
        live.execute(_CACHE)
        if self._own:  # apply the others' events that were kept here and applied there
            inbox, rows = Inbox(live), self._database.rows("SELECT entry FROM other_entry ORDER BY rowid")
            kept = _decoded([msgspec.msgpack.decode(entry, type=Entry) for (entry,) in rows])
            with self._database.transaction():
                # If this is killed, `of` begins another. The two files have no common commit: the rows that
                # are copied here would be copied again, and count twice.
                self._database.set_meta("for", "")
                self._accounts.apply(event for name, event in kept.items() if inbox.has_applied(name))
        # Triggers would update totals row by row, and keep SQLite from copying page by page.
        triggers = live.rows(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'customer'"
        )
        live.execute("ATTACH ? AS shadow", (str(self._database.path),))
        if self._own:
            for statement in _taking_over(self._own):
                live.execute(statement)
        before, now = (whole(*live.rows(_revenue(schema))[0]) for schema in ("main", "shadow"))
        for name, _ in triggers:
            live.execute(f"DROP TRIGGER {name}")
        for table in _TABLES:
            live.execute(f"DELETE FROM main.{table}")
            live.execute(f"INSERT INTO main.{table} SELECT * FROM shadow.{table}")
        live.execute(_FURTHER)
        for _, sql in triggers:
            live.execute(sql)
        differing = live.rows(f"{state_of('shadow')} EXCEPT {state_of('main')}")
        Accounts(live).apply(events_of(differing))
        live.execute(
            "INSERT INTO account_total (account_id) SELECT id FROM account WHERE true ON CONFLICT DO NOTHING"
        )
        given_twice = self._accounts.given_twice()
        if self._own:
            given_twice = max(given_twice, Accounts(live).given_twice())
        live.set_meta(accounts.GIVEN_TWICE, given_twice)
        Inbox(live).grow()
        live.execute("DELETE FROM meta WHERE key = ?", (_DUE,))
        return before, now

    def discard(self) -> None:
        """Delete it, with its folder."""
        self._database.close()
        _remove(self._folder)


class _Own(msgspec.Struct, frozen=True):
    """A customers.db's knowledge: its own sources, and the numbers given to its customers."""

    sources: list[str]
    given: list[Range]
    adopted: dict[str, int] = {}
    """By table, the highest ids given by another system, whose own events tell of these rows."""

    def is_of(self, name: str | EventId) -> bool:
        """Whether it published the event of that name."""
        return isinstance(name, EventId) and name.source in self.sources

    def has_adopted(self, name: str | EventId, event: Event) -> bool:
        """Whether the event is about a row that was taken over with its id, and so is here."""
        if isinstance(name, EventId):
            return False
        if isinstance(event, events.CustomerCreated):
            return event.id <= self.adopted.get("customer", 0)
        return isinstance(event, events.InvoiceCreated) and event.id <= self.adopted.get("invoice", 0)

    def has(self, event: Event) -> bool:
        """Whether the event is about one of its own customers."""
        of_customer = (events.CustomerCreated, events.CustomerUpdated, events.CustomerDeleted)
        customer = getattr(event, "id" if isinstance(event, of_customer) else "customer_id", None)
        return any(each.first <= customer <= each.last for each in self.given if customer is not None)

    def replaces(self, column: str) -> str:
        """An SQL condition: whether a customer with that number is its own."""
        stretches = [f"{column} BETWEEN {first} AND {last}" for first, last in self.given]
        return f"({' OR '.join(stretches) or 'false'})"


def _taking_over(own: _Own) -> Iterator[str]:
    """Statements that copy the live database's rows of other sources into the shadow."""
    is_others, of_others = f"NOT {own.replaces('id')}", f"NOT {own.replaces('customer_id')}"
    # The months come before the customers: a trigger adds them to their account's.
    others = {"customer_month": of_others, "recent_month": of_others, "customer": is_others}
    others |= {"customer_name": is_others, "updated": f"kind = 'customer' AND {is_others}"}
    for table, where in others.items():
        yield f"INSERT OR IGNORE INTO shadow.{table} SELECT * FROM main.{table} WHERE {where}"
    recent = (  # the trigger adds the rest of an account's total
        "FROM main.customer JOIN main.recent_month ON customer_id = id"
        f" WHERE account_id IS NOT NULL AND NOT deleted AND {is_others}"
    )
    yield (
        f"INSERT INTO shadow.account_total SELECT account_id, 0, sum(cents) {recent} GROUP BY account_id"
        " ON CONFLICT DO UPDATE SET revenue_cents = revenue_cents + excluded.revenue_cents"
    )
    yield (
        "INSERT INTO shadow.account_month"
        f" SELECT account_id, month, sum(cents), sum(invoices), sum(credits) {recent} GROUP BY 1, 2"
        f" ON CONFLICT DO UPDATE SET {ADD}"
    )
    sources = ", ".join(f"'{source}'" for source in own.sources)  # hexadecimal digits, after the service
    yield f"INSERT INTO shadow.inbox_range SELECT * FROM main.inbox_range WHERE source NOT IN ({sources})"
    yield "INSERT INTO shadow.inbox_name SELECT * FROM main.inbox_name"


def due(live: Database) -> str | None:
    """Why the read model must be built again; None if it need not be."""
    noted: str | None = live.meta(_DUE)
    return noted


_SET_ASIDE = """
CREATE TABLE IF NOT EXISTS undated
    (invoice_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS other_entry (id TEXT PRIMARY KEY, entry BLOB NOT NULL)
"""

# What is replaced along with the tables.
_FURTHER = """
DELETE FROM main.inbox_aside WHERE EXISTS (
    SELECT 1 FROM main.inbox_range r
    WHERE r.source = inbox_aside.source AND inbox_aside.sequence BETWEEN r.first AND r.last);
DELETE FROM main.updated WHERE kind = 'customer';
INSERT INTO main.updated SELECT * FROM shadow.updated WHERE kind = 'customer';
INSERT INTO main.history (kind, row_id, event, at, by_user, after)
SELECT kind, row_id, event, at, by_user, after FROM shadow.history AS found WHERE NOT EXISTS (
    SELECT 1 FROM main.history AS noted WHERE noted.row_id = found.row_id AND noted.kind = found.kind
    AND noted.event = found.event AND noted.after IS found.after
    AND (noted.after IS NULL OR noted.at = found.at))
"""

_CUSTOMERS = """
SELECT customer.id, account_id, coalesce(cents, 0), name, created_date
FROM customer LEFT JOIN
    (SELECT customer_id, sum(cents) AS cents FROM (
        SELECT customer_id, purchase_price_cents AS cents FROM invoice
        UNION ALL SELECT customer_id, -credited_cents FROM credit) GROUP BY customer_id)
    ON customer_id = customer.id
ORDER BY customer.id
"""

_MONTH = "CAST(substr({0}, 1, 4) || substr({0}, 6, 2) AS INTEGER)"
_CUSTOMER_MONTHS = f"""
SELECT customer_id, month, sum(cents), sum(invoices), sum(credits) FROM (
    SELECT customer_id, {_MONTH.format("purchase_date")} AS month, purchase_price_cents AS cents,
        1 AS invoices, 0 AS credits FROM invoice
    UNION ALL
    SELECT customer_id, {_MONTH.format("credit_date")}, -credited_cents, 0, 1 FROM credit)
WHERE customer_id IN (SELECT id FROM customer)
GROUP BY customer_id, month
"""

# Revenue may be known before its customer is.
_VANISHING = """
SELECT count(*) FROM (
    SELECT id, account_id FROM main.customer WHERE NOT deleted AND (account_id IS NOT NULL OR revenue_cents)
    UNION
    SELECT customer_id, account_id FROM main.recent_month LEFT JOIN main.customer ON id = customer_id
    WHERE deleted IS NOT TRUE) AS shown
WHERE NOT EXISTS (
    SELECT 1 FROM shadow.customer known
    WHERE known.id = shown.id
    AND (known.account_id IS NOT NULL OR known.deleted OR shown.account_id IS NULL))
AND (shown.account_id IS NOT NULL OR id NOT IN (SELECT customer_id FROM shadow.recent_month))
"""


def _revenue(schema: str) -> str:
    """A query for the revenue of all customers that were not deleted, in `halves`."""
    return (
        f"SELECT {halves('cents')} FROM ("
        f"SELECT revenue_cents AS cents FROM {schema}.customer WHERE NOT deleted"
        f" UNION ALL SELECT cents FROM {schema}.recent_month LEFT JOIN {schema}.customer ON id = customer_id"
        " WHERE deleted IS NOT TRUE)"
    )


def _undated(came: Iterable[Event]) -> Iterator[tuple[int, int, int]]:
    """Deletions without the invoice's date: the invoice, its customer and its cents."""
    for event in came:
        if isinstance(event, events.InvoiceDeleted) and not (event.purchase_date or event.last_date):
            cents = event.purchase_price_cents if event.last_price_cents is None else event.last_price_cents
            yield event.id, event.customer_id, cents


def _decoded(entries: Sequence[Entry]) -> dict[str | EventId, Event]:
    """The events that can be read, by their names."""
    named = {}
    for entry in entries:
        try:
            named[entry.event_name] = decode(entry.fields)
        except (UnknownEventType, InvalidEvent):
            continue
    return named


def _with(seen: Mapping[str, Sequence[Range]], entries: Iterable[Entry]) -> dict[str, list[Range]]:
    """The sequences in `seen` and those of these entries."""
    grown = {source: list(ranges) for source, ranges in seen.items()}
    for entry in entries:
        if isinstance(name := entry.event_name, EventId):
            grown.setdefault(name.source, []).append(Range(name.sequence, name.sequence))
    return {source: merge(ranges) for source, ranges in grown.items()}


def _remove(folder: Path) -> None:
    (folder / accounts.FILE).unlink()
    shutil.rmtree(folder, ignore_errors=True)  # reading the database makes files beside it
