"""The control socket: a running supervisor tells which actors it has, and their states."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tally.http.reasons import ActorReport
from tally.store.unix_socket import short_path

NAME = "supervisor.sock"
SOON_SECONDS = 0.2  # for GET /status, which must not wait
PATIENT_SECONDS = 5.0  # for people's commands: the machine may be busy


class NotRunning(Exception):
    """No supervisor answers in this data directory."""


class NotAnswering(NotRunning):
    """The supervisor in this data directory does not answer in time."""


class ActorStatus(msgspec.Struct, frozen=True):
    """An actor as its supervisor sees it. `trouble`: what it waits out; `failed`: why it last ended."""

    name: str
    pid: int | None
    state: str
    address: str
    uptime_seconds: float | None
    restarts: int
    trouble: str | None
    failed: str | None

    @property
    def report(self) -> ActorReport:
        """The same, as its service reports it."""
        said = self.trouble or self.failed
        return ActorReport(self.name, self.state, self.restarts, said, self.uptime_seconds)


class ControlSocket:
    """Listens in the data directory. It tells every client everything, and reads nothing from it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._path.unlink(missing_ok=True)  # left by a killed supervisor; the lock says that it is gone
        self._listener = socket.socket(socket.AF_UNIX)
        with short_path(self._path) as path:
            self._listener.bind(path)
        self._path.chmod(0o600)
        self._file = self._path.stat()
        self._listener.listen()
        self._listener.setblocking(False)

    def fileno(self) -> int:
        """A descriptor that is readable when somebody asks."""
        return self._listener.fileno()

    def answer(self, actors: Sequence[ActorStatus]) -> None:
        """Answer the client. Never blocks: a client that doesn't read gets less."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # nobody asks any more, or no file is left for it
            return
        with connection:
            connection.setblocking(False)
            with suppress(OSError):
                connection.sendall(msgspec.json.encode(actors))

    def close(self) -> None:
        """Stop listening, and remove the file, unless another has put its own there."""
        self._listener.close()
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), self._file):
                self._path.unlink()


def ask(directory: Path, seconds: float = SOON_SECONDS) -> list[ActorStatus]:
    """The actors of the supervisor that runs in `directory`.

    Raises NotRunning, and NotAnswering if one is there that does not answer within `seconds`.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            with short_path(directory / NAME) as path:
                connection.connect(path)
            parts = iter(lambda: connection.recv(65536), b"")
            return msgspec.json.decode(b"".join(parts), type=list[ActorStatus])
        except TimeoutError as error:
            raise NotAnswering(
                f"the supervisor in {directory} does not answer within {seconds:g} s: it may be stopped "
                "(Ctrl-Z), or the machine very busy"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no supervisor answers in {directory}") from error
        except (OSError, ValueError) as error:
            raise NotRunning(f"no supervisor answers in {directory}: {error}") from error
