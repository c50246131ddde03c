"""The bodies that clients may send, and the types of their fields; `bodies` reads them."""

import re
from datetime import date
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET, UnsetType

from tally.events import MAX_CENTS, Amount, Id
from tally.http.bodies import json_type
from tally.http.visible import DISGUISING, invisible, is_visible
from tally.store.accounts import AccountChange, NewAccount
from tally.store.passwords import LONGEST as LONGEST_PASSWORD
from tally.store.records import CustomerChange, InvoiceChange, NewCredit, NewCustomer, NewInvoice

CreditedCents = Annotated[int, msgspec.Meta(ge=1, le=MAX_CENTS)]

# For patterns: characters that str.strip() removes, and characters that no line may contain.
_BLANKS = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"

_DISGUISING = re.compile(DISGUISING)
_CONTROL = re.compile(f"[{_CONTROLS}]")
_HALF = re.compile(r"[\ud800-\udfff]")  # alone, as JSON can have it; UTF-8 can't


class Text(str):
    """Text as it is typed, of `shortest` to `longest` characters."""

    shortest = 0
    longest = 1024 * 1024

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Raises ValueError, which does not show it."""
        if not isinstance(raw, str):
            raise ValueError(f"Expected `str`, got `{json_type(raw)}`")
        if not cls.shortest <= len(raw) <= cls.longest:
            raise ValueError(f"Expected {cls.shortest} to {cls.longest} characters, got {len(raw)}")
        if not raw.isascii() and _HALF.search(raw):
            raise ValueError("Expected no half of a character")
        return cls(raw)


class _Line(Text):
    """One line of text: trimmed, at most `longest` characters, no control or invisible characters."""

    shortest = 1
    longest = 200

    @classmethod
    def parse(cls, raw: object) -> Self:
        text = super().parse(raw.strip() if isinstance(raw, str) else raw)
        if _CONTROL.search(text):
            raise ValueError("Expected no control characters")
        if not text.isascii() and (found := _DISGUISING.search(text)):
            raise ValueError(f"Expected no character that can't be seen, such as U+{ord(found[0]):04X}")
        return text

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The rule as JSON Schema, which takes what `parse` takes: trimming becomes a pattern."""
        inner, edge = f"[^{_CONTROLS}]", f"[^{_BLANKS}{_CONTROLS}]"
        text = f"{edge}({inner}{{0,{cls.longest - 2}}}{edge})?"
        text = text if cls.shortest else f"({text})?"
        return {
            "type": "string",
            "pattern": f"^[{_BLANKS}]*{text}[{_BLANKS}]*$",
            "not": {"pattern": DISGUISING},
            "description": (
                f"{cls.shortest} to {cls.longest} characters after trimming, no control characters, none "
                "that can't be seen (marks of direction, what has no width; joiners only where a script "
                "needs them)."
            ),
        }


class Name(_Line):
    """A name: 1 to 200 characters after trimming, no control characters, not only invisible ones."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Raises ValueError."""
        text = super().parse(raw)
        if not text.isascii() and not any(map(is_visible, text)):
            raise ValueError("Expected a character that can be seen")
        return text

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The rule as JSON Schema: a second pattern tells what can be seen."""
        schema = super().json_schema()
        says = schema["description"].replace(".", ", one of them visible.")
        return {**schema, "description": says, "allOf": [{"pattern": f"[^{invisible()}]"}]}


class Reference(_Line):
    """The name of a row in a user's own system: 1 to 100 characters after trimming, no control characters."""

    longest = 100


class Description(_Line):
    """A description: up to 2,000 characters after trimming, no control characters."""

    shortest = 0
    longest = 2000


class Password(Text):
    """A password as it is typed: 1 to 1024 characters, none of them trimmed."""

    shortest = 1
    longest = LONGEST_PASSWORD

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The rule as JSON Schema."""
        says = "A password as it is typed."
        return {"type": "string", "minLength": 1, "maxLength": LONGEST_PASSWORD, "description": says}


class CustomerBody(NewCustomer, frozen=True):
    """The body of POST /customers."""

    name: Name
    account_id: Id


class InvoiceBody(NewInvoice, frozen=True):
    """The body of POST /invoices."""

    purchase_price_cents: Amount
    reference: Reference | UnsetType = UNSET


class CreditBody(NewCredit, frozen=True):
    """The body of POST /credits."""

    credited_cents: CreditedCents
    invoice_id: Id | UnsetType = UNSET
    reference: Reference | UnsetType = UNSET


class AccountBody(NewAccount, frozen=True):
    """The body of POST /accounts."""

    name: Name
    owned_by: Name
    description: Description = msgspec.field(default_factory=Description)  # a default has no JSON Schema


class CustomerPatch(CustomerChange, frozen=True):
    """The body of PATCH /customers/{id}."""

    name: Name | UnsetType = UNSET
    account_id: Id | UnsetType = UNSET


class InvoicePatch(InvoiceChange, frozen=True):
    """The body of PATCH /invoices/{id}."""

    purchase_date: date | UnsetType = UNSET
    purchase_price_cents: Amount | UnsetType = UNSET


class AccountPatch(AccountChange, frozen=True):
    """The body of PATCH /accounts/{id}."""

    name: Name | UnsetType = UNSET
    owned_by: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
