"""customers.db is restored from a backup, or is gone: the stream is its second copy."""

import itertools
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

from support.cli import command
from support.disks import copied_while_in_use, removed, replaced
from support.engines import bundled_process, free_port
from support.figures import agree
from support.load import Load
from support.tally import Tally, prepared, running
from support.waiting import eventually
from tally.store.stream import EventStream, connect

BATCH = 2000  # invoices in each batch


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    """A running Tally on a Redis that outlives it."""
    with (
        bundled_process(tmp_path / "redis", free_port()) as url,
        running(tmp_path, redis_url=url) as tally,
    ):
        yield tally


def _file(tally: Tally) -> Path:
    return tally.directory / "data" / "customers.db"


def _config(tally: Tally) -> tuple[str, str]:
    return "--config", str(tally.directory / "tally.toml")


def _client(tally: Tally) -> redis.Redis:
    return redis.Redis.from_url(tally.settings["redis"]["url"], protocol=2)


def _rows(file: Path) -> list[Any]:
    """All customers and invoices."""
    with closing(sqlite3.connect(file)) as database:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
            for table in ("customer", "invoice")
        ]


def _ids(load: Load) -> list[int]:
    return [int(invoice.id or 0) for invoice in load.invoices]


def _notes(tally: Tally) -> str:
    report = tally.customers.get("/status")
    return str([report["status"], *report["reasons"], *report["notes"]])


def _record_some(tally: Tally, load: Load) -> None:
    """Events of every kind: creations, deletions, and a customer deleted with its invoices."""
    with load:
        load.goes_on(100)
    tally.customers.delete(f"/invoices/{load.invoices[-1].id}")
    gone = tally.customers.post("/customers", {"name": "gone", "account_id": load.account})["id"]
    invoice = {"customer_id": gone, "purchase_date": "2019-01-06", "purchase_price_cents": 5}
    tally.customers.post("/invoices/batch", [invoice] * 30)
    tally.customers.delete(f"/customers/{gone}")
    tally.customers.post("/customers", {"name": "kept", "account_id": load.account})
    eventually(tally.settled)


def test_a_backup_that_is_put_back_takes_back_all_that_came_later(tally: Tally, tmp_path: Path) -> None:
    load, copy = Load(tally), tmp_path / "copy.db"
    _record_some(tally, load)
    copied_while_in_use(_file(tally), copy)
    _record_some(tally, load)
    assert tally.stop() == 0
    before = _rows(_file(tally))
    replaced(_file(tally), copy)
    assert _rows(_file(tally)) != before

    tally.start()
    eventually(tally.settled)
    assert _rows(_file(tally)) == before
    assert tally.customers.get("/status")["status"] == "ok"
    with load:
        load.goes_on(50)
    agree(tally)
    assert len(_ids(load)) == len(set(_ids(load))), "a number was given again"
    entries: Any = _client(tally).xrange("event-stream")
    names = [fields[b"EventId"] for _, fields in entries]
    assert len(names) == len(set(names)), "something was published twice"


def test_a_repeated_request_is_answered_from_what_came_back(tally: Tally, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
    customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
    copied_while_in_use(_file(tally), copy)
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 5}
    requests: dict[str, tuple[str, Any]] = {
        "one": ("/invoices", invoice),
        "many": ("/invoices/batch", [invoice] * 1500),
        "few": ("/invoices/batch", [invoice]),
    }

    def answers() -> dict[str, Any]:
        return {
            key: tally.customers.post(path, body, {"Idempotency-Key": key})
            for key, (path, body) in requests.items()
        }

    answered = answers()
    eventually(tally.settled)
    assert b"one" not in str(_client(tally).xrange("event-stream")).encode(), "a key is on the stream"
    assert tally.stop() == 0
    replaced(_file(tally), copy)
    tally.start()
    assert answers() == answered
    other = tally.customers.request(
        "POST", "/invoices", {**invoice, "purchase_price_cents": 6}, headers={"Idempotency-Key": "one"}
    )
    assert other.status == 422
    eventually(tally.settled)
    assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 5 * 1502


