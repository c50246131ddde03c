"""The progress of a running import, so that it can go on after any interruption.

Each import has one file, with a line of JSON for each step. It is on the disk before the next step begins.
"""

import fcntl
import io
import os
from collections.abc import Collection, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from tally.events import now
from tally.store import ranges
from tally.store.copying import failures_of, sync
from tally.store.errors import StoreError
from tally.store.ranges import Range

DIRECTORY = "imports"

Kind = Literal["customers", "invoices", "credits"]


class ImportUnderWay(StoreError):
    """Another process is at this import already."""


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request: the places of its customers or purchases in the file, and its key.

    Of a request noted by release 0.1.0, only the time when it was first sent is known.
    """

    at: datetime
    kind: Kind | None = None
    places: str = ""
    key: str = ""


class Origin(msgspec.Struct, frozen=True):
    """An import's file, by the SHA-256 of its bytes, and its account, if all rows have the same."""

    digest: str
    account_id: str | None


class _Step(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A request is about to be sent at `sending`, or was answered. A step without content: it was refused.

    `made` are the ids of the recorded rows.
    """

    sending: datetime | None = None
    kind: Kind | None = None
    places: str = ""
    key: str = ""
    customers: list[str] | None = None
    invoices: int | None = None
    made: dict[Kind, str] | None = None
    updated: int = 0
    origin: Origin | None = None
    undone: bool = False


class ImportNote:
    """The note of the import `name` in the data directory; held by one process until `close`.

    `customers` are the ids of the file's customers so far, in order; `invoices` counts its finished
    purchases. `sending` is the request without an answer. `made` are the ids of all recorded rows; `updated`
    counts the changed invoices. `times_undone` is how often all of that was taken back. Without `make`, a
    missing note is empty and takes nothing.

    Raises ImportUnderWay, StoreError for a note that can't be read, OSError.
    """

    def __init__(self, directory: Path, name: str, make: bool = True) -> None:
        self.times_undone = 0
        self.origin: Origin | None = None
        self._forget()
        folder = directory / DIRECTORY
        self.path = folder / f"{name}.jsonl"
        self._file: BinaryIO = io.BytesIO()
        if make:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        if make or self.path.exists():
            private = partial(os.open, mode=0o600)
            self._file = open(self.path, "a+b", opener=private)  # noqa: SIM115 held until close
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise ImportUnderWay from None
            sync(folder)  # the new file's name must survive a power failure, too
            self._read()

    def begin(self, origin: Origin) -> None:
        """Note the import's file. May be repeated."""
        if self.origin is None:
            self._add(_Step(sending=self.sending.at if self.sending else None, origin=origin))

    def before_sending(self, kind: Kind, places: Iterable[int], key: str, again: bool = False) -> None:
        """Note that a request is about to be sent. One without an answer keeps its time, unless `again`."""
        if self.sending is None or again or self.sending.key not in ("", key):
            told = ranges.shown(ranges.of(places))
            self._add(_Step(sending=now(), kind=kind, places=told, key=key))

    def after_refusal(self) -> None:
        """Note that the request was certainly not carried out."""
        self._add(_Step())

    def after_customers(self, ids: list[str], made: Collection[int] = ()) -> None:
        """Note the ids of the file's next customers; those in `made` are new."""
        self._add(_Step(customers=ids, made=_shown("customers", made)))

    def after_purchases(self, count: int, kind: Kind = "invoices", made: Collection[int] = ()) -> None:
        """Note that so many more of the file's purchases are done, and that `made` were recorded."""
        self._add(_Step(invoices=count, made=_shown(kind, made)))

    def after_making(self, kind: Kind, made: Collection[int], doubt: Sent | None = None) -> None:
        """Note recorded rows, without counting purchases; with `doubt`, that request is still open."""
        self._add(_Step(sending=doubt.at if doubt else None, made=_shown(kind, made)))

    def after_update(self) -> None:
        """Note that an invoice was changed."""
        self._add(_Step(updated=1))

    def undo(self) -> None:
        """Note that all recorded rows were taken back: the import starts again."""
        self._add(_Step(undone=True))

    def close(self) -> None:
        """Release the note for other processes."""
        with failures_of(self.path):  # what could not be written is tried again
            self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole, _, torn = content.rpartition(b"\n")
        if torn:  # the process or the machine went down during the write
            self._file.truncate(len(content) - len(torn))
        try:
            for step in msgspec.json.Decoder(_Step).decode_lines(whole):
                self._take(step)
        except (msgspec.DecodeError, ValueError) as error:
            raise StoreError(f"{self.path}: can't be read as the note of an import: {error}") from None

    def _add(self, step: _Step) -> None:
        with failures_of(self.path):
            self._file.write(msgspec.json.encode(step) + b"\n")
            self._file.flush()
            os.fsync(self._file)
        self._take(step)

    def _forget(self) -> None:
        self.customers: list[str] = []
        self.invoices = 0
        self.sending: Sent | None = None
        self.made: dict[Kind, list[Range]] = {}
        self.updated = 0

    def _take(self, step: _Step) -> None:
        if step.undone:
            self._forget()
            self.times_undone += 1
        if step.sending is None or step.key or self.sending is None:
            told = step.sending and Sent(step.sending, step.kind, step.places, step.key)
            self.sending = told or None
        self.customers += step.customers or []
        self.invoices += step.invoices or 0
        for kind, ids in (step.made or {}).items():
            self.made[kind] = ranges.merge([*self.made.get(kind, []), *ranges.parsed(ids)])
        self.updated += step.updated
        self.origin = step.origin or self.origin


def notes_of(directory: Path, digest: str) -> list[str]:
    """The names of the imports whose notes tell that they are of the file with that digest."""
    notes = sorted((directory / DIRECTORY).glob("*.jsonl"))
    return [path.stem for path in notes if digest.encode() in path.read_bytes()]


def _shown(kind: Kind, ids: Collection[int]) -> dict[Kind, str] | None:
    return {kind: ranges.shown(ranges.of(ids))} if ids else None
