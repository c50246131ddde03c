"""The AsyncAPI 3.0 document of the stream, made from the definitions in `events.py`.

python -m tally.http.asyncapi > docs/asyncapi.json
"""

from datetime import UTC, date, datetime
from typing import Any

import msgspec

from tally import events
from tally.events import Event, EventId, Id
from tally.http.schemas import schemas_of

_CHANNEL = "event-stream"
_THEN = datetime(2019, 3, 23, 5, 24, 50, 326000, tzinfo=UTC)
_CUSTOMERS, _ACCOUNTS = "customers@4f2a9c1e", "accounts@9b1d7f02"
_SOLD, _FIXED, _REFUND = date(2019, 1, 6), date(2019, 1, 7), date(2019, 2, 1)

# Each event with its EventId.
EXAMPLES: tuple[tuple[EventId, Event], ...] = (
    (EventId(_CUSTOMERS, 1), events.CustomerCreated(Id(7), Id(1), "John Adams", _THEN)),
    (EventId(_CUSTOMERS, 5), events.CustomerUpdated(Id(7), Id(1), "John Quincy Adams", 1, _THEN)),
    (EventId(_CUSTOMERS, 6), events.CustomerDeleted(Id(7), Id(1), _THEN)),
    (EventId(_CUSTOMERS, 2), events.InvoiceCreated(Id(10), Id(7), 10_000, _THEN, _SOLD, "2019-0010")),
    (EventId(_CUSTOMERS, 3), events.InvoiceUpdated(Id(10), Id(7), 9_900, _FIXED, 10_000, _SOLD, 1, _THEN)),
    (EventId(_CUSTOMERS, 4), events.InvoiceDeleted(Id(10), Id(7), 10_000, _THEN, _SOLD, 9_900, _FIXED)),
    (EventId(_CUSTOMERS, 7), events.CreditCreated(Id(3), Id(7), 2_500, _THEN, _REFUND, Id(10), "CN-2019-3")),
    (EventId(_CUSTOMERS, 8), events.CreditDeleted(Id(3), Id(7), 2_500, _THEN, _REFUND)),
    (EventId(_ACCOUNTS, 1), events.AccountCreated(Id(1), "one", "the first", "user1", _THEN)),
    (EventId(_ACCOUNTS, 2), events.AccountUpdated(Id(1), "one", "the first of all", "user1", 1, _THEN)),
    (EventId(_ACCOUNTS, 3), events.AccountDeleted(Id(1), _THEN, cascade=True)),
)

_ABOUT = """\
One entry of the stream is one event. Its field `Payload` holds the message's payload as the text of a
JSON object; the message's headers are the entry's other fields.

A program that reads the stream does so in a consumer group of its own and acknowledges what it has dealt
with. An event can come more than once: what has one `EventId` is one event. Entries of other publishers
may have no `EventId`. Fields, payload keys and event types that a reader doesn't know are to be ignored."""


def document() -> dict[str, Any]:
    """The document."""
    payloads, components = schemas_of(list(events.EVENT_TYPES.values()))
    messages = {kind.__name__: _message(kind, payload) for kind, payload in payloads.items()}
    channel = {"$ref": f"#/channels/{_CHANNEL}"}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tally: the event stream", "version": "1.0.0", "description": _ABOUT},
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "127.0.0.1:6379",
                "protocol": "redis",
                "description": "Where the setting `redis.url` says; the key is the setting `redis.stream`.",
            }
        },
        "channels": {
            _CHANNEL: {
                "address": _CHANNEL,
                "description": "A Redis stream: XADD, XREADGROUP, XACK.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "publish": {
                "action": "send",
                "channel": channel,
                "summary": "The services publish what was committed.",
            },
            "apply": {
                "action": "receive",
                "channel": channel,
                "summary": "The services apply what they, and other publishers, have published.",
            },
        },
        "components": {"messages": messages, "schemas": components},
    }


# Descriptions of an entry's fields, without those of its event.
_HEADERS = {
    events.TYPE_FIELD: "",
    events.EVENT_ID_FIELD: "`<source>:<sequence>`, the event's name for good; ours always carry it.",
    events.TRACE_PARENT_FIELD: "W3C trace context of the request that caused it, when it had one.",
    events.REQUEST_KEY_FIELD: "Of the request that caused it, when it had an Idempotency-Key: hashes of "
    "the key and of the content, and how many events belong to it. For Tally itself.",
    events.BY_FIELD: "The signed-in user who did it; absent without one.",
}


def _message(kind: type[Event], payload: dict[str, Any]) -> dict[str, Any]:
    headers = {
        name.decode(): {"type": "string", **({"description": says} if says else {"const": kind.__name__})}
        for name, says in _HEADERS.items()
    }
    return {
        "name": kind.__name__,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "headers": {"type": "object", "properties": headers, "required": [events.TYPE_FIELD.decode()]},
        "payload": payload,
        "examples": [_example(id, event) for id, event in EXAMPLES if isinstance(event, kind)],
    }


def _example(id: EventId, event: Event) -> dict[str, Any]:
    return {
        "headers": {
            events.TYPE_FIELD.decode(): type(event).__name__,
            events.EVENT_ID_FIELD.decode(): str(id),
            events.TRACE_PARENT_FIELD.decode(): "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
        "payload": msgspec.json.decode(events.encode(event)),
    }


def render() -> str:
    """The document as `docs/asyncapi.json` holds it."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    print(render(), end="")