def test_what_the_stream_has_lost_as_well_is_told_and_its_numbers_are_not_given_again(
    tally: Tally, tmp_path: Path
) -> None:
    load, copy = Load(tally), tmp_path / "copy.db"
    _record_some(tally, load)
    copied_while_in_use(_file(tally), copy)
    _record_some(tally, load)
    assert EventStream(connect(tally.settings["redis"]["url"]), "event-stream").trim(0)
    with load:
        load.goes_on(20)
    eventually(tally.settled)
    shown = tally.accounts.get(f"/accounts/{load.account}")
    assert tally.stop() == 0
    highest = max(id for id, *_ in _rows(_file(tally))[1])
    replaced(_file(tally), copy)

    tally.start()
    eventually(tally.settled)
    assert "are nowhere any more since customers.db was put back" in _notes(tally)
    assert tally.accounts.get(f"/accounts/{load.account}") == shown
    before = len(load.invoices)
    with load:
        load.goes_on(20)
    assert min(_ids(load)[before:]) > highest
    assert len(_ids(load)) == len(set(_ids(load)))
    eventually(tally.settled)
    total = tally.accounts.get(f"/accounts/{load.account}")["total_revenue_cents"]
    added = sum(invoice.cents for invoice in load.invoices[before:])
    assert total == shown["total_revenue_cents"] + added


def test_when_the_stream_has_nothing_of_it_any_more_no_number_is_given_again(
    tally: Tally, tmp_path: Path
) -> None:
    load, copy = Load(tally), tmp_path / "copy.db"
    _record_some(tally, load)
    copied_while_in_use(_file(tally), copy)
    _record_some(tally, load)
    assert tally.stop() == 0
    highest = [max(row[0] for row in rows) for rows in _rows(_file(tally))]
    _client(tally).delete("event-stream")
    replaced(_file(tally), copy)

    tally.start()
    customer = tally.customers.post("/customers", {"name": "new", "account_id": load.account})["id"]
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 5}
    assert int(customer) > highest[0]
    assert int(tally.customers.post("/invoices", invoice)["id"]) > highest[1]
    eventually(tally.settled)


@pytest.mark.parametrize("trimmed", [False, True])
def test_without_its_customers_db_it_does_not_start(tally: Tally, trimmed: bool) -> None:
    """Once, the new customer got number 1 again, and its invoice counted for the old one's account 1."""
    _record_some(tally, Load(tally))
    if trimmed:
        assert EventStream(connect(tally.settings["redis"]["url"]), "event-stream").trim(0)
    assert tally.stop() == 0
    removed(_file(tally))
    said = command("run", *_config(tally))
    assert said.returncode == 1
    found = command("check", *_config(tally))
    assert found.returncode == 1
    for remedy in ("`restore DIR`", "`recover customers`", "`recover customers --empty`", "redis.url"):
        assert remedy in said.stderr
        assert remedy in found.stdout
    assert not _file(tally).exists()


def test_an_accounts_db_beside_it_knows_that_there_was_one(tally: Tally) -> None:
    _record_some(tally, Load(tally))
    assert tally.stop() == 0
    removed(_file(tally))
    _client(tally).flushall()
    said = command("run", *_config(tally))
    assert (said.returncode, "`recover customers`" in said.stderr) == (1, True)
    assert not _file(tally).exists()


def test_a_second_tally_on_the_same_stream_is_refused(tally: Tally, tmp_path: Path) -> None:
    _record_some(tally, Load(tally))
    with (
        pytest.raises(RuntimeError, match=r"(?s)node.number to one of its own"),
        running(tmp_path / "second", redis_url=tally.settings["redis"]["url"]),
    ):
        pass
    assert not (tmp_path / "second" / "data" / "customers.db").exists()


