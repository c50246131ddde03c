"""Slow rankings are computed outside the requests, one at a time, and kept for a while."""

import threading
import time
from array import array
from typing import NoReturn

import pytest

from support.waiting import eventually, known
from tally.http.rankings import MOST_KEPT, REST_SECONDS, Ranked, Ranking, Rankings


def _wanted(account: int) -> Ranked:
    return Ranked(None, account, None, "-revenue")


def _await(rankings: Rankings, wanted: Ranked) -> Ranking:
    return known(lambda: rankings.ask(wanted))


def test_nobody_waits_for_an_order_and_it_is_made_once() -> None:
    go, made = threading.Event(), []

    def make(wanted: Ranked) -> "array[int]":
        made.append(wanted)
        go.wait()
        return array("q", [3, 1, 2])

    rankings = Rankings(make)
    for _ in range(3):
        assert rankings.ask(_wanted(1)) is None
        assert rankings.ask(_wanted(2)) is None
    go.set()
    assert [*_await(rankings, _wanted(1)).ids] == [3, 1, 2]
    _await(rankings, _wanted(2))
    assert rankings.ask(_wanted(1)) is rankings.ask(_wanted(1))
    assert made == [_wanted(1), _wanted(2)]


def test_only_the_last_few_are_kept() -> None:
    rankings = Rankings(lambda wanted: array("q", [wanted.account_id or 0]))
    for account in range(MOST_KEPT + 1):
        _await(rankings, _wanted(account))
    assert [*_await(rankings, _wanted(MOST_KEPT)).ids] == [MOST_KEPT]
    assert rankings.ask(_wanted(0)) is None


def test_an_old_order_is_shown_until_a_newer_one_is_there() -> None:
    made: list[int] = []

    def make(_: Ranked) -> "array[int]":
        made.append(1)
        return array("q", [len(made)])

    rankings = Rankings(make, rest=0)
    first = _await(rankings, _wanted(1))
    eventually(lambda: _await(rankings, _wanted(1)).ids[0] > first.ids[0])


def test_what_goes_wrong_is_told_to_who_asks_and_then_tried_again() -> None:
    failures = [LookupError("no room")]

    def make(_: Ranked) -> "array[int]":
        if failures:
            raise failures.pop()
        return array("q", [7])

    rankings = Rankings(make)

    def told() -> bool:
        try:
            rankings.ask(_wanted(1))
        except LookupError:
            return True
        return False

    eventually(told)
    assert [*_await(rankings, _wanted(1)).ids] == [7]


def _no_thread(_: threading.Thread) -> NoReturn:
    """As if the machine had no more threads."""
    raise RuntimeError("can't start new thread")


def test_an_order_for_which_there_was_no_thread_is_made_when_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rankings = Rankings(lambda _: array("q", [3]))
    with monkeypatch.context() as busy:
        busy.setattr(threading.Thread, "start", _no_thread)
        assert rankings.ask(_wanted(1)) is None
    assert [*_await(rankings, _wanted(1)).ids] == [3]


def test_an_order_in_whose_making_the_process_stood_still_is_made_again_as_soon_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an hour of Ctrl-Z, the same order was shown for twenty hours."""
    clock, stood_still = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stood_still[0])
    is_made = threading.Event()

    def make(_: Ranked) -> "array[int]":
        stood_still[0] = 3600.0
        is_made.set()
        return array("q", [7])

    rankings = Rankings(make)
    rankings.ask(_wanted(1))
    assert is_made.wait(20)
    assert _await(rankings, _wanted(1)).due - time.monotonic() <= REST_SECONDS
