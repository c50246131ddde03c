"""Idempotency-Key: a request that is sent again, because no answer came, does nothing again."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import pytest
import urllib3
from integration.conftest import Watch, invoice, new_customer, problem

from support.tally import Client, Tally
from support.waiting import eventually

NOBODY = str(2**63 - 1)


class Call(NamedTuple):
    """A call that creates `makes` rows. The event of each has the type `event`."""

    path: str
    event: str
    makes: int
    content: Callable[[str, str], Any]
    """The content to send, from a name that no other row has and a customer's id."""


CALLS = [
    Call("/customers", "CustomerCreated", 1, lambda name, _: {"name": name, "account_id": "1"}),
    Call("/customers/batch", "CustomerCreated", 3, lambda name, _: [{"name": name, "account_id": "1"}] * 3),
    Call("/invoices", "InvoiceCreated", 1, lambda _, customer: invoice(customer)),
    Call("/invoices/batch", "InvoiceCreated", 3, lambda _, customer: [invoice(customer)] * 3),
    Call("/accounts", "AccountCreated", 1, lambda name, _: {"name": name, "owned_by": "user1"}),
]
EACH_CALL = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)


@pytest.fixture
def customer_id(customers: Client) -> str:
    return new_customer(customers)


@pytest.fixture
def name() -> str:
    """A name that no other row has."""
    return f"Ada {uuid.uuid4()}"


@pytest.fixture
def key() -> str:
    """A key that no other test has used."""
    return str(uuid.uuid4())


def _service(tally: Tally, path: str) -> Client:
    return tally.accounts if path.startswith("/accounts") else tally.customers


def _post(tally: Tally, path: str, content: object, key: str) -> urllib3.BaseHTTPResponse:
    return _service(tally, path).request("POST", path, content, headers={"Idempotency-Key": key})


def _answer(response: urllib3.BaseHTTPResponse) -> tuple[int, bytes, str | None, str | None]:
    """The parts of an answer that must be the same when it is given again."""
    return (
        response.status,
        response.data,
        response.headers.get("Content-Type"),
        response.headers.get("Location"),
    )


def _ids(answer: bytes) -> list[str]:
    content = json.loads(answer)
    return list(content.get("ids") or [content["id"]])


@EACH_CALL
def test_a_request_sent_again_gets_the_first_answer_and_makes_nothing_more(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, call: Call
) -> None:
    content = call.content(name, customer_id)
    first = _post(shared, call.path, content, key)
    assert first.status == 201
    assert len(_ids(first.data)) == call.makes

    with watch.nothing_changes():
        for _ in range(3):
            assert _answer(_post(shared, call.path, content, key)) == _answer(first)

    for id in _ids(first.data):
        assert len(watch.published(call.event, id=id)) == 1


@EACH_CALL
def test_a_key_with_another_body_is_refused(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, call: Call
) -> None:
    first = _post(shared, call.path, call.content(name, customer_id), key)
    other = call.content(name + " of another body", new_customer(shared.customers))

    with watch.nothing_changes():
        problem(_post(shared, call.path, other, key), 422, "Idempotency-Key")

    again = _post(shared, call.path, call.content(name, customer_id), key)
    assert _answer(again) == _answer(first)


@pytest.mark.parametrize(
    ("path", "other"), [("/customers", "/invoices"), ("/customers/batch", "/invoices/batch")]
)
def test_a_key_at_another_path_is_refused(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, path: str, other: str
) -> None:
    """Both paths accept the body."""
    both: Any = invoice(customer_id) | {"name": name, "account_id": "1"}
    content = [both] if path.endswith("/batch") else both
    assert _post(shared, path, content, key).status == 201

    with watch.nothing_changes():
        problem(_post(shared, other, content, key), 422, "Idempotency-Key")


def test_other_keys_make_other_things(shared: Tally, name: str, key: str) -> None:
    content = {"name": name, "account_id": "1"}
    answers = [_post(shared, "/customers", content, each) for each in (key, key.upper(), key + "x", key[1:])]
    assert [answer.status for answer in answers] == [201] * 4
    assert len({answer.json()["id"] for answer in answers}) == 4


def test_without_a_key_the_same_body_makes_another_thing(customers: Client) -> None:
    assert new_customer(customers, "1", "Ada") != new_customer(customers, "1", "Ada")


def test_the_two_services_keep_their_keys_apart(shared: Tally, name: str, key: str) -> None:
    content = {"name": name, "account_id": "1", "owned_by": "user1"}
    assert _post(shared, "/customers", content, key).status == 201
    assert _post(shared, "/accounts", content, key).status == 201


def test_what_was_deleted_meanwhile_is_not_made_again(
    shared: Tally, watch: Watch, name: str, key: str
) -> None:
    content = {"name": name, "account_id": "1"}
    first = _post(shared, "/customers", content, key)
    shared.customers.delete(f"/customers/{first.json()['id']}")

    with watch.nothing_changes():
        assert _answer(_post(shared, "/customers", content, key)) == _answer(first)
    problem(shared.customers.request("GET", first.headers["Location"]), 404)


# Good and bad keys


VISIBLE = {
    "one character": "k",
    "all that is no letter": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "200 characters": "k" * 200,
    "200 characters, the last another": "k" * 199 + "l",
}
INVISIBLE = {
    "empty": "",
    "201 characters": "k" * 201,
    "10,000 characters": "k" * 10_000,
    "a blank inside": "a b",
    "a tab inside": "a\tb",
    "an accent": "cl\u00e9",
    "a no-break space": "a\u00a0b",
    "a C1 control": "a\u0085b",
}


