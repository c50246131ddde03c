"""The examples from the document that Tally grew from, word for word."""

import json
import re
from typing import Any

import redis

from support.tally import Tally
from support.waiting import eventually

NOW = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


def _stream(client: redis.Redis) -> list[dict[bytes, bytes]]:
    answer: Any = client.xread({"event-stream": "0"})
    return [fields for _, fields in answer[0][1]]


def _dateless(payload: bytes) -> str:
    """The payload as text. Its time of creation must be real, and becomes the seed's zero."""
    return re.sub(NOW, "0001-01-01T00:00:00Z", payload.decode())


def test_the_seeds_requests_give_the_seeds_events_and_the_account_lists_them(
    tally: Tally, client: redis.Redis
) -> None:
    assert tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"}) == {"id": "1"}

    customer = b'{\n\t"name": "John Adams", \n\t"account_id": "1"\n}'
    response = tally.customers.request("POST", "/customers", body=customer)
    assert (response.status, response.json()) == (201, {"id": "1"})

    # `curl -d` sends a form's content type.
    invoice = (
        b'{\n\t"customer_id": "1", \n\t"purchase_date": "2019-01-06",\n\t"purchase_price_cents": 10000\n}'
    )
    response = tally.customers.request(
        "POST", "/invoices", body=invoice, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (response.status, response.json()) == (201, {"id": "1"})

    eventually(lambda: client.xlen("event-stream") == 3)
    entries = _stream(client)
    assert {entry[b"EventTypeName"]: _dateless(entry[b"Payload"]) for entry in entries} == {
        b"AccountCreated": '{"id":"1","name":"one","description":"","owned_by":"user1",'
        '"created_date":"0001-01-01T00:00:00Z"}',
        b"CustomerCreated": '{"id":"1","account_id":"1","name":"John Adams",'
        '"created_date":"0001-01-01T00:00:00Z"}',
        b"InvoiceCreated": '{"id":"1","customer_id":"1","purchase_price_cents":10000,'
        '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-06"}',
    }
    assert all(re.search(NOW, entry[b"Payload"].decode()) for entry in entries)

    def listed() -> list[dict[str, Any]]:
        accounts: list[dict[str, Any]] = tally.accounts.get("/accounts")
        assert accounts[0]["total_revenue_cents"] == 10000
        return accounts

    (account,) = eventually(listed)
    assert (account["account"]["id"], account["account"]["owned_by"]) == ("1", "user1")
    assert account["customers"] == [{"customer_id": "1", "name": "John Adams", "total_revenue_cents": 10000}]


def test_events_of_another_program_without_event_ids_are_applied(tally: Tally, client: redis.Redis) -> None:
    tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
    # The seed's own entries, with zero dates and both orders of the fields.
    customer = {
        "id": "9",
        "account_id": "1",
        "name": "Martin North 4",
        "created_date": "0001-01-01T00:00:00Z",
    }
    invoice = (
        '{"id":"10","customer_id":"9","purchase_price_cents":8000,'
        '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-09"}'
    )
    client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": invoice})
    client.xadd("event-stream", {"Payload": json.dumps(customer), "EventTypeName": "CustomerCreated"})

    shown = {"customer_id": "9", "name": "Martin North 4", "total_revenue_cents": 8000}
    eventually(lambda: tally.accounts.get("/accounts")[0]["customers"] == [shown])
