"""What a running import has done so far, so that it can be taken up again after any interruption.

One file for each import: a line of JSON for each step, on the disk before the next step begins.
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path

import msgspec

from tally.events import now
from tally.store.errors import StoreError

DIRECTORY = "imports"


class ImportUnderWay(StoreError):
    """Another process is at this import already."""


class _Step(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A request is about to be sent at `sending`, or has been answered; refused, when nothing is told."""

    sending: datetime | None = None
    customers: list[str] | None = None
    invoices: int | None = None


class ImportNote:
    """The note of the import `name` in the data directory; held by one process until `close`.

    `customers` are the ids of those created so far, in order, `invoices` how many there are, and
    `sending` when the request was first sent that has had no answer.
    Raises ImportUnderWay, StoreError for a note that can't be read, OSError.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.customers: list[str] = []
        self.invoices = 0
        self.sending: datetime | None = None
        folder = directory / DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        self._file = open(self.path, "a+b", opener=_private)  # noqa: SIM115 held until close
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ImportUnderWay from None
        _sync_directory(folder)
        self._read()

    def before_sending(self, again: bool = False) -> None:
        """Note that a request is about to be sent. One that had no answer keeps its time, unless `again`."""
        if self.sending is None or again:
            self._add(_Step(sending=now()))

    def after_refusal(self) -> None:
        """Note that what was about to be sent was certainly not done."""
        self._add(_Step())

    def after_customers(self, ids: list[str]) -> None:
        """Note that these customers were created."""
        self._add(_Step(customers=ids))

    def after_invoices(self, count: int) -> None:
        """Note that so many more invoices were created."""
        self._add(_Step(invoices=count))

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole, _, torn = content.rpartition(b"\n")
        if torn:  # the process or the machine went down while it was written
            self._file.truncate(len(content) - len(torn))
        try:
            for step in msgspec.json.Decoder(_Step).decode_lines(whole):
                self._take(step)
        except msgspec.DecodeError as error:
            raise StoreError(f"{self.path}: can't be read as the note of an import: {error}") from None

    def _add(self, step: _Step) -> None:
        self._file.write(msgspec.json.encode(step) + b"\n")
        self._file.flush()
        os.fsync(self._file)
        self._take(step)

    def _take(self, step: _Step) -> None:
        self.sending = step.sending
        self.customers += step.customers or []
        self.invoices += step.invoices or 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(folder: Path) -> None:
    """The new file's name is to outlast the power as well."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
