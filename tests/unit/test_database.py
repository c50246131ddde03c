"""The database files: identity, durability, and several writers."""

import multiprocessing
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tally.store import accounts, customers
from tally.store.database import Database, numbers
from tally.store.errors import StoreUnavailable, UnusableDatabase

SCHEMA = "CREATE TABLE thing (id INTEGER PRIMARY KEY, value INTEGER) STRICT;"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "things.db", "things", SCHEMA)
    yield database
    database.close()


def test_a_database_keeps_its_identity_and_no_two_share_one(tmp_path: Path) -> None:
    first, second = customers.open_database(tmp_path), accounts.open_database(tmp_path)
    assert len(first.identity) == 8
    assert first.identity != second.identity
    assert customers.open_database(tmp_path).source == f"customers@{first.identity}"


def test_commits_are_durable_and_readers_do_not_wait(database: Database) -> None:
    assert database.value("PRAGMA synchronous") == 2
    assert database.value("PRAGMA journal_mode") == "wal"
    reader = Database(database.path, "things", SCHEMA)
    with database.transaction():
        database.execute("INSERT INTO thing VALUES (1, 1)")
        assert reader.rows("SELECT * FROM thing") == []
    assert reader.rows("SELECT * FROM thing") == [(1, 1)]


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.execute("INSERT INTO thing VALUES (1, 1)")
        1 / 0  # noqa: B018
    assert database.rows("SELECT * FROM thing") == []


def test_what_is_told_at_the_commit_is_not_told_of_what_is_undone(database: Database) -> None:
    told: list[str] = []
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.at_commit(lambda: told.append("undone"))
        1 / 0  # noqa: B018
    with database.transaction():
        database.at_commit(lambda: told.append("committed"))
        assert told == []
    with database.transaction():
        pass
    assert told == ["committed"]


@pytest.mark.parametrize("values", [[], [7], [3, 1, 2**63 - 1, -(2**63)]])
def test_numbers_are_a_table(database: Database, values: list[int]) -> None:
    assert database.rows("SELECT value FROM carray(?)", (numbers(values),)) == [(each,) for each in values]


def test_relaxed_transactions_leave_the_others_durable(database: Database) -> None:
    with database.relaxed(), database.transaction():
        assert database.value("PRAGMA synchronous") == 1
    assert database.value("PRAGMA synchronous") == 2


@pytest.mark.parametrize("content", [b"", b"not a database" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_database_is_refused_unless_it_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "customers.db").write_bytes(content)
    if not content:
        customers.open_database(tmp_path).close()
        return
    with pytest.raises(UnusableDatabase, match=r"customers\.db"):
        customers.open_database(tmp_path)
    assert (tmp_path / "customers.db").read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "customers.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(UnusableDatabase, match="not a database of Tally's"):
        customers.open_database(tmp_path)


def test_the_other_services_database_is_refused(tmp_path: Path) -> None:
    accounts.open_database(tmp_path).close()
    (tmp_path / "accounts.db").rename(tmp_path / "customers.db")
    with pytest.raises(UnusableDatabase, match="service accounts"):
        customers.open_database(tmp_path)


def test_a_newer_releases_database_is_refused(tmp_path: Path) -> None:
    database = customers.open_database(tmp_path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UnusableDatabase, match="newer release"):
        customers.open_database(tmp_path)


def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        customers.open_database(tmp_path / "nowhere")


def test_the_database_is_readable_by_sqlites_own_tools(database: Database) -> None:
    assert stat.S_ISREG(database.path.stat().st_mode)
    with sqlite3.connect(database.path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


def _add(path: Path, times: int) -> None:
    database = Database(path, "things", SCHEMA)
    for _ in range(times):
        with database.transaction():
            count = database.value("SELECT value FROM thing WHERE id = 1")
            database.execute("UPDATE thing SET value = ? WHERE id = 1", (count + 1,))


def _hold_again_and_again(path: Path, began: Any, over: Any) -> None:
    database = Database(path, "things", SCHEMA)
    while not over.is_set():
        with database.transaction():
            database.execute("UPDATE thing SET value = value + 1")
            began.set()
            time.sleep(0.05)


def test_who_holds_the_lock_for_long_and_wants_it_again_lets_others_go_first(database: Database) -> None:
    with database.transaction():
        database.execute("INSERT INTO thing VALUES (1, 0)")
    context = multiprocessing.get_context("spawn")
    began, over = context.Event(), context.Event()
    other = context.Process(target=_hold_again_and_again, args=(database.path, began, over), daemon=True)
    other.start()
    began.wait()
    before = 1
    for _ in range(10):
        with database.transaction():
            after = database.value("SELECT value FROM thing")
        before, waited = after, after - before
        assert waited <= 5
        time.sleep(0.01)  # so the other one has it again
    over.set()
    other.join()


def test_who_stood_still_in_a_transaction_does_not_make_up_for_that_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour of Ctrl-Z it gave way for 144 seconds, without a sign of life: it was killed."""
    clock, stood_still = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stood_still)
    with database.transaction():
        stood_still = 3600.0
    began = clock()
    with database.transaction():
        pass
    assert clock() - began < 2.0


def test_several_processes_write_to_one_file_without_losing_or_failing(database: Database) -> None:
    with database.transaction():
        database.execute("INSERT INTO thing VALUES (1, 0)")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(database.path, 200)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert database.rows("SELECT value FROM thing") == [(600,)]