def test_an_empty_directory_waits_for_redis_before_customers_db_is_made(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    tally = prepared(tmp_path, redis_url=url)
    tally.launch()
    try:
        eventually(lambda: "customers.db is made once Redis has told" in tally.said())
        assert not _file(tally).exists()
        with bundled_process(tmp_path / "redis", port):
            tally.gets_ready()
            tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
            eventually(tally.settled)
            tally.end()
    finally:
        tally.end()


def test_who_is_stopped_before_redis_has_told_leaves_no_customers_db(tmp_path: Path) -> None:
    tally = prepared(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    tally.launch()
    try:
        eventually(lambda: "customers.db is made once Redis has told" in tally.said())
        tally.stop()
        assert not _file(tally).exists()
    finally:
        tally.end()


def test_an_empty_one_beside_what_was_lost_gives_other_numbers(tally: Tally) -> None:
    load = Load(tally)
    _record_some(tally, load)
    shown = tally.accounts.get(f"/accounts/{load.account}")
    assert tally.stop() == 0
    removed(_file(tally))
    done = command("recover", "customers", "--empty", *_config(tally))
    assert done.returncode == 0, done.stderr
    tally.start()
    assert "another customers database" in _notes(tally)
    customer = tally.customers.post("/customers", {"name": "new", "account_id": "777"})["id"]
    assert int(customer) > 10**9
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 777}
    tally.customers.post("/invoices", invoice)
    eventually(tally.settled)
    assert tally.accounts.get(f"/accounts/{load.account}") == shown


@pytest.mark.parametrize("beginning", ["nothing", "a backup"])
def test_a_lost_customers_db_is_made_again(tally: Tally, tmp_path: Path, beginning: str) -> None:
    load, backup = Load(tally), tmp_path / "backup"
    _record_some(tally, load)
    assert command("backup", backup, *_config(tally)).returncode == 0
    _record_some(tally, load)
    identity = tally.customers.get("/status")["identity"]
    assert tally.stop() == 0
    before = _rows(_file(tally))
    removed(_file(tally))
    begin = ["--from", str(backup / "customers.db")] if beginning == "a backup" else []
    done = command("recover", "customers", *begin, *_config(tally))
    assert done.returncode == 0, done.stderr
    assert f"{len(before[0]):,} customers and {len(before[1]):,} invoices" in done.stdout
    assert _rows(_file(tally)) == before
    again = command("recover", "customers", *_config(tally))
    assert (again.returncode, "is there" in again.stderr) == (1, True)

    tally.start()
    assert tally.customers.get("/status")["identity"] == identity
    with load:
        load.goes_on(50)
    agree(tally)
    eventually(lambda: tally.customers.get("/status")["status"] == "ok")
    assert len(_ids(load)) == len(set(_ids(load)))


def test_a_batch_is_made_again_wholly_or_not_at_all_and_a_repetition_is_answered(tally: Tally) -> None:
    account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "tests"})["id"]
    customer = tally.customers.post("/customers", {"name": "C", "account_id": account})["id"]
    eventually(tally.settled)

    def post(number: int) -> int:
        invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": number}
        headers = {"Idempotency-Key": f"batch-{number}"}
        return tally.customers.request("POST", "/invoices/batch", [invoice] * BATCH, headers=headers).status

    numbers = itertools.count(1)

    def post_until_the_end() -> None:
        with suppress(urllib3.exceptions.HTTPError):
            while True:
                post(next(numbers))

    with ThreadPoolExecutor(2) as threads:
        posting = [threads.submit(post_until_the_end) for _ in range(2)]
        with closing(_client(tally)) as client:
            eventually(lambda: client.xlen("event-stream") > 3 * BATCH)
        tally.end()
    assert [each.result() for each in posting] == [None, None]
    batches = range(1, next(numbers))

    for suffix in ("", "-wal", "-shm"):
        Path(f"{_file(tally)}{suffix}").unlink(missing_ok=True)
    done = command("recover", "customers", *_config(tally))
    assert done.returncode == 0, done
    assert {count for _, count in _counts(tally)} == {BATCH}, _counts(tally)
    tally.start()
    assert [post(number) for number in batches] == [201] * len(batches)
    assert _counts(tally) == [(number, BATCH) for number in batches]
    eventually(tally.settled)
    total = tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"]
    assert total == sum(batches) * BATCH


