"""One commit for many requests: requests in flight together share one durable transaction.

A commit costs a sync of the disk, however much is in it. Handing work from thread to thread costs as much as
the work. So one thread writes. It takes all waiting jobs, does each inside the transaction, commits once, and
then lets each answer. There is no timer and no added wait: jobs that come during a commit form the next one.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import apsw
import structlog

from tally.store.database import Database
from tally.store.errors import StoreError, StoreUnavailable, UnusableDatabase, translated

T = TypeVar("T")

PATIENT_SECONDS = 1.5  # how long to wait for the lock: requests wait meanwhile
IMPATIENT_SECONDS = 0.2  # the same, after it could not be had
TRY_SECONDS = 1.0  # between two tries whether something can be written again
MOST_TOGETHER = 256  # jobs in one transaction, and
STANDS_STILL_SECONDS = 1.0  # at one thing, then the writing thread counts as standing still
MOST_SECONDS = 0.05  # how long it takes in more jobs: the file's other writers wait meanwhile

_log = structlog.get_logger()


class Job(Protocol):
    """A job for the writing thread, such as a request to answer."""

    def work(self) -> None:
        """Do everything except answering. Its changes go through `GroupCommit.run`.

        Called once more if the transaction failed; then `run` raises the reason.
        """
        ...

    def finish(self) -> None:
        """Answer with the outcome: it is durable, or was refused. Must not block."""
        ...

    def fail(self, reason: StoreError) -> None:
        """Answer, instead, that the outcome can't be told. Must not block."""
        ...


class AnswerAfter(Protocol):
    """Decides when committed jobs may answer, if not at once."""

    def insist(self) -> None:
        """Raises StoreError, before anything is changed, while no outcome could be told."""
        ...

    def mark(self, database: Database) -> int:
        """A mark to wait for before any job of the database's open transaction answers."""
        ...

    def hold(self, mark: int, jobs: Sequence[Job], done: Callable[[], None]) -> None:
        """When `mark` is reached, finish the jobs, or fail them, then call `done`. Must not block."""
        ...


