"""The events' wire format."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from tally.events import (
    EVENT_TYPES,
    AccountCreated,
    AccountDeleted,
    AccountUpdated,
    CreditCreated,
    CreditDeleted,
    CustomerCreated,
    CustomerDeleted,
    CustomerUpdated,
    Event,
    EventId,
    Id,
    InvalidEvent,
    InvoiceCreated,
    InvoiceDeleted,
    InvoiceUpdated,
    UnknownEventType,
    decode,
    encode,
    rfc3339,
)
from tally.store.stream import Entry

_THEN = datetime(2019, 3, 23, 5, 24, 50, 326000, tzinfo=UTC)
_ZULU = "2019-03-23T05:24:50.326000Z"

EXAMPLES: list[tuple[Event, dict[str, object]]] = [
    (
        CustomerCreated(Id(7), Id(1), "Martin North 4", _THEN),
        {"id": "7", "account_id": "1", "name": "Martin North 4", "created_date": _ZULU},
    ),
    (CustomerDeleted(Id(7), Id(1), _THEN), {"id": "7", "account_id": "1", "deleted_date": _ZULU}),
    (
        InvoiceCreated(Id(10), Id(9), 8000, _THEN, date(2019, 1, 9)),
        {
            "id": "10",
            "customer_id": "9",
            "purchase_price_cents": 8000,
            "created_date": _ZULU,
            "purchase_date": "2019-01-09",
        },
    ),
    (
        InvoiceCreated(Id(10), Id(9), 8000, _THEN, date(2019, 1, 9), "R-1"),
        {
            "id": "10",
            "customer_id": "9",
            "purchase_price_cents": 8000,
            "created_date": _ZULU,
            "purchase_date": "2019-01-09",
            "reference": "R-1",
        },
    ),
    (
        CreditCreated(Id(3), Id(9), 250, _THEN, date(2019, 1, 9)),
        {
            "id": "3",
            "customer_id": "9",
            "credited_cents": 250,
            "created_date": _ZULU,
            "credit_date": "2019-01-09",
        },
    ),
    (
        CreditCreated(Id(3), Id(9), 250, _THEN, date(2019, 1, 9), Id(10), "CN-1"),
        {
            "id": "3",
            "customer_id": "9",
            "credited_cents": 250,
            "created_date": _ZULU,
            "credit_date": "2019-01-09",
            "invoice_id": "10",
            "reference": "CN-1",
        },
    ),
    (
        CreditDeleted(Id(3), Id(9), 250, _THEN, date(2019, 1, 9)),
        {
            "id": "3",
            "customer_id": "9",
            "credited_cents": 250,
            "deleted_date": _ZULU,
            "credit_date": "2019-01-09",
        },
    ),
    (
        InvoiceDeleted(Id(10), Id(9), 8000, _THEN),
        {"id": "10", "customer_id": "9", "purchase_price_cents": 8000, "deleted_date": _ZULU},
    ),
    (
        InvoiceDeleted(Id(10), Id(9), 8000, _THEN, date(2019, 1, 9), 7000, date(2019, 1, 10)),
        {
            "id": "10",
            "customer_id": "9",
            "purchase_price_cents": 8000,
            "deleted_date": _ZULU,
            "purchase_date": "2019-01-09",
            "last_price_cents": 7000,
            "last_date": "2019-01-10",
        },
    ),
    (
        InvoiceUpdated(Id(10), Id(9), 7000, date(2019, 1, 10), 8000, date(2019, 1, 9), 1, _THEN),
        {
            "id": "10",
            "customer_id": "9",
            "purchase_price_cents": 7000,
            "purchase_date": "2019-01-10",
            "previous_price_cents": 8000,
            "previous_date": "2019-01-09",
            "revision": 1,
            "updated_date": _ZULU,
        },
    ),
    (
        CustomerUpdated(Id(9), Id(2), "John", 2, _THEN),
        {"id": "9", "account_id": "2", "name": "John", "revision": 2, "updated_date": _ZULU},
    ),
    (
        AccountUpdated(Id(1), "one", "", "user2", 1, _THEN),
        {
            "id": "1",
            "name": "one",
            "description": "",
            "owned_by": "user2",
            "revision": 1,
            "updated_date": _ZULU,
        },
    ),
    (
        AccountCreated(Id(1), "one", "", "user1", _THEN),
        {"id": "1", "name": "one", "description": "", "owned_by": "user1", "created_date": _ZULU},
    ),
    (AccountDeleted(Id(1), _THEN, False), {"id": "1", "deleted_date": _ZULU, "cascade": False}),
]


def _fields(event: Event) -> dict[bytes, bytes]:
    return {b"EventTypeName": type(event).__name__.encode(), b"Payload": encode(event)}


@pytest.mark.parametrize(("event", "payload"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_payload_has_the_contracts_keys_in_the_contracts_order(
    event: Event, payload: dict[str, object]
) -> None:
    assert list(json.loads(encode(event)).items()) == list(payload.items())
    assert decode(_fields(event)) == event


@pytest.mark.parametrize("event", [event for event, _ in EXAMPLES], ids=lambda event: type(event).__name__)
def test_every_event_tells_when_it_happened(event: Event) -> None:
    assert event.happened == _THEN


def test_there_is_an_example_of_every_event() -> None:
    assert {type(event) for event, _ in EXAMPLES} == set(EVENT_TYPES.values())


def test_keys_and_fields_that_are_not_known_are_ignored() -> None:
    fields = {
        b"Shade": b"grey",
        b"EventTypeName": b"AccountDeleted",
        b"Payload": b'{"why":[1],"id":"3","deleted_date":"0001-01-01T00:00:00Z"}',
    }
    assert decode(fields) == AccountDeleted(Id(3), datetime(1, 1, 1, tzinfo=UTC))


def test_an_unknown_type_is_a_case_of_its_own() -> None:
    with pytest.raises(UnknownEventType, match="OrderShipped"):
        decode({b"EventTypeName": b"OrderShipped", b"Payload": b"?"})


_DELETED = b'"deleted_date":"2019-03-23T05:24:50Z"'


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no EventTypeName"),
        ({b"EventTypeName": b"AccountDeleted"}, "no Payload"),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b"{"}, "truncated"),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b"[" * 100_000}, "Payload"),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b"{" + _DELETED + b"}"}, "`id`"),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b'{"id":1,' + _DELETED + b"}"}, "digits"),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b'{"id":"01",' + _DELETED + b"}"}, "digits"),
        (
            {
                b"EventTypeName": b"AccountDeleted",
                b"Payload": b'{"id":"9223372036854775808",' + _DELETED + b"}",
            },
            "2.63",
        ),
        ({b"EventTypeName": b"AccountDeleted", b"Payload": b'{"id":"\xff",' + _DELETED + b"}"}, "(?i)utf-8"),
        (
            {
                b"EventTypeName": b"InvoiceDeleted",
                b"Payload": b'{"id":"1","customer_id":"2","purchase_price_cents":1.0,' + _DELETED + b"}",
            },
            "float",
        ),
    ],
)
def test_an_entry_that_breaks_the_contract_says_how(fields: dict[bytes, bytes], reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        decode(fields)


@pytest.mark.parametrize("text", ["customers@4f2a9c1e:42", "a:b:1", "x:999999999999999999"])
def test_an_event_id_survives_its_text(text: str) -> None:
    parsed = EventId.parse(text.encode())
    assert parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["", "42", ":42", "a:", "a:0", "a:-1", "a:042", "a:1e3", "a:\u0661", "a:" + "9" * 19]
)
def test_other_names_are_no_event_ids_of_ours(text: str) -> None:
    assert EventId.parse(text.encode()) is None


@pytest.mark.parametrize("fields", [{}, {b"EventId": b""}])
def test_an_event_without_a_name_is_known_by_its_entry(fields: dict[bytes, bytes]) -> None:
    name = Entry(b"7-1", fields).event_name
    assert isinstance(name, str)
    assert name.startswith("7-1 ")
    assert name == Entry(b"7-1", dict(fields)).event_name
    assert name != Entry(b"7-1", {**fields, b"Payload": b"{}"}).event_name
    assert name != Entry(b"7-2", fields).event_name


@pytest.fixture(params=["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the time zone of the machine."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2019-03-23T05:24:50.326Z", "2019-03-23T05:24:50.326000Z"),
        ("2019-03-23T05:24:50+02:00", "2019-03-23T03:24:50Z"),
        ("2019-03-23T05:24:50", "2019-03-23T05:24:50Z"),
        ("2019-07-23T05:24:50", "2019-07-23T05:24:50Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00Z"),
        ("0001-01-01T01:59:59.999+02:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59", "9999-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59-02:00", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_every_date_is_a_moment_in_utc_in_whatever_zone_the_machine_is(
    zone: str, given: str, shown: str
) -> None:
    payload = f'{{"id":"3","deleted_date":"{given}"}}'.encode()
    event = decode({b"EventTypeName": b"AccountDeleted", b"Payload": payload})
    assert isinstance(event, AccountDeleted)
    assert rfc3339(event.deleted_date) == shown
    assert rfc3339(event.happened) == shown
    assert isinstance(event.happened.timestamp(), float)  # for the first year, that raises without an offset
