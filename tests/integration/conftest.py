"""A running Tally that the tests of the HTTP contract share, and the tools to inspect it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import redis
import urllib3

from support.tally import Client, Tally, running
from support.waiting import eventually

PROBLEM = "application/problem+json"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally on a private Redis. All tests share its data, so each makes its own."""
    with running(tmp_path_factory.mktemp("shared")) as tally:
        yield tally


@pytest.fixture(scope="session")
def customers(shared: Tally) -> Client:
    """The customers service of the shared Tally."""
    return shared.customers


@pytest.fixture(scope="session")
def accounts(shared: Tally) -> Client:
    """The accounts service of the shared Tally."""
    return shared.accounts


@pytest.fixture(scope="session")
def watch(shared: Tally) -> "Watch":
    """Reports the rows and events of the shared Tally."""
    return Watch(shared)


class Published(NamedTuple):
    """An event as the stream holds it."""

    type: str
    payload: dict[str, Any]
    event_id: str
    trace_parent: str | None


class Watch:
    """Reports the rows and events of a Tally. It reads each of them only once."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._redis = redis.Redis.from_url(tally.settings["redis"]["url"], protocol=2)
        self._position = "-"
        self._published: list[Published] = []
        self._newest = {"/customers": 0, "/invoices": 0, "/credits": 0, "/accounts": 0}

    def published(self, type: str, **payload: object) -> list[Published]:
        """The events of that type with these payload fields, oldest first, once all are published."""
        self._read()
        wanted = payload.items()
        return [event for event in self._published if event.type == type and wanted <= event.payload.items()]

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Fails when a row or an event is written meanwhile."""
        before = self._seen()
        yield
        assert self._seen() == before, "a row or an event more, or less"

    def _seen(self) -> tuple[int, dict[str, int]]:
        self._read()
        for path in self._newest:
            while ids := self._ids_after(path, self._newest[path]):
                assert ids[0] > self._newest[path], f"{path} lists what is not after {self._newest[path]}"
                self._newest[path] = ids[-1]
        return len(self._published), dict(self._newest)

    def _ids_after(self, path: str, last: int) -> list[int]:
        query = f"{path}?limit=1000&after={last}"
        if path == "/accounts":
            return [int(each["account"]["id"]) for each in self._tally.accounts.get(query)]
        return [int(each["id"]) for each in self._tally.customers.get(query)[path[1:]]]

    def _read(self) -> None:
        eventually(self._tally.settled)
        answer: Any = self._redis.xrange("event-stream", min=self._position)
        for id, fields in answer:
            self._position = f"({id.decode()}"
            self._published.append(_published(fields))


def _published(fields: dict[bytes, bytes]) -> Published:
    trace_parent = fields.get(b"TraceParent")
    return Published(
        fields[b"EventTypeName"].decode(),
        json.loads(fields[b"Payload"]),
        fields[b"EventId"].decode(),
        trace_parent.decode() if trace_parent else None,
    )


def problem(response: urllib3.BaseHTTPResponse, status: int, *fields: str) -> dict[str, Any]:
    """The problem in the answer. It must have this status and name exactly these fields."""
    assert response.status == status, response.data[:1000]
    assert response.headers["Content-Type"] == PROBLEM
    return told(response.data, status, *fields)


def told(body: bytes, status: int, *fields: str) -> dict[str, Any]:
    """The problem in `body`. It must have this status and name exactly these fields."""
    content: dict[str, Any] = json.loads(body)
    assert content["status"] == status
    assert all(isinstance(content[key], str) and content[key] for key in ("title", "detail"))
    assert "Traceback" not in body.decode()
    errors = content.get("errors", [])
    assert sorted({error["field"] for error in errors}) == sorted(fields), content
    assert all(error["message"] for error in errors)
    return content


def new_account(accounts: Client, owned_by: str = "user1") -> str:
    """The id of a new account."""
    id: str = accounts.post("/accounts", {"name": "An account", "owned_by": owned_by})["id"]
    return id


def new_customer(customers: Client, account_id: str = "1", name: str = "John Adams") -> str:
    """The id of a new customer."""
    id: str = customers.post("/customers", {"name": name, "account_id": account_id})["id"]
    return id


def new_invoice(customers: Client, customer_id: str, cents: int = 10_000) -> str:
    """The id of a new invoice."""
    id: str = customers.post("/invoices", invoice(customer_id, cents))["id"]
    return id


def invoice(customer_id: str, cents: int = 10_000) -> dict[str, Any]:
    """A body for POST /invoices."""
    return {"customer_id": customer_id, "purchase_date": "2019-01-06", "purchase_price_cents": cents}


def new_credit(customers: Client, customer_id: str, cents: int = 2_500, **more: str) -> str:
    """The id of a new credit."""
    id: str = customers.post("/credits", credit(customer_id, cents, **more))["id"]
    return id


def credit(customer_id: str, cents: int = 2_500, **more: str) -> dict[str, Any]:
    """A body for POST /credits, for a customer."""
    return {"customer_id": customer_id, "credit_date": "2019-02-01", "credited_cents": cents, **more}
