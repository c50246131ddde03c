"""The OpenAPI and AsyncAPI documents, checked on two running services: they accept every example."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
import redis
from openapi_spec_validator import OpenAPIV31SpecValidator

from support.documents import faults
from support.tally import ROOT, Client, Tally, running
from support.waiting import eventually


class Operation(NamedTuple):
    """A call as a document describes it."""

    service: str
    method: str
    path: str
    content: dict[str, Any]


METHODS = ("post", "get", "patch", "delete")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally without any data: the examples name account 1 and customer 1."""
    with running(tmp_path_factory.mktemp("alone")) as tally:
        yield tally


@pytest.fixture(scope="module")
def documents(alone: Tally) -> dict[str, dict[str, Any]]:
    """The documents that the services serve."""
    return {service: _client(alone, service).get("/openapi.json") for service in ("accounts", "customers")}


def _client(tally: Tally, service: str) -> Client:
    return tally.accounts if service == "accounts" else tally.customers


def _operations(documents: dict[str, dict[str, Any]]) -> list[Operation]:
    """All operations, ordered so that rows are created before their use and deleted last."""
    found = [
        Operation(service, method, path, content)
        for service, document in documents.items()
        for path, methods in document["paths"].items()
        for method, content in methods.items()
    ]
    by_method = {name: [each for each in found if each.method == name] for name in METHODS}
    assert sum(map(len, by_method.values())) == len(found)
    *first, last = METHODS
    return [*(each for name in first for each in by_method[name]), *reversed(by_method[last])]


def test_a_served_document_is_valid_and_is_json(alone: Tally, documents: dict[str, dict[str, Any]]) -> None:
    for service, document in documents.items():
        assert document["openapi"].startswith("3.1")
        OpenAPIV31SpecValidator(document).validate()
        response = _client(alone, service).request("GET", "/openapi.json")
        assert response.headers["Content-Type"] == "application/json"


def test_every_example_is_accepted_and_answered_as_the_document_says(
    alone: Tally, documents: dict[str, dict[str, Any]]
) -> None:
    for operation in _operations(documents):
        told = f"{operation.method} {operation.path}"
        (status, answer), *_ = operation.content["responses"].items()
        response = _sent(_client(alone, operation.service), operation)
        assert response.status == int(status), f"{told}: {response.data!r}"
        assert all(name in response.headers for name in answer.get("headers", {}) if name != "Link"), told
        if "content" in answer:
            media_type = response.headers["Content-Type"].partition(";")[0]
            answered = response.json() if media_type.endswith("json") else response.data.decode()
            shown = answer["content"][media_type]
            document = documents[operation.service]
            assert faults(document, shown["schema"], answered) == [], told
            assert faults(document, shown["schema"], shown["example"]) == [], told
            assert _keys(shown["example"]) <= _keys(answered), told
        if operation.method == "post":
            eventually(alone.settled)


def _sent(client: Client, operation: Operation) -> Any:
    examples: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    for parameter in operation.content.get("parameters", []):
        examples[parameter["in"]][parameter["name"]] = parameter["example"]
    examples["header"].pop("Tally-After", None)  # no such event was published here
    if "Idempotency-Key" in examples["header"]:  # a key is for one path and body
        examples["header"]["Idempotency-Key"] += operation.content["operationId"]
    path = operation.path.format(**{name: quote(value) for name, value in examples["path"].items()})
    query = urlencode({name: str(value).lower() for name, value in examples["query"].items()})
    body = operation.content.get("requestBody")
    return client.request(
        operation.method.upper(),
        f"{path}?{query}" if query else path,
        body["content"]["application/json"]["example"] if body else None,
        headers=examples["header"],
    )


def _keys(content: Any) -> set[str]:
    return set(content) if isinstance(content, dict) else set()


def test_what_is_published_is_as_the_stream_s_document_says(alone: Tally) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    account = alone.accounts.post("/accounts", {"name": "two", "owned_by": "u"}, trace)["id"]
    customer = alone.customers.post("/customers", {"name": "c", "account_id": account})["id"]
    bought = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 5}
    invoice = alone.customers.post("/invoices", bought | {"reference": "R-2"})["id"]
    back = {"customer_id": customer, "credit_date": "2019-01-06", "credited_cents": 5}
    credit = alone.customers.post("/credits", back | {"invoice_id": invoice, "reference": "R-2"})["id"]
    for client, path, change in (
        (alone.customers, f"/invoices/{invoice}", {"purchase_price_cents": 6}),
        (alone.customers, f"/customers/{customer}", {"name": "d"}),
        (alone.accounts, f"/accounts/{account}", {"name": "three"}),
    ):
        assert client.request("PATCH", path, change).status == 200
    alone.customers.delete(f"/credits/{credit}")
    alone.customers.delete(f"/invoices/{invoice}")
    alone.customers.delete(f"/customers/{customer}")
    eventually(alone.settled)
    alone.accounts.delete(f"/accounts/{account}")
    eventually(alone.settled)
    document = json.loads((ROOT / "docs" / "asyncapi.json").read_text())
    messages = document["components"]["messages"]
    with redis.Redis.from_url(alone.settings["redis"]["url"], protocol=2, decode_responses=True) as client:
        entries: Any = client.xrange(document["channels"]["event-stream"]["address"])
    seen = set()
    for _, fields in entries:
        payload = fields.pop("Payload")
        message = messages[fields["EventTypeName"]]
        assert faults(document, message["headers"], fields) == []
        told = json.loads(payload)
        assert faults(document, message["payload"], told) == []
        assert list(told) == [key for key in message["examples"][0]["payload"] if key in told]
        assert set(fields) <= set(message["headers"]["properties"])
        seen.add(message["name"])
    assert seen == set(messages)
