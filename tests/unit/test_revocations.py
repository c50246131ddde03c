"""The list of revoked tokens in a data directory."""

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from support.redis_double import RedisDouble
from support.waiting import PATIENCE
from tally.actors.shared import Shared
from tally.config import load
from tally.store import accounts, customers
from tally.store.errors import StoreUnavailable
from tally.store.revocations import KEPT_SECONDS, Revocations
from tally.store.shared_revocations import exchange
from tally.store.stream import EventStream


def test_of_two_revocations_the_later_one_counts_in_whatever_order_they_come(tmp_path: Path) -> None:
    """The earlier one may come from another node, after the later one was noted here."""
    own = Revocations(tmp_path)
    for at in (100, 50):
        own.add(1, "bob", at)
    assert own.cover(1, "bob", 100)
    assert not own.cover(1, "bob", 101)
    assert [each.at for each in own.all()] == [100]


def test_two_requests_that_see_a_change_at_once_leave_the_newest_list(tmp_path: Path) -> None:
    """One has read the list of before the change, the other is interrupted before any of its lines."""
    for line in range(8):
        directory = tmp_path / str(line)
        directory.mkdir()
        own, writer = Revocations(directory), Revocations(directory)
        writer.add(1, "alice", 50)
        early = Held(partial(own.cover, 2, "bob", 100), "all", "return", 0)
        writer.add(2, "bob", 100)
        late = Held(partial(own.cover, 2, "bob", 100), "cover", "line", line)
        early.finish()
        late.finish()
        assert own.cover(2, "bob", 100), line


class Held:
    """A call in a thread of its own, held at the `number`-th such event in a function, until `finish`."""

    def __init__(self, call: Callable[[], object], function: str, event: str, number: int) -> None:
        self._function, self._event, self._left = function, event, number
        self._held, self._goes_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()
        assert self._held.wait(PATIENCE)

    def finish(self) -> None:
        self._goes_on.set()
        self._thread.join()

    def _run(self, call: Callable[[], object]) -> None:
        sys.settrace(lambda frame, *_: self._trace if frame.f_code.co_name == self._function else None)
        call()
        sys.settrace(None)
        self._held.set()

    def _trace(self, _frame: FrameType, event: str, _value: object) -> Any:
        if event == self._event:
            if not self._left:
                self._held.set()
                self._goes_on.wait(PATIENCE)
            self._left -= 1
        return self._trace


def test_a_revocation_after_one_that_is_forgotten_reaches_the_other_nodes_at_once(tmp_path: Path) -> None:
    server = RedisDouble(lambda: 1_700_000_000_000)
    stream, own, now = EventStream(server.client(), "event-stream"), Revocations(tmp_path), 1_700_000_000
    stream.client.hset(stream.beside("revoked"), "1 bob", now - KEPT_SECONDS - 1)
    own.add(1, "bob", now)
    exchange(stream, own, nullcontext, now)
    assert stream.hash("revoked") == {"1 bob": str(now)}


def test_of_a_node_that_has_lost_both_databases_the_loss_is_told(tmp_path: Path) -> None:
    """Its list is changed while one of them is locked."""
    files = [each.open_database(tmp_path) for each in (accounts, customers)]
    shared = Shared(load(None, {"TALLY_DATA_DIRECTORY": str(tmp_path)}), "", {}, is_private=False)
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    stream.client.hset(stream.beside("revoked"), "1 bob", 100)
    for each in files:
        each.close()
        each.path.unlink()
    with pytest.raises(StoreUnavailable, match="is gone"):
        exchange(stream, Revocations(tmp_path), shared.revoking, 100)
