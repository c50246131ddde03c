"""One commit for many requests."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from support.waiting import eventually
from tally.store.database import Database
from tally.store.errors import NotFound, StoreError, StoreUnavailable
from tally.store.group_commit import GroupCommit, Job

SCHEMA = "CREATE TABLE thing (id INTEGER PRIMARY KEY) STRICT;"


class Commits:
    """Counts commits."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Told:
    """A job that makes one change. It records its outcomes, and the rows durable when it finished."""

    def __init__(self, writer: GroupCommit, database: Database, change: Callable[[], object]) -> None:
        self._writer = writer
        self._database = database
        self._change = change
        self.outcomes: list[object] = []
        self.durable: list[int] = []
        self.finished = threading.Event()

    def work(self) -> None:
        try:
            self.outcomes.append(self._writer.run(self._change))
        except Exception as error:
            self.outcomes.append(error)

    def finish(self) -> None:
        self.durable = _ids(self._database)
        self.finished.set()

    def fail(self, reason: StoreError) -> None:
        raise AssertionError("nobody holds it back") from reason


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "things.db", "things", SCHEMA)
    yield database
    database.close()


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
def writer(database: Database, commits: Commits) -> Iterator[GroupCommit]:
    writer = GroupCommit(lambda: database, commits)
    yield writer
    writer.close()


def _are_waiting(writer: GroupCommit, count: int) -> bool:
    return writer._jobs.qsize() == count


def _ids(database: Database) -> list[int]:
    reader = Database(database.path, "things", SCHEMA)
    with reader.snapshot():
        return [id for (id,) in reader.rows("SELECT id FROM thing ORDER BY id")]


def test_what_a_change_answers_is_answered_once_it_is_committed(
    database: Database, writer: GroupCommit
) -> None:
    def change() -> str:
        database.execute("INSERT INTO thing VALUES (1)")
        return "done"

    assert writer.run(change) == "done"
    assert _ids(database) == [1]


@pytest.mark.parametrize(("half_way", "shared"), [(False, 1), (True, 4)])
def test_what_is_in_flight_together_shares_a_transaction_and_what_fails_fails_alone(
    half_way: bool, shared: int, database: Database, writer: GroupCommit, commits: Commits
) -> None:
    queued = threading.Event()

    def insert(id: int) -> int:
        assert queued.wait(10)
        if id != 3 or half_way:
            database.execute("INSERT INTO thing VALUES (?)", (id,))
        if id == 3:
            raise NotFound("thing", id)
        return id * 10

    with ThreadPoolExecutor(10) as threads:
        changes = []
        for id in range(6):
            changes.append(threads.submit(writer.run, partial(insert, id)))
            eventually(partial(_are_waiting, writer, id))
        queued.set()
        for id, change in enumerate(changes):
            if id == 3:
                with pytest.raises(NotFound):
                    change.result(10)
            else:
                assert change.result(10) == id * 10

    # One failed half-way: the three jobs before it run again alone, the two after it together.
    assert commits.count == shared
    assert _ids(database) == [0, 1, 2, 4, 5]


def test_a_job_tells_what_came_of_it_once_that_is_durable(
    database: Database, writer: GroupCommit, commits: Commits
) -> None:
    writing = threading.Event()

    def insert(id: int) -> int:
        assert writing.wait(10)
        database.execute("INSERT INTO thing VALUES (?)", (id,))
        return id

    jobs = [Told(writer, database, partial(insert, id)) for id in range(3)]
    for job in jobs:
        writer.submit(job)
    eventually(lambda: writer._jobs.qsize() == 2)
    writing.set()
    for id, job in enumerate(jobs):
        assert job.finished.wait(10)
        assert (job.outcomes, job.durable) == ([id], [0, 1, 2])
    assert commits.count == 1


def test_a_transaction_that_comes_to_nothing_is_told_by_all_that_took_part(
    database: Database, writer: GroupCommit, commits: Commits
) -> None:
    # A deferred foreign key fails at the commit itself.
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("CREATE TABLE child (id INTEGER REFERENCES thing DEFERRABLE INITIALLY DEFERRED)")
    writing = threading.Event()

    def wait() -> None:
        assert writing.wait(10)

    def refuse() -> None:
        raise NotFound("thing", 7)

    def orphan() -> None:
        database.execute("INSERT INTO child VALUES (99)")

    jobs = [Told(writer, database, change) for change in (wait, refuse, orphan)]
    for job in jobs:
        writer.submit(job)
    eventually(lambda: writer._jobs.qsize() == 2)
    writing.set()
    for job in jobs:
        assert job.finished.wait(10)
        assert "FOREIGN KEY" in str(job.outcomes[-1])  # the refused job may have seen the others
    assert [len(job.outcomes) for job in jobs] == [2, 2, 2]
    assert commits.count == 0
    assert writer.run(lambda: "goes on") == "goes on"


