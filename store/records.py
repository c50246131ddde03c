"""The rows of customers.db: customers, invoices and credits, as new, recorded and changed ones."""

from datetime import date
from typing import Any

from msgspec import UNSET, Struct, UnsetType, to_builtins

from tally.events import Day, Event, Id, Moment, rfc3339
from tally.store import history
from tally.store.database import Database
from tally.store.history import Happening, Kind
from tally.store.parts import Table


class NewCustomer(Struct, frozen=True):
    """A customer to be recorded."""

    name: str
    account_id: Id


class NewInvoice(Struct, frozen=True):
    """An invoice to record; the amount in cents. `reference` is its name in the user's own system."""

    customer_id: Id
    purchase_date: date
    purchase_price_cents: int
    reference: str | UnsetType = UNSET


class NewCredit(Struct, frozen=True):
    """A credit to record, of so many cents, for a customer or for one of its invoices."""

    customer_id: Id
    credit_date: date
    credited_cents: int
    invoice_id: Id | UnsetType = UNSET
    reference: str | UnsetType = UNSET


class CustomerChange(Struct, frozen=True):
    """A change of a customer; fields that are UNSET stay."""

    name: str | UnsetType = UNSET
    account_id: Id | UnsetType = UNSET


class InvoiceChange(Struct, frozen=True):
    """A change of an invoice; fields that are UNSET stay."""

    purchase_date: date | UnsetType = UNSET
    purchase_price_cents: int | UnsetType = UNSET


class Customer(Struct, frozen=True):
    """A recorded customer; `created_date` is RFC 3339 in UTC, `revision` how often it was changed."""

    id: Id
    account_id: Id
    name: str
    created_date: Moment
    revision: int = 0


class Invoice(Struct, frozen=True):
    """A recorded invoice; `purchase_date` is YYYY-MM-DD, `created_date` RFC 3339 in UTC.

    `revision` is how often it was changed, `reference` what the user's own system calls it, if that was told.
    """

    id: Id
    customer_id: Id
    purchase_price_cents: int
    purchase_date: Day
    created_date: Moment
    revision: int = 0
    reference: str | UnsetType = UNSET


class Credit(Struct, frozen=True):
    """A recorded refund or credit note; `invoice_id` is the invoice that it credits, if it does one.

    `credit_date` is YYYY-MM-DD, `created_date` RFC 3339 in UTC.
    """

    id: Id
    customer_id: Id
    invoice_id: Id | None
    credited_cents: int
    credit_date: Day
    created_date: Moment
    reference: str | None = None


CUSTOMER_COLUMNS = "customer.id, account_id, customer.name, created_date, revision"
CUSTOMER = f"SELECT {CUSTOMER_COLUMNS} FROM customer"
COLUMNS: dict[Table, str] = {
    "invoice": "id, customer_id, purchase_price_cents, purchase_date, created_date, revision, reference",
    "credit": "id, customer_id, invoice_id, credited_cents, credit_date, created_date, reference",
}
CENTS_AND_DAY: dict[Table, tuple[str, str]] = {
    "invoice": ("purchase_price_cents", "purchase_date"),
    "credit": ("credited_cents", "credit_date"),
}
"""The columns of the amount and of its date."""

_KNOWN = "customer_id NOT IN (SELECT id FROM doomed_customer)"
INVOICE = f"SELECT {COLUMNS['invoice']} FROM invoice WHERE {_KNOWN}"
CREDIT = f"SELECT {COLUMNS['credit']} FROM credit WHERE {_KNOWN}"

_CUSTOMER_OF = "(SELECT {} FROM customer WHERE customer.id = customer_id)"
# A cell that begins with one of these can be a formula. Excel in Japanese and Apple's Numbers also take the
# wide forms of = + - @.
FORMULA_BEGINS = "-=+@\t\r\n\uff1d\uff0b\uff0d\uff20"
CSV_COLUMNS = "customer,purchase_date,amount,reference,id,customer_id,account_id"


