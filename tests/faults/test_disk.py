"""The disk is full or read-only, or another program holds the database: 503, and nothing half-done."""

import json
import shutil
import time
from pathlib import Path

import urllib3

from support.cli import command
from support.disks import failing_ext4, filled, frozen, held, run, tmpfs
from support.engines import bundled_process, free_port
from support.load import Load
from support.tally import Client, Tally, running
from support.waiting import eventually

SOON = 4.0  # seconds for a request without the write lock while others wait for it, on a busy machine


def _refused(load: Load) -> int:
    """How many requests got a correct 503. All other answers must be 201."""
    answered = [each for each in load.tries() if each.status]
    refused = [each for each in answered if each.status != 201]
    for each in refused:
        assert each.status == 503
        assert each.content_type == "application/problem+json"
        assert each.retry_after
        assert each.retry_after.isdigit()
    return len(refused)


def _get_everything(tally: Tally, load: Load) -> None:
    """Every kind of read gets an answer."""
    for path in ("/invoices?limit=10", f"/customers/{load.customer}", "/health/live", "/health/ready"):
        tally.customers.get(path)
    for path in ("/accounts", f"/accounts/{load.account}/customers", "/health/ready"):
        tally.accounts.get(path)
    assert tally.customers.get("/status")["service"] == "customers"
    assert tally.accounts.get("/status")["service"] == "accounts"


def _write(tally: Tally) -> urllib3.BaseHTTPResponse:
    return tally.accounts.request("POST", "/accounts", {"name": "while it lasts", "owned_by": "u"})


def _is_problem(response: urllib3.BaseHTTPResponse) -> None:
    assert response.status == 503, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"].isdigit()
    assert json.loads(response.data)["status"] == 503


def test_a_full_disk_refuses_writes_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "data", 48) as data, running(tmp_path) as tally, Load(tally) as load:
        load.goes_on()
        before = tally.pids()
        with filled(data):
            eventually(lambda: _refused(load) > 20)
            eventually(lambda: _write(tally).status == 503)
            _is_problem(_write(tally))
            _get_everything(tally, load)
        load.goes_on()
        assert tally.pids() == before
        assert load.faults() == {}
        load.__exit__(None, None, None)
        load.is_counted_once()


def test_a_full_disk_is_told_and_that_it_has_room_again(tmp_path: Path) -> None:
    """Once, each change was refused, and `/status` was ok: only its number of free bytes told."""
    redis = tmp_path / "redis"  # on another disk
    with (
        tmpfs(tmp_path / "data", 4) as data,
        bundled_process(redis, free_port()) as url,
        running(tmp_path, redis_url=url) as tally,
    ):
        assert [report["status"] for report in tally.reports()] == ["ok", "ok"]
        with filled(data):
            for client in (tally.customers, tally.accounts):
                eventually(lambda client=client: _is_told(client, "full"), SOON)  # type: ignore[misc]
            eventually(lambda: _write(tally).status == 503)
            said = command("status", "--config", tmp_path / "tally.toml").stdout
            assert "make room" in said
            assert said.count("degraded") >= 3  # the two services, and why
        eventually(lambda: [report["status"] for report in tally.reports()] == ["ok", "ok"])
        assert _write(tally).status == 201


def _is_told(client: Client, why: str) -> bool:
    status = client.get("/status")
    assert status["status"] == "degraded"
    assert why in str(status["reasons"])
    return True


def test_that_nothing_can_be_written_is_told_from_the_first_refusal_until_it_can(tmp_path: Path) -> None:
    """Whatever the reason is. It ends without anybody's request."""
    with failing_ext4(tmp_path / "data") as disk, running(tmp_path) as tally:
        with frozen(disk.directory):
            eventually(lambda: _write(tally).status == 503)
            eventually(lambda: _is_told(tally.accounts, "accounts-http-1: StoreUnavailable"))
            assert 'tally_degraded{service="accounts"} 1.0' in _metrics(tally)
            assert "accounts-http-1: StoreUnavailable" in command(
                "status", "--config", tmp_path / "tally.toml"
            ).stdout  # fmt: skip
        eventually(lambda: tally.accounts.get("/status")["status"] == "ok")
        with held(tmp_path / "data" / "accounts.db", "IMMEDIATE"):
            eventually(lambda: _write(tally).status == 503)
            eventually(lambda: _is_told(tally.accounts, "end the program that holds it"))
        eventually(lambda: tally.accounts.get("/status")["status"] == "ok")


def _metrics(tally: Tally) -> str:
    return tally.accounts.request("GET", "/metrics").data.decode()


def test_a_disk_that_fills_up_with_invoices_loses_none(tmp_path: Path) -> None:
    # Accepted events take more room once they are published and applied: the ballast leaves enough.
    with tmpfs(tmp_path / "data", 48) as data, running(tmp_path) as tally:
        (data / "ballast").write_bytes(bytes(40 << 20))
        with Load(tally) as load:
            batch = [{"customer_id": load.customer, "purchase_date": "2019-01-06",
                      "purchase_price_cents": 0}] * 2000  # fmt: skip
            load.goes_on(20)

            refused: list[urllib3.BaseHTTPResponse] = []

            def full() -> bool:
                response = tally.customers.request("POST", "/invoices/batch", batch)
                if response.status != 201:
                    _is_problem(response)
                    refused.append(response)
                assert len(refused) > 20 or _refused(load) > 20, (len(refused), len(load.invoices))
                return True

            eventually(full, 60)  # when no batch fits any more, a single invoice may still fit
            _get_everything(tally, load)
            (data / "ballast").unlink()
            load.goes_on()
        load.settle()

        def counted() -> bool:
            assert load.shown() == sum(invoice.cents for invoice in load.invoices), (
                shutil.disk_usage(data),
                tally.accounts.get("/status"),
                tally.said()[-2000:],
            )
            return True

        eventually(counted)
        eventually(tally.settled)


