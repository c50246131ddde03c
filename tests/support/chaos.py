"""Chaos: faults that strike a running Tally at random, from a seed, while load runs."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from support.load import Load
from support.proxy import Proxy
from support.redis_process import RedisProcess
from support.tally import Tally
from support.waiting import eventually

LONGEST_FAULT_SECONDS = 3.0


class Chaos:
    """Strikes a Tally that reaches the Redis `server` through `proxy`. `seed` decides what and when."""

    def __init__(self, tally: Tally, server: RedisProcess, proxy: Proxy, seed: int) -> None:
        self._tally = tally
        self._server = server
        self._proxy = proxy
        self._random = random.Random(seed)
        self._faults: dict[str, Callable[[], None]] = {
            "actor killed": self._kill,
            "actor stopped": self._stop,
            "redis killed": self._redis_killed,
            "redis stopped": self._redis_stopped,
            "stream lost": self._forget,
            "network stalled": self._stall,
            "network cut": self._cut,
        }
        self.probe = Load(tally, accounts=1, customers=1)
        self.struck: Counter[str] = Counter()
        self.longest_recovery = 0.0  # seconds from a fault's end until what is posted then is counted

    def strike(self) -> None:
        """Let one fault happen and pass, and wait until what is posted after it is counted."""
        name = self._random.choice([*self._faults])
        self._faults[name]()
        self.struck[name] += 1
        passed = time.monotonic()
        self.probe.post()
        eventually(self.probe.counted, 60)
        self.longest_recovery = max(self.longest_recovery, time.monotonic() - passed)

    def _actor(self) -> psutil.Process:
        return psutil.Process(self._random.choice(sorted(self._tally.pids().values())))

    def _kill(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._actor().kill()
            time.sleep(self._random.uniform(0, 0.3))  # when a fault strikes is chance, not a condition

    def _stop(self) -> None:
        actor = self._actor()
        actor.suspend()
        self._pause()
        if actor.is_running():
            actor.resume()

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

    def _pause(self) -> None:
        time.sleep(self._random.uniform(0.1, LONGEST_FAULT_SECONDS))  # how long a fault lasts is chance
