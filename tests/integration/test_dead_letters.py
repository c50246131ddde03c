"""Dead letters: shown, redriven to the group that failed, discarded."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.engines import bundled_process, free_port
from support.tally import Tally, running
from support.waiting import eventually
from tally.store.accounts import open_database

DATE = '"purchase_date": "2019-01-06",'
NEARLY_TOO_MUCH = 9223372036854000000  # cents; an invoice of 10^12 more makes the sum overflow


def _supervisor(tally: Tally, *arguments: str, editor: str = "false") -> "subprocess.CompletedProcess[str]":
    words = 2 if arguments[0] in ("dead-letters", "rebuild") else 1
    options = "--config", tally.directory / "tally.toml"
    return command(
        *arguments[:words], *options, *arguments[words:], environment={"VISUAL": editor, "EDITOR": ""}
    )


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """The URL of the bundled server. `test_a_redriven_letter…` runs on each engine."""
    with bundled_process(tmp_path / "redis", free_port()) as url:
        yield url


@pytest.fixture
def letter(tally: Tally, client: redis.Redis) -> str:
    """One of two dead letters: both services need the event, and neither can read it."""
    client.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": '{"cents": 100}'})
    eventually(lambda: client.xlen("{event-stream}:dead") == 2)
    letters: Any = client.xrange("{event-stream}:dead")
    return str(letters[-1][0].decode())


def test_the_list_shows_every_letter_and_show_one_of_them(tally: Tally, letter: str) -> None:
    listed = _supervisor(tally, "dead-letters", "list").stdout.splitlines()
    assert listed[0].split() == ["id", "failed", "at", "group", "event", "reason"]
    assert len(listed) == 3
    assert "AccountCreated" in listed[2]
    assert "`id`" in listed[2]

    shown = _supervisor(tally, "dead-letters", "show", letter).stdout
    assert 'Payload: {"cents": 100}' in shown
    assert re.search(r"StreamId: \d+-\d+", shown)
    assert re.search(r"Group: (accounts|customers)@[0-9a-f]{8}", shown)


def test_what_is_of_no_concern_to_a_group_is_no_letter_of_it(tally: Tally, client: redis.Redis) -> None:
    client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": '{"cents": 100}'})
    eventually(lambda: client.xlen("{event-stream}:dead") == 1)
    eventually(tally.settled)
    letters: Any = client.xrange("{event-stream}:dead")
    ((_, fields),) = letters
    assert fields[b"Group"].startswith(b"accounts@")


def test_the_status_is_degraded_while_there_are_letters(tally: Tally, letter: str) -> None:
    report = tally.accounts.get("/status")
    assert (report["status"], report["redis"]["dead_letters"]) == ("degraded", 2)
    assert "dead letters" in report["reasons"][0]
    shown = _supervisor(tally, "status").stdout.splitlines()
    assert shown.count("degraded: 2 dead letters wait for a decision") == 1
    config = tally.directory / "tally.toml"
    assert shown[-1] == f"next: python supervisor.py dead-letters list --config {config}"


def test_what_is_discarded_is_gone(tally: Tally, letter: str, client: redis.Redis) -> None:
    assert _supervisor(tally, "dead-letters", "discard", letter).returncode == 0
    assert client.xlen("{event-stream}:dead") == 1
    gone = _supervisor(tally, "dead-letters", "discard", letter)
    assert (gone.returncode, "no dead letter" in gone.stderr) == (1, True)


def test_wrong_usage_and_ids_that_are_none_are_said_so(shared: Tally) -> None:
    tally = shared
    for arguments in (["redrive"], ["redrive", "--all", "1-0"], ["discard"], ["show"]):
        assert _supervisor(tally, "dead-letters", *arguments).returncode == 2
    for id in ("", "7", "-", "+", "x-y", "1-0"):
        done = _supervisor(tally, "dead-letters", "show", "--", id)
        assert (done.returncode, "no dead letter" in done.stderr) == (1, True)


def test_a_letter_that_still_fails_is_a_letter_again(tally: Tally, letter: str, client: redis.Redis) -> None:
    before: Any = client.xinfo_stream("{event-stream}:dead")
    done = _supervisor(tally, "dead-letters", "redrive", letter)
    letters: Any = client.xrange("{event-stream}:dead")
    assert len(letters) == 2
    assert letters[-1][1][b"Reason"].startswith(b"redriven")
    assert (done.returncode, done.stdout) == (1, "0 applied\n")
    assert f"{letter} failed again, and is {letters[-1][0].decode()} now: redriven" in done.stderr
    assert before["length"] == 2
    assert _supervisor(tally, "dead-letters", "show", letter).returncode == 1


def test_what_is_no_order_in_an_orders_place_is_a_dead_letter(tally: Tally, client: redis.Redis) -> None:
    groups: Any = client.xinfo_groups("event-stream")
    [accounts] = [each["name"].decode() for each in groups if each["name"].startswith(b"accounts@")]
    for strange in (
        {"hello": "there"},
        {"Fields": b"\xc1", "StreamId": "1-1"},
        {"Fields": "a", "StreamId": "1-1"},
    ):
        client.xadd("{event-stream}:redrive:" + accounts, strange)  # type: ignore[arg-type]
    eventually(lambda: client.xlen("{event-stream}:dead") == 3)
    assert client.xlen("{event-stream}:redrive:" + accounts) == 0
    letters: Any = client.xrange("{event-stream}:dead")
    assert {fields[b"Group"].decode() for _, fields in letters} == {accounts}
    assert b"hello" in letters[0][1][b"Order"]
    _account_and_customer(tally)  # events go on being applied
    report = json.loads(_supervisor(tally, "status", "--json").stdout)
    assert [actor["restarts"] for actor in report["actors"]] == [0] * len(report["actors"])
    ids = [id.decode() for id, _ in letters]
    assert _supervisor(tally, "dead-letters", "discard", *ids).returncode == 0
    eventually(lambda: client.xlen("{event-stream}:redrive:" + accounts) == 0)


def _account_and_customer(tally: Tally) -> tuple[str, str]:
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
    customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
    eventually(lambda: len(tally.accounts.get(f"/accounts/{account}")["customers"]) == 1)
    return account, customer


@pytest.mark.whole
def test_a_redriven_letter_reaches_the_group_that_failed_and_counts_once(tmp_path: Path, engine: str) -> None:
    client = redis.Redis.from_url(engine, protocol=2)
    client.flushall()
    consumers = {"max_deliveries": 1, "claim_idle_ms": 200}
    with running(tmp_path, redis_url=engine, consumers=consumers) as tally:
        account, customer = _account_and_customer(tally)
        database = open_database(tmp_path / "data")
        with database.transaction():
            database.execute("UPDATE customer SET revenue_cents = ?", (NEARLY_TOO_MUCH,))
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 10**12}
        tally.customers.post("/invoices", invoice)
        eventually(lambda: client.xlen("{event-stream}:dead") == 1)
        tally.customers.post("/invoices", {**invoice, "purchase_price_cents": 7})
        eventually(tally.settled)
        length = client.xlen("event-stream")

        with database.transaction():  # the cause is fixed
            database.execute("UPDATE customer SET revenue_cents = revenue_cents - ?", (NEARLY_TOO_MUCH,))
        done = _supervisor(tally, "dead-letters", "redrive", "--all")
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 applied\n", "")
        assert _supervisor(tally, "dead-letters", "redrive", "--all").stdout == "0 applied\n"

        def total() -> int:
            return int(tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"])

        eventually(lambda: total() == 10**12 + 7)
        assert client.xlen("event-stream") == length
        assert client.xlen("{event-stream}:dead") == 0
        eventually(lambda: client.xlen("{event-stream}:redrive:" + database.source) == 0)
        database.close()
    client.close()


def test_an_edited_letter_is_the_same_event_and_counts_once(tally: Tally, client: redis.Redis) -> None:
    account, customer = _account_and_customer(tally)
    invoice = f'{{"id":"900","customer_id":"{customer}","cents":700,"created_date":"2019-01-06T12:00:00Z"}}'
    event: dict[Any, Any] = {"EventTypeName": "InvoiceCreated", "Payload": invoice}
    client.xadd("event-stream", {**event, "EventId": "shop:1"})
    client.xadd("event-stream", event)
    eventually(lambda: client.xlen("{event-stream}:dead") == 2)
    letters: Any = client.xrange("{event-stream}:dead")
    named, nameless = (id.decode() for id, _ in letters)

    kept = _supervisor(tally, "dead-letters", "edit", named, editor="touch")
    assert (kept.returncode, kept.stdout) == (0, "")
    assert "nothing in its payload was changed" in kept.stderr
    refused = _supervisor(tally, "dead-letters", "edit", named, editor="sed -i s/customer_id/customer/")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "could not be applied as InvoiceCreated either: Payload: Object missing" in refused.stderr
    assert _supervisor(tally, "dead-letters", "edit", named).returncode == 1  # the editor fails
    no_terminal = _supervisor(tally, "dead-letters", "edit", named, editor="")  # one that is found would wait
    assert (no_terminal.returncode, "this is no terminal" in no_terminal.stderr) == (1, True)
    assert client.xrange("{event-stream}:dead") == letters

    right = invoice.replace("cents", "purchase_price_cents").replace(
        'Z"}', 'Z","purchase_date":"2019-01-06"}'
    )
    (tally.directory / "right.json").write_text(right)
    file = str(tally.directory / "right.json")
    done = _supervisor(tally, "dead-letters", "edit", named, "--payload", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 applied\n", "")
    other = f'sed -i \'s/"900"/"901"/; s/"cents".*/"purchase_price_cents": 7, {DATE}/\''
    done = _supervisor(tally, "dead-letters", "edit", nameless, editor=other)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 applied\n", "")

    client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": right, "EventId": "shop:1"})
    eventually(tally.settled)
    assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 707
    assert client.xlen("{event-stream}:dead") == 0

    built = _supervisor(tally, "rebuild", "accounts")
    assert built.stdout.startswith("built again from the stream"), built
    assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 707


def test_the_letters_are_json_friendly_in_status(tally: Tally, letter: str) -> None:
    done = _supervisor(tally, "status", "--json")
    report = json.loads(done.stdout)
    assert {actor["state"] for actor in report["actors"]} == {"running"}
    assert [service["redis"]["dead_letters"] for service in report["services"]] == [2, 2]


def test_a_letter_that_nobody_has_tried_yet_is_told(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    with running(tmp_path, redis_url=redis_url) as tally:
        client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": "x", "EventId": "shop:1"})
        eventually(lambda: client.xlen("{event-stream}:dead") == 1)
        assert tally.stop() == 0
        done = _supervisor(tally, "dead-letters", "redrive", "--all")
        assert (done.returncode, done.stdout) == (1, "0 applied\n")
        assert "1 not tried yet: no consumer of accounts@" in done.stderr
