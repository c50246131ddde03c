"""Run commands of `python supervisor.py` to their end, and servers that they may meet."""

import os
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from support.engines import free_port
from support.program import Program
from support.tally import toml
from support.waiting import PATIENCE


def settings(directory: Path, **sections: dict[str, Any]) -> Path:
    """Write a settings file with free ports, no Redis at the URL, and the settings in `sections`."""
    every: dict[str, dict[str, Any]] = {
        "redis": {"url": f"redis://127.0.0.1:{free_port()}/0"},
        "customers": {"port": free_port()},
        "accounts": {"port": free_port()},
    }
    for section, values in sections.items():
        every.setdefault(section, {}).update(values)
    file = directory / "tally.toml"
    file.write_text(toml(every))
    return file


def command(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, seconds: float = PATIENCE
) -> "subprocess.CompletedProcess[str]":
    """Run `python supervisor.py` with `arguments` until it ends; fails if it takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder, "output"), Path(folder, "error")
        program = Program([*map(str, arguments)], output, error, {**os.environ, **(environment or {})})
        try:
            status = program.wait(seconds)
        finally:
            program.kill()
        return subprocess.CompletedProcess(arguments, status, output.read_text(), error.read_text())


class SilentHandler(BaseHTTPRequestHandler):
    """Answers requests over connections that stay open, and says nothing of it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_said: object) -> None:
        """Say nothing."""


@contextmanager
def answering(handler: type[SilentHandler]) -> Iterator[int]:
    """A service whose requests that handler answers; yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server.server_address[1]
        server.shutdown()


def processes_in(directory: Path) -> list[psutil.Process]:
    """The processes whose working directory this is, without zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(directory.resolve()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


Conversation = Callable[[BinaryIO, BinaryIO], None]


@contextmanager
def server_of_another_kind(talk: Conversation, port: int | None = None) -> Iterator[int]:
    """A TCP server that has the conversation `talk` with every client; yields its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                talk(self.rfile, self.wfile)  # type: ignore[arg-type]
            except OSError:
                return  # the client has gone

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port or free_port()), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def says_nothing(heard: BinaryIO, said: BinaryIO) -> None:
    """Listens until the client closes."""
    while heard.read(1):
        pass


def hangs_up(heard: BinaryIO, said: BinaryIO) -> None:
    """Says nothing, and closes."""


def speaks_ssh(heard: BinaryIO, said: BinaryIO) -> None:
    """Introduces itself, then listens."""
    said.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    says_nothing(heard, said)


def speaks_http(heard: BinaryIO, said: BinaryIO) -> None:
    """Reads the first line as a request, and refuses it."""
    heard.readline()
    said.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def redis_of_version(version: str, clock_off: float = 0) -> Conversation:
    """An empty Redis that can only tell its version, and its time, `clock_off` seconds ahead."""

    def talk(heard: BinaryIO, said: BinaryIO) -> None:
        while count := heard.readline().lstrip(b"*"):
            words = [heard.read(int(heard.readline()[1:]) + 2).strip().upper() for _ in range(int(count))]
            info = f"# Server\r\nredis_version:{version}\r\n".encode()
            answers = {
                b"INFO": b"$%d\r\n%s" % (len(info), info),
                b"PING": b"+PONG",
                b"TIME": b"*2\r\n$10\r\n%d\r\n$1\r\n0" % (time.time() + clock_off),
                b"HELLO": b"-ERR unknown",
                **dict.fromkeys([b"HGETALL", b"XINFO", b"XRANGE"], b"*0"),
            }
            said.write(answers.get(words[0], b"+OK") + b"\r\n")

    return talk