def test_a_customers_db_that_another_program_holds_refuses_writes(tmp_path: Path) -> None:
    with running(tmp_path) as tally, Load(tally) as load:
        load.goes_on()
        with held(tmp_path / "data" / "customers.db", "EXCLUSIVE"):
            eventually(lambda: _refused(load) > 0)  # a refusal comes only after the wait for the lock is over
            _get_everything(tally, load)
            tally.accounts.post("/accounts", {"name": "not locked", "owned_by": "u"})
        load.goes_on()
        load.__exit__(None, None, None)
        load.is_counted_once()
        assert "actor_ended" not in tally.said()


def test_what_consumers_could_not_commit_stays_pending(tmp_path: Path) -> None:
    with running(tmp_path) as tally, Load(tally) as load:
        load.goes_on()
        database = tmp_path / "data" / "accounts.db"
        with held(database, "IMMEDIATE"):
            shown = load.shown()
            eventually(lambda: tally.accounts.get("/status")["redis"]["pending"] > 0)
            _is_problem(_write(tally))  # after the wait for the lock
            load.goes_on()  # the customers service is not affected
            assert load.shown() == shown
            assert tally.accounts.get("/status")["redis"]["pending"] > 0
            eventually(lambda: "StoreUnavailable" in tally.said())
            _get_everything(tally, load)
        eventually(lambda: load.shown() > shown)
        load.__exit__(None, None, None)
        load.is_counted_once()
        assert "actor_ended" not in tally.said()


def test_reads_are_answered_while_many_writers_wait_for_the_lock(tmp_path: Path) -> None:
    with running(tmp_path) as tally, Load(tally, clients=40) as load:
        load.goes_on()
        waits: list[float] = []

        def read() -> float:
            began = time.monotonic()
            tally.customers.get(f"/customers/{load.customer}")
            return time.monotonic() - began

        def look() -> bool:
            waits.append(read())
            return _refused(load) > 0

        with held(tmp_path / "data" / "customers.db", "IMMEDIATE"):
            eventually(look)
        load.goes_on()
        load.__exit__(None, None, None)
        load.is_counted_once()
        assert max(waits) < SOON


def test_files_that_can_not_be_written_refuse_writes_until_they_can(tmp_path: Path) -> None:
    with failing_ext4(tmp_path / "data") as disk, running(tmp_path) as tally, Load(tally) as load:
        load.goes_on()
        before = tally.pids()
        with frozen(disk.directory):
            eventually(lambda: _refused(load) > 20)
            eventually(lambda: _write(tally).status == 503)
            _is_problem(_write(tally))
            _get_everything(tally, load)
        load.goes_on()
        assert tally.pids() == before
        load.__exit__(None, None, None)
        load.is_counted_once()


def test_what_started_while_files_could_not_be_written_writes_when_they_can(tmp_path: Path) -> None:
    with failing_ext4(tmp_path / "data") as disk, running(tmp_path) as tally:
        with Load(tally) as load:
            load.goes_on()
        with frozen(disk.directory):
            for actor in ("customers-http-1", "customers-relay", "accounts-consumer-1", "accounts-http-1"):
                killed = tally.kill(actor)
                eventually(lambda actor=actor, killed=killed: tally.pids().get(actor, killed) != killed)  # type: ignore[misc]
            eventually(lambda: _write(tally).status == 503)
            _get_everything(tally, load)
        eventually(lambda: _write(tally).status == 201)
        with load:
            load.goes_on()
        load.is_counted_once()


def test_waiting_for_a_locked_database_is_not_hanging(tmp_path: Path) -> None:
    with running(tmp_path, supervisor={"heartbeat_timeout": 3}) as tally, Load(tally) as load:
        load.goes_on()
        with held(tmp_path / "data" / "accounts.db", "IMMEDIATE"):
            load.goes_on()
            eventually(lambda: "StoreUnavailable" in tally.said() or "actor_hangs" in tally.said())
        load.__exit__(None, None, None)
        load.is_counted_once()
        assert "actor_hangs" not in tally.said()


def test_a_disk_that_the_kernel_made_read_only_loses_nothing(tmp_path: Path) -> None:
    redis = tmp_path / "redis"  # on a disk that works
    with (
        failing_ext4(tmp_path / "data") as disk,
        bundled_process(redis, free_port()) as url,
        running(tmp_path, redis_url=url) as tally,
    ):
        with Load(tally) as load:
            load.goes_on()
        load.is_counted_once()
        disk.fail()  # while nothing is written: a sync that runs now may report success, as in the kernel
        with load:
            eventually(lambda: _refused(load) > 20)
            eventually(lambda: _write(tally).status == 503)
            _is_problem(_write(tally))
            _get_everything(tally, load)
        tally.stop()
        disk.mend()
        tally.start()
        with load:
            load.goes_on()
        load.is_counted_once()


def test_it_does_not_start_on_a_read_only_data_directory_and_says_why(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "data", 32) as data, running(tmp_path) as tally:
        assert tally.stop() == 0
        run("mount", "-o", "remount,ro", data)
        ended = command("run", "--config", tmp_path / "tally.toml")
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        line = ended.stderr.strip().splitlines()[-1]
        assert str(data) in line
        assert "read" in line.lower()
        assert len(ended.stderr.strip().splitlines()) == 1
        run("mount", "-o", "remount,rw", data)
        tally.start()
