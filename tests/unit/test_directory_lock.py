"""The lock of a data directory, what is kept of replaced files, and how actors' ends are told."""

import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.actors.lock import AlreadyRunning, DirectoryLock, is_held
from tally.actors.supervision import describe_exit
from tally.commands.restore import put_back
from tally.store import accounts
from tally.store.copying import copy_database, give_to_owner
from tally.store.customers import open_database
from tally.store.stream import EventStream


def test_who_looks_for_a_moment_keeps_no_supervisor_from_starting(tmp_path: Path) -> None:
    """`users` and `check` look by taking the lock."""
    looking = DirectoryLock(tmp_path)
    threading.Timer(0.1, looking.close).start()
    with closing(DirectoryLock(tmp_path, patience=60)):
        assert is_held(tmp_path)
        with pytest.raises(AlreadyRunning, match="in use by another supervisor"):
            DirectoryLock(tmp_path)


def test_what_two_restores_in_one_second_replace_is_kept(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    copy.mkdir()
    with closing(open_database(data)) as database:
        first = database.identity
    copy_database(data / "customers.db", copy / "customers.db", lambda _: None)
    stream = EventStream(RedisDouble(lambda: int(time.time() * 1000)).client(), "event-stream")
    for _ in range(5):
        assert put_back(data, copy, stream, lambda _: True)
    kept = list(data.glob("before-restore-*"))
    assert len(kept) == 5
    for folder in kept:
        with closing(open_database(folder, make=False)) as database:
            assert database.identity == first


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "ended with status 0"),
        (-9, "killed by SIGKILL"),
        (-35, "killed by signal 35"),
        (None, "ended with"),
    ],
)
def test_the_end_of_an_actor_is_told_whatever_ended_it(status: int | None, told: str) -> None:
    assert describe_exit(status).startswith(told)


def test_a_lock_that_cannot_be_had_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "supervisor.lock").mkdir()
    with pytest.raises(IsADirectoryError):
        DirectoryLock(tmp_path)
    (tmp_path / "supervisor.lock").rmdir()
    with closing(DirectoryLock(tmp_path)):
        assert is_held(tmp_path)


def test_what_a_link_in_the_data_directory_leads_to_is_neither_given_away_nor_emptied(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.write_text("another's")
    if os.geteuid() == 0:
        os.chown(data, 65534, 65534)
    (data / "supervisor.lock").symlink_to(other)
    owner = other.stat().st_uid
    with pytest.raises(OSError, match="symbolic links"):
        DirectoryLock(data)
    give_to_owner(data / "supervisor.lock")
    assert (other.read_text(), other.stat().st_uid) == ("another's", owner)


def test_what_root_makes_in_anothers_data_directory_is_its_owners(tmp_path: Path) -> None:
    """`users add` before the first start made an accounts.db that the service couldn't write to."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
    with closing(accounts.open_database(tmp_path)) as database, database.transaction():
        database.set_meta("tried", 1)
        owners = {file.name: file.stat().st_uid for file in tmp_path.iterdir()}
    assert owners == dict.fromkeys(
        ["accounts.db", "accounts.db-wal", "accounts.db-shm"], tmp_path.stat().st_uid
    )
