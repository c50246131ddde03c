"""Requests that wait for events: each goes on, whatever happens to the thread that looks after them."""

import threading
import time
from typing import NoReturn

import pytest

from support.waiting import eventually
from tally.http.after import NotYet, Waiting


def _soon() -> NotYet:
    return NotYet(time.monotonic(), lambda: False)


def _no_thread(_: threading.Thread) -> NoReturn:
    """As if the machine had no more threads."""
    raise RuntimeError("can't start new thread")


def test_without_a_thread_nobody_waits_and_those_after_are_looked_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    went_on: list[str] = []
    waiting = Waiting(went_on.append)
    with monkeypatch.context() as busy:
        busy.setattr(threading.Thread, "start", _no_thread)
        waiting.add("first", _soon())
        assert went_on == ["first"]
    waiting.add("second", _soon())
    eventually(lambda: went_on == ["first", "second"])
