"""The supervisor: starts the actors, restarts dead ones, replaces hanging ones, stops all in order.

It has one thread and opens no database and no connection of its own, so forking it is safe. An actor begins
with every module loaded and is at work within milliseconds.
"""

import enum
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import msgspec
import structlog
from tenacity.wait import wait_random_exponential

from tally.actors import actor
from tally.actors.actor import CannotStart, Main, Report
from tally.actors.control import ActorStatus, ControlSocket
from tally.actors.doorbell import Doorbell
from tally.config import LogSettings, SupervisorSettings

STABLE_SECONDS = 1.0  # an actor that was ready for so long restarts at once when it dies
STACK_SECONDS = 1.0  # how long a hanging actor has to write its stack
FAILING_AFTER = 3  # early deaths in a row after which an actor is said to be failing
LATE_SECONDS = 0.5  # a turn this much longer than its wait means that the supervisor itself did not run
_BACKOFF = wait_random_exponential(multiplier=0.1, max=30)  # between restarts of an actor that dies early
_ORDERS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

_log = structlog.get_logger()
_fork = multiprocessing.get_context("fork")


class Stage(enum.IntEnum):
    """When an actor is stopped: lower stages first."""

    HTTP = 1
    CONSUMER = 2
    RELAY = 3
    REDIS = 4


class ActorSpec(msgspec.Struct, frozen=True):
    """The specification of an actor: its name, its main function, when it stops, and its address."""

    name: str
    main: Main
    stage: Stage
    address: str = ""


class State(enum.StrEnum):
    """A state in an actor's life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"  # told to end, for good or to be restarted
    WAITING = "waiting"  # dead, will be started again at `restart_at`
    STOPPED = "stopped"


@dataclass(eq=False)
class Child:
    """A running actor: its process, and the supervisor's knowledge of it. Times are monotonic."""

    spec: ActorSpec
    state: State = State.STOPPED
    process: Any = None
    reports: int | None = None
    ready_at: float | None = None
    beat_at: float = 0.0
    restart_at: float = 0.0
    end_by: float | None = None  # once told to end: when it is killed
    early_deaths: int = 0
    restarts: int = 0
    trouble: str | None = None
    failed: str | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        pid: int | None = self.process.pid if self.process else None
        return pid

    def describe(self) -> ActorStatus:
        """The actor's status, for the control socket."""
        failing = self.early_deaths >= FAILING_AFTER and self.state is not State.RUNNING
        return ActorStatus(
            name=self.spec.name,
            pid=self.pid,
            state="failing" if failing else str(self.state),
            address=self.spec.address,
            uptime_seconds=None if self.ready_at is None else round(time.monotonic() - self.ready_at, 1),
            restarts=self.restarts,
            trouble=self.trouble,
            failed=self.failed,
        )


