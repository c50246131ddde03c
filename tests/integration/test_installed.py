"""Tally from a wheel, without a checkout: it starts anywhere, and its data outlives the installation."""

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import release
from support.engines import free_port
from support.installing import Installation, built_sdist, built_wheel, copied_checkout, own
from support.tally import Client, alive
from support.waiting import eventually


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_checkout(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Installation:
    return Installation.of(wheel, tmp_path / "environment")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user with a state folder of their own, and free ports."""
    return {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TALLY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "TALLY_CUSTOMERS_PORT": str(free_port()),
        "TALLY_ACCOUNTS_PORT": str(free_port()),
    }


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder, where Tally looks for nothing."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@contextmanager
def _running(installed: Installation, elsewhere: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Run `python -m tally run` until it is told to stop; yield the file with its output."""
    said = elsewhere.with_name("said.txt")
    with said.open("w") as output:
        process = subprocess.Popen(
            [installed.program("python"), "-m", "tally", "run"],
            cwd=elsewhere, env=own(environment), stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    started = psutil.Process(process.pid)
    try:
        eventually(lambda: process.poll() is not None or "ready after" in said.read_text())
        yield said
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, said.read_text()
    finally:
        left = [] if process.poll() is not None else [started, *started.children(recursive=True)]
        for each in left:
            each.kill()
        eventually(lambda: not any(map(alive, left)))
        process.wait()


def _files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if "__pycache__" not in file.parts}


def test_it_runs_in_any_folder_and_keeps_its_data_where_the_user_keeps_state(
    installed: Installation, elsewhere: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    before = _files(installed.directory)
    with _running(installed, elsewhere, environment) as said:
        Client(int(environment["TALLY_ACCOUNTS_PORT"])).post("/accounts", {"name": "one", "owned_by": "u"})
        data = tmp_path / "state" / "tally"
        assert f"data: {data}\n" in said.read_text()
        assert {"accounts.db", "customers.db", "redis"} <= {file.name for file in data.iterdir()}
    assert _files(installed.directory) == before
    assert _files(elsewhere) == set()


def test_the_data_is_found_again_by_the_next_installation(
    wheel: Path, installed: Installation, elsewhere: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    accounts = Client(int(environment["TALLY_ACCOUNTS_PORT"]))
    with _running(installed, elsewhere, environment):
        accounts.post("/accounts", {"name": "one", "owned_by": "u"})
    with _running(Installation.of(wheel, tmp_path / "another"), elsewhere, environment):
        assert [each["account"]["name"] for each in accounts.get("/accounts")] == ["one"]


@pytest.mark.parametrize(
    ("called", "name"), [(["tally"], "tally"), (["python", "-m", "tally"], "python -m tally")]
)
def test_help_says_the_name_that_was_called(
    installed: Installation, elsewhere: Path, called: list[str], name: str
) -> None:
    done = installed.run(*called, "run", "--help", directory=elsewhere, environment={})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {name} run ")
    assert f"Example: {name} run --only" in done.stdout


# Data that release 0.1.0 left in the package

COMMANDS = [["run"], ["check"], ["status"], ["users", "list"], ["backup", "copy"], ["rebuild", "accounts"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_begins_with_empty_databases_while_the_old_ones_are_in_the_package(
    installed: Installation, elsewhere: Path, environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    old, new = installed.package / "data", tmp_path / "state" / "tally"
    release.copied(release.DATA / "release-0.1.0", old)
    done = installed.run("tally", *command, directory=elsewhere, environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert str(old) in line
    assert str(new) in line
    assert not new.exists()


def test_after_the_command_that_is_told_the_old_data_is_what_it_was(
    installed: Installation, elsewhere: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    kept = release.DATA / "release-0.1.0"
    release.copied(kept, installed.package / "data")
    refused = installed.run("tally", "run", directory=elsewhere, environment=environment)
    told = refused.stderr.strip().rpartition("then: ")[2]
    subprocess.run(["sh", "-c", told], check=True, env={"PATH": os.environ["PATH"]})
    with _running(installed, elsewhere, environment):
        accounts = Client(int(environment["TALLY_ACCOUNTS_PORT"])).get("/accounts")
        expected = json.loads((kept / release.CONTENTS).read_text())["accounts"]
        assert [each["account"]["id"] for each in accounts] == [each["id"] for each in expected]
        assert _totals(accounts) == _totals(expected)
    assert not (installed.package / "data").exists()


def _totals(accounts: list[dict[str, Any]]) -> list[int]:
    return [each["total_revenue_cents"] for each in accounts]


# The sdist


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_that_the_sdist_makes_is_the_one_that_the_checkout_makes(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    for folder in ("sdist", "unpacked", "made"):
        (tmp_path / folder).mkdir()
    sdist = built_sdist(tree, tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert _content(built_wheel(unpacked, tmp_path / "made")) == _content(wheel)
