"""The parts that all processes under the supervisor share: a name, signs of life, an orderly end.

An actor ends when it is told to (SIGTERM), and at once when its supervisor is gone. It holds the reading end
of a pipe; the supervisor holds the only writing end. Once that is gone, the actor reads end-of-file.
"""

import ctypes
import faulthandler
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import msgspec
import structlog
from setproctitle import setproctitle
from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_random_exponential

from tally.actors import logs
from tally.actors.doorbell import Doorbell, StopOrder
from tally.config import LogSettings
from tally.store.errors import StoreError, StoreUnavailable
from tally.store.stream import RedisError

BEAT_SECONDS = 0.5  # how often, at the most, an actor shows that its main loop turns
TURN_SECONDS = 1.0  # how long a turn of a main loop waits for something to do
LONGEST_RETRY_SECONDS = 1.0
CALM_SECONDS = 1.0  # a trouble is over after so long without a failure since the last wait
START_SECONDS = 30.0  # how long an actor may take to be ready: others may be using its database

PASSING = (RedisError, StoreUnavailable)
"""Faults of the surroundings. They pass, and the work is tried again."""

_log = structlog.get_logger()


class Report(msgspec.Struct, frozen=True):
    """An actor's report to its supervisor: it is alive, and waiting out `trouble`, if any.

    `ready` once it does its work; `failed` tells why it can't, and ends.
    """

    ready: bool = False
    trouble: str | None = None
    failed: str | None = None


class CannotStart(Exception):
    """An actor can't do its work; the message says why in one line, for the user."""


class Actor:
    """This process, as an actor's main function sees it."""

    def __init__(self, name: str, reports: int) -> None:
        self.name = name
        self.stopping = StopOrder()
        self._reports = reports
        self._report = Report()
        self._next_beat = 0.0
        self._waits_until = time.monotonic() + START_SECONDS
        # It beats only while this says so: another thread may do the work, and may stand still.
        self.is_well: Callable[[], bool] = lambda: True
        # Called on a stop, by a signal handler: it may only wake a loop.
        self.on_stop: Callable[[], object] = lambda: None
        os.set_blocking(self._reports, False)

    def ready(self) -> None:
        """Tell that the work has begun. May be repeated."""
        if not self._report.ready:
            self.expect(0)
            self._tell(Report(ready=True, trouble=self._report.trouble))

    def beat(self) -> None:
        """Show that the main loop turns. Cheap enough for every turn; blocks never."""
        if time.monotonic() >= self._next_beat and self.is_well():
            self._show()

    def expect(self, seconds: float) -> None:
        """Tell that the main loop may now wait for so long and is still alive; 0: the wait is over.

        Another thread beats meanwhile, and no longer. So a bounded wait may exceed the heartbeat's limit, and
        a hang is still noticed.
        """
        self._waits_until = time.monotonic() + seconds if seconds else 0.0

    def beat_for_who_waits(self) -> None:
        """Beat for the main loop during a wait that it announced with `expect`. For another thread."""
        if time.monotonic() < self._waits_until:
            self.beat()

    def trouble(self, reason: str | None) -> None:
        """Tell which trouble is being waited out, or with None that it is over. Logs each change."""
        if reason != self._report.trouble:
            if reason:
                _log.warning("trouble", reason=reason)
            else:
                _log.info("trouble_over")
            self._tell(Report(self._report.ready, reason))

    def wait(self, seconds: float, *others: Doorbell | int) -> None:
        """Sleep, beating, until the time is over, one of `others` is readable, or the actor must stop."""
        deadline = time.monotonic() + seconds
        while not self.stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            self.beat()
            if self.stopping.wait(min(left, TURN_SECONDS), *others):
                return

    def repeat(self, step: Callable[[], str | None], until: Callable[[], bool] = lambda: False) -> None:
        """Call `step` until the actor must stop or `until` is true. When the surroundings fail, try again.

        `step` answers the trouble it sees, if any, which is told like a failure. The waits grow with each
        failure. A trouble is over only when steps have succeeded for a while, because a step that does
        another part of the work may succeed in between.
        """
        failures, over_at = 0, 0.0
        while not (self.stopping.is_set() or until()):
            self.beat()
            try:
                trouble = step()
            except PASSING as error:
                failures += 1
                self.trouble(f"{type(error).__name__}: {error}")
                self.wait(delay(_WAITS, failures))
                over_at = time.monotonic() + CALM_SECONDS
            else:
                if trouble or time.monotonic() >= over_at:
                    failures = 0
                    self.trouble(trouble)

    def attempt(self, step: Callable[[], object]) -> None:
        """Call `step` once. When the surroundings fail, report it: a later repetition makes up for it."""
        try:
            step()
        except PASSING as error:
            self.trouble(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """Ask the main function to end. Safe in a signal handler; may be repeated."""
        self.stopping.set()
        self.on_stop()

    def _tell(self, report: Report) -> None:
        self._report = report
        self._show()

    def _show(self) -> None:
        self._next_beat = time.monotonic() + BEAT_SECONDS
        tell(self._reports, self._report)


_WAITS = wait_random_exponential(multiplier=0.05, max=LONGEST_RETRY_SECONDS)


def delay(waits: wait_base, failures: int) -> float:
    """How many seconds to wait after so many failures in a row."""
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = failures
    return waits(state)


def tell(reports: int, report: Report) -> None:
    """Write a report to a pipe, in one piece. Never blocks; drops the report if the pipe is full."""
    told = msgspec.structs.replace(report, trouble=_short(report.trouble), failed=_short(report.failed))
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(reports, msgspec.json.encode(told) + b"\n")


def _short(text: str | None) -> str | None:
    return text[:500] if text else None


Main = Callable[[Actor], None]


def run(name: str, main: Main, reports: int, lifeline: int, log: LogSettings) -> NoReturn:
    """Be the actor `name` until `main` returns: the whole life of a process, right after its fork.

    Expects SIGTERM and SIGHUP to be blocked, and unblocks them when their handlers are set.
    """
    setproctitle(f"tally: {name}")
    logs.configure(log, name)
    actor = Actor(name, reports)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda *_: actor.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.enable()  # a hanging process is ended with SIGABRT, which then shows where it hung
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    threading.Thread(target=_end_with_supervisor, args=(actor, lifeline), daemon=True).start()
    die_with_parent(signal.SIGKILL)
    try:
        main(actor)
    except (CannotStart, StoreError) as error:  # their messages say what to do; a stack adds nothing
        tell(reports, Report(failed=str(error)))
        sys.exit(1)
    except Exception as error:
        _log.exception("actor_died")
        tell(reports, Report(failed=f"{type(error).__name__}: {error}"))
        sys.exit(1)
    sys.exit(0)


def _end_with_supervisor(actor: Actor, lifeline: int) -> None:
    ended = select.poll()
    ended.register(lifeline, select.POLLIN)
    while not ended.poll(BEAT_SECONDS * 1000):
        actor.beat_for_who_waits()
    os._exit(1)


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent(number: signal.Signals) -> None:
    """Have Linux send this process a signal when its parent's main thread ends.

    Unlike the pipe, it also reaches a stopped process, and a program that isn't ours.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
