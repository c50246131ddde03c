"""Several hosts on one machine: network namespaces, with lines between them that can be cut.

Each has a line to a host in the middle, which forwards their packets to each other.
"""

import ctypes
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import urllib3

from support.disks import unavailable
from support.tally import ROOT, Client, Tally

_NETWORK = 0x40000000  # CLONE_NEWNET
_NOBODY = "02:00:00:00:00:fe"  # no interface has this address: packets to it are lost silently
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host with a line to the middle one."""

    def __init__(self, name: str, middle: str, number: int) -> None:
        self.name = name
        self.address, self.of_middle = f"10.77.{number}.2", f"10.77.{number}.1"
        self._middle, self._line = middle, f"line{number}"
        _ip("link", "add", self._line, "netns", middle, "type", "veth", "peer", "name", "line", "netns", name)
        for namespace, line, address in ((middle, self._line, self.of_middle), (name, "line", self.address)):
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", line)
            _ip("-n", namespace, "link", "set", line, "up")
        _ip("-n", name, "route", "add", "default", "via", self.of_middle)

    def cut(self, *, out: bool = True, back: bool = True) -> None:
        """Lose all packets from this host, all packets to it, or both."""
        if out:
            self._lose(self.name, "line", self.of_middle)
        if back:
            self._lose(self._middle, self._line, self.address)

    def mend(self) -> None:
        """Stop losing packets."""
        for namespace, line, address in (
            (self.name, "line", self.of_middle),
            (self._middle, self._line, self.address),
        ):
            subprocess.run(["ip", "-n", namespace, "neigh", "del", address, "dev", line], check=False)

    def _lose(self, namespace: str, line: str, address: str) -> None:
        _ip("-n", namespace, "neigh", "replace", address, "lladdr", _NOBODY, "nud", "permanent", "dev", line)


@contextmanager
def hosts(count: int) -> Iterator[tuple[str, list[Host]]]:
    """The name of the middle host, and `count` hosts around it. Skipped where there can be none."""
    prefix = f"tally-{secrets.token_hex(3)}"
    names = [f"{prefix}-{number}" for number in range(count + 1)]
    with ExitStack() as stack:
        for name in names:
            try:
                _ip("netns", "add", name)
            except (OSError, subprocess.CalledProcessError) as error:
                unavailable("network namespaces", str(getattr(error, "stderr", error)))
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            _ip("-n", name, "link", "set", "lo", "up")
        middle, *around = names
        _ip("netns", "exec", middle, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        yield middle, [Host(name, middle, number) for number, name in enumerate(around, 1)]


@contextmanager
def process_at(host: str, command: Sequence[str | Path], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process on a host, for as long as the context lasts."""
    process = begun_at(host, command, output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def begun_at(host: str, command: Sequence[str | Path], output: Path) -> "subprocess.Popen[bytes]":
    """Start a process on a host, in its own session. The caller has to end it."""
    with output.open("wb") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, *map(str, command)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


class ClientAt(Client):
    """A client of a service that connects from a host: the service's own, or another.

    `address` is the service's, as seen from there.
    """

    def __init__(self, host: str, port: int, token: str | None = None, address: str = "127.0.0.1") -> None:
        super().__init__(port, token, address)
        self._host = host

    def request(self, *arguments: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request from that host."""
        with at(self._host):
            return super().request(*arguments, **options)


class TallyAt(Tally):
    """A Tally on a host, with clients on the same host."""

    def __init__(self, host: Host, directory: Path, settings: dict[str, dict[str, Any]]) -> None:
        super().__init__(directory, settings)
        self.host = host
        self.sign_in(None)

    def sign_in(self, token: str | None) -> None:
        """Have its clients send that token from now on."""
        self.customers, self.accounts = (
            ClientAt(self.host.name, part["port"], token, part.get("host", "127.0.0.1"))
            for part in (self.settings["customers"], self.settings["accounts"])
        )

    def launch(self) -> None:
        """Start the supervisor, and don't wait."""
        path = self.written()
        with at(self.host.name):
            self.begin_registry(path)
        self.output = self.directory / "output.txt"
        self.process = begun_at(
            self.host.name, [sys.executable, ROOT / "supervisor.py", "run", "--config", path], self.output
        )


@contextmanager
def at(host: str) -> Iterator[None]:
    """Have this thread be on a host: it connects from there."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{host}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(here)
        os.close(here)
        os.close(there)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
