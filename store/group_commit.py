"""One commit for many requests: what is in flight together shares one durable transaction.

A commit costs a sync of the disk, however much is in it. The first thread that comes leads: it
runs its own change and every one that has queued up behind it, commits once, and hands the lead
to the first of those that came meanwhile. No thread of its own, no timer, no added wait.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from tally.store.database import Database
from tally.store.errors import StoreUnavailable

T = TypeVar("T")

PATIENT_SECONDS = 1.5  # how long the lock is waited for: a request's thread waits, and those behind it
IMPATIENT_SECONDS = 0.2  # and while it could not be had
MOST_TOGETHER = 256  # changes in one transaction: bounds how long the other writers of the file wait


class GroupCommit:
    """The only way to write to `database` from several threads; owns its write connection.

    `after_commit` is called after each commit, by the thread that led it; it must not block.
    """

    def __init__(self, database: Database, after_commit: Callable[[], None]) -> None:
        self._database = database
        self._database.patience = PATIENT_SECONDS
        self._after_commit = after_commit
        self._guard = threading.Lock()  # of the two below
        self._waiting: deque[_Call] = deque()
        self._led = False

    def run(self, change: Callable[[], T]) -> T:
        """Run `change` inside a transaction and answer what it returned, once that is durable.

        Blocks until then. What `change` raises undoes it alone and is raised here; when the
        transaction itself fails, every change in it is undone and each caller gets the error; when that is
        because the database is unavailable, so do those that wait.
        """
        call = _Call(change)
        with self._guard:
            self._waiting.append(call)
            lead, self._led = not self._led, True
        if not lead:
            call.turn.acquire()
        if not call.finished:
            self._lead()
        result: T = call.outcome()
        return result

    def waiting(self) -> int:
        """How many changes wait for their turn."""
        return len(self._waiting)

    def _lead(self) -> None:
        with self._guard:
            together = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
        error: Exception | None = StoreUnavailable()
        try:
            error = self._commit(together)
        finally:
            with self._guard:
                if isinstance(error, StoreUnavailable):  # the others would wait as long, for the same
                    together += self._waiting
                    self._waiting.clear()
                successor = self._waiting[0] if self._waiting else None
                self._led = successor is not None
            for call in together:
                call.error = call.error or error
                call.finished = True
                call.turn.release()
            if successor:
                successor.turn.release()

    def _commit(self, together: list["_Call"]) -> Exception | None:
        """Commit, or answer why that failed. After a failure, the next tries get little patience."""
        try:
            with self._database.transaction():
                for call in together:
                    call.run(self._database)
        except Exception as error:
            if isinstance(error, StoreUnavailable):
                self._database.patience = IMPATIENT_SECONDS
            return error
        self._database.patience = PATIENT_SECONDS
        self._after_commit()
        return None


class _Call:
    """One change, and the thread that waits for it."""

    def __init__(self, change: Callable[[], Any]) -> None:
        self._change = change
        self._result: Any = None
        self.error: Exception | None = None
        self.finished = False
        self.turn = threading.Lock()
        self.turn.acquire()  # released when the change is finished, or this thread's turn to lead

    def run(self, database: Database) -> None:
        """Try the change, undoing it alone when it raises; SQLite's errors are the transaction's."""
        try:
            with database.savepoint():
                self._result = self._change()
        except apsw.Error:
            raise
        except Exception as error:
            self.error = error

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._result
