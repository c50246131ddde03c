"""accounts.db: accounts, and their customers and revenue as told by events."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import Any, Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType, json, to_builtins
from msgspec.structs import asdict, replace

from tally import events
from tally.events import Event, Id, Moment, decode_as, encode, now, rfc3339
from tally.store import account_totals, history, idempotency, inbox, nodes, outbox, revenue, updates, users
from tally.store.cause import UNKNOWN, Cause, CauseOf, unknown
from tally.store.database import NEVER_RELEASED, Database, Migrations, OpenDatabase
from tally.store.errors import AccountInUse, NotFound
from tally.store.history import Happening
from tally.store.ids import raise_ids
from tally.store.login_attempts import SCHEMA as LOGIN_ATTEMPTS
from tally.store.outbox import Outbox, OwnEvent
from tally.store.revenue import CENTS, Revenue, credited, invoiced
from tally.store.updates import Revisions

SERVICE = "accounts"
FILE = "accounts.db"
GIVEN_TWICE = "given_twice"  # in meta

# A customer's name and date are in a table of their own, because each invoice changes the customer's other
# row. The smaller that row is, the fewer pages are written for invoices of customers all over the table.
CUSTOMER_NAME = """
CREATE TABLE customer_name (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    created_date TEXT NOT NULL
) STRICT;
"""

# Rows can appear in any order: an invoice or a deletion may be applied before its creation. Such a row waits,
# unlisted: an account without its `created_date`, a customer without its account. A deleted row stays as a
# mark, so that a late creation does not bring it back.
SCHEMA = f"""
{outbox.SCHEMA}
{inbox.SCHEMA}
{idempotency.SCHEMA}
{users.SCHEMA}
{LOGIN_ATTEMPTS}
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT,
    description TEXT,
    owned_by TEXT,
    created_date TEXT,
    deleted INTEGER NOT NULL DEFAULT FALSE,
    revision INTEGER NOT NULL DEFAULT 0,
    cascade INTEGER NOT NULL DEFAULT TRUE -- once it is deleted: whether its customers were to follow
) STRICT;
CREATE INDEX open_account_by_owner ON account (owned_by) WHERE NOT deleted AND created_date IS NOT NULL;

