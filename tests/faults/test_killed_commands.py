"""A command that is killed at any moment leaves nothing behind that is wrong, and can be run again.

It runs in a fork of this process. The fork ends before a statement of SQL, at a command to Redis, or
before a file's name changes. `TALLY_TEST_EVERY=1` tries each of these moments: some hundreds.
"""

import os
import pickle
import random
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import pytest

from support.redis_double import Line
from support.world import KEY, World
from tally.commands.restore import put_back
from tally.recovery import lost_customers
from tally.recovery.rebuilding import Rebuilding
from tally.store.copying import copy_database
from tally.store.stream import EventStream

pytestmark = pytest.mark.usefixtures("alone", "quiet")

EVERY = int(os.environ.get("TALLY_TEST_EVERY", "17"))
_FILES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}  # in sys.addaudithook
_KILLED = 9

Command = Callable[[World, EventStream], object]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """All that clients and others do, applied and on the stream."""
    (tmp_path / "world").mkdir()
    world = World(20190106, tmp_path / "world")
    world.random = random.Random(20190106)
    world.start()
    _go_on(world)
    world.come_to_rest()
    return world


def _go_on(world: World) -> None:
    for _ in range(2):
        world.open_account()
        world.create_customers()
        world.create_invoices()
        world.create_invoices()
        world.change_invoice()
        world.move_customer()
        world.create_credit()
        world.another_program_publishes()
        world.all_turn()
        world.all_turn()
    world.delete_invoice()
    world.delete_customer()


def test_rebuild_from_the_stream(world: World) -> None:
    _go_on(world)
    world.come_to_rest()
    world.stop()
    _spoil(world)
    _kill_everywhere(world, _rebuild)


def test_rebuild_from_customers_db(world: World) -> None:
    """It doesn't know what other programs told of its customers. That goes, with consent."""
    world.stream().trim(0)
    _go_on(world)
    world.come_to_rest()
    world.stop()
    _spoil(world)

    def rebuild(world: World, stream: EventStream) -> None:
        _rebuild(world, stream)
        world.doubtful |= world.lost_foreign()

    _kill_everywhere(world, rebuild)


@pytest.mark.parametrize("begins", ["with nothing", "with a copy"])
def test_recover_customers(world: World, begins: str) -> None:
    copy = world.data.parent / "copy.db" if begins == "with a copy" else None
    if copy:
        copy_database(world.data / "customers.db", copy, lambda done: None)
    _go_on(world)
    world.stop()
    world.remove("customers")
    world.note_losses()
    _kill_everywhere(world, partial(_recover, copy))


def test_restore(world: World) -> None:
    copies = world.data.parent / "copies"
    copies.mkdir()
    for name in ("accounts.db", "customers.db"):
        copy_database(world.data / name, copies / name, lambda done: None)
    _go_on(world)
    world.come_to_rest()
    world.stop()
    _kill_everywhere(world, lambda world, stream: put_back(world.data, copies, stream, lambda told: True))


def _rebuild(world: World, stream: EventStream) -> None:
    with closing(Rebuilding(world.data, stream, lambda told: True)) as rebuilding:
        rebuilding.run()


def _recover(copy: Path | None, world: World, stream: EventStream) -> None:
    if not (world.data / "customers.db").exists():  # it may have been killed after its last step
        lost_customers.recover(world.data, stream, copy)


def _spoil(world: World) -> None:
    with closing(sqlite3.connect(world.data / "accounts.db")) as database, database:
        database.execute("UPDATE customer SET revenue_cents = revenue_cents + 7 WHERE account_id IS NOT NULL")


def _kill_everywhere(world: World, command: Command) -> None:
    """Kill the command at some of its moments, each time from the same state, and see that all ends well."""
    directory = world.data.parent
    saved, state = directory.with_name("saved"), directory.with_name("state")
    shutil.copytree(directory, saved)

    def run(moment: int) -> None:
        stream = EventStream(world.redis.client(Line(_Moments(world, moment, state))), KEY)
        command(world, stream)

    def see() -> None:
        if state.exists():
            world.redis.go_back(pickle.loads(state.read_bytes()))  # noqa: S301 -- it is our own
            command(world, world.stream())
        world.start()
        world.settle()
        world.compare()

    for moment in count(1, EVERY):
        shutil.rmtree(directory)
        shutil.copytree(saved, directory)
        state.unlink(missing_ok=True)
        ended = _forked(lambda at=moment: run(at))  # type: ignore[misc]
        assert ended in (0, _KILLED)
        assert _forked(see) == 0, f"killed at moment {moment}"
        if ended == 0:
            assert moment > EVERY, "it was never killed"
            return


class _Moments:
    """Counts the moments of this process; at the wanted one it keeps Redis's state in a file, and ends."""

    def __init__(self, world: World, wanted: int, state: Path) -> None:
        self._world, self._left, self._state = world, wanted, state
        apsw.connection_hooks.append(self._watch)
        sys.addaudithook(self._audit)

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._state.write_bytes(pickle.dumps(self._world.redis.keys))
            os._exit(_KILLED)

    def _watch(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._statement

    def _statement(self, *_: object) -> bool:
        self()
        return True

    def _audit(self, event: str, _: tuple[Any, ...]) -> None:
        if event in _FILES:
            self()


def _forked(work: Callable[[], None]) -> int:
    """Do the work in a fork of this process; answer its exit status."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