class GroupCommit:
    """The only way to write to a database from several threads; owns its write connection.

    `open_database` opens it. If that fails, every job that needs it tries again. `after_commit` is
    called after each commit, before its jobs are finished, and `after_finish` after that. Neither may block.
    With `answer_after`, jobs that changed something finish when it says so.
    """

    def __init__(
        self,
        open_database: Callable[[], Database],
        after_commit: Callable[[], None],
        answer_after: AnswerAfter | None = None,
    ) -> None:
        self._open_database = open_database
        self._database: Database | None = None
        self._trouble: str | None = None
        self._tries_at = 0.0  # then it is tried whether that is over
        self._patience = PATIENT_SECONDS
        self._answer_after = answer_after
        self._moved_at: float | None = None  # when the writing thread began its present work; None: it rests
        self._after_commit = after_commit
        self.after_finish: Callable[[], None] = lambda: None
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._transaction = ExitStack()  # from here on: used only by the writing thread
        self._begun = False
        self._involved = self._done = False
        self._refusal: Exception | None = None
        self._half_done = False
        self._working = threading.Lock()
        self._closed = False
        try:
            self._opened()
        except StoreError as error:
            self._note(error)
        self._thread = threading.Thread(target=self._serve, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let the writing thread do a job; returns at once. For any thread."""
        if self._moved_at is None:
            self._move()  # so that it shows if that thread never gets to it
        self._jobs.put(job)

    def run(self, change: Callable[[], T]) -> T:
        """Run `change` inside a transaction and answer what it returned.

        An error raised by `change` undoes only that change, and is raised here. When the database is
        unavailable or the transaction fails, every change in it is undone, and each caller gets the error. In
        a job's `work` the change is done at once, and durable when the job is told to finish. Any other
        thread blocks until it is durable.
        """
        if threading.get_ident() == self._thread.ident:
            return self._change(change)
        call = _Call(lambda: self._change(change))
        self.submit(call)
        result: T = call.outcome.result()
        return result

    def let_work(self, seconds: float) -> None:
        """Wait while jobs are worked on, `seconds` at most. For a thread whose own work can wait.

        Two threads that take turns get more done than two that compete for the interpreter's lock: 16 clients
        got 4,470 POSTs a second, and 3,830 without it. The disk's sync leaves time for the other's turn.
        """
        if self._working.acquire(timeout=seconds):
            self._working.release()

    def stands_still(self) -> bool:
        """Whether the writing thread was at one thing for too long, or has ended. For any thread."""
        moved_at = self._moved_at
        if moved_at is None:
            return not self._closed and not self._thread.is_alive()
        return time.monotonic() - moved_at > STANDS_STILL_SECONDS

    def trouble(self) -> str | None:
        """Why nothing can be written, once something couldn't be; None again once it can. For any thread.

        Call it now and then: meanwhile, the writing thread tries to write. Does not block.
        """
        if self._trouble and time.monotonic() >= self._tries_at:
            self._tries_at = time.monotonic() + TRY_SECONDS
            attempt = _Call(lambda: self._change(lambda: self._opened().write_nothing()))
            attempt.outcome.add_done_callback(self._tried)
            self.submit(attempt)
        return self._trouble

    def _tried(self, outcome: Future[Any]) -> None:
        if outcome.exception() is None:
            self._trouble = None

    def close(self) -> None:
        """Do all submitted jobs, then end the thread. Blocks until then; may be repeated."""
        self.submit(_Call(self._end))
        self._thread.join()
        if self._database:
            self._database.close()

    def _end(self) -> None:
        self._closed = True

    def _serve(self) -> None:
        while not self._closed:
            self._moved_at = None
            first = self._jobs.get()
            self._move()
            self._commit(self._with_those_behind(first))

    def _move(self) -> None:
        """Note that something begins that may take long: a job, the commit, a wait for the lock."""
        self._moved_at = time.monotonic()

    def _with_those_behind(self, first: Job) -> Iterator[Job]:
        """The job, and the jobs that wait once it has been worked on."""
        yield first
        until = time.monotonic() + MOST_SECONDS
        for _ in range(min(self._jobs.qsize(), MOST_TOGETHER - 1)):
            if time.monotonic() > until:
                return
            yield self._jobs.get()

    def _commit(self, jobs: Iterable[Job]) -> None:
        """Do the jobs in one transaction. After a failure, the next tries get little patience.

        If a job failed half-way, that transaction is undone, and each job gets its own.
        """
        worked: list[Job] = []
        involved: list[Job] = []  # their answers hold only if the transaction commits
        done: list[Job] = []  # jobs among them that were not refused
        self._begun, self._refusal, self._half_done = False, None, False
        mark = None
        try:
            with ExitStack() as self._transaction, self._working:
                for job in jobs:
                    self._involved = self._done = False
                    self._move()
                    guarded(job.work)
                    worked.append(job)
                    if self._involved:
                        involved.append(job)
                    if self._done:
                        done.append(job)
                    if self._half_done:
                        raise _HalfDone
                self._move()
                if self._refusal:
                    raise self._refusal
                if self._answer_after and self._begun:
                    mark = self._answer_after.mark(self._opened())
        except _HalfDone:
            if len(involved) > 1:
                worked = [job for job in worked if job not in involved]
                for job in involved:
                    self._commit([job])
        except Exception as error:
            self._refusal = error
            for job in involved:
                self._move()
                guarded(job.work)
        else:
            if involved:
                guarded(self._after_commit)
            if self._answer_after and mark is not None and done:
                worked = [job for job in worked if job not in done]
                self._answer_after.hold(mark, done, lambda: guarded(self.after_finish))
        self._note(self._refusal)
        for job in worked:
            self._move()
            guarded(job.finish)
        guarded(self.after_finish)

    def _change(self, change: Callable[[], T]) -> T:
        """Try the change. If it raises, only it is undone; SQLite's errors fail the transaction.

        The transaction begins with its first change: jobs that are only refused take no lock.
        """
        if self._refusal:
            raise self._refusal
        if self._answer_after:
            self._answer_after.insist()
        try:
            database = self._opened()
            if not self._begun:
                database.patience = self._patience
                self._transaction.enter_context(database.transaction())
                self._begun = True
            self._involved = True
            before = database.total_changes()
            with translated(str(database.path)):
                result = change()
            self._done = True
            return result
        except (apsw.Error, StoreUnavailable, UnusableDatabase) as error:
            self._refusal = error
            raise
        except Exception:
            self._half_done = database.total_changes() != before
            raise

    def _note(self, refusal: Exception | None) -> None:
        """Note why nothing could be written. That another is to write here is no trouble."""
        if type(refusal) is StoreUnavailable or isinstance(refusal, UnusableDatabase):
            self._trouble = f"{type(refusal).__name__}: {refusal}"
        unavailable = isinstance(refusal, StoreUnavailable)
        self._patience = IMPATIENT_SECONDS if unavailable else PATIENT_SECONDS

    def _opened(self) -> Database:
        """The database. Raises StoreError if it can't be opened."""
        if self._database is None:
            self._database = self._open_database()
            self._database.beat_by(self._move)
        return self._database


class _HalfDone(Exception):
    """A change failed after it had changed something."""


def guarded(step: Callable[[], None]) -> None:
    """Keep a fault in one job from affecting other jobs, and from ending the writing thread."""
    try:
        step()
    except Exception as error:
        _log.exception("write_failed", exc_info=error)


class _Call:
    """A change for another thread, which waits for it."""

    def __init__(self, change: Callable[[], Any]) -> None:
        self._change = change
        self.outcome: Future[Any] = Future()

    def work(self) -> None:
        try:
            self._tell = partial(self.outcome.set_result, self._change())
        except Exception as error:
            self._tell = partial(self.outcome.set_exception, error)

    def finish(self) -> None:
        self._tell()

    def fail(self, reason: StoreError) -> None:
        self.outcome.set_exception(reason)