CREATE TABLE customer (
    id INTEGER PRIMARY KEY,
    account_id INTEGER,
    revenue_cents INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT FALSE
) STRICT;
CREATE INDEX customer_by_account ON customer (account_id) WHERE account_id IS NOT NULL AND NOT deleted;
{CUSTOMER_NAME}
{updates.SCHEMA}
{history.SCHEMA}
{revenue.SCHEMA}
{account_totals.SCHEMA}
"""

MIGRATIONS: Migrations = (  # see CONTRIBUTING.md, "A change of the schema"
    *NEVER_RELEASED,
    f"""
    {CUSTOMER_NAME}
    INSERT INTO customer_name SELECT id, name, created_date FROM customer WHERE created_date IS NOT NULL;
    DROP TRIGGER account_total_left;
    ALTER TABLE customer DROP COLUMN name;
    ALTER TABLE customer DROP COLUMN created_date;
    {inbox.ASIDE}
    {outbox.ADDED}
    {idempotency.ADDED}
    {updates.SCHEMA}
    {history.SCHEMA}
    INSERT INTO history (kind, row_id, event, at, after)
        SELECT 'account', id, 'AccountCreated', created_date,
            json_object('name', name, 'description', description, 'owned_by', owned_by)
        FROM account WHERE created_date IS NOT NULL;
    ALTER TABLE account ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE account ADD COLUMN cascade INTEGER NOT NULL DEFAULT TRUE;
    {revenue.SCHEMA}
    {account_totals.MONTHS}
    DROP TRIGGER account_total_came;
    DROP TRIGGER account_total_moved;
    {account_totals.TRIGGERS}
    """,
)

open_database = OpenDatabase(FILE, SERVICE, SCHEMA, MIGRATIONS)


class NewAccount(Struct, frozen=True):
    """An account to be opened."""

    name: str
    owned_by: str
    description: str = ""


class AccountChange(Struct, frozen=True):
    """A change of an account; fields that are UNSET stay."""

    name: str | UnsetType = UNSET
    owned_by: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class Account(Struct, frozen=True):
    """An open account; `created_date` is RFC 3339 in UTC, `revision` how often it was changed."""

    id: Id
    name: str
    description: str
    owned_by: str
    created_date: Moment
    revision: int = 0


class CustomerRevenue(Struct, frozen=True):
    """A customer of an account, and the sum of its invoices, less its credits."""

    customer_id: Id
    name: str
    total_revenue_cents: int


AccountEvent = events.AccountCreated | events.AccountUpdated | events.AccountDeleted
CustomerOrder = Literal["id", "-id", "name", "-name", "revenue", "-revenue"]
_CUSTOMER_KEYS = {"id": "id", "name": "name COLLATE NOCASE", "revenue": "revenue_cents"}


def key_of(row: CustomerRevenue, order: CustomerOrder) -> str | int:
    """The key that a customer is ordered by."""
    if order.endswith("id"):
        return row.customer_id
    return row.name if order.endswith("name") else row.total_revenue_cents


class ShownCustomers(NamedTuple):
    """Some customers of an account as JSON objects with commas between them, and their sum.

    `last` is the highest id, None when there are none.
    """

    json: bytes
    customers: int
    revenue_cents: int
    last: int | None


class Accounts:
    """The accounts in one database. Methods that change something run in a transaction.

    With an `owner`, other users' accounts are treated as if they did not exist.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outbox = Outbox(database)
        self._revenue = Revenue(database)

    def create_account(self, new: NewAccount, cause: Cause = UNKNOWN, may_have_customers: bool = True) -> Id:
        """Open an account and answer its id. It is above all of this node's ids that were ever seen.

        Unless it `may_have_customers`, numbers that already have customers are skipped.
        """
        created = now()
        (id,) = self.outbox.give("account", 1)
        while not may_have_customers and self.customers_of(id, limit=1):
            raise_ids(self.database, "account", id)
            (id,) = self.outbox.give("account", 1)
        sql = "INSERT INTO account (id, name, description, owned_by, created_date) VALUES (?, ?, ?, ?, ?)"
        self.database.execute(sql, (id, new.name, new.description, new.owned_by, rfc3339(created)))
        event = events.AccountCreated(id, new.name, new.description, new.owned_by, created)
        self.note(event, cause.by)
        self.outbox.add([event], cause)
        return id

    def change_account(
        self,
        id: int,
        change: AccountChange,
        cause: Cause = UNKNOWN,
        owner: str | None = None,
        revisions: Revisions = None,
    ) -> Account:
        """Change an account and answer it. If nothing differs, nothing happens.

        Raises NotFound, Misdirected for another node's, and Changed unless it has one of the `revisions`, if
        any are given.
        """
        before = self.account(id, owner)
        nodes.insist_on_own(self.database, "account", id)
        updates.insist_on_revision("account", id, before.revision, revisions)
        after = updates.changed(before, change, before.revision)
        if after is before:
            return before
        told = (after.name, after.description, after.owned_by)
        event = events.AccountUpdated(after.id, *told, after.revision, now())
        self._account_updated(event, cause.by)
        self.outbox.add([event], cause)
        return after

    def delete_account(
        self, id: int, cascade: bool = False, cause: Cause = UNKNOWN, owner: str | None = None
    ) -> None:
        """Delete an account. With `cascade`, the customers service then deletes its customers.

        Raises NotFound, Misdirected for another node's, and without `cascade` AccountInUse while it lists
        customers.
        """
        self.account(id, owner)
        nodes.insist_on_own(self.database, "account", id)
        if not cascade and self.customers_of(id, limit=1):
            raise AccountInUse(
                f"The account {id} still lists customers; delete them first, or ask for ?cascade=true."
            )
        event = events.AccountDeleted(Id(id), now(), cascade)
        self._account_deleted(event, cause.by)
        self.outbox.add([event], cause)

    def account(self, id: int, owner: str | None = None) -> Account:
        """The account. Raises NotFound."""
        account = self.find(id)
        if account and owner in (None, account.owned_by):
            return account
        raise NotFound("account", id)

    def find(self, id: int) -> Account | None:
        """The account, or None if there is none."""
        return next(map(_account, self.database.rows(f"{_ACCOUNT} AND id = ?", (id,))), None)

    def accounts(self, after: int, limit: int, owner: str | None = None) -> list[Account]:
        """Up to `limit` accounts with ids above `after`, ascending."""
        owned = "AND owned_by = ?1" if owner is not None else ""
        rows = self.database.rows(
            f"{_ACCOUNT} {owned} AND id > ?2 ORDER BY id LIMIT ?3", (owner, after, limit)
        )
        return [*map(_account, rows)]

    def note(self, event: AccountEvent, by: str | None) -> None:
        """Note an event in the account's history. In the open transaction; may be repeated."""
        every = asdict(event).items()
        told = {name: value for name, value in every if name in _TOLD} or None  # None for a deletion
        happening = Happening(type(event).__name__, rfc3339(event.happened), by, None, told)
        history.note_once(self.database, "account", event.id, happening)

    def history(self, id: int, owner: str | None = None) -> list[Happening]:
        """The history of an account, oldest first, even if it is deleted. Raises NotFound.

        0.1.0 noted neither the users nor a deletion's time: its deletions are not listed.
        """
        found = self.database.rows(
            "SELECT created_date, owned_by FROM account WHERE id = ? AND created_date IS NOT NULL", (id,)
        )
        if not found or owner not in (None, found[0][1]):
            raise NotFound("account", id)
        created, before = found[0][0], None
        every: list[Happening] = []
        for told in sorted(history.of(self.database, "account", id), key=_when):
            if every and told.event == "AccountCreated":
                continue  # by another source, which gave the number as well: the first one counts
            after = None
            if told.after:
                account = Account(Id(id), created_date=created, **told.after)
                after = to_builtins(account, enc_hook=str)
            every.append(replace(told, before=before, after=after))
            before = after
        return every

    def ids_of_customers(self, account_id: int) -> set[int]:
        """The ids of the account's customers, including deleted ones."""
        rows = self.database.rows("SELECT id FROM customer WHERE account_id = ?", (account_id,))
        return {id for (id,) in rows}

    def customers_of(
        self,
        account_id: int,
        order: CustomerOrder = "id",
        after: tuple[str | int, int] | None = None,
        limit: int = -1,
        offset: int = 0,
    ) -> list[CustomerRevenue]:
        """Up to `limit` customers of an account in that order, after the first `offset`.

        `after` is the key and the id of the last customer that was read. Takes time in proportion to all
        customers of the account; by id, in proportion to the skipped ones.
        """
        direction, sign = ("DESC", "<") if order.startswith("-") else ("ASC", ">")
        key = _CUSTOMER_KEYS[order.lstrip("-")]
        beyond = "" if after is None else f"WHERE ({key}, id) {sign} (:key, :id)"
        last = dict(zip(("key", "id"), after or (None, None), strict=True))
        rows = self.database.rows(
            f"SELECT id, name, revenue_cents FROM ({_CUSTOMERS_OF}) {beyond}"
            f" ORDER BY {key} {direction}, id {direction} LIMIT :limit OFFSET :offset",
            {"account": account_id, "limit": limit, "offset": offset, **last},
        )
        return [CustomerRevenue(Id(row[0]), *row[1:]) for row in rows]

    def show_customers_of(self, account_id: int, after: int, limit: int) -> ShownCustomers:
        """Up to `limit` with ids above `after`, as JSON made by SQLite: much cheaper than Python objects."""
        # It keeps the order of the query inside: sorting once more would double the cost.
        [(shown, count, revenue, last)] = self.database.rows(
            "SELECT json_group_array(json_object('customer_id', CAST(id AS TEXT), 'name', name,"
            " 'total_revenue_cents', revenue_cents)), count(*), coalesce(sum(revenue_cents), 0), max(id)"
            f" FROM ({_CUSTOMERS_OF} AND customer.id > :after ORDER BY customer.id LIMIT :limit)",
            {"account": account_id, "after": after, "limit": limit},
        )
        return ShownCustomers(shown[1:-1].encode(), count, revenue, last)

    def state(self) -> Iterator[Event]:
        """The accounts' current state as events: applying them has the effect of all events so far."""
        return events_of(self.database.rows(f"{state_of('main')} ORDER BY 1"))

    def apply(self, published: Iterable[Event], cause_of: CauseOf = unknown) -> None:
        """Take in published events. Any order and any batching leave the same accounts.

        Every effect commutes with every other. Amounts are summed, those of updates as differences. A
        deletion stands, whatever comes after it. Of two creations of one id, the earlier one counts, by date.
        Of updates, the one with the highest revision counts, over any creation.

        Raises OverflowError for a revenue beyond 64 bits.
        """
        earned: list[revenue.Row] = []
        add = earned.append
        for event in published:
            match event:
                case events.InvoiceCreated():
                    day = event.purchase_date
                    month = day.year * 100 + day.month
                    add((event.customer_id, month, event.purchase_price_cents, 1, 0))
                case events.InvoiceUpdated():
                    customer = event.customer_id
                    add(invoiced(customer, event.previous_date, -event.previous_price_cents, -1))
                    add(invoiced(customer, event.purchase_date, event.purchase_price_cents, 1))
                case events.InvoiceDeleted(last_price_cents=None):
                    add(invoiced(event.customer_id, event.purchase_date, -event.purchase_price_cents, -1))
                case events.InvoiceDeleted():
                    last = event.last_date or event.purchase_date
                    add(invoiced(event.customer_id, last, -(event.last_price_cents or 0), -1))
                case events.CreditCreated():
                    add(credited(event.customer_id, event.credit_date, event.credited_cents, 1))
                case events.CreditDeleted():
                    add(credited(event.customer_id, event.credit_date, -event.credited_cents, -1))
                case events.CustomerUpdated():
                    self._customer_updated(event)
                case events.AccountUpdated():
                    self._account_updated(event, cause_of(event).by)
                case events.CustomerCreated():
                    self._customer_created(event)
                case events.CustomerDeleted():
                    self._customer_deleted(event)
                case events.AccountCreated():
                    self._account_created(event, cause_of(event).by)
                case events.AccountDeleted():
                    self._account_deleted(event, cause_of(event).by)
        account_totals.earned(self.database, self._revenue.add(earned))

    def date_deletions(self, deletions: Iterable[tuple[int, int, date]]) -> None:
        """Count deleted invoices in the month of their date; each is a customer, cents and the date.

        Their deletions were applied, but had no date. In the open transaction.
        """
        earned: list[revenue.Row] = []
        for customer, cents, day in deletions:
            earned += [invoiced(customer, None, cents, 1), invoiced(customer, day, -cents, -1)]
        account_totals.earned(self.database, self._revenue.add(earned))

    def make_again(self, own: Sequence[OwnEvent]) -> list[int]:
        """Apply events that were published from here; nothing is published. None is ever left out."""
        by = {id(each.event): each.row.by for each in own}
        self.apply((each.event for each in own), lambda event: Cause(by=by[id(event)]))
        return []

    def as_told(self, event: Event) -> Account | None:
        """The account as the answer to its update had it; None for other events, or when it is gone."""
        if isinstance(event, events.AccountUpdated) and (account := self.find(event.id)):
            return updates.told(account, event)
        return None

    def follow_up(self) -> bool:
        """Do nothing: applied events leave nothing to do."""
        return False

    def _customer_created(self, event: events.CustomerCreated) -> None:
        """If two sources created the same number, the earlier creation counts, by date."""
        told = (rfc3339(event.created_date), event.account_id, event.name)
        sql = "SELECT created_date, account_id, name FROM customer JOIN customer_name USING (id) WHERE id = ?"
        before = self.database.rows(sql, (event.id,))
        is_updated = updates.is_updated(self.database, "customer", event.id)
        self._note_if_given_twice(bool(before) and not is_updated and before[0] != told)
        if (before and before[0] <= told) or is_updated:
            return
        self._revenue.settle(event.id)
        self.database.execute(
            "INSERT OR REPLACE INTO customer_name VALUES (?, ?, ?)", (event.id, event.name, told[0])
        )
        self.database.execute(_IN_ACCOUNT, (event.id, event.account_id))

    def _customer_updated(self, event: events.CustomerUpdated) -> None:
        """An update counts over the creation, whichever comes first."""
        if not updates.is_newest(self.database, "customer", event.id, event.revision, encode(event)):
            return
        self._revenue.settle(event.id)
        sql = "INSERT INTO customer_name VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        self.database.execute(sql, (event.id, event.name, rfc3339(event.updated_date)))
        self.database.execute(_IN_ACCOUNT, (event.id, event.account_id))

    def _note_if_given_twice(self, is_so: bool) -> None:
        if is_so:
            self.database.set_meta(GIVEN_TWICE, self.given_twice() + 1)

    def given_twice(self) -> int:
        """How often a customer or an account was created under a number that another had."""
        return int(self.database.meta(GIVEN_TWICE) or 0)

    def _customer_deleted(self, event: events.CustomerDeleted) -> None:
        self._revenue.settle(event.id)
        self.database.execute(
            "INSERT INTO customer (id, deleted) VALUES (?, TRUE)"
            " ON CONFLICT (id) DO UPDATE SET deleted = TRUE",
            (event.id,),
        )

    def _account_created(self, event: events.AccountCreated, by: str | None) -> None:
        self.note(event, by)
        if updates.is_updated(self.database, "account", event.id):
            self._date(event.id)
            return
        told = (event.name, event.description, event.owned_by, rfc3339(event.created_date))
        before = self.database.rows(
            "SELECT name, description, owned_by, created_date FROM account"
            " WHERE id = ? AND created_date IS NOT NULL",
            (event.id,),
        )
        self._note_if_given_twice(bool(before) and before[0] != told)
        self.database.execute(
            "INSERT INTO account (id, name, description, owned_by, created_date) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description,"
            " owned_by = excluded.owned_by, created_date = excluded.created_date"
            " WHERE created_date IS NULL"
            " OR (excluded.created_date, excluded.name, excluded.description, excluded.owned_by)"
            " < (created_date, name, description, owned_by)",
            (event.id, *told),
        )

    def _account_updated(self, event: events.AccountUpdated, by: str | None) -> None:
        """An update may come before its creation, which may be lost: the account is there from then on."""
        self.note(event, by)
        if updates.is_newest(self.database, "account", event.id, event.revision, encode(event)):
            self.database.execute(
                "INSERT INTO account (id, name, description, owned_by, revision) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description,"
                " owned_by = excluded.owned_by, revision = excluded.revision",
                (event.id, event.name, event.description, event.owned_by, event.revision),
            )
        self._date(event.id)

    def _date(self, id: int) -> None:
        """Date an updated account by its creation, or by its first update until that comes."""
        self.database.execute(
            "UPDATE account SET created_date = (SELECT at FROM history WHERE row_id = ?1 AND kind = 'account'"
            " AND event IN ('AccountCreated', 'AccountUpdated') ORDER BY event, at LIMIT 1) WHERE id = ?1",
            (id,),
        )

    def _account_deleted(self, event: events.AccountDeleted, by: str | None) -> None:
        self.note(event, by)
        self.database.execute(
            "INSERT INTO account (id, deleted, cascade) VALUES (?, TRUE, ?) ON CONFLICT (id) DO UPDATE"
            " SET cascade = excluded.cascade OR (deleted AND cascade), deleted = TRUE",
            (event.id, event.cascade),
        )