def test_an_import_of_which_a_part_was_lost_is_completed_when_it_is_sent_again(tally: Tally) -> None:
    """The events repeat the import's key, for each part separately."""
    account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "tests"})["id"]
    path = f"/imports?account_id={account}&customer=customer&date=purchase_date&amount=amount"
    file = b"customer,purchase_date,amount\nAda,2019-01-06,1\nBo,2019-01-06,2\n"

    def send() -> Any:
        answer = tally.customers.request("POST", path, body=file, headers={"Idempotency-Key": "file"})
        assert answer.status == 201, answer.data
        return answer.json()

    assert send()["new_invoices"]["count"] == 2
    eventually(tally.settled)
    assert tally.stop() == 0
    with closing(_client(tally)) as client:
        entries: Any = client.xrange("event-stream")
        lost = [id for id, fields in entries if fields[b"EventTypeName"] == b"InvoiceCreated"]
        assert client.xdel("event-stream", *lost) == 2
    removed(_file(tally))
    assert command("recover", "customers", *_config(tally)).returncode == 0
    assert _counts(tally) == []
    tally.start()
    again = send()
    assert (again["new_customers"], again["new_invoices"]["count"]) == (0, 2)
    assert send() == again
    assert _counts(tally) == [(100, 1), (200, 1)]


def _counts(tally: Tally) -> list[tuple[int, int]]:
    """How many invoices there are of each amount."""
    with closing(sqlite3.connect(_file(tally))) as database:
        sql = "SELECT purchase_price_cents, count(*) FROM invoice GROUP BY 1 ORDER BY 1"
        return database.execute(sql).fetchall()


def test_nothing_is_recovered_or_restored_under_a_running_tally(tally: Tally, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert command("backup", backup, *_config(tally)).returncode == 0
    for said in (
        command("recover", "customers", *_config(tally)),
        command("restore", backup, "--yes", *_config(tally)),
    ):
        assert (said.returncode, "stop it first" in said.stderr) == (1, True)


def test_restore_tells_what_a_copy_has_and_what_the_stream_will_add(tally: Tally, tmp_path: Path) -> None:
    load, backup = Load(tally), tmp_path / "backup"
    _record_some(tally, load)
    assert command("backup", backup, *_config(tally)).returncode == 0
    copied = _rows(backup / "customers.db")
    _record_some(tally, load)
    assert tally.stop() == 0
    before, data = _rows(_file(tally)), _file(tally).parent
    shown = {file.name: file.read_bytes() for file in data.glob("*.db")}

    asked = command("restore", backup, *_config(tally))
    assert asked.returncode == 1
    assert f"{len(copied[0]):,} customers, {len(copied[1]):,} invoices" in asked.stderr
    assert "the stream will add its" in asked.stderr
    assert "--yes" in asked.stderr
    assert {file.name: file.read_bytes() for file in data.glob("*.db")} == shown

    done = command("restore", backup, "--yes", *_config(tally))
    assert done.returncode == 0, done.stderr
    assert _rows(_file(tally)) == copied
    (aside,) = data.glob("before-restore-*")
    assert _rows(aside / "customers.db") == before
    tally.start()
    eventually(tally.settled)
    assert _rows(_file(tally)) == before
    agree(tally)


def test_a_damaged_copy_is_not_restored(tally: Tally, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    Load(tally)
    assert command("backup", backup, *_config(tally)).returncode == 0
    assert tally.stop() == 0
    content = bytearray((backup / "customers.db").read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    (backup / "customers.db").write_bytes(content)
    shown = {file.name: file.read_bytes() for file in _file(tally).parent.glob("*.db")}
    said = command("restore", backup, "--yes", *_config(tally))
    assert said.returncode == 1
    assert said.stderr.startswith(f"tally: {backup / 'customers.db'}: ")
    assert said.stderr.endswith("or make a lost customers.db again with `recover customers`\n")
    assert {file.name: file.read_bytes() for file in _file(tally).parent.glob("*.db")} == shown

    removed(_file(tally))
    said = command("recover", "customers", "--from", backup / "customers.db", *_config(tally))
    assert said.returncode == 1
    assert said.stderr.startswith(f"tally: {backup / 'customers.db'}: ")
    assert said.stderr.endswith("; take another backup's, or leave --from out\n")


def test_what_is_no_copy_of_tally_s_is_not_restored_and_named(tally: Tally, tmp_path: Path) -> None:
    assert tally.stop() == 0
    copy = tmp_path / "backup" / "accounts.db"
    copy.parent.mkdir()
    copy.write_bytes(b"")
    said = command("restore", copy.parent, "--yes", *_config(tally))
    assert said.returncode == 1
    assert said.stderr == f"tally: {copy}: is an empty file; take another backup\n"