def _text(value: str) -> str:
    """A text in quotes; `value` is an expression in SQL that is never NULL.

    One that begins like a formula gets an apostrophe before it, so that no spreadsheet runs it. `import`
    understands that.
    """
    bare = f"ltrim({value}, '''')"
    number = f"(substr({value}, 2) GLOB '[0-9]*' AND substr({value}, 2) NOT GLOB '*[^0-9.]*'" + (
        f" AND {value} NOT GLOB '*.*.*' AND {value} GLOB '[-+]*')"
    )
    formula = f"({bare} GLOB '[{FORMULA_BEGINS}]*' AND NOT {number})"
    return f"'\"' || iif({formula}, '''', '') || replace({value}, '\"', '\"\"') || '\"'"


def _line(table: Table, sign: str = "", *further: str) -> str:
    """A row as a line of CSV (RFC 4180), written by SQLite: much cheaper than in Python."""
    cents, day = CENTS_AND_DAY[table]
    cells = (
        _CUSTOMER_OF.format(_text("name")),
        day,
        f"'{sign}' || ({cents} / 100) || '.' || substr('0' || ({cents} % 100), -2)",
        f"coalesce({_text(f'{table}.reference')}, '')",
        f"{table}.id",
        "customer_id",
        _CUSTOMER_OF.format("account_id"),
        *further,
    )
    return " || ',' || ".join(cells) + " || char(13, 10)"


LINES = {"invoice": _line("invoice"), "credit": _line("credit", "-", "coalesce(invoice_id, '')")}


def customer(row: tuple[int, int, str, str, int]) -> Customer:
    """A row of CUSTOMER."""
    return Customer(Id(row[0]), Id(row[1]), *row[2:])


def invoice(row: tuple[int, int, int, str, str, int, str | None]) -> Invoice:
    """A row of INVOICE."""
    id, customer_id, cents, day, created, revision, reference = row
    told = UNSET if reference is None else reference
    return Invoice(Id(id), Id(customer_id), cents, day, created, revision, told)


def credit(row: tuple[int, int, int | None, int, str, str, str | None]) -> Credit:
    """A row of CREDIT."""
    invoice_id = None if row[2] is None else Id(row[2])
    return Credit(Id(row[0]), Id(row[1]), invoice_id, *row[3:])


def find_customer(database: Database, id: int) -> Customer | None:
    """The customer with that id."""
    return next((customer(row) for row in database.rows(f"{CUSTOMER} WHERE id = ?", (id,))), None)


def find_invoice(database: Database, id: int) -> Invoice | None:
    """The invoice with that id."""
    return next((invoice(row) for row in database.rows(f"{INVOICE} AND id = ?", (id,))), None)


def find_credit(database: Database, id: int) -> Credit | None:
    """The credit with that id."""
    return next((credit(row) for row in database.rows(f"{CREDIT} AND id = ?", (id,))), None)


def shown(row: Customer | Invoice | Credit) -> dict[str, Any]:
    """The row as JSON shows it."""
    found: dict[str, Any] = to_builtins(row, enc_hook=str)
    return found


def beginning(database: Database, row: Customer | Invoice) -> Happening:
    """How an unchanged row began."""
    kind = _kind(row)
    by = database.value(f"SELECT created_by FROM {kind} WHERE id = ?", (row.id,))
    return Happening(f"{kind.title()}Created", row.created_date, by, None, shown(row))


def note(
    database: Database,
    of: Customer | Invoice,
    event: Event,
    by: str | None,
    before: Customer | Invoice | Credit | None,
    after: Customer | Invoice | Credit | None,
) -> None:
    """Note an event that changed a row or one of its credits, in the history `of` the row."""
    rows = (None if row is None else shown(row) for row in (before, after))
    change = Happening(type(event).__name__, rfc3339(event.happened), by, *rows)
    history.note(database, _kind(of), of.id, beginning(database, of), change)


def _kind(row: Customer | Invoice) -> Kind:
    return "customer" if isinstance(row, Customer) else "invoice"
