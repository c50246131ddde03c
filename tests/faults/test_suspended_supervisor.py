"""A supervisor that is suspended, or slow to answer: no command takes its Tally for stopped."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.cli import command
from support.program import SUPERVISOR
from support.tally import Tally, running
from support.waiting import eventually


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    with running(tmp_path) as tally:
        tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
        eventually(tally.settled)
        yield tally


@contextmanager
def _suspended(tally: Tally) -> Iterator[psutil.Process]:
    supervisor = psutil.Process(tally.process.pid)
    supervisor.suspend()
    try:
        yield supervisor
    finally:
        supervisor.resume()


def test_status_waits_for_a_supervisor_that_answers_late(tally: Tally) -> None:
    arguments = [sys.executable, str(SUPERVISOR), "status", "--config", str(tally.directory / "tally.toml")]
    with (
        _suspended(tally) as supervisor,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process,
    ):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        supervisor.resume()
        said, _ = process.communicate()
    assert process.returncode == 0
    assert "customers-http-1" in said


def test_status_does_not_tell_to_start_what_runs(tally: Tally) -> None:
    with _suspended(tally):
        found = command("status", "--config", tally.directory / "tally.toml")
    assert found.returncode == 1
    assert "does not answer within 5 s" in found.stderr
    assert "next:" not in found.stderr


def test_no_tally_starts_while_a_command_replaces_its_databases(tally: Tally, tmp_path: Path) -> None:
    config = ("--config", str(tally.directory / "tally.toml"))
    assert command("backup", tmp_path / "backup", *config).returncode == 0
    assert tally.stop() == 0
    arguments = [sys.executable, str(SUPERVISOR), "restore", str(tmp_path / "backup"), *config]
    person, terminal = os.openpty()
    with (
        subprocess.Popen(
            arguments, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as restoring,
        os.fdopen(person, "wb", buffering=0) as answer,  # closed, the command ends
    ):
        os.close(terminal)
        assert restoring.stdout
        said = ""
        while "Go on?" not in said:
            said += (character := restoring.stdout.read(1))
            assert character, said
        refused = command("run", *config)
        assert refused.returncode == 1
        assert f"in use by another supervisor, process {restoring.pid}" in refused.stderr
        answer.write(b"y\n")
        said += restoring.stdout.read()
    assert restoring.returncode == 0, said
    assert "accounts.db: restored" in said
    tally.start()
    eventually(tally.settled)


def test_no_database_is_replaced_under_a_tally_whose_supervisor_is_suspended(
    tally: Tally, tmp_path: Path
) -> None:
    config = ("--config", tally.directory / "tally.toml")
    assert command("backup", tmp_path / "backup", *config).returncode == 0
    files = [tally.directory / "data" / name for name in ("customers.db", "accounts.db")]
    before = [file.stat().st_ino for file in files]
    for arguments in (
        ("restore", tmp_path / "backup", "--yes"),
        ("recover", "customers", "--empty"),
        ("join", tmp_path / "backup"),
    ):
        with _suspended(tally):
            refused = command(*arguments, *config)
        assert refused.returncode == 1, refused
        assert f"process {tally.process.pid} runs Tally in" in refused.stderr
        assert [file.stat().st_ino for file in files] == before
    tally.accounts.post("/accounts", {"name": "b", "owned_by": "u"})
    eventually(tally.settled)
