"""The AsyncAPI document of the stream."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from support.documents import faults
from tally.events import EVENT_TYPES, Event, EventId, decode, encode
from tally.http import asyncapi
from tally.store.asks import published_fields
from tally.store.outbox import OutboxRow

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "data" / "asyncapi-3.0.0.schema.json.gz"
DOCUMENT: dict[str, Any] = json.loads(asyncapi.render())
MESSAGES: dict[str, dict[str, Any]] = DOCUMENT["components"]["messages"]


def test_the_file_is_what_the_definitions_make() -> None:
    written = (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8")
    assert written == asyncapi.render(), "run: python -m tally.http.asyncapi > docs/asyncapi.json"


def test_the_document_is_valid_by_the_official_schema() -> None:
    validator = Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))
    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []
    assert list(validator.iter_errors(DOCUMENT | {"channels": []})), "the schema refuses nothing"


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in _references(value)]
    return [found for value in part for found in _references(value)] if isinstance(part, list) else []


def test_every_reference_leads_somewhere() -> None:
    assert _references(DOCUMENT)
    for reference in _references(DOCUMENT):
        place: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_every_event_has_its_message_in_the_channel() -> None:
    assert set(MESSAGES) == set(DOCUMENT["channels"]["event-stream"]["messages"]) == set(EVENT_TYPES)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_every_field_of_an_entry_is_described(message: dict[str, Any]) -> None:
    entry = published_fields("customers@4f2a9c1e", OutboxRow(1, message["name"], b"{}", "a", "b", "c"))
    assert {*message["headers"]["properties"], "Payload"} == {name.decode() for name in entry}


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_a_message_shows_an_event_as_it_is_on_the_stream(kind: type[Event]) -> None:
    (shown,) = MESSAGES[kind.__name__]["examples"]
    ((id, event),) = [each for each in asyncapi.EXAMPLES if isinstance(each[1], kind)]
    payload = json.dumps(shown["payload"], separators=(",", ":")).encode()
    assert payload == encode(event)
    assert (
        decode({b"EventTypeName": shown["headers"]["EventTypeName"].encode(), b"Payload": payload}) == event
    )
    assert EventId.parse(shown["headers"]["EventId"].encode()) == id


# Fields that earlier releases left out.
OPTIONAL = {
    "CreditCreated": ("invoice_id", "reference"),
    "InvoiceCreated": ("reference",),
    "InvoiceDeleted": ("purchase_date", "last_price_cents", "last_date"),
    "AccountDeleted": ("cascade",),
}


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_an_example_is_valid_and_less_is_not(name: str) -> None:
    message = MESSAGES[name]
    (shown,) = message["examples"]
    assert faults(DOCUMENT, message["headers"], shown["headers"]) == []
    assert faults(DOCUMENT, message["payload"], shown["payload"]) == []
    for key in shown["payload"]:
        less = {other: value for other, value in shown["payload"].items() if other != key}
        may_be_missing = key in OPTIONAL.get(name, ())
        assert bool(faults(DOCUMENT, message["payload"], less)) != may_be_missing, key
    assert faults(DOCUMENT, message["payload"], shown["payload"] | {"id": 7}), "an id may be a number"
