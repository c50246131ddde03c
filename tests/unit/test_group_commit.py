"""One commit for many requests."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.waiting import eventually
from tally.store.database import Database
from tally.store.errors import NotFound
from tally.store.group_commit import GroupCommit

SCHEMA = "CREATE TABLE thing (id INTEGER PRIMARY KEY) STRICT;"


class Commits:
    """Counts commits, and can hold the first leader until others have queued up behind it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "things.db", "things", SCHEMA)
    yield database
    database.close()


def _ids(database: Database) -> list[int]:
    reader = Database(database.path, "things", SCHEMA)
    with reader.snapshot():
        return [id for (id,) in reader.rows("SELECT id FROM thing ORDER BY id")]


def test_what_a_change_answers_is_answered_once_it_is_committed(database: Database) -> None:
    writer = GroupCommit(database, Commits())

    def change() -> str:
        database.execute("INSERT INTO thing VALUES (1)")
        return "done"

    assert writer.run(change) == "done"
    assert _ids(database) == [1]


def test_requests_in_flight_together_share_a_transaction_and_a_failing_one_fails_alone(
    database: Database,
) -> None:
    commits = Commits()
    writer = GroupCommit(database, commits)
    leading, queued = threading.Event(), threading.Event()

    def first() -> None:
        leading.set()
        assert queued.wait(10)
        database.execute("INSERT INTO thing VALUES (0)")

    def insert(id: int) -> int:
        database.execute("INSERT INTO thing VALUES (?)", (id,))
        if id == 3:
            raise NotFound("thing", id)
        return id

    with ThreadPoolExecutor(10) as threads:
        leader = threads.submit(writer.run, first)
        assert leading.wait(10)
        others = {id: threads.submit(writer.run, lambda id=id: insert(id)) for id in range(1, 6)}
        eventually(lambda: writer.waiting() == 5)
        queued.set()
        leader.result(10)
        for id, other in others.items():
            if id == 3:
                with pytest.raises(NotFound):
                    other.result(10)
            else:
                assert other.result(10) == id

    assert commits.count == 2
    assert _ids(database) == [0, 1, 2, 4, 5]


def test_a_commit_that_fails_fails_for_everyone_in_it_and_the_next_goes_on(database: Database) -> None:
    commits = Commits()
    writer = GroupCommit(database, commits)
    database.execute("CREATE TABLE child (id INTEGER REFERENCES thing DEFERRABLE INITIALLY DEFERRED)")

    # A deferred foreign key fails at the commit itself.
    with pytest.raises(Exception, match="FOREIGN KEY"):
        writer.run(lambda: database.execute("INSERT INTO child VALUES (99)"))
    writer.run(lambda: database.execute("INSERT INTO thing VALUES (1)"))

    assert (_ids(database), commits.count) == ([1], 1)


def test_many_threads_get_each_its_own_answer(database: Database) -> None:
    commits = Commits()
    writer = GroupCommit(database, commits)

    def change(id: int) -> int:
        database.execute("INSERT INTO thing VALUES (?)", (id,))
        return id * 10

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda id: writer.run(lambda: change(id)), range(500)))

    assert answers == [id * 10 for id in range(500)]
    assert _ids(database) == list(range(500))
    assert commits.count <= 500
