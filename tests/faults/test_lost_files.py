"""A database's file is removed or replaced while Tally runs: Tally writes nothing into a deleted file."""

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support import users
from support.cli import command
from support.tally import Client, Tally, running
from support.waiting import eventually

Losing = Callable[[Path, Path], object]


def _emptied(file: Path, copy: Path) -> None:
    file.unlink()
    file.touch()


LOSING: dict[str, Losing] = {
    "removed": lambda file, copy: file.unlink(),
    "replaced by a copy": lambda file, copy: os.replace(copy, file),
    "replaced by an empty file": _emptied,
}


def _client(tally: Tally, service: str) -> Client:
    return tally.customers if service == "customers" else tally.accounts


def _record(tally: Tally, service: str) -> int:
    if service == "customers":
        content = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        return tally.customers.request("POST", "/invoices", content).status
    return tally.accounts.request("POST", "/accounts", {"name": "two", "owned_by": "u"}).status


def _overwritten(file: Path, aside: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside.write_bytes(file.read_bytes()[:100])
    _write_over(file, b"x" * 100)


def _write_over(file: Path, beginning: bytes) -> None:
    with file.open("r+b") as opened:
        opened.write(beginning)


MENDING: dict[str, tuple[Losing, Losing]] = {
    "moved away": (lambda file, aside: file.rename(aside), lambda file, aside: aside.rename(file)),
    "overwritten": (_overwritten, lambda file, aside: _write_over(file, aside.read_bytes())),
}


def _restarts(tally: Tally, service: str) -> int:
    actors = _client(tally, service).get("/status")["actors"]
    return next(int(actor["restarts"]) for actor in actors if actor["name"] == f"{service}-http-1")


def _told(tally: Tally, service: str) -> str:
    """What `tally status` says of the service."""
    done = command("status", "--json", "--config", tally.directory / "tally.toml")
    reports = {report["service"]: report for report in json.loads(done.stdout)["services"]}
    return str(reports[service]["status"])


def _answers_without_its_database(tally: Tally, service: str) -> None:
    """Calls are refused with the reason, and its state is told."""
    client, file = _client(tally, service), f"{service}.db"
    assert _record(tally, service) == 503
    for path in (f"/{service}/1", f"/{service}", "/health/ready", "/health/primary"):
        answer = client.request("GET", path, timeout=5)
        assert (answer.status, file in answer.json()["detail"]) == (503, True), path
    assert client.get("/health/live") == {"status": "ok"}
    assert client.request("GET", "/metrics", timeout=5).status == 200
    told = client.get("/status")
    assert (told["status"], file in str(told["reasons"])) == ("degraded", True)
    eventually(lambda: _told(tally, service) == "degraded")


@pytest.mark.parametrize("losing", LOSING)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_lost_database_is_noticed_and_nothing_is_begun_in_its_place(
    tmp_path: Path, service: str, losing: str
) -> None:
    """Once, 201s went into a deleted file with status ok, and a killed process made a new empty one."""
    data = tmp_path / "data"
    file = data / f"{service}.db"
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "u"})
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        eventually(tally.settled)
        shutil.copy(file, tmp_path / "copy.db")
        kept = tmp_path / "kept"
        shutil.copytree(data, kept, ignore=shutil.ignore_patterns("*.sock"))
        LOSING[losing](file, tmp_path / "copy.db")

        client = _client(tally, service)
        assert _record(tally, service) == 503
        path = "/customers/1" if service == "customers" else "/accounts/1"
        answer = client.request("GET", path)
        assert (answer.status, file.name in answer.json()["detail"]) == (503, True)
        eventually(lambda: client.get("/status")["status"] == "degraded")
        assert file.name in str(client.get("/status")["reasons"])

        tally.kill(f"{service}-http-1")
        eventually(lambda: _restarts(tally, service) == 1)
        eventually(lambda: _record(tally, service) == 503)
        _answers_without_its_database(tally, service)
        tally.process.send_signal(signal.SIGHUP)
        eventually(lambda: tally.said().count("renewing_actors") == 1)
        if service == "customers":  # renewed first; the renewal ends at its relay, which can't be ready
            eventually(lambda: _restarts(tally, service) == 2)
        _answers_without_its_database(tally, service)
        assert not file.exists() or file.stat().st_size in (0, (kept / file.name).stat().st_size)
        tally.end()

    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(kept, data)
    with running(tmp_path) as tally:
        assert _record(tally, service) == 201
        eventually(tally.settled)


