"""The business events and their wire format: one entry of the stream is one event.

`EventTypeName` holds the class's name, `Payload` one JSON object whose keys stand in the order
of the class's fields, `EventId` the event's name for good. This module imports nothing of ours.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Any, Self, TypeVar

import msgspec

TYPE_FIELD = b"EventTypeName"
PAYLOAD_FIELD = b"Payload"
EVENT_ID_FIELD = b"EventId"
TRACE_PARENT_FIELD = b"TraceParent"
REQUEST_KEY_FIELD = b"RequestKey"
BY_FIELD = b"By"

MAX_ID = 2**63 - 1
_MOST_DIGITS = len(str(MAX_ID))
MAX_CENTS = 1_000_000_000_000
SEQUENCE_DIGITS = 18  # of a sequence in an EventId, at most


class Id(int):
    """The number of a customer, an invoice or an account: 0 to 2^63 - 1.

    An integer in here and in SQLite, a string of decimal digits on every wire.
    """

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Read the wire's form; raises ValueError for anything else, `"007"` and `7` included."""
        if isinstance(raw, str) and raw.isascii() and raw.isdigit() and (raw >= "1" or raw == "0"):
            if len(raw) < _MOST_DIGITS:
                return cls(raw)
            if len(raw) == _MOST_DIGITS and (value := cls(raw)) <= MAX_ID:
                return value
        raise ValueError("Expected a string of digits without leading zeros, below 2^63")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The wire's form as JSON Schema, which takes what `parse` takes."""
        return {
            "type": "string",
            "pattern": f"^(0|{_numbers_up_to(str(MAX_ID))})$",
            "description": "A string of digits without leading zeros, below 2^63.",
        }


def _numbers_up_to(limit: str) -> str:
    """A pattern for the numbers from 1 to `limit`, without leading zeros."""
    shorter = f"[1-9][0-9]{{0,{len(limit) - 2}}}"
    smaller = [  # first the same digits, then a smaller one, then any
        f"{limit[:place]}[{lowest}-{int(digit) - 1}][0-9]{{{len(limit) - place - 1}}}"
        for place, digit in enumerate(limit)
        if (lowest := 0 if place else 1) < int(digit)
    ]
    return "|".join([shorter, *smaller, limit])


Amount = Annotated[
    int,
    msgspec.Meta(ge=0, le=MAX_CENTS, description="Written as an integer: 5.0 and 5e2 are refused."),
]

Revision = Annotated[int, msgspec.Meta(ge=0, le=2**53, description="Counts the changes of a row.")]

_A_TIME = msgspec.Meta(extra_json_schema={"format": "date-time"})
DateTime = Annotated[datetime, _A_TIME]

# Text that we wrote ourselves, and that readers may parse as a time or a day.
Moment = Annotated[str, _A_TIME]
Day = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date"})]


def now() -> datetime:
    """The time for new rows and events. Only the display depends on it."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """The moment as the wire shows it: UTC with `Z`. One without an offset is UTC, in whatever zone we are.

    A moment that UTC has no date for becomes UTC's first or last date: an event counts whatever its date. An
    example is the first moment of the year 1 further east, which some programs write for no date.
    """
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        moment = (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)
    told: str = msgspec.to_builtins(moment)  # as isoformat, in a tenth of its time
    return told


_DATES = ("created_date", "updated_date", "deleted_date")


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to a customer, an invoice, a credit or an account. A value: never changed."""

    @property
    def happened(self) -> datetime:
        """When it did, with an offset: each type has one such date."""
        dates: list[datetime | None] = [getattr(self, name, None) for name in _DATES]
        happened = next(date for date in dates if date)
        return happened if happened.tzinfo else happened.replace(tzinfo=UTC)


E = TypeVar("E", bound=Event)


class CustomerCreated(Event, frozen=True, gc=False):
    """A customer was recorded under an account, which need not be known."""

    id: Id
    account_id: Id
    name: str
    created_date: DateTime


class CustomerUpdated(Event, frozen=True, gc=False):
    """A customer has another name, or is another account's; both as they are from then on.

    `revision` counts its changes: of two, the higher one counts, of equal ones the greater payload.
    """

    id: Id
    account_id: Id
    name: str
    revision: Revision
    updated_date: DateTime


class CustomerDeleted(Event, frozen=True, gc=False):
    """A customer is gone, and its invoices with it, for good."""

    id: Id
    account_id: Id
    deleted_date: DateTime


class InvoiceCreated(Event, frozen=True, gc=False, omit_defaults=True):
    """A customer bought something for so many cents; `reference` is what the user's own system calls it."""

    id: Id
    customer_id: Id
    purchase_price_cents: Amount
    created_date: DateTime
    purchase_date: date
    reference: str | None = None


class InvoiceUpdated(Event, frozen=True, gc=False):
    """An invoice has another amount or date. It tells what they were, so that it is a difference.

    `revision` counts its changes, as a customer's does.
    """

    id: Id
    customer_id: Id
    purchase_price_cents: Amount
    purchase_date: date
    previous_price_cents: Amount
    previous_date: date
    revision: Revision
    updated_date: DateTime


