"""Several hosts on one machine: network namespaces, with lines between them that can be cut."""

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import urllib3

from support.disks import unavailable
from support.tally import Client

_NETWORK = 0x40000000  # CLONE_NEWNET
_NOBODY = "02:00:00:00:00:fe"  # no interface has this address: what is sent there is lost without a word
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host with a line to the one in the middle."""

    def __init__(self, name: str, middle: str, number: int) -> None:
        self.name = name
        self.address, self.of_middle = f"10.77.{number}.2", f"10.77.{number}.1"
        self._middle, self._line = middle, f"line{number}"
        _ip("link", "add", self._line, "netns", middle, "type", "veth", "peer", "name", "line", "netns", name)
        for namespace, line, address in ((middle, self._line, self.of_middle), (name, "line", self.address)):
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", line)
            _ip("-n", namespace, "link", "set", line, "up")

    def cut(self, *, out: bool = True, back: bool = True) -> None:
        """Lose what is sent from here to the middle, what is sent from there, or both."""
        if out:
            self._lose(self.name, "line", self.of_middle)
        if back:
            self._lose(self._middle, self._line, self.address)

    def mend(self) -> None:
        """Lose nothing any more."""
        for namespace, line, address in (
            (self.name, "line", self.of_middle),
            (self._middle, self._line, self.address),
        ):
            subprocess.run(["ip", "-n", namespace, "neigh", "del", address, "dev", line], check=False)

    def _lose(self, namespace: str, line: str, address: str) -> None:
        _ip("-n", namespace, "neigh", "replace", address, "lladdr", _NOBODY, "nud", "permanent", "dev", line)


@contextmanager
def hosts(count: int) -> Iterator[tuple[str, list[Host]]]:
    """The host in the middle, by its name, and so many around it. Skipped where there can be none."""
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
        yield middle, [Host(name, middle, number) for number, name in enumerate(around, 1)]


@contextmanager
def process_at(host: str, command: Sequence[str | Path], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process on a host, until the end."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["ip", "netns", "exec", host, *map(str, command)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class ClientAt(Client):
    """A service's interface, as it is reached on its own host."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(port)
        self._host = host

    def request(self, *arguments: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request, from there."""
        with _at(self._host):
            return super().request(*arguments, **options)


@contextmanager
def _at(host: str) -> Iterator[None]:
    """Have this thread be on a host: what it connects, it connects from there."""
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