@pytest.mark.parametrize("how", MENDING)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_process_that_starts_without_its_database_answers_and_uses_it_once_it_is_mended(
    tmp_path: Path, service: str, how: str
) -> None:
    """Once, it died again and again, and calls waited without an end where nobody accepted them."""
    file, aside = tmp_path / "data" / f"{service}.db", tmp_path / "aside.db"
    damage, mend = MENDING[how]
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "u"})
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        eventually(tally.settled)
        damage(file, aside)
        tally.kill(f"{service}-http-1")
        eventually(lambda: _restarts(tally, service) == 1)
        eventually(lambda: _record(tally, service) == 503)
        _answers_without_its_database(tally, service)
        mend(file, aside)
        eventually(lambda: _record(tally, service) == 201)
        client = _client(tally, service)
        assert client.get("/health/ready") == client.get("/health/primary") == {"status": "ok"}
        eventually(lambda: client.get("/status")["status"] == "ok")
        eventually(tally.settled)
        assert _restarts(tally, service) == 1


def test_the_state_is_told_to_who_is_signed_in_also_without_the_database_of_users(tmp_path: Path) -> None:
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        client = users.sign_in(tally, "root").accounts
        assert client.get("/status")["status"] == "ok"
        (tmp_path / "data" / "accounts.db").unlink()
        for _ in range(2):
            eventually(lambda: client.get("/status")["status"] == "degraded")
            assert client.request("GET", "/metrics").status == 200
            assert client.request("GET", "/accounts").status == 503
            assert tally.accounts.request("GET", "/status").status == 401
            tally.kill("accounts-http-1")


def test_a_backup_that_is_put_in_the_place_of_a_removed_file_is_not_mixed_with_its_log(
    tmp_path: Path,
) -> None:
    """Once, SQLite read the removed file's log over the backup and corrupted it, with status ok."""
    file = tmp_path / "data" / "customers.db"
    invoice = {"customer_id": "1", "purchase_date": "2019-01-06", "purchase_price_cents": 1}
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "u"})
        tally.customers.post("/customers", {"name": "John Adams", "account_id": "1"})
        for _ in range(3):
            tally.customers.post("/invoices/batch", [invoice] * 1000)
        config = tmp_path / "tally.toml"
        assert command("backup", tmp_path / "backup", "--config", config).returncode == 0
        for _ in range(6):
            tally.customers.post("/invoices/batch", [invoice] * 10_000)
        file.unlink()
        shutil.copy(tmp_path / "backup" / "customers.db", file)
        assert tally.stop() == 0
    assert not file.with_name("customers.db-wal").exists()
    assert file.with_name("customers.db-wal.of-the-one-that-is-gone").exists()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM invoice").fetchall() == [(3000,)]


@pytest.mark.parametrize("told", [("users", "list"), ("rebuild", "accounts", "--yes"), ("backup", "copy")])
def test_no_command_begins_a_file_in_a_lost_one_s_place_while_tally_runs(
    tmp_path: Path, told: tuple[str, ...]
) -> None:
    file = tmp_path / "data" / "accounts.db"
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "u"})
        eventually(tally.settled)
        for lost in file.parent.glob("accounts.db*"):
            lost.unlink()
        arguments = [str(tmp_path / "copy") if word == "copy" else word for word in told]
        done = command(*arguments, "--config", tmp_path / "tally.toml")
        assert done.returncode == 1, done
        assert "accounts.db" in done.stderr
        assert "Traceback" not in done.stderr
        assert not file.exists()
