"""Answers that wait until their events are on the stream: setting `customers.answer_after = "publish"`.

The relay notes how far it has published, in memory that it shares with the service's HTTP processes, and
wakes them. In each process one thread releases the answers of all rows up to there. The writing thread goes
on meanwhile, so commits and publications overlap, and each takes all the work that has gathered.
"""

import mmap
import select
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import structlog

from tally.actors.doorbell import Doorbell
from tally.store.database import Database
from tally.store.errors import NotPublished
from tally.store.group_commit import Job, guarded
from tally.store.outbox import last_row

LONGEST_SECONDS = 5.0  # how long a request waits for its events to be published

_log = structlog.get_logger()


class Publication:
    """How far one outbox is published, and copied to enough replicas. Wakes so many listeners.

    Make it before the processes are forked. A row is a row of the table, whatever its event's name.
    """

    def __init__(self, listeners: int, replicas: int = 0) -> None:
        self.replicas = replicas
        self.bells = [Doorbell() for _ in range(listeners)]
        self._numbers = memoryview(mmap.mmap(-1, 16)).cast("Q")  # the row; where a wait failed, plus 1

    def row(self) -> int:
        """The last published row; 0 where unknown."""
        return self._numbers[0]

    def reached(self, row: int) -> None:
        """Tell everybody that all rows up to this one are published. Never blocks."""
        self._numbers[0] = row
        for bell in self.bells:
            bell.ring()

    @property
    def is_stuck(self) -> bool:
        """Whether a request has waited too long, with nothing published since."""
        return self._numbers[0] < self._numbers[1]

    def stand_still(self, row: int) -> None:
        """Note that a request waited too long while that row was the last published."""
        self._numbers[1] = row + 1


class _Group(NamedTuple):
    """Jobs of one commit, and the last row that must be published before they are answered."""

    row: int
    until: float
    jobs: Sequence[Job]
    done: Callable[[], None]


class AfterPublication:
    """Makes jobs wait until their rows are published, in one HTTP process; see store's AnswerAfter.

    `number` is the process's own among those of the service, counted from 0.
    """

    def __init__(self, publication: Publication, number: int, answer_seconds: float) -> None:
        self._publication = publication
        self._bell = publication.bells[number]
        self._seconds = answer_seconds
        self._groups: SimpleQueue[_Group] = SimpleQueue()
        threading.Thread(target=self._serve, name="after-publication", daemon=True).start()

    def insist(self) -> None:
        """Raises NotPublished while publication is stuck."""
        if self._publication.is_stuck:
            raise NotPublished(
                "Events can't be published now, so nothing is begun. What this repeats, if anything, may be "
                "recorded: try again later, with the same Idempotency-Key."
            )

    def mark(self, database: Database) -> int:
        """The last row to publish before the open transaction's requests may be answered."""
        return last_row(database)

    def hold(self, mark: int, jobs: Sequence[Job], done: Callable[[], None]) -> None:
        """Finish the jobs once `mark` is published, then call `done`. They fail if that takes too long."""
        self._groups.put(_Group(mark, time.monotonic() + self._seconds, jobs, done))

    def _serve(self) -> None:
        while True:
            group = self._groups.get()
            is_published = self._is_published(group)
            for job in group.jobs:
                guarded(job.finish if is_published else partial(job.fail, NotPublished()))
            guarded(group.done)

    def _is_published(self, group: _Group) -> bool:
        """Whether the group was published in time. Blocks until it is known."""
        while True:
            self._bell.silence()
            row = self._publication.row()
            if row >= group.row:
                return True
            left = group.until - time.monotonic()
            if left <= 0:
                if not self._publication.is_stuck:
                    _log.warning("answers_wait_in_vain", published=row, waits_for=group.row)
                self._publication.stand_still(row)
                return False
            select.select([self._bell], [], [], left)
