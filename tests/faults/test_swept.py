"""A program deletes files of the data directory, or the directory itself, while Tally runs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import command, settings
from support.tally import Tally, running
from support.troubles import actors
from support.waiting import eventually
from tally.actors import redis_access


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    with running(tmp_path / "first") as tally:
        yield tally


@pytest.mark.parametrize("swept", [["supervisor.lock"], ["supervisor.lock", "supervisor.sock"]])
def test_without_its_lock_file_a_data_directory_has_one_supervisor_all_the_same(
    tally: Tally, tmp_path: Path, swept: list[str]
) -> None:
    data = tally.directory / "data"
    for name in swept:
        (data / name).unlink()
    other = settings(tmp_path, data={"directory": str(data)}, redis=tally.settings["redis"])
    for _ in range(2):
        run = command("run", "--config", other)
        assert run.returncode == 1
        assert run.stderr.strip().endswith(
            f"{data} is in use by another supervisor, process {tally.process.pid}; stop it, "
            "or set data.directory elsewhere"
        )
    tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
    eventually(tally.settled)
    assert tally.stop() == 0


def test_who_stops_leaves_the_socket_of_another_that_is_in_its_place(tally: Tally, tmp_path: Path) -> None:
    data = tally.directory / "data"
    data.rename(tmp_path / "moved")
    with running(tmp_path / "second", data={"directory": str(data)}) as other:
        assert tally.stop() == 0
        eventually(lambda: {actor.state for actor in actors(data)} == {"running"})
        other.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
        eventually(other.settled)


def test_no_private_redis_is_started_in_another_data_directory_that_is_in_the_place(
    tally: Tally, tmp_path: Path
) -> None:
    """Once, Tally set its password in the other Tally's Redis, and wrote to its files."""
    tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
    data, moved = tally.directory / "data", tmp_path / "moved"
    data.rename(moved)
    password = data / "redis" / redis_access.PASSWORD.name
    password.parent.mkdir(parents=True)
    password.write_text("another's")

    def refused() -> bool:
        return any("is in its place" in (actor.failed or "") for actor in actors(moved))

    eventually(refused)
    assert [(file.name, file.read_text()) for file in password.parent.iterdir()] == [
        (password.name, "another's")
    ]
    shutil.rmtree(data)
    moved.rename(data)
    eventually(tally.settled)


def test_a_lock_file_of_a_process_that_is_gone_keeps_nobody_out(tally: Tally) -> None:
    lock = tally.directory / "data" / "supervisor.lock"
    assert int(lock.read_text()) == tally.process.pid
    tally.end()
    assert int(lock.read_text()) == tally.process.pid
    tally.start()
    assert int(lock.read_text()) == tally.process.pid
    assert os.stat(lock).st_mode & 0o777 == 0o600


def test_a_data_directory_that_is_renamed_is_told_by_status(tally: Tally, tmp_path: Path) -> None:
    tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
    eventually(tally.settled)
    data = tally.directory / "data"
    data.rename(tmp_path / "moved")

    def told() -> bool:
        reports = tally.reports()
        assert {report["status"] for report in reports} == {"degraded"}
        return all(any(str(data) in reason for reason in report["reasons"]) for report in reports)

    eventually(told)
    assert tally.accounts.get("/health/live") == {"status": "ok"}
    assert tally.accounts.request("GET", "/metrics").status == 200
    assert tally.accounts.request("POST", "/accounts", {"name": "a", "owned_by": "u"}).status == 503
    assert tally.accounts.request("GET", "/accounts/1").status == 503
    assert not data.exists(), "something was made in its place"
    assert "Traceback" not in tally.said()

    (tmp_path / "moved").rename(data)
    eventually(lambda: {report["status"] for report in tally.reports()} == {"ok"})
    tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
    eventually(tally.settled)
    assert tally.stop() == 0
