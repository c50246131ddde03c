"""Chaos: random faults of a running Tally, from a seed, while load runs."""

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from support.disks import copied_while_in_use, replaced
from support.load import Load
from support.proxy import Proxy
from support.redis_process import RedisProcess
from support.tally import Tally
from support.waiting import eventually

LONGEST_FAULT_SECONDS = 3.0


class Chaos:
    """Strikes a Tally that reaches the Redis `server` through `proxy`. `seed` decides the faults and times.

    `retention` is the stream's retention (seconds), if given: then Tally is stopped for longer than that, and
    files that only the stream or an outbox could bring back stay in place.
    """

    def __init__(
        self, tally: Tally, server: RedisProcess, proxy: Proxy, seed: int, retention: float | None = None
    ) -> None:
        self._tally = tally
        self._server = server
        self._proxy = proxy
        self._random = random.Random(seed)
        self._faults: dict[str, Callable[[], None]] = {
            "actor killed": self._kill,
            "actor stopped": self._stop,
            "redis killed": self._redis_killed,
            "redis stopped": self._redis_stopped,
            "network stalled": self._stall,
            "network cut": self._cut,
            "all frozen": self._freeze,
        }
        self._retention = retention or 0.0
        if retention:
            self._faults |= {"stopped for longer than the retention": self._stop_for_long}
        else:
            self._faults |= {
                "stream lost": self._forget,
                "entries deleted": self._delete_entries,
                "backup put back": self._put_back,
            }
        self._copies: dict[str, Path] = {}
        self.probe = Load(tally)
        self.struck: Counter[str] = Counter()
        self.longest_recovery = 0.0  # seconds from a fault's end until invoices posted then are counted

    def strike(self) -> None:
        """Let one fault happen and pass, and wait until later invoices are counted."""
        name = self._random.choice([*self._faults])
        self._faults[name]()
        self.struck[name] += 1
        passed = time.monotonic()
        self.probe.post()
        eventually(self.probe.counted)
        self.longest_recovery = max(self.longest_recovery, time.monotonic() - passed)

    @property
    def to_be_exact(self) -> dict[str, bool]:
        """The arguments of `Load.exact` after these faults."""
        return {
            "once": not self.struck["stream lost"],
            "on_stream": not self.struck["entries deleted"] and not self._retention,
        }

    def _actor(self) -> psutil.Process:
        """One that runs now. It may end at any moment: the supervisor kills one that was stopped."""
        while True:
            with suppress(psutil.NoSuchProcess):
                return psutil.Process(self._random.choice(sorted(self._tally.pids().values())))

    def _kill(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            _signal(self._actor(), signal.SIGKILL)
            time.sleep(self._random.uniform(0, 0.3))  # when a fault strikes is chance, not a condition

    def _stop(self) -> None:
        actor = self._actor()
        _signal(actor, signal.SIGSTOP)
        self._pause()
        _signal(actor, signal.SIGCONT)

    def _redis_killed(self) -> None:
        self._server.kill()
        self._pause()
        self._server.start()

    def _redis_stopped(self) -> None:
        self._server.signal(signal.SIGSTOP)
        self._pause()
        self._server.signal(signal.SIGCONT)

    def _forget(self) -> None:
        client = self._server.client
        if self._random.random() < 0.5:
            client.flushall()
        else:
            client.delete("event-stream")

    def _stall(self) -> None:
        self._random.choice([self._proxy.stall, self._proxy.swallow])()
        self._pause()
        self._proxy.go_on()

    def _cut(self) -> None:
        for _ in range(self._random.randint(1, 5)):
            if self._random.random() < 0.5:
                self._proxy.cut()
            else:
                self._proxy.cut_after(self._random.randint(0, 2000))

    def _delete_entries(self) -> None:
        """Delete entries as another program does: some are read already, some not."""
        client = self._server.client
        entries: Any = client.xrevrange("event-stream", count=50)
        unlucky = self._random.sample(entries, len(entries) // 3)
        if unlucky:
            client.xdel("event-stream", *(id for id, _ in unlucky))
            self._copies.clear()  # newer changes are now in one file only

    def _freeze(self) -> None:
        """Stop all processes for longer than the heartbeat, then let them continue: a suspended machine."""
        supervisor = psutil.Process(self._tally.process.pid)
        everybody = [supervisor, *supervisor.children(recursive=True)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in everybody:
                _signal(process, number)
            if number == signal.SIGSTOP:
                self._pause()

    def _stop_for_long(self) -> None:
        """Part of the stream was not read yet; the relays trim as soon as they start."""
        self._tally.stop()
        time.sleep(2 * self._retention)
        self._tally.start()

    def _put_back(self) -> None:
        """Replace a database with an earlier copy, then make a copy for the next time.

        Only if all its events are on the stream: a change in no other place is lost with its only file.
        """
        name = self._random.choice(["customers.db", "accounts.db"])
        file, copy = self._tally.directory / "data" / name, self._tally.directory / f"copy-of-{name}"
        if name in self._copies:
            self._tally.stop()
            if not _waiting(file):
                replaced(file, copy)
            self._tally.start()
        copy.unlink(missing_ok=True)
        copied_while_in_use(file, copy)
        self._copies[name] = copy

    def _pause(self) -> None:
        time.sleep(self._random.uniform(0.1, LONGEST_FAULT_SECONDS))  # how long a fault lasts is chance


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _waiting(file: Path) -> int:
    """How many events of an unused database are not on the stream yet."""
    with closing(sqlite3.connect(file)) as database:
        published = database.execute("SELECT value FROM meta WHERE key = 'published'").fetchone() or (0,)
        (count,) = database.execute("SELECT count(*) FROM outbox WHERE sequence > ?", published).fetchone()
        return int(count)