def test_while_others_hold_the_database_all_that_wait_are_refused_and_then_it_goes_on(
    database: Database, writer: GroupCommit, commits: Commits
) -> None:
    other = Database(database.path, "things", SCHEMA)
    insert = lambda: database.execute("INSERT INTO thing VALUES (NULL)") and None  # noqa: E731
    with other.transaction():
        jobs = [Told(writer, database, insert) for _ in range(20)]
        for job in jobs:
            writer.submit(job)
        for job in jobs:
            assert job.finished.wait(10)
            assert [type(outcome) for outcome in job.outcomes] == [StoreUnavailable]
    writer.run(insert)
    assert (_ids(database), commits.count) == ([1], 1)


@pytest.mark.parametrize("step", ["work", "finish"])
def test_a_fault_in_one_job_is_no_others(step: str, database: Database, writer: GroupCommit) -> None:
    class Faulty:
        def work(self) -> None:
            if step == "work":
                raise RuntimeError("a bug")

        def finish(self) -> None:
            raise RuntimeError("a bug")

        def fail(self, reason: StoreError) -> None:
            raise RuntimeError("a bug")

    writer.submit(Faulty())
    job = Told(writer, database, lambda: database.execute("INSERT INTO thing VALUES (1)") and None)
    writer.submit(job)
    assert job.finished.wait(10)
    assert job.durable == [1]


def test_what_was_submitted_is_done_before_the_end(database: Database, writer: GroupCommit) -> None:
    jobs = [
        Told(writer, database, lambda: database.execute("INSERT INTO thing VALUES (NULL)") and None)
        for _ in range(600)
    ]
    for job in jobs:
        writer.submit(job)
    writer.close()
    assert all(job.finished.is_set() for job in jobs)
    assert len(_ids(database)) == 600


def test_a_commit_that_fails_fails_for_everyone_in_it_and_the_next_goes_on(
    database: Database, writer: GroupCommit, commits: Commits
) -> None:
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("CREATE TABLE child (id INTEGER REFERENCES thing DEFERRABLE INITIALLY DEFERRED)")

    # A deferred foreign key fails at the commit itself.
    with pytest.raises(Exception, match="FOREIGN KEY"):
        writer.run(lambda: database.execute("INSERT INTO child VALUES (99)"))
    writer.run(lambda: database.execute("INSERT INTO thing VALUES (1)"))

    assert (_ids(database), commits.count) == ([1], 1)


def test_many_threads_get_each_its_own_answer(
    database: Database, writer: GroupCommit, commits: Commits
) -> None:
    def change(id: int) -> int:
        database.execute("INSERT INTO thing VALUES (?)", (id,))
        return id * 10

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda id: writer.run(lambda: change(id)), range(500)))

    assert answers == [id * 10 for id in range(500)]
    assert _ids(database) == list(range(500))
    assert commits.count <= 500


class Held:
    """Makes jobs wait until the test releases them; see AnswerAfter."""

    def __init__(self) -> None:
        self.held: list[tuple[int, Sequence[Job]]] = []

    def insist(self) -> None:
        """Refuses nothing."""

    def mark(self, database: Database) -> int:
        return 7

    def hold(self, mark: int, jobs: Sequence[Job], done: Callable[[], None]) -> None:
        self.held.append((mark, jobs))


def test_what_was_done_is_held_and_what_was_refused_is_told_at_once(database: Database) -> None:
    held = Held()
    writer = GroupCommit(lambda: database, lambda: None, held)

    def refuse() -> None:
        raise NotFound("thing", 1)

    refused = Told(writer, database, refuse)
    done = Told(writer, database, lambda: database.execute("INSERT INTO thing VALUES (1)") and None)
    writer.submit(refused)
    assert refused.finished.wait(10)
    assert held.held == []
    writer.submit(done)
    eventually(lambda: held.held == [(7, [done])])
    assert not done.finished.is_set()
    assert _ids(database) == [1]
    writer.close()


def test_a_database_that_can_not_be_opened_is_opened_once_it_can_and_until_then_it_is_told(
    tmp_path: Path,
) -> None:
    file = tmp_path / "things.db"
    writer = GroupCommit(lambda: Database(file, "things", SCHEMA, make=False), lambda: None)
    with pytest.raises(StoreUnavailable, match="gone"):
        writer.run(lambda: None)
    assert "gone" in str(writer.trouble())
    Database(file, "things", SCHEMA).close()
    eventually(lambda: writer.trouble() is None)
    assert writer.run(lambda: 1) == 1
    writer.close()


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "things.db"
    file.write_bytes(b"no database, whatever its name is" * 100)
    writer = GroupCommit(lambda: Database(file, "things", SCHEMA, make=False), lambda: None)
    assert "not a database" in str(writer.trouble())
    writer.close()


def test_what_can_not_be_written_is_told_until_it_can_and_a_refusal_is_no_such_trouble(
    database: Database, writer: GroupCommit
) -> None:
    def refuse() -> None:
        raise NotFound("thing", 1)

    with pytest.raises(NotFound):
        writer.run(refuse)
    assert writer.trouble() is None
    other = Database(database.path, "things", SCHEMA)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        writer.run(lambda: None)
    assert "locked" in str(writer.trouble())
    other.execute("ROLLBACK")
    eventually(lambda: writer.trouble() is None)
    assert database.meta("tried") is None
    other.close()
