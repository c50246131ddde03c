"""`rebuild accounts` under load, killed at any point, and after customers.db was restored from a backup."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.disks import held
from support.engines import bundled_process, free_port
from support.figures import accounts_db, agree, recorded, shown, spoil
from support.load import Load
from support.program import SUPERVISOR
from support.tally import Tally, running
from support.waiting import eventually
from tally.store.read_model import FOLDER
from tally.store.stream import EventStream, connect


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    """A running Tally on a Redis that outlives it."""
    with (
        bundled_process(tmp_path / "redis", free_port()) as url,
        running(tmp_path, redis_url=url) as tally,
    ):
        yield tally


def _config(tally: Tally) -> list[str]:
    return ["--config", str(tally.directory / "tally.toml")]


def _rebuild(tally: Tally, *options: str) -> None:
    done = command("rebuild", "accounts", *options, *_config(tally), seconds=60)
    assert done.returncode == 0, done.stderr


@contextmanager
def _rebuilding(tally: Tally) -> Iterator["subprocess.Popen[bytes]"]:
    """The running command; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISOR), "rebuild", "accounts", "--yes", *_config(tally)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _redis(tally: Tally) -> redis.Redis:
    return redis.Redis.from_url(tally.settings["redis"]["url"], protocol=2)


def _trim(tally: Tally) -> None:
    eventually(tally.settled)
    assert EventStream(connect(tally.settings["redis"]["url"]), "event-stream").trim(0)


class Watcher:
    """Polls an account: its revenue may only grow while invoices are posted."""

    def __init__(self, tally: Tally, load: Load) -> None:
        self._tally = tally
        self._path = f"/accounts/{load.account}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.totals: list[int] = []

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            account = self._tally.accounts.get(self._path)
            customers = [each["total_revenue_cents"] for each in account["customers"]]
            self.totals.append(account["total_revenue_cents"] if len(customers) == 1 else -1)


@pytest.mark.parametrize("base", ["the stream", "customers.db"])
def test_under_load_nobody_sees_anything_but_what_is_right(tally: Tally, base: str) -> None:
    with Load(tally) as load:
        load.goes_on(300)
    if base == "customers.db":
        _trim(tally)
    with load, Watcher(tally, load) as watcher:
        load.goes_on(20)
        for _ in range(2):
            _rebuild(tally)
        load.goes_on(20)
    assert not [each for each in load.tries() if each.status != 201]
    eventually(tally.settled)
    agree(tally)
    assert watcher.totals == sorted(watcher.totals)
    assert watcher.totals[-1] <= load.shown() == sum(invoice.cents for invoice in load.invoices)


def _begun(tally: Tally) -> bool:
    return (accounts_db(tally).parent / FOLDER / "accounts.db").exists()


def _read_some(tally: Tally) -> bool:
    return _meta(tally, "count") is not None


def _read_all(tally: Tally) -> bool:
    newest: Any = _redis(tally).xrevrange("event-stream", count=1)
    return bool(_meta(tally, "newest_entry") == newest[0][0].decode())


def _meta(tally: Tally, key: str) -> Any:
    path = accounts_db(tally).parent / FOLDER / "accounts.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            row = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    except sqlite3.OperationalError:
        return None
    return row and row[0]


@pytest.mark.parametrize("base", ["the stream", "customers.db"])
def test_killed_at_any_point_it_has_changed_nothing_or_all(tally: Tally, base: str) -> None:
    with Load(tally) as load:
        load.goes_on(300)
    if base == "customers.db":
        _trim(tally)
        with load:
            load.goes_on(100)
    load.settle()
    eventually(tally.settled)
    right = shown(tally)
    assert right == recorded(tally)
    spoil(tally)
    wrong = shown(tally)
    with held(accounts_db(tally), "IMMEDIATE"):  # so the command can't swap the files before it is killed
        for point in (_begun, _read_some, _read_all):
            with _rebuilding(tally):
                eventually(partial(point, tally))
            assert shown(tally) == wrong
    for tenth in range(4, 12, 2):
        with _rebuilding(tally) as process, suppress(subprocess.TimeoutExpired):
            process.wait(tenth / 10)
        assert shown(tally) in (right, wrong)
    _rebuild(tally)
    agree(tally)
    assert shown(tally) == right
    assert not _begun(tally)


def test_ctrl_c_ends_it_with_one_line_and_it_goes_on(tally: Tally) -> None:
    with Load(tally) as load:
        load.goes_on(50)
    eventually(tally.settled)
    spoil(tally)
    with held(accounts_db(tally), "IMMEDIATE"), _rebuilding(tally) as process:
        eventually(lambda: _read_all(tally))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.decode().splitlines() == ["tally: interrupted; run the same command again to go on"]
    _rebuild(tally)
    agree(tally)
