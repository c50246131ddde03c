"""Files with an earlier schema: one process upgrades them completely, or nothing changes."""

import multiprocessing
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tally.store.database import Database
from tally.store.errors import OutdatedDatabase, UnusableDatabase

FIRST = """
CREATE TABLE owner (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE thing (id INTEGER PRIMARY KEY, value INTEGER, owner_id INTEGER REFERENCES owner) STRICT;
"""
# Taking either step twice would show.
STEPS = (
    "ALTER TABLE thing ADD COLUMN note TEXT NOT NULL DEFAULT 'none';",
    "UPDATE thing SET value = value * 2;",
)
NOW = FIRST.replace("REFERENCES owner)", "REFERENCES owner, note TEXT NOT NULL DEFAULT 'none')")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of the first release, with one row in it."""
    database = Database(tmp_path / "things.db", "things", FIRST)
    with database.transaction():
        database.execute("INSERT INTO owner VALUES (1)")
        database.execute("INSERT INTO thing VALUES (1, 21, 1)")
    database.close()
    return database.path


def _migrated(path: Path, *steps: str) -> Database:
    return Database(path, "things", NOW, steps, migrate=True)


def _is_as_the_first_release_left_it(path: Path) -> bool:
    database = Database(path, "things", FIRST)
    rows = database.rows("SELECT * FROM thing")
    database.close()
    return rows == [(1, 21, 1)]


def test_every_step_is_taken_in_order_and_the_identity_stays(path: Path) -> None:
    before = Database(path, "things", FIRST)
    after = _migrated(path, *STEPS)
    assert after.rows("SELECT * FROM thing") == [(1, 42, 1, "none")]
    assert after.value("PRAGMA user_version") == 3
    assert after.identity == before.identity
    assert Database(path, "things", NOW, STEPS).rows("SELECT value FROM thing") == [(42,)]


def test_a_file_of_any_version_between_takes_only_the_steps_it_misses(path: Path) -> None:
    _migrated(path, STEPS[0]).close()
    assert _migrated(path, *STEPS).rows("SELECT * FROM thing") == [(1, 42, 1, "none")]


def test_a_new_file_is_of_the_newest_version_at_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "new.db", "things", NOW, STEPS)
    assert database.value("PRAGMA user_version") == 3


def test_whoever_is_not_asked_to_migrate_leaves_the_file_alone_and_says_what_does(path: Path) -> None:
    with pytest.raises(OutdatedDatabase, match=r"things\.db: .* \(schema 1, this one's is 3\); `run` brings"):
        Database(path, "things", NOW, STEPS)
    assert _is_as_the_first_release_left_it(path)


def test_the_release_before_refuses_what_was_brought_up_to_date(path: Path) -> None:
    _migrated(path, *STEPS).close()
    with pytest.raises(UnusableDatabase, match=r"newer release \(schema 3, this one knows 1\)"):
        Database(path, "things", FIRST)


def test_another_services_file_is_not_migrated(path: Path) -> None:
    with pytest.raises(UnusableDatabase, match="the service things"):
        Database(path, "others", NOW, STEPS, migrate=True)
    assert _is_as_the_first_release_left_it(path)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("ALTER TABLE nowhere ADD COLUMN note TEXT;", "no such table: nowhere"),
        ("INSERT INTO thing (id) VALUES (1);", "UNIQUE constraint failed: thing.id"),
        ("UPDATE thing SET value = 'many';", "cannot store TEXT value in INTEGER column"),
        ("DELETE FROM owner;", "1 rows refer to what is not there"),
    ],
)
def test_a_step_that_fails_changes_nothing_and_says_which_it_was(path: Path, step: str, reason: str) -> None:
    with pytest.raises(UnusableDatabase, match=f"from schema 2 to 3: {reason}.* Nothing was changed"):
        _migrated(path, STEPS[0], step)
    assert _is_as_the_first_release_left_it(path)


def test_a_table_can_take_the_place_of_one_that_others_refer_to(path: Path) -> None:
    step = """
    CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT) STRICT;
    INSERT INTO new (id) SELECT id FROM owner;
    DROP TABLE owner;
    ALTER TABLE new RENAME TO owner;
    """
    database = _migrated(path, step)
    assert database.rows("SELECT owner.name, thing.value FROM owner JOIN thing") == [(None, 21)]


# At `SELECT pause()` in a step, the process says so and waits until it is told to go on.
_MIGRATE = """
import sys, apsw
from pathlib import Path
from tally.store.database import Database

def pause():
    print("paused", flush=True)
    sys.stdin.read()

apsw.connection_hooks.append(lambda connection: connection.create_scalar_function("pause", pause))
path, now, *steps = sys.argv[1:]
Database(Path(path), "things", now, steps, migrate=True)
"""
PAUSE = "SELECT pause();"


@pytest.mark.parametrize(
    "steps",
    [(PAUSE + STEPS[0], STEPS[1]), (STEPS[0], PAUSE + STEPS[1]), (STEPS[0], STEPS[1] + PAUSE)],
    ids=["before the first step", "between the steps", "after the last step"],
)
def test_a_process_killed_meanwhile_leaves_the_file_as_it_was(path: Path, steps: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _MIGRATE, path, NOW, *steps], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    with process, process.stdin, process.stdout:
        assert process.stdout.readline() == b"paused\n"
        process.kill()
    assert _is_as_the_first_release_left_it(path)
    assert _migrated(path, *STEPS).rows("SELECT * FROM thing") == [(1, 42, 1, "none")]


def _open(path: Path, together: Barrier) -> None:
    together.wait(60)
    _migrated(path, *STEPS).close()


def test_several_processes_that_open_it_at_once_take_every_step_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    openers = [context.Process(target=_open, args=(path, together)) for _ in range(3)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0, 0, 0]
    assert Database(path, "things", NOW, STEPS).rows("SELECT * FROM thing") == [(1, 42, 1, "none")]
