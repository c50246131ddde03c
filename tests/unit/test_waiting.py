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


def test_a_process_that_stood_still_while_it_looked_looks_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an hour of Ctrl-Z, all who waited were left waiting for four hours more."""
    clock, stood_still, looks = time.monotonic, [0.0], list[int]()
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stood_still[0])

    def is_over() -> bool:
        looks.append(1)
        stood_still[0] = 3600.0
        return len(looks) > 1

    went_on = threading.Event()
    Waiting(lambda _: went_on.set()).add("it", NotYet(clock() + 7200, is_over))
    assert went_on.wait(20)
