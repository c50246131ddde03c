"""A running Tally: the supervisor in its own process, and a client for its two services."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis
import urllib3

from support.engines import free_port
from support.program import SUPERVISOR, Program
from support.waiting import eventually
from tally import config
from tally.actors import redis_access
from tally.config import InvalidSettings, Settings
from tally.store.stream import EventStream

ROOT = SUPERVISOR.parent


# A process that ends may close a kept connection during a request. This is expected, and a request
# that changes nothing is safe to repeat.
_RETRIES = {"GET": urllib3.Retry(total=None, connect=0, read=1, redirect=0, status=0, other=0)}


class Client:
    """One service's HTTP interface, over kept-alive connections; for any number of threads.

    With a `token`, every request carries it. `host` is the address of the service.
    """

    def __init__(self, port: int, token: str | None = None, host: str = "127.0.0.1") -> None:
        self.port = port
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.HTTPConnectionPool(host, port, maxsize=64, timeout=30, retries=False)

    def request(
        self,
        method: str,
        path: str,
        content: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request: `content` as JSON, or `body` as it is."""
        if content is not None:
            body = json.dumps(content).encode()
        retries = _RETRIES.get(method, False)
        return self._pool.request(
            method,
            path,
            body=body,
            headers={**self._headers, **(headers or {})},
            retries=retries,
            timeout=timeout,
        )

    def get(self, path: str) -> Any:
        """The JSON at `path`, which must exist."""
        response = self.request("GET", path)
        assert response.status == 200, (response.status, response.data)
        return response.json()

    def post(self, path: str, content: Any, headers: dict[str, str] | None = None) -> Any:
        """Create something, and return the JSON of the 201."""
        response = self.request("POST", path, content, headers=headers)
        assert response.status == 201, (response.status, response.data)
        return response.json()

    def delete(self, path: str) -> None:
        """Delete the resource at `path`, which must exist."""
        response = self.request("DELETE", path)
        assert response.status == 204, (response.status, response.data)


class Tally:
    """A supervisor in `directory`, and the things that tests do with it."""

    def __init__(self, directory: Path, settings: dict[str, dict[str, Any]], *arguments: str) -> None:
        self.directory = directory
        self.settings = settings
        self.customers: Client = Client(settings["customers"]["port"])
        self.accounts: Client = Client(settings["accounts"]["port"])
        self.environment: dict[str, str] = {}  # variables of its processes, added to this process's
        self._arguments = arguments
        self.process: Program | subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the supervisor, also after it has ended, and wait until all actors are ready."""
        self.launch()
        self.gets_ready()

    def gets_ready(self) -> None:
        """Wait until all actors are ready."""
        eventually(self._is_ready)

    def launch(self) -> None:
        """Start the supervisor, without waiting."""
        path = self.written()
        self.begin_registry(path)
        self.output = self.directory / "output.txt"
        self.output.write_bytes(b"")
        arguments = ["run", "--config", str(path), *self._arguments]
        self.process = Program(arguments, self.output, self.output, {**os.environ, **self.environment})

    def begin_registry(self, path: Path) -> None:
        """Let a new node start at once on a Redis that isn't private; the settings are at `path`."""
        if self.settings["redis"]["embedded"] == "never":
            with suppress(InvalidSettings):
                know_nodes_for_long(config.load(path, {}))

    def written(self) -> Path:
        """Write the settings file anew, and return its path."""
        path = self.directory / "tally.toml"
        path.write_text(toml(self.settings))
        return path

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}: {self.said()}")
        return "ready after" in self.said()

    @property
    def redis_url(self) -> str:
        """The URL that Tally's own processes use; other clients of a private Redis use the settings' URL."""
        return redis_access.url(config.load(self.directory / "tally.toml", {}))

    def said(self) -> str:
        """All output and logs since its start."""
        return self.output.read_text()

    def pids(self) -> dict[str, int]:
        """The live actors, by name."""
        names = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE:
                    names[re.sub("^tally: ", "", " ".join(child.cmdline()).strip())] = child.pid
            except psutil.NoSuchProcess:
                continue
        return names

    def kill(self, actor: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to an actor; return its process id from before."""
        pid = self.pids()[actor]
        os.kill(pid, number)
        return pid

    def stop(self, seconds: float = 30) -> int:
        """Tell the supervisor to stop, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill everything, as if the machine failed: no process may be left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # so it starts no others meanwhile
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            eventually(lambda: not any(map(alive, children)))

    def reports(self) -> list[dict[str, Any]]:
        """The status reports of the two services."""
        return [self.customers.get("/status"), self.accounts.get("/status")]

    def settled(self) -> bool:
        """Whether everything that was committed has been published and applied."""
        return is_settled(self.reports())


def is_settled(reports: list[dict[str, Any]]) -> bool:
    """Whether everything committed was published and applied when these reports were made."""
    return all(
        report["outbox_depth"] == 0
        and report["redis"]["pending"] == 0
        and not any(report["redis"]["lag"].values())
        for report in reports
    )


def know_nodes_for_long(settings: Settings) -> None:
    """If Redis knows no nodes yet, record that it has known them for long: then a new node needn't wait."""
    stream = EventStream.at(settings.redis.full_url, settings.redis.stream, 0.5)
    with suppress(redis.RedisError, OSError):
        stream.client.hsetnx(stream.beside("nodes"), "since", "1")
    stream.client.close()


@contextmanager
def running(
    directory: Path, *arguments: str, redis_url: str | None = None, **sections: dict[str, Any]
) -> Iterator[Tally]:
    """Run Tally in `directory` with free ports; without `redis_url`, on a private Redis."""
    tally = prepared(directory, *arguments, redis_url=redis_url, **sections)
    try:
        tally.start()
        yield tally
    finally:
        tally.end()


def prepared(
    directory: Path, *arguments: str, redis_url: str | None = None, **sections: dict[str, Any]
) -> Tally:
    """The same Tally, not started yet."""
    directory.mkdir(parents=True, exist_ok=True)
    settings: dict[str, dict[str, Any]] = {
        "data": {"directory": str(directory / "data")},
        "redis": {"url": redis_url or f"redis://127.0.0.1:{free_port()}/0"},
        "customers": {"port": free_port()},
        "accounts": {"port": free_port()},
    }
    settings["redis"]["embedded"] = "never" if redis_url else "always"
    for section, values in sections.items():
        settings.setdefault(section, {}).update(values)
    return Tally(directory, settings, *arguments)


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended. A zombie has ended, though nobody may have reaped it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def toml(settings: dict[str, dict[str, Any]]) -> str:
    """Settings in the form of a file."""
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in settings.items()
    )
