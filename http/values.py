"""What clients may send: the definitions that every request is held to.

A body is decoded straight into one of these; only when that fails is it looked at again, field
by field, so that every fault is reported at once.
"""

import unicodedata
from collections.abc import Iterator
from datetime import date
from typing import Any, Self, TypeVar

import msgspec

from tally.events import Cents, Id
from tally.http.problems import FieldError, MalformedBody, WrongFields
from tally.store.accounts import NewAccount
from tally.store.customers import NewCustomer, NewInvoice
from tally.store.passwords import LONGEST as LONGEST_PASSWORD

T = TypeVar("T")

MOST_IN_BATCH = 10_000

# For patterns: what str.strip() takes away, and what no line may hold.
_BLANKS = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"


class _Line(str):
    """Text of one line: trimmed, no control characters, at most `longest` characters."""

    shortest = 1
    longest = 200

    @classmethod
    def parse(cls, raw: object) -> Self:
        if not isinstance(raw, str):
            raise ValueError(f"Expected `str`, got `{_json_type(raw)}`")
        text = cls(raw.strip())
        if not cls.shortest <= len(text) <= cls.longest:
            raise ValueError(f"Expected {cls.shortest} to {cls.longest} characters, got {len(text)}")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise ValueError("Expected no control characters")
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
            "description": (
                f"{cls.shortest} to {cls.longest} characters after trimming, no control characters."
            ),
        }


class Name(_Line):
    """A name: 1 to 200 characters after trimming, no control characters."""


class Description(_Line):
    """A description: up to 2,000 characters after trimming, no control characters."""

    shortest = 0
    longest = 2000


class Password(str):
    """A password as it is typed: 1 to 1024 characters, none of them trimmed."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Raises ValueError, which does not show it."""
        if not isinstance(raw, str):
            raise ValueError(f"Expected `str`, got `{_json_type(raw)}`")
        if not 1 <= len(raw) <= LONGEST_PASSWORD:
            raise ValueError(f"Expected 1 to {LONGEST_PASSWORD} characters, got {len(raw)}")
        return cls(raw)

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

    purchase_price_cents: Cents


class AccountBody(NewAccount, frozen=True):
    """The body of POST /accounts."""

    name: Name
    owned_by: Name
    description: Description = msgspec.field(default_factory=Description)  # a default has no JSON Schema


def decode(body: bytes, kind: type[T]) -> T:
    """Read one object. Raises MalformedBody, or WrongFields with every fault."""
    _insist_on_utf8(body)
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=_parse)
    except (ValueError, RecursionError):
        raw = _decode_untyped(body)
        if not isinstance(raw, dict):
            raise MalformedBody(f"Expected a JSON object, got `{_json_type(raw)}`.") from None
        raise WrongFields(list(_faults(raw, kind))) from None


def decode_batch(body: bytes, kind: type[T]) -> list[T]:
    """Read an array of up to MOST_IN_BATCH objects. Raises like `decode`, fields named with their index."""
    _insist_on_utf8(body)
    try:
        batch = msgspec.json.decode(body, type=list[kind], dec_hook=_parse)  # type: ignore[valid-type]
    except (ValueError, RecursionError):
        raw = _decode_untyped(body)
        if not isinstance(raw, list):
            raise MalformedBody(f"Expected a JSON array of objects, got `{_json_type(raw)}`.") from None
        _insist_on_size(raw)
        raise WrongFields(list(_batch_faults(raw, kind))) from None
    _insist_on_size(batch)
    return batch


def _insist_on_utf8(body: bytes) -> None:
    """msgspec looks only at the text that it takes."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8, at byte {error.start}.") from None


def _insist_on_size(batch: list[Any]) -> None:
    if len(batch) > MOST_IN_BATCH:
        raise WrongFields([FieldError("", f"Expected at most {MOST_IN_BATCH} items, got {len(batch)}")])


def _parse(kind: type[Any], raw: object) -> Any:
    return kind.parse(raw)


def _decode_untyped(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None


def _faults(raw: dict[str, Any], kind: type[Any], prefix: str = "") -> Iterator[FieldError]:
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in raw:
            if field.required:
                yield FieldError(prefix + field.encode_name, "Required")
            continue
        try:
            msgspec.convert(raw[field.encode_name], field.type, dec_hook=_parse)
        except msgspec.ValidationError as error:
            message = "Expected a date, YYYY-MM-DD" if field.type is date else str(error)
            yield FieldError(prefix + field.encode_name, message)


def _batch_faults(raw: list[Any], kind: type[Any]) -> Iterator[FieldError]:
    for index, item in enumerate(raw):
        if isinstance(item, dict):
            yield from _faults(item, kind, f"[{index}].")
        else:
            yield FieldError(f"[{index}]", f"Expected `object`, got `{_json_type(item)}`")


def _json_type(raw: object) -> str:
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(raw), type(raw).__name__)