@pytest.mark.parametrize("given", VISIBLE.values(), ids=VISIBLE)
def test_a_key_is_1_to_200_visible_characters(shared: Tally, watch: Watch, name: str, given: str) -> None:
    content = {"name": name, "account_id": "1"}
    first = _post(shared, "/customers", content, given)
    assert first.status == 201
    with watch.nothing_changes():
        assert _answer(_post(shared, "/customers", content, given)) == _answer(first)


@pytest.mark.parametrize("given", INVISIBLE.values(), ids=INVISIBLE)
def test_what_is_no_key_is_refused_at_every_call(
    shared: Tally, watch: Watch, customer_id: str, name: str, given: str
) -> None:
    with watch.nothing_changes():
        for call in CALLS:
            response = _post(shared, call.path, call.content(name, customer_id), given)
            problem(response, 422, "Idempotency-Key")


@pytest.mark.parametrize("given", ["a\x00b", "a\x07b", "a\x7fb"], ids=ascii)
def test_a_key_that_no_header_can_hold_is_refused(shared: Tally, watch: Watch, name: str, given: str) -> None:
    """The server may refuse such a header before the application sees it."""
    with watch.nothing_changes():
        response = _post(shared, "/customers", {"name": name, "account_id": "1"}, given)
        if response.status == 422:
            problem(response, 422, "Idempotency-Key")
        else:
            problem(response, 400)


# Keys of requests that created nothing


@EACH_CALL
def test_a_refused_request_does_not_use_its_key_up(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, call: Call
) -> None:
    with watch.nothing_changes():
        assert _post(shared, call.path, [{}] if call.path.endswith("batch") else {}, key).status == 422
        assert _post(shared, call.path, [] if not call.path.endswith("batch") else {}, key).status == 400

    mended = _post(shared, call.path, call.content(name, customer_id), key)

    assert mended.status == 201
    with watch.nothing_changes():
        assert _answer(_post(shared, call.path, call.content(name, customer_id), key)) == _answer(mended)


@pytest.mark.parametrize("path", ["/invoices", "/invoices/batch"])
def test_an_unknown_customer_does_not_use_the_key_up(
    shared: Tally, watch: Watch, customer_id: str, key: str, path: str
) -> None:
    """The unknown customer is found out inside the transaction."""

    def send(customer_id: str) -> urllib3.BaseHTTPResponse:
        content = invoice(customer_id)
        return _post(shared, path, [content] if path.endswith("batch") else content, key)

    with watch.nothing_changes():
        assert send(NOBODY).status == 422
    mended = send(customer_id)
    assert mended.status == 201
    with watch.nothing_changes():
        assert _answer(send(customer_id)) == _answer(mended)
        problem(send(NOBODY), 422, "Idempotency-Key")


# Many requests at once


def _together(send: Callable[[int], urllib3.BaseHTTPResponse], count: int) -> list[urllib3.BaseHTTPResponse]:
    """The answers to `count` threads that send at the same moment."""
    barrier = Barrier(count)

    def one(number: int) -> urllib3.BaseHTTPResponse:
        barrier.wait()
        return send(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


@EACH_CALL
def test_a_key_that_comes_16_times_at_the_same_moment_is_used_once(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, call: Call
) -> None:
    content = call.content(name, customer_id)
    answers = _together(lambda _: _post(shared, call.path, content, key), 16)

    assert {answer.status for answer in answers} == {201}
    assert len({_answer(answer) for answer in answers}) == 1
    made = {event.payload["id"] for event in _made(watch, call, name, customer_id)}
    assert made == set(_ids(answers[0].data))


def _made(watch: Watch, call: Call, name: str, customer_id: str) -> list[Any]:
    if call.event == "InvoiceCreated":
        return watch.published(call.event, customer_id=customer_id)
    return watch.published(call.event, name=name)


def test_of_two_bodies_that_come_with_one_key_at_the_same_moment_one_is_taken(
    shared: Tally, watch: Watch, name: str, key: str
) -> None:
    def send(number: int) -> urllib3.BaseHTTPResponse:
        return _post(shared, "/customers", {"name": name, "account_id": str(1 + number % 2)}, key)

    answers = _together(send, 16)

    (made,) = watch.published("CustomerCreated", name=name)
    for number, answer in enumerate(answers):
        if made.payload["account_id"] == str(1 + number % 2):
            assert (answer.status, answer.json()) == (201, {"id": made.payload["id"]})
        else:
            problem(answer, 422, "Idempotency-Key")


def test_16_keys_at_the_same_moment_make_16_things(shared: Tally, watch: Watch, name: str, key: str) -> None:
    content = {"name": name, "account_id": "1"}
    answers = _together(lambda number: _post(shared, "/customers", content, f"{key}-{number}"), 16)

    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 16
    assert sorted(event.payload["id"] for event in watch.published("CustomerCreated", name=name)) == sorted(
        ids
    )


# After a restart


@pytest.mark.parametrize("call", [CALLS[0], CALLS[-1]], ids=lambda call: call.path)
def test_a_key_outlives_the_process_that_it_came_to(
    shared: Tally, watch: Watch, customer_id: str, name: str, key: str, call: Call
) -> None:
    actor = "accounts-http-1" if call.path == "/accounts" else "customers-http-1"
    content = call.content(name, customer_id)
    first = _post(shared, call.path, content, key)
    assert first.status == 201

    killed = shared.kill(actor)
    eventually(lambda: shared.pids().get(actor, killed) != killed)

    with watch.nothing_changes():
        assert _answer(_post(shared, call.path, content, key)) == _answer(first)
    problem(_post(shared, call.path, call.content(name + "x", NOBODY), key), 422, "Idempotency-Key")