class InvoiceDeleted(Event, frozen=True, gc=False, omit_defaults=True):
    """An invoice was taken back; amount and date are those it was created with.

    Where it was changed, `last_price_cents` and `last_date` are what they were at last.
    """

    id: Id
    customer_id: Id
    purchase_price_cents: Amount
    deleted_date: DateTime
    purchase_date: date | None = None
    last_price_cents: Amount | None = None
    last_date: date | None = None


class CreditCreated(Event, frozen=True, gc=False, omit_defaults=True):
    """A customer got so many cents back, or is to get them: for one of its invoices, or for none."""

    id: Id
    customer_id: Id
    credited_cents: Amount
    created_date: DateTime
    credit_date: date
    invoice_id: Id | None = None
    reference: str | None = None


class CreditDeleted(Event, frozen=True, gc=False):
    """A credit was taken back; amount and date are those it was created with."""

    id: Id
    customer_id: Id
    credited_cents: Amount
    deleted_date: DateTime
    credit_date: date


class AccountCreated(Event, frozen=True, gc=False):
    """An account was opened and belongs to a user."""

    id: Id
    name: str
    description: str
    owned_by: str
    created_date: DateTime


class AccountUpdated(Event, frozen=True, gc=False):
    """An account has another name, description or owner; all as they are from then on.

    `revision` counts its changes, as a customer's does.
    """

    id: Id
    name: str
    description: str
    owned_by: str
    revision: Revision
    updated_date: DateTime


class AccountDeleted(Event, frozen=True, gc=False):
    """An account is gone for good; its customers are to follow, unless `cascade` is false: it had none."""

    id: Id
    deleted_date: DateTime
    cascade: bool = True


EVENT_TYPES: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__subclasses__()}
"""All of the classes above, in their order."""


class EventId(msgspec.Struct, frozen=True, gc=False):
    """`<source>:<sequence>`: who published the event, and its place in what that source published."""

    source: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.source}:{self.sequence}"

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The id in our form, or None for a name that some other publisher made up."""
        source, _, digits = raw.rpartition(b":")
        if source and digits.isdigit() and digits >= b"1" and len(digits) <= SEQUENCE_DIGITS:
            return cls(_source(source), int(digits))
        return None


class EventRange(msgspec.Struct, frozen=True, gc=False):
    """Events that a source has published, or will, one after another: `<source>:<first>-<last>`.

    Of a single one, and where nobody cares about the first: its EventId.
    """

    source: str
    first: int
    last: int

    def __str__(self) -> str:
        numbers = f"{self.first}-{self.last}" if self.first < self.last else str(self.last)
        return f"{self.source}:{numbers}"

    @classmethod
    def parse(cls, raw: str) -> Self:
        """What `str` has written. Raises ValueError."""
        if not re.fullmatch(EVENT_RANGE, raw):
            raise ValueError("Expected source:sequence or source:first-last")
        source, _, numbers = raw.partition(":")
        first, _, last = numbers.partition("-")
        if int(last or first) < int(first):
            raise ValueError("Expected the first event before the last")
        return cls(source, int(first), int(last or first))


EVENT_RANGE = "^[!-9;-~]{1,200}:[1-9][0-9]{0,17}(-[1-9][0-9]{0,17})?$"


@lru_cache(maxsize=64)  # a stream has many events from few sources
def _source(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


class InvalidEvent(ValueError):
    """The entry does not hold an event as the contract describes it."""


class UnknownEventType(ValueError):
    """The entry holds an event of a type this release does not know; it is none of our business."""


_encoder = msgspec.json.Encoder(enc_hook=str)  # msgspec doesn't know Id, and kinds of text
_parse = Id.parse.__func__  # type: ignore[attr-defined]  # takes (Id, raw) as msgspec gives them
_decoders: dict[bytes, msgspec.json.Decoder[Any]] = {
    name.encode(): msgspec.json.Decoder(cls, dec_hook=_parse) for name, cls in EVENT_TYPES.items()
}


def encode(event: Event) -> bytes:
    """The event's `Payload`: JSON, keys in the contract's order."""
    return _encoder.encode(event)


def decode_as(kind: type[E], payload: bytes) -> E:
    """Read an event of that type back out of what `encode` made."""
    event: E = _decoders[kind.__name__.encode()].decode(payload)
    return event


def decode(fields: Mapping[bytes, bytes]) -> Event:
    """Read the event out of an entry's fields; fields and payload keys we don't know are ignored.

    Raises UnknownEventType, or InvalidEvent with the reason when the entry breaks the contract.
    """
    try:
        decoder, payload = _decoders[fields[TYPE_FIELD]], fields[PAYLOAD_FIELD]
    except KeyError:
        raise _undecodable(fields) from None
    try:
        event: Event = decoder.decode(payload)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise InvalidEvent(f"Payload: {error}") from error
    return event


def _undecodable(fields: Mapping[bytes, bytes]) -> InvalidEvent | UnknownEventType:
    if (type_name := fields.get(TYPE_FIELD)) is None:
        return InvalidEvent("no EventTypeName")
    if type_name not in _decoders:
        return UnknownEventType(type_name[:100].decode(errors="replace"))
    return InvalidEvent("no Payload")