def _when(told: Happening) -> tuple[bool, int, str, str]:
    """A key for the order of an account's events, also of those of two databases that had the same copy."""
    after = told.after or {}
    return not after, after.get("revision", 0), told.at, str(after)


def state_of(schema: str) -> str:
    """A query for the rows that `events_of` takes."""
    return (
        "SELECT account.id, name, description, owned_by, created_date, deleted, cascade, payload,"
        f" (SELECT after FROM {schema}.history WHERE row_id = account.id AND kind = 'account'"
        " AND event = 'AccountCreated' ORDER BY at, after LIMIT 1)"
        f" FROM {schema}.account AS account"
        f" LEFT JOIN {schema}.updated AS updated ON kind = 'account' AND updated.id = account.id"
    )


def events_of(rows: Iterable[tuple[Any, ...]]) -> Iterator[Event]:
    """Events that bring accounts to the state in these rows."""
    for id, name, description, owned_by, created_date, deleted, cascade, updated, began in rows:
        if updated is not None:
            yield decode_as(events.AccountUpdated, bytes(updated))
        if created_date is not None and (began or updated is None):  # else its creation has never come
            created = datetime.fromisoformat(created_date)
            told = {"name": name, "description": description, "owned_by": owned_by}
            yield events.AccountCreated(
                Id(id), created_date=created, **(json.decode(began) if began else told)
            )
        if deleted:
            yield events.AccountDeleted(Id(id), now(), bool(cascade))


def _account(row: tuple[int, str, str, str, str, int]) -> Account:
    return Account(Id(row[0]), *row[1:])


_IN_ACCOUNT = (
    "INSERT INTO customer (id, account_id) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id"
)
_CUSTOMERS_OF = (
    f"SELECT customer.id AS id, name, {CENTS} AS revenue_cents FROM customer"
    " CROSS JOIN customer_name ON customer_name.id = customer.id"
    " WHERE account_id = :account AND NOT deleted"
)
_TOLD = ("name", "description", "owned_by", "revision")

_ACCOUNT = (
    "SELECT id, name, description, owned_by, created_date, revision FROM account"
    " WHERE NOT deleted AND created_date IS NOT NULL"
)
