"""A Tally to be measured, in its own directory, on free ports and a private Redis."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.client import Client, Unexpected
from tally import config
from tally.actors import redis_access
from tally.actors.actor import die_with_parent

SUPERVISOR = Path(__file__).parents[1] / "supervisor.py"
START_SECONDS = 30.0
STOP_SECONDS = 30.0

Sections = dict[str, dict[str, Any]]


class Running:
    """A supervisor and the actors of `roles`, by default all.

    `start_seconds` is the time from `started`, on the monotonic clock, to its "ready after"; `directory`
    holds its data.
    """

    def __init__(self, directory: Path, sections: Sections, roles: Sequence[str] = ()) -> None:
        self.customers_port, self.accounts_port, redis_port = free_ports(3)
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self._log = directory / "log.txt"
        config = directory / "tally.toml"
        config.write_text(_toml(self._settings(directory, sections)))
        only = [word for role in roles for word in ("--only", role)]
        command = [sys.executable, str(SUPERVISOR), "run", "--config", str(config), *only]
        self.directory = directory / "data"
        self.started = started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # if this process is killed
            )
        try:
            self._await_ready(started + START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - started

    @property
    def own_redis_url(self) -> str:
        """The URL that Tally's own processes use; clients that read or publish use `redis_url`."""
        return redis_access.url(config.load(self.directory.parent / "tally.toml", {}))

    def customers(self) -> Client:
        """A new connection to the customers service."""
        return Client(self.customers_port)

    def accounts(self) -> Client:
        """A new connection to the accounts service."""
        return Client(self.accounts_port)

    def processes(self) -> dict[str, psutil.Process]:
        """All current processes, by name: the actors, `supervisor` and `redis-server`."""
        supervisor = psutil.Process(self._process.pid)
        found = {"supervisor": supervisor}
        for process in supervisor.children(recursive=True):
            try:
                title = " ".join(process.cmdline()).strip()
            except psutil.Error:
                continue  # ended meanwhile
            is_actor = title.startswith("tally: ")
            found[title.removeprefix("tally: ") if is_actor else "redis-server"] = process
        return found

    def settled(self) -> bool:
        """Whether everything committed is published and applied. Raises Unexpected for dead letters."""
        with closing(self.customers()) as customers, closing(self.accounts()) as accounts:
            reports = [customers.get("/status"), accounts.get("/status")]
        if any(report["redis"]["dead_letters"] for report in reports):
            raise Unexpected(f"dead letters: {reports}")
        return all(
            report["outbox_depth"] == 0
            and report["redis"]["pending"] == 0
            and not any(report["redis"]["lag"].values())
            for report in reports
        )

    def stop(self) -> None:
        """Stop it in order. Raises Unexpected if that fails or takes longer than STOP_SECONDS."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Unexpected(
                f"still running {STOP_SECONDS:.0f} s after SIGTERM: {self._last_words()}"
            ) from None
        if status:
            raise Unexpected(f"ended with status {status}: {self._last_words()}")

    def kill(self) -> None:
        """Kill all its processes. May be repeated."""
        if self._process.poll() is None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children, timeout=STOP_SECONDS)
            self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def _settings(self, directory: Path, sections: Sections) -> Sections:
        own: Sections = {
            "data": {"directory": str(directory / "data")},
            "redis": {"url": self.redis_url, "embedded": "always"},
            "customers": {"port": self.customers_port},
            "accounts": {"port": self.accounts_port},
        }
        return {name: own.get(name, {}) | sections.get(name, {}) for name in own | sections}

    def _await_ready(self, deadline: float) -> None:
        assert self._process.stdout
        said = b""
        while b"ready after" not in said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Unexpected(f"not ready after {START_SECONDS:.0f} s: {self._last_words()}")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise Unexpected(f"ended before it was ready: {self._last_words()}")
            said += part

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def scratch(base: Path | None) -> Iterator[Path]:
    """An empty directory under `base`, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tally-benchmark-", dir=base) as name:
        yield Path(name)


@contextmanager
def running(
    base: Path | None = None,
    *,
    roles: Sequence[str] = (),
    prepare: Callable[[Path], None] | None = None,
    **sections: dict[str, Any],
) -> Iterator[Running]:
    """Run Tally on a data directory under `base`; stopped in order at the end.

    The directory is empty, except for files from `prepare`.
    If the body raises, even KeyboardInterrupt, all its processes are killed instead.
    """
    with scratch(base) as directory:
        if prepare:
            prepare(directory / "data")
        with started(directory, roles=roles, **sections) as tally:
            yield tally


@contextmanager
def started(directory: Path, *, roles: Sequence[str] = (), **sections: dict[str, Any]) -> Iterator[Running]:
    """Run Tally on the existing data in `directory`; stopped in order at the end.

    If the body raises, even KeyboardInterrupt, all its processes are killed instead.
    """
    tally = Running(directory, sections, roles)
    try:
        yield tally
        tally.stop()
    finally:
        tally.kill()


def _environment() -> dict[str, str]:
    """This process's environment, without settings for Tally: they would win over the file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TALLY_")}


def _toml(sections: Sections) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in sections.items()
    )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that no process listens on, below the range for outgoing connections."""
    found: list[int] = []
    port = 20000 + os.getpid() * 37 % 10000
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
