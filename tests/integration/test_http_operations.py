"""The operations page: the calls with which it reads from the services, and those with which it acts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from integration.conftest import invoice, new_account, new_customer, problem

from support.engines import bundled_process, free_port
from support.redis_process import RedisProcess
from support.tally import Client, Tally, running
from support.waiting import eventually
from tally.http.operations import LONGEST_EDITED, MOST_LETTERS, MOST_UNREAD

SERVICES = ["accounts", "customers"]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bundled_process(tmp_path_factory.mktemp("redis"), free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("operations"), redis_url=redis_url) as tally:
        yield tally


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def letters(tally: Tally, client: redis.Redis) -> list[dict[str, Any]]:
    """Two dead letters and no others: one at each service, of an event that neither can read."""
    if old := [letter["id"] for letter in _letters(tally)["letters"]]:
        assert tally.accounts.request("POST", "/operations/discard", {"ids": old}).status == 200
    client.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": '{"cents": 100}'})
    eventually(lambda: _letters(tally)["total"] == 2)
    found: list[dict[str, Any]] = _letters(tally)["letters"]
    return found


def _service(tally: Tally, service: str) -> Client:
    client: Client = getattr(tally, service)
    return client


def _letters(tally: Tally) -> Any:
    return tally.accounts.get("/operations/dead-letters")


def _decide(tally: Tally, what: str, *ids: str) -> Any:
    answer = tally.customers.request("POST", f"/operations/{what}", {"ids": [*ids]})
    assert answer.status == 200, answer.data
    return answer.json()


def test_the_minutes_tell_what_was_recorded_and_applied_by_each_service(tally: Tally) -> None:
    def known(service: str) -> dict[str, int]:
        minutes = _service(tally, service).get("/operations/minutes")["minutes"]
        return {
            what: sum(minute[what] for minute in minutes if minute[what] is not None)
            for what in ("recorded", "applied")
        }

    eventually(tally.settled)
    before = {service: known(service) for service in SERVICES}
    account = new_account(tally.accounts)
    customer = new_customer(tally.customers, account)
    tally.customers.post("/invoices/batch", [invoice(customer)] * 10)

    def more() -> dict[str, dict[str, int]]:
        return {
            service: {what: count - before[service][what] for what, count in known(service).items()}
            for service in SERVICES
        }

    # The accounts service applies all events, the customers service those of accounts.
    told = {"customers": {"recorded": 11, "applied": 1}, "accounts": {"recorded": 1, "applied": 12}}
    eventually(lambda: more() == told)


def test_the_minutes_are_those_of_the_service_whichever_of_its_processes_is_asked(tmp_path: Path) -> None:
    with running(tmp_path, customers={"processes": 2}) as tally:
        new_customer(tally.customers)
        (before,) = [tally.kill(actor) for actor in ["customers-http-1"]]
        eventually(lambda: before not in tally.pids().values() and "customers-http-1" in tally.pids())
        for _ in range(20):
            fresh = Client(tally.customers.port)
            minutes = fresh.get("/operations/minutes")["minutes"]
            assert sum(minute["recorded"] for minute in minutes) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_the_stream_tells_its_memory_and_its_readers_those_of_other_programs_too(
    tally: Tally, client: redis.Redis, service: str
) -> None:
    client.xgroup_create("event-stream", f"reports-{service}", id="0", mkstream=True)
    client.xreadgroup(f"reports-{service}", "one", {"event-stream": ">"}, count=1)
    new_account(tally.accounts)
    eventually(tally.settled)
    told = _service(tally, service).get("/operations/stream")
    info: Any = client.info("memory")
    assert told["trouble"] is None
    assert told["memory"]["used"] > 100_000
    assert (told["memory"]["limit"], told["memory"]["limit_is_known"]) == (info["maxmemory"] or None, True)
    assert 0 < told["memory"]["stream"] < told["memory"]["used"]
    assert told["entries"] == client.xlen("event-stream")
    assert told["oldest"].endswith("Z")
    groups = {group["name"].partition("@")[0]: group for group in told["groups"]}
    assert {name for name, group in groups.items() if group["of_tally"]} == {"accounts", "customers"}
    assert (groups["accounts"]["pending"], groups["accounts"]["unread"]) == (0, 0)
    other = groups[f"reports-{service}"]
    assert (other["pending"], other["unread"]) == (1, told["entries"] - 1)
    assert not other["holds_back"]
    assert other["idle_seconds"] >= 0


def test_of_what_nobody_reads_no_more_is_counted_than_is_said(tally: Tally, client: redis.Redis) -> None:
    client.xgroup_create("event-stream", "idle", id="0", mkstream=True)
    customers = [{"name": "Many", "account_id": "1"}] * (MOST_UNREAD + 10)
    tally.customers.post("/customers/batch", customers)
    eventually(tally.settled)
    told = tally.accounts.get("/operations/stream")
    (idle,) = [group for group in told["groups"] if group["name"] == "idle"]
    assert idle["unread"] == told["most_unread"] == MOST_UNREAD
    assert idle["read_up_to"] is None


def test_the_private_redis_is_an_actor_and_tells_its_memory(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        told = tally.accounts.get("/operations/stream")
        (actor,) = told["actors"]
        assert (actor["name"], actor["state"], actor["restarts"]) == ("redis", "running", 0)
        assert actor["uptime_seconds"] > 0
        new_account(tally.accounts)
        eventually(tally.settled)
        assert tally.accounts.get("/operations/stream")["memory"]["stream"] > 0


def test_without_the_right_to_ask_for_it_the_memory_is_unknown_and_all_else_is_told(
    tally: Tally, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-memory")  # type: ignore[no-untyped-call]
    try:
        told = tally.accounts.get("/operations/stream")
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+memory")  # type: ignore[no-untyped-call]
    assert told["memory"]["stream"] is None
    assert told["memory"]["used"] > 0
    assert told["groups"]


def test_the_letters_are_shown_with_what_they_hold(tally: Tally, letters: list[dict[str, Any]]) -> None:
    assert {letter["group"].partition("@")[0] for letter in letters} == {"accounts", "customers"}
    for letter in letters:
        assert letter["type"] == "AccountCreated"
        assert letter["fields"] == {"EventTypeName": "AccountCreated", "Payload": '{\n  "cents": 100\n}'}
        assert "`id`" in letter["reason"]
        assert letter["deliveries"] == 1
        assert letter["failed_at"].endswith("Z")


def test_what_is_tried_again_in_vain_is_told_with_the_letter_that_it_is_now(
    tally: Tally, letters: list[dict[str, Any]]
) -> None:
    first, second = (letter["id"] for letter in letters)
    outcome = _decide(tally, "redrive", first, first)
    assert (outcome["applied"], outcome["waiting"], outcome["refused"]) == ([], [], {})
    again = outcome["failed"][first]
    assert again["reason"].startswith("redriven")
    assert [letter["id"] for letter in _letters(tally)["letters"]] == [second, again["id"]]
    nobody = _decide(tally, "redrive", first)  # somebody else has decided already
    assert nobody == {"applied": [], "failed": {}, "waiting": [], "refused": {}}


def test_what_is_applied_now_is_told_so(tally: Tally, client: redis.Redis) -> None:
    """The letter is made of a good event, because a bad event never becomes good by itself."""
    client.delete("{event-stream}:dead")
    account = new_account(tally.accounts)
    eventually(tally.settled)
    newest: Any = client.xrevrange("event-stream", count=1)
    ((_, fields),) = newest
    client.xadd("{event-stream}:dead", {**fields, b"StreamId": b"1-1", b"Group": _group(tally)})
    (letter,) = _letters(tally)["letters"]
    assert account in letter["fields"]["Payload"]
    assert _decide(tally, "redrive", letter["id"])["applied"] == [letter["id"]]
    assert _letters(tally)["total"] == 0


def _added(client: redis.Redis, letter: Any) -> str:
    """The id of the letter, once it is added."""
    id: Any = client.xadd("{event-stream}:dead", letter)
    return str(id.decode())


def _group(tally: Tally) -> str:
    return f"accounts@{tally.accounts.get('/status')['identity']}"


def test_a_letter_of_a_group_that_is_gone_is_not_tried_again_and_can_be_discarded(
    tally: Tally, client: redis.Redis
) -> None:
    client.delete("{event-stream}:dead")
    letter: Any = {"EventTypeName": "A", "Payload": "x", "StreamId": "1-1", "Group": "accounts@00000000"}
    id = _added(client, letter)
    assert "is gone" in _decide(tally, "redrive", id)["refused"][id]
    assert _decide(tally, "discard", id) == {"discarded": 1}
    assert _decide(tally, "discard", id) == {"discarded": 0}
    assert _letters(tally)["total"] == 0


def test_of_many_letters_the_oldest_are_shown_and_of_long_fields_the_beginning(
    tally: Tally, client: redis.Redis
) -> None:
    client.delete("{event-stream}:dead")
    letter: Any = {"EventTypeName": "A", "Payload": "x" * 10_000, "StreamId": "1-1", "Group": "nobody"}
    ids = [_added(client, letter) for _ in range(MOST_LETTERS + 1)]
    told = _letters(tally)
    assert [letter["id"] for letter in told["letters"]] == ids[:-1]
    assert told["total"] == len(ids)
    assert len(told["letters"][0]["fields"]["Payload"]) < 5_000
    client.delete("{event-stream}:dead")


# Edited


@pytest.fixture
def bill(tally: Tally, client: redis.Redis) -> Iterator[dict[str, Any]]:
    """An invoice of another program, for a customer in an open account. It lacks only its price."""
    client.delete("{event-stream}:dead")
    customer = new_customer(tally.customers, new_account(tally.accounts))
    number = str(10**15 + int(client.xlen("event-stream")))
    bill = {
        "id": number,
        "customer_id": customer,
        "created_date": "2019-01-06T12:00:00Z",
        "purchase_date": "2019-01-06",
    }
    yield bill
    client.delete("{event-stream}:dead")


def _dead(client: redis.Redis, tally: Tally, payload: str, type: str = "InvoiceCreated") -> str:
    """The id of a new dead letter with this event."""
    letter: Any = {"EventTypeName": type, "Payload": payload, "EventId": "shop:1", "StreamId": "1-1"}
    return _added(client, {**letter, "Group": _group(tally), "Reason": "Payload: odd", "Deliveries": "1"})


def _edit(tally: Tally, id: str, payload: str, status: int = 200) -> Any:
    answer = tally.accounts.request("POST", "/operations/edit", {"id": id, "payload": payload})
    assert answer.status == status, answer.data
    return answer.json()


def _payload(tally: Tally, id: str) -> str:
    payload: str = tally.customers.get(f"/operations/dead-letters/{id}")["payload"]
    return payload


def test_an_edited_letter_is_applied_and_a_repetition_finds_it_gone(
    tally: Tally, client: redis.Redis, bill: dict[str, Any]
) -> None:
    eventually(tally.settled)
    event: Any = {"EventTypeName": "InvoiceCreated", "Payload": json.dumps({**bill, "cents": 700})}
    client.xadd("event-stream", {**event, "EventId": f"shop:{bill['id']}"})
    eventually(lambda: _letters(tally)["total"] == 1)
    (letter,) = _letters(tally)["letters"]
    right = _payload(tally, letter["id"]).replace("cents", "purchase_price_cents")
    assert _edit(tally, letter["id"], right)["applied"] == [letter["id"]]
    gone = _edit(tally, letter["id"], right, 404)
    assert gone["detail"] == (
        f"There is no dead letter {letter['id']} any more: it was redriven, edited or discarded meanwhile."
    )
    client.xadd("event-stream", {**event, "Payload": right, "EventId": f"shop:{bill['id']}"})
    eventually(tally.settled)
    account = tally.customers.get(f"/customers/{bill['customer_id']}")["account_id"]
    assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 700
    edited: Any = client.hvals("{event-stream}:edited:" + _group(tally))
    assert any(bill["id"].encode() in fields for fields in edited)  # for a rebuild


def test_what_could_not_be_applied_either_is_refused_in_words_at_the_payload(
    tally: Tally, client: redis.Redis, bill: dict[str, Any]
) -> None:
    good = json.dumps({**bill, "purchase_price_cents": 1})
    id = _dead(client, tally, good)

    def said(payload: str, of: str = id) -> str:
        (fault,) = _edit(tally, of, payload, 422)["errors"]
        assert fault["field"] == "payload"
        return str(fault["message"])

    lacks = said(json.dumps(bill))
    assert lacks.startswith("This could not be applied as InvoiceCreated either: Payload: Object missing")
    assert "JSON is malformed" in said("{]")
    assert "Input data was truncated" in said("")
    assert said('{"name": "\ud800"}') == "Expected no half of a character"
    assert said(json.dumps(json.loads(good), indent=4)) == "Nothing is changed in it"
    unknown = _dead(client, tally, "{}", type="OrderPlaced")
    assert said('{"id": "1"}', unknown) == "This release does not know events of the type OrderPlaced"
    assert [letter["id"] for letter in _letters(tally)["letters"]] == [id, unknown]


def test_a_payload_to_edit_is_whole_and_its_numbers_are_as_they_were_written(
    tally: Tally, client: redis.Redis, bill: dict[str, Any]
) -> None:
    text = json.dumps({**bill, "cents": 12345678901234567890, "note": "é" * 32 * 1024})
    id = _dead(client, tally, text)
    payload = _payload(tally, id)
    assert json.loads(payload) == json.loads(text)
    assert '\n  "cents": 12345678901234567890,\n' in payload
    assert _edit(tally, id, payload.replace('"cents": 123', '"purchase_price_cents": 1'), 422)  # too large
    right = payload.replace('"cents": 12345678901234567890', '"purchase_price_cents": 1')
    assert _edit(tally, id, right)["applied"] == [id]


def test_a_payload_that_is_too_long_for_the_page_is_left_to_the_command(
    tally: Tally, client: redis.Redis, bill: dict[str, Any]
) -> None:
    id = _dead(client, tally, "x" * (LONGEST_EDITED + 1))
    refused = problem(tally.accounts.request("GET", f"/operations/dead-letters/{id}"), 409)
    assert refused["detail"] == (
        "The payload has 262,145 bytes, and 262,144 can be edited here. "
        f"`dead-letters edit {id}` opens it in an editor."
    )
    problem(tally.accounts.request("POST", "/operations/edit", {"id": id, "payload": "x" * 2**20}), 413)


def test_what_is_no_letter_or_no_payload_is_no_edit(tally: Tally) -> None:
    for id in ("1-0", "x", f"{2**64}-0"):
        problem(tally.accounts.request("GET", f"/operations/dead-letters/{id}"), 404)
    problem(tally.accounts.request("POST", "/operations/edit", {"id": "x"}), 422, "id", "payload")


@pytest.mark.parametrize("service", SERVICES)
def test_a_note_beside_the_stream_that_can_not_be_read_is_told(
    tally: Tally, client: redis.Redis, service: str
) -> None:
    client.hset("{event-stream}:overtaken", "reports", "many")
    try:
        status = _service(tally, service).get("/status")
        page = _service(tally, service).get("/operations/stream")
    finally:
        client.hdel("{event-stream}:overtaken", "reports")
    (reason,) = (each for each in status["reasons"] if "'many'" in each)
    assert (status["status"], status["redis"]["reachable"]) == ("degraded", True)
    assert reason.startswith("a note beside the stream can't be read: ")
    assert page["trouble"] == f"A{reason[1:]}"


def test_of_a_group_that_is_gone_nobody_tries_what_was_edited(
    tally: Tally, client: redis.Redis, bill: dict[str, Any]
) -> None:
    event = {"EventTypeName": "InvoiceCreated", "Payload": "{}"}
    id = _added(client, {**event, "StreamId": "1-1", "Group": "accounts@00000000"})
    outcome = _edit(tally, id, json.dumps({**bill, "purchase_price_cents": 1}))
    assert "is gone" in outcome["refused"][id]
    assert _payload(tally, id) == "{}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": ["7"]}, "ids"),
        ({"ids": ["1-0"] * (MOST_LETTERS + 1)}, "ids"),
    ],
)
@pytest.mark.parametrize("what", ["redrive", "discard"])
def test_what_can_be_no_letters_is_refused(tally: Tally, what: str, body: Any, field: str) -> None:
    problem(tally.accounts.request("POST", f"/operations/{what}", body), 422, field)


def test_without_redis_all_that_does_not_need_it_is_told_soon(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        with running(tmp_path, redis_url=server.url) as tally:
            server.kill()
            told = tally.accounts.get("/operations/stream")
            assert told["trouble"].startswith("Redis does not answer")
            assert (told["entries"], told["groups"]) == (None, [])
            assert tally.accounts.get("/operations/minutes")["minutes"]
            assert _letters(tally) == {"letters": [], "total": None}
            refused = tally.accounts.request("POST", "/operations/redrive", {"ids": ["1-0"]})
            assert "Redis does not answer" in problem(refused, 503)["detail"]
    finally:
        server.kill()
