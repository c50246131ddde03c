"""`rebuild accounts` under load, killed at any point, and after customers.db was put back from a backup."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.disks import copied_while_in_use, gone_its_own_way, held, removed, replaced
from support.engines import bundled_process, free_port
from support.figures import accounts_db, agree, recorded, shown, spoil
from support.invoices import Load
from support.redis_process import RedisProcess
from support.tally import SUPERVISOR, Client, Tally, is_settled, running
from support.waiting import eventually, known
from tally.commands.restored import find_loss, go_on_anew
from tally.events import EventId
from tally.store import customers
from tally.store.accounts import open_database
from tally.store.inbox import Inbox
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
    """The command at work; killed at the end."""
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
    eventually(tally.settled, 30)
    assert EventStream(connect(tally.settings["redis"]["url"]), "event-stream").trim(0)


class Watcher:
    """Looks at an account all the time: what it shows may only grow while invoices are posted."""

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
    eventually(tally.settled, 30)
    agree(tally)
    assert watcher.totals == sorted(watcher.totals)
    assert watcher.totals[-1] <= load.shown() == sum(invoice.cents for invoice in load.invoices)


def _begun(tally: Tally) -> bool:
    return (accounts_db(tally).parent / "rebuild" / "accounts.db").exists()


def _read_some(tally: Tally) -> bool:
    return _meta(tally, "count") is not None


def _read_all(tally: Tally) -> bool:
    newest: Any = _redis(tally).xrevrange("event-stream", count=1)
    return bool(_meta(tally, "newest_entry") == newest[0][0].decode())


def _meta(tally: Tally, key: str) -> Any:
    path = accounts_db(tally).parent / "rebuild" / "accounts.db"
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
    eventually(tally.settled, 30)
    right = shown(tally)
    assert right == recorded(tally)
    spoil(tally)
    wrong = shown(tally)
    with held(accounts_db(tally), "IMMEDIATE"):  # so it can't change over before it is killed
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
    eventually(tally.settled, 30)
    spoil(tally)
    with held(accounts_db(tally), "IMMEDIATE"), _rebuilding(tally) as process:
        eventually(lambda: _read_all(tally))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.decode().splitlines() == ["tally: interrupted; run the same command again to go on"]
    _rebuild(tally)
    agree(tally)


class Backup:
    """A backup of a customers.db, made under load, put back, and written to before Redis was asked."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.database = accounts_db(tally).with_name("customers.db")
        self.copy = tally.directory / "copy.db"
        self.lost: EventId
        self._load = Load(tally)
        with self._load:
            self._load.goes_on(200)
            copied_while_in_use(self.database, self.copy)
            self._load.goes_on(200)

    def restore(self) -> None:
        """Stop Tally, put the copy back, start it, and record before and after somebody notices."""
        with self._load:
            self._load.goes_on(50)
        eventually(self.tally.settled, 30)
        report = self.tally.customers.get("/status")
        source = f"customers@{report['identity']}"
        self.lost = EventId(source, int(_redis(self.tally).hget("{event-stream}:published", source) or 0))
        assert self.tally.stop() == 0
        replaced(self.database, self.copy)
        gone_its_own_way(self.database)
        self.tally.start()
        with self._load:
            self._load.goes_on(100)
        eventually(lambda: "`rebuild accounts`" in str(self.tally.customers.get("/status")["reasons"]))

    def is_settled(self) -> None:
        """All is well, and what was recorded in customers.db as it is counts, exactly once."""
        agree(self.tally)
        with self._load:
            self._load.goes_on(100)
        agree(self.tally)
        for service in (self.tally.customers, self.tally.accounts):
            eventually(partial(_is_ok, service))


def _is_ok(service: Client) -> bool:
    return bool(service.get("/status")["status"] == "ok")


@pytest.fixture
def backup(tally: Tally) -> Backup:
    return Backup(tally)


def test_after_a_restored_customers_db_all_agree_again(backup: Backup, tally: Tally) -> None:
    backup.restore()
    ids = [int(id) for id in _ids(tally)]
    before, lost = shown(tally), backup.lost
    said = command("rebuild", "accounts", *_config(tally))
    assert said.returncode == 1
    assert "was restored from a backup" in said.stderr
    assert shown(tally) == before

    _rebuild(tally, "--yes")
    backup.is_settled()
    assert lost.source != f"customers@{tally.customers.get('/status')['identity']}"
    fresh = max(map(int, _ids(tally)))
    assert fresh > max(ids)
    assert tally.stop() == 0
    with closing(open_database(accounts_db(tally).parent)) as database, database.transaction():
        assert Inbox(database).take([lost], 0) == set()  # whoever still has it in hand


def _ids(tally: Tally) -> list[str]:
    entries: Any = _redis(tally).xrange("event-stream")
    return [
        fields[b"Payload"].split(b'"')[3].decode()
        for _, fields in entries
        if fields[b"EventTypeName"] == b"InvoiceCreated"
    ]


