"""A Redis of one test, which can kill it, stop it, and start it again on its data."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import redis

from support.engines import answers, free_port
from support.waiting import eventually
from tally.actors.redis_binaries import bundled

_LOG = "redis.log"


class RedisProcess:
    """The bundled server on a port of its own, with an append-only file in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it on the existing data; wait until it answers."""
        server = bundled()
        assert server is not None
        self.directory.mkdir(parents=True, exist_ok=True)
        own = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --logfile {_LOG}".split()
        where = ["--dir", str(self.directory)]  # first: the log is written there
        self._process = subprocess.Popen([str(server), *where, *own, "--save", "", *options])
        if wait:
            eventually(lambda: answers(self.url))

    def kill(self) -> None:
        """SIGKILL. May be repeated."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        os.kill(self._process.pid, number)

    def copy(self, to: Path) -> None:
        """Copy its append-only file."""
        shutil.copytree(self.directory, to, ignore=shutil.ignore_patterns(_LOG))

    def put_back(self, copy: Path) -> None:
        """Replace its data with a copy, while it doesn't run."""
        assert self._process is None
        shutil.rmtree(self.directory)
        shutil.copytree(copy, self.directory)