@dataclass(eq=False)
class Supervisor:
    """Runs `specs` until it is told to stop; `on_ready` is called once all of them are ready.

    No actor may inherit the descriptors `private`. `control` tells clients the actors' states. `before_stop`
    is called before the first actor is told to stop.
    """

    specs: Sequence[ActorSpec]
    settings: SupervisorSettings
    log: LogSettings
    on_ready: Callable[[Sequence[Child]], None]
    private: Sequence[int]
    control: ControlSocket
    before_stop: Callable[[], None]

    def __post_init__(self) -> None:
        self.children = [Child(spec) for spec in self.specs]
        self._to_renew: list[Child] = []  # by SIGHUP, one after another
        self._renewing: Child | None = None  # the one whose turn it is
        self._now = time.monotonic()  # when this turn began to react: the time that all actors are judged by
        self._booted = False
        self._stopping = False
        self._orders: list[int] = []
        self._lifeline, self._held = os.pipe()
        self._woken = Doorbell()  # each signal rings it

    def run(self) -> None:
        """Block until SIGTERM or SIGINT, and until every actor has ended.

        Raises CannotStart, with every actor ended, when one of them ended before it was ready for the first
        time.
        """
        previous = {number: signal.signal(number, self._note) for number in _ORDERS}
        signal.set_wakeup_fd(self._woken.button, warn_on_full_buffer=False)
        try:
            self._boot()
            while not self._stop_orders():
                self._renew()
                self._step()
        finally:
            self._stop()
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self._orders.append(number)

    def _stop_orders(self) -> int:
        return sum(order != signal.SIGHUP for order in self._orders)

    def _boot(self) -> None:
        """Start stage after stage, in reverse order of stopping, and wait until all are ready.

        So no request is answered before the relay has checked that the database is no old copy, and that a
        new one doesn't take another's place.
        """
        for stage in reversed(Stage):
            group = [child for child in self.children if child.spec.stage is stage]
            for child in group:
                self._start(child)
            while not all(child.state is State.RUNNING for child in group):
                if self._stop_orders():
                    return
                self._step()
        self._booted = True
        self.on_ready(self.children)

    def _step(self) -> None:
        """One turn: wait for a report, a death, an order or a due time, and react."""
        now = time.monotonic()
        due = [child.restart_at - now for child in self.children if child.state is State.WAITING]
        due += [child.end_by - now for child in self.children if child.end_by is not None]
        patience = max(0.0, min([actor.TURN_SECONDS, *due]))
        waited: list[Any] = [self._woken, self.control]
        for child in self.children:
            if child.process:
                waited += [child.process.sentinel, child.reports]
        connection.wait(waited, patience)
        self._forgive(patience)
        self._woken.silence()
        self.control.answer([child.describe() for child in self.children])
        for child in self.children:
            self._read_reports(child)
            self._reap(child)
            self._end_what_overstays(child)
            if child.state is State.WAITING and time.monotonic() >= child.restart_at:
                self._restart(child)

    def _forgive(self, waited: float) -> None:
        """Begin to react. If this process did not run for a while, the others may not have run either.

        After a suspended machine, a paused container or Ctrl-Z, a living actor shows a sign of life only once
        it runs again. So that time counts against nobody: actors get a new grace from the next turn on, and
        time to end is extended.
        """
        before, self._now = self._now, time.monotonic()
        passed = self._now - before
        if passed - waited < LATE_SECONDS:
            return
        for child in self.children:
            child.beat_at = self._now + actor.TURN_SECONDS
            if child.end_by is not None:
                child.end_by += passed

    def _start(self, child: Child) -> None:
        """Fork the actor. Its signals are blocked until it has its own handlers. Raises OSError."""
        child.ready_at = child.end_by = child.trouble = None
        before = _descriptors()
        child.reports, writing = os.pipe()
        process = _fork.Process(target=self._live, args=(child.spec, writing), name=child.spec.name)
        signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)
        try:
            process.start()
        except OSError:
            self._close_reports(child)
            for left in _descriptors() - before - {writing}:  # multiprocessing leaves its pipes open
                with suppress(OSError):  # the descriptor that listed them is closed already
                    os.close(left)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)
            os.close(writing)
        os.set_blocking(child.reports, False)
        child.process = process
        child.state = State.STARTING
        child.beat_at = time.monotonic()

    def _restart(self, child: Child) -> None:
        """Start the actor again; later, if the system can't make one more process now."""
        child.restarts += 1
        try:
            self._start(child)
        except OSError as error:
            child.failed = f"can't be started: {error}"
            self._schedule_restart(child, child.failed)

    def _live(self, spec: ActorSpec, reports: int) -> None:
        """In the actor's process: close the supervisor's descriptors, then be the actor."""
        self._woken.close()
        own = [self._held, self.control.fileno(), *self.private]
        own += [other.reports for other in self.children if other.reports is not None]
        for descriptor in own:
            os.close(descriptor)
        actor.run(spec.name, spec.main, reports, self._lifeline, self.log)

    def _read_reports(self, child: Child) -> None:
        if child.reports is None:
            return
        try:
            lines = os.read(child.reports, 65536).splitlines()
        except BlockingIOError:
            return
        for line in lines:
            self._hear(child, msgspec.json.decode(line, type=Report))

    def _hear(self, child: Child, report: Report) -> None:
        child.beat_at = time.monotonic()
        child.trouble = report.trouble
        child.failed = report.failed or child.failed
        if report.ready and child.state is State.STARTING:
            child.state = State.RUNNING
            child.ready_at = time.monotonic()
            child.failed = None

    def _reap(self, child: Child) -> None:
        """Notice that an actor has ended, and decide whether and when to restart it."""
        if child.process is None or child.process.is_alive():
            return
        self._read_reports(child)
        child.process.join()
        status = child.process.exitcode
        child.process.close()
        child.process = child.end_by = None
        self._close_reports(child)
        if self._stopping:
            child.state = State.STOPPED
            return
        if child is self._renewing and child.state is State.STOPPING:
            self._restart(child)
            return
        how = child.failed or describe_exit(status)
        if not self._booted:
            child.state = State.STOPPED
            raise CannotStart(f"{child.spec.name}: {how}")
        self._schedule_restart(child, how)

    def _close_reports(self, child: Child) -> None:
        if child.reports is not None:
            os.close(child.reports)
            child.reports = None

    def _schedule_restart(self, child: Child, how: str) -> None:
        """Restart at once the first time, then after growing delays while it dies before it is stable."""
        now = time.monotonic()
        stable = child.ready_at is not None and now - child.ready_at >= STABLE_SECONDS
        child.early_deaths = 0 if stable else child.early_deaths + 1
        child.restart_at = now
        if child.early_deaths > 1:
            child.restart_at += actor.delay(_BACKOFF, child.early_deaths - 1)
        child.state = State.WAITING
        seconds = round(child.restart_at - now, 2)
        _log.error("actor_ended", ended=child.spec.name, how=how, restart_in_seconds=seconds)

    def _end_what_overstays(self, child: Child) -> None:
        """Kill an actor that overstays its end; end one that has not beaten for `heartbeat_timeout`."""
        if child.process is None:
            return
        if child.end_by is not None:
            if self._now >= child.end_by:
                os.kill(child.process.pid, signal.SIGKILL)
        elif self._now - child.beat_at > self.settings.heartbeat_timeout:
            child.failed = f"no sign of life for {self.settings.heartbeat_timeout:g} s"
            _log.error("actor_hangs", hangs=child.spec.name, pid=child.pid)
            child.end_by = self._now + STACK_SECONDS
            os.kill(child.process.pid, signal.SIGABRT)  # it writes its stack, and ends
            os.kill(child.process.pid, signal.SIGCONT)  # also when it was stopped

    def _renew(self) -> None:
        """After SIGHUP: end the actors one by one, each once the previous one is ready again.

        Redis is left alone: it runs no code of ours, and everything would wait for it.
        """
        if signal.SIGHUP in self._orders:
            self._orders.remove(signal.SIGHUP)
            _log.info("renewing_actors")
            self._to_renew += [
                child
                for child in self.children
                if child.state is not State.STOPPING  # another process follows that one in any case
                and child not in self._to_renew
                and child.spec.stage is not Stage.REDIS
            ]
        if self._renewing and self._renewing.state is State.RUNNING:
            self._renewing = None
        if self._to_renew and not self._renewing:
            self._renewing = self._to_renew.pop(0)
            self._order_end(self._renewing)

    def _stop(self) -> None:
        """Stop stage after stage. Kill actors that outlive `stop_timeout`, and all on a second order."""
        self._stopping = True
        self.before_stop()
        for stage in Stage:
            members = [child for child in self.children if child.spec.stage is stage]
            for child in members:
                self._order_end(child)
            while any(child.process for child in members):
                if self._stop_orders() > 1:
                    for child in members:
                        child.end_by = time.monotonic()
                self._step()

    def _order_end(self, child: Child) -> None:
        if child.process is None:  # waiting to be started again
            if self._stopping:
                child.state = State.STOPPED
            return
        child.state = State.STOPPING
        child.end_by = time.monotonic() + self.settings.stop_timeout
        os.kill(child.process.pid, signal.SIGTERM)


def _descriptors() -> set[int]:
    """The open descriptors of this process. Raises OSError."""
    return {int(name) for name in os.listdir("/proc/self/fd")}


def describe_exit(status: int | None) -> str:
    """How a process ended, in words."""
    if status is not None and status < 0:
        names = {each.value: each.name for each in signal.Signals}  # most real-time signals have none
        return f"killed by {names.get(-status, f'signal {-status}')}"
    return f"ended with status {status}"