def test_the_same_backup_again_and_later_ones(backup: Backup, tally: Tally) -> None:
    first, later = backup.copy, backup.copy.with_name("later.db")
    backup.restore()
    _rebuild(tally, "--yes")
    copied_while_in_use(backup.database, later)
    for copy in (first, later):
        backup.copy = copy
        backup.restore()
        _rebuild(tally, "--yes")
        backup.is_settled()


def test_later_a_new_accounts_db_and_a_trimmed_stream_come_to_the_same(backup: Backup, tally: Tally) -> None:
    backup.restore()
    _rebuild(tally, "--yes")
    backup.is_settled()
    right = shown(tally)
    former = f"accounts@{tally.accounts.get('/status')['identity']}"

    assert tally.stop() == 0
    removed(accounts_db(tally))
    tally.start()
    eventually(lambda: shown(tally) == right)
    backup.is_settled()
    # Else it holds the stream, and status tells so.
    done = command("groups", "remove", former, "--yes", *_config(tally))
    assert done.returncode == 0, done.stderr
    spoil(tally)
    _rebuild(tally)
    backup.is_settled()
    _trim(tally)
    spoil(tally)
    _rebuild(tally)
    backup.is_settled()


def test_a_restored_customers_db_while_tally_is_stopped(backup: Backup, tally: Tally) -> None:
    backup.restore()
    assert tally.stop() == 0
    _rebuild(tally, "--yes")
    tally.start()
    backup.is_settled()


def _noted(tally: Tally) -> bool:
    return "not finished" in str(tally.accounts.get("/status")["reasons"])


def _given_up(tally: Tally) -> bool:
    return bool(_redis(tally).exists("{event-stream}:successors"))


def _renamed(tally: Tally) -> bool:
    known: Any = _redis(tally).hkeys("{event-stream}:successors")
    return bool(known) and tally.customers.get("/status")["identity"] not in str(known)


def _asks_for_rebuild(tally: Tally) -> bool | None:
    """Whether it has to be done again; None while nobody can tell: something is on its way, or Redis slow."""
    reports = tally.reports()
    if "rebuild accounts" in str([report["reasons"] for report in reports]):
        return True
    return False if is_settled(reports) else None


@pytest.mark.parametrize("point", [_noted, _given_up, _renamed])
def test_killed_while_it_takes_back_what_was_lost(
    backup: Backup, tally: Tally, point: Callable[[Tally], bool]
) -> None:
    backup.restore()
    for _ in range(2):
        with _rebuilding(tally):
            eventually(lambda: point(tally))
        if not known(lambda: _asks_for_rebuild(tally)):  # the kill came too late: then it is done, and right
            agree(tally)
    _rebuild(tally, "--yes")
    backup.is_settled()


def test_killed_before_it_could_tell_of_the_new_identity_every_actor_takes_it_up(
    backup: Backup, tally: Tally
) -> None:
    backup.restore()
    stream = EventStream(connect(tally.settings["redis"]["url"]), "event-stream")
    directory = accounts_db(tally).parent
    with closing(customers.open_database(directory)) as database, closing(open_database(directory)) as live:
        go_on_anew(database, live, stream, find_loss(database, stream, lambda done: None))
    eventually(lambda: tally.customers.get("/status")["reasons"] == [])
    _rebuild(tally, "--yes")
    backup.is_settled()
    group = f"customers@{tally.customers.get('/status')['identity']}"
    assert group.encode() in [each["name"] for each in _redis(tally).xinfo_groups("event-stream")]


def test_killed_at_any_moment_after_a_restore(backup: Backup, tally: Tally) -> None:
    for restored in range(2):
        backup.restore()
        for tenth in range(4, 12, 2):
            with _rebuilding(tally) as process, suppress(subprocess.TimeoutExpired):
                process.wait((tenth + restored) / 10)
        _rebuild(tally, "--yes")
        backup.is_settled()


def test_an_accounts_db_that_has_gone_its_own_way_goes_on_as_another(
    tmp_path: Path, server: RedisProcess
) -> None:
    with running(tmp_path, redis_url=server.url) as tally:
        copied_while_in_use(accounts_db(tally), tmp_path / "copy.db")
        load = Load(tally)
        opened = [_open_account(tally, f"before {number}") for number in range(3)]
        eventually(tally.settled, 30)
        assert tally.stop() == 0
        replaced(accounts_db(tally), tmp_path / "copy.db")
        server.kill()
        tally.start()
        again = [_open_account(tally, f"after {number}") for number in range(5)]
        server.start()
        eventually(lambda: "`rebuild accounts`" in str(tally.accounts.get("/status")["reasons"]))
        assert again[1:4] == opened  # the first one was the load's

        _rebuild(tally, "--yes")
        with load:
            load.goes_on(50)
        agree(tally)
        names = {each["account"]["id"]: each["account"]["name"] for each in tally.accounts.get("/accounts")}
        assert [names[id] for id in [*opened, again[4]]] == ["before 0", "before 1", "before 2", "after 4"]
        eventually(lambda: tally.accounts.get("/status")["status"] == "ok")


def _open_account(tally: Tally, name: str) -> str:
    return str(tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"])
