"""All processes stop for a while and continue: a suspended machine, a paused container, Ctrl-Z and fg.

No live process is killed, the private Redis included. Accepted invoices are counted once.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.load import Load
from support.tally import Tally, running
from support.waiting import eventually

HEARTBEAT = {"heartbeat_timeout": 2}
LONGER_THAN_THE_HEARTBEAT = 5.0  # seconds


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    """A Tally with the shortest heartbeat_timeout, on a private Redis."""
    with running(tmp_path, supervisor=HEARTBEAT, customers={"processes": 2}) as tally:
        yield tally


@contextmanager
def standing_still(processes: list[psutil.Process]) -> Iterator[None]:
    """Stop the processes; at the end let them continue, in that order."""
    for process in reversed(processes):
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def _everyone(tally: Tally) -> list[psutil.Process]:
    supervisor = psutil.Process(tally.process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _is_unharmed(tally: Tally, before: dict[str, int], load: Load) -> None:
    load.goes_on(100)
    time.sleep(3)  # any process that is wrongly taken for hung is killed by now
    assert tally.pids() == before
    assert "actor_hangs" not in tally.said()
    assert "actor_ended" not in tally.said()


@pytest.mark.parametrize("late", [0.0, 0.5], ids=["together", "the supervisor first"])
def test_all_stand_still_for_longer_than_the_heartbeat_and_nobody_is_killed(
    tally: Tally, late: float
) -> None:
    before = tally.pids()
    supervisor, *actors = _everyone(tally)
    with Load(tally, clients=2) as load:
        load.goes_on(100)
        with standing_still(actors):
            with standing_still([supervisor]):
                time.sleep(LONGER_THAN_THE_HEARTBEAT)
            time.sleep(late)
        _is_unharmed(tally, before, load)
    load.is_counted_once()
    assert tally.stop() == 0


def test_ctrl_z_and_fg(tally: Tally) -> None:
    before = tally.pids()
    with Load(tally, clients=2) as load:
        load.goes_on(100)
        os.killpg(tally.process.pid, signal.SIGTSTP)  # the private server is in a session of its own
        time.sleep(LONGER_THAN_THE_HEARTBEAT)
        os.killpg(tally.process.pid, signal.SIGCONT)
        _is_unharmed(tally, before, load)
    load.is_counted_once()


def test_the_supervisor_alone_stands_still(tally: Tally) -> None:
    before = tally.pids()
    with Load(tally, clients=2) as load:
        with standing_still(_everyone(tally)[:1]):
            time.sleep(LONGER_THAN_THE_HEARTBEAT)
        _is_unharmed(tally, before, load)
    load.is_counted_once()


def test_what_stands_still_while_it_stops_has_its_time_to_stop_anew(tally: Tally) -> None:
    with Load(tally, clients=2) as load:
        load.goes_on(50)
    everyone = _everyone(tally)
    with standing_still(everyone):
        os.kill(tally.process.pid, signal.SIGTERM)
        time.sleep(LONGER_THAN_THE_HEARTBEAT)
    assert tally.process.wait(30) == 0
    assert "actor_hangs" not in tally.said()
    assert "Aborted" not in tally.said()
    tally.start()
    load.is_counted_once()


def test_what_alone_stands_still_is_replaced_after_all_stood_still(tally: Tally) -> None:
    with standing_still(_everyone(tally)):
        time.sleep(LONGER_THAN_THE_HEARTBEAT)
    stopped = tally.kill("accounts-consumer-1", signal.SIGSTOP)
    eventually(lambda: tally.pids().get("accounts-consumer-1", stopped) != stopped)
    assert tally.said().count("actor_hangs") == 1
