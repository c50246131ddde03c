"""`backup`: copies of the databases while Tally runs, and the uses of these copies."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import redis

from support.cli import command, says_nothing, server_of_another_kind, settings
from support.disks import replaced, tmpfs
from support.engines import bundled_process, free_port
from support.figures import accounts_db, agree
from support.load import Load
from support.program import SUPERVISOR, Program
from support.tally import ROOT, Tally, running
from support.waiting import PATIENCE, eventually
from tally.recovery import first_start
from tally.store import accounts, customers
from tally.store.errors import StoreError

FILES = ("accounts.db", "customers.db")


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A running Tally for all tests here. Its Redis outlives it."""
    directory = tmp_path_factory.mktemp("backup")
    with (
        bundled_process(directory / "redis", free_port()) as url,
        running(directory, redis_url=url) as tally,
    ):
        yield tally


def _backup(tally: Tally, to: Path) -> "subprocess.CompletedProcess[str]":
    return command("backup", to, "--config", tally.directory / "tally.toml")


def _invoices(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM invoice").fetchone()[0])


def test_both_are_copied_under_load_for_their_owner_alone(tally: Tally, tmp_path: Path) -> None:
    with Load(tally) as load:
        load.goes_on(100)
        answered = load.accepted()
        done = _backup(tally, tmp_path / "new" / "monday")
        asked = len(load.invoices)
        load.goes_on(10)
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / "new" / "monday" / file) for file in FILES
    ]
    assert not [each for each in load.tries() if each.status != 201]
    made = tmp_path / "new" / "monday"
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)
    assert [(made / file).stat().st_mode & 0o777 for file in FILES] == [0o600, 0o600]
    assert made.stat().st_mode & 0o777 == 0o700
    assert answered <= _invoices(made / "customers.db") <= asked


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_overwritten(tally: Tally, tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("mine")
    done = _backup(tally, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tally: {tmp_path / file} is there already; give a directory without one\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, "mine")]


def test_a_full_disk_is_named_with_the_cause_and_leaves_nothing(tally: Tally, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", 1) as disk:
        (disk / "filler").write_bytes(bytes((1 << 20) - (40 << 10)))
        done = _backup(tally, disk / "new" / "copy")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert f"{disk / 'new' / 'copy' / 'accounts.db'}: " in done.stderr
        assert "No space left on device; free some space there, or" in done.stderr
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_the_second_of_two_at_once_says_that_another_is_under_way(tally: Tally, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as the first does
        done = _backup(tally, tmp_path)
    finally:
        os.close(descriptor)
    assert done.returncode == 1
    assert done.stderr == f"tally: another backup into {tmp_path} is under way; wait for it\n"
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_into_a_new_folder_one_is_made_and_the_others_say_why(
    tally: Tally, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        every = [*pool.map(lambda _: _backup(tally, tmp_path / "new"), range(4))]
    assert sorted(each.returncode for each in every) == [0, 1, 1, 1]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(FILES)
    for each in every:
        assert each.returncode == 0 or "is under way" in each.stderr or "is there already" in each.stderr


def test_the_data_directory_is_no_place_for_it(tally: Tally) -> None:
    assert "there already" in _backup(tally, accounts_db(tally).parent).stderr


def test_an_empty_name_is_no_directory(tally: Tally) -> None:
    done = command("backup", "", "--config", tally.directory / "tally.toml")
    assert (done.returncode, "Expected the name of a directory" in done.stderr) == (2, True)


def test_where_there_is_nothing_it_says_so_and_makes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "tally.toml"
    config.write_text("")
    done = command("backup", tmp_path / "copy", "--config", config)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "neither accounts.db nor customers.db" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_directory_that_cannot_be_made_is_named(tally: Tally, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = _backup(tally, tmp_path / "file" / "copy")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert str(tmp_path / "file") in done.stderr


def test_one_that_was_killed_is_made_anew(tally: Tally, tmp_path: Path) -> None:
    arguments = [sys.executable, str(SUPERVISOR), "backup", str(tmp_path)]
    process = subprocess.Popen([*arguments, "--config", str(tally.directory / "tally.toml")])
    eventually(lambda: list(tmp_path.glob("accounts.db*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("*.db"):
        path.unlink()  # it was complete
    (tmp_path / "accounts.db.partial").write_text("half of it")
    assert _backup(tally, tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_done(tally: Tally, tmp_path: Path, order: signal.Signals) -> None:
    """After `timeout`, or with a connection that ends, copies would stay and fill the disk."""
    copies, made = tmp_path / "copies", tmp_path / "data" / "restore.partial" / "customers.db"
    assert _backup(tally, copies).returncode == 0
    with server_of_another_kind(says_nothing) as port:
        config = settings(tmp_path, redis={"url": f"redis://127.0.0.1:{port}/0"})
        arguments = ["restore", str(copies), "--config", str(config)]
        process = Program(arguments, tmp_path / "output", tmp_path / "error")
        eventually(made.exists)
        process.send_signal(order)
        assert process.wait(PATIENCE) == 1
    assert (tmp_path / "error").read_text() == "tally: interrupted; run the same command again\n"
    assert [path.name for path in made.parents[1].iterdir()] == ["supervisor.lock"]


def test_both_copies_on_an_empty_redis_come_to_the_right_figures_by_themselves(
    tally: Tally, tmp_path: Path
) -> None:
    with Load(tally) as load:
        load.goes_on(100)
        assert _backup(tally, tmp_path).returncode == 0
        load.goes_on(100)
    load.settle()
    assert tally.stop() == 0
    with redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
        client.flushall()
    for file in FILES:
        replaced(accounts_db(tally).with_name(file), tmp_path / file)
    tally.start()
    agree(tally)
    assert tally.accounts.get("/status")["status"] == "ok"


KILLED_AT_A_NAME = """
import os, signal, sys
left = int(sys.argv.pop(1))
def die(event, _):
    global left
    if event in ("os.rename", "os.link"):
        left -= 1
        if left == -1:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
sys.path.insert(0, sys.argv[1])
import supervisor
supervisor.main(sys.argv[2:])
"""


@pytest.mark.parametrize("before", range(4))  # of two names each: one goes aside, one is given
def test_a_restore_that_is_killed_leaves_no_place_for_an_empty_database(tmp_path: Path, before: int) -> None:
    """Between two names there was no accounts.db, and the next start made an empty one: without users."""
    data, copies = tmp_path / "data", tmp_path / "copies"
    for directory in (data, copies):
        directory.mkdir()
        for opened in (accounts.open_database, customers.open_database):
            opened(directory).close()
    identities = {file: _identity(copies / file) for file in FILES}
    config = settings(tmp_path)
    restore = ["restore", str(copies), "--yes", "--config", str(config)]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_A_NAME, str(before), str(ROOT), *restore])
    assert killed.returncode == -signal.SIGKILL

    there = {file for file in FILES if (data / file).exists()}
    assert len(there) == 2 - before % 2
    for file, make in (("accounts.db", accounts.open_database), ("customers.db", first_start.make)):
        if file not in there:
            with pytest.raises(StoreError, match="`restore`"):
                make(data)
            assert "`restore`" in command("check", "--config", config).stdout
    assert {file for file in FILES if (data / file).exists()} == there

    assert command(*restore).returncode == 0
    assert {file: _identity(data / file) for file in FILES} == identities


def _identity(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()[0])
