"""Answers that wait until what they tell is on the stream: the setting `customers.answer_after = "publish"`.

The relay notes how far it has published, in memory that it shares with the service's HTTP processes, and
wakes them. In each of them one thread has everything answered that was committed up to there; the writing
thread goes on meanwhile, so commits and publications overlap, and each takes what has gathered.
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
    """How far the rows of one outbox are published, and copied as often as it takes; with so many listeners.

    To be made before its processes are forked. A row is a row of the table, whatever name its event has.
    """

    def __init__(self, listeners: int, replicas: int = 0) -> None:
        self.replicas = replicas
        self.bells = [Doorbell() for _ in range(listeners)]
        self._numbers = memoryview(mmap.mmap(-1, 16)).cast("Q")  # the row; where it stood in vain, plus 1

    def row(self) -> int:
        """The last row that is published; 0 where nobody knows."""
        return self._numbers[0]

    def reached(self, row: int) -> None:
        """Tell everybody that all rows up to this one are published. Never blocks."""
        self._numbers[0] = row
        for bell in self.bells:
            bell.ring()

    @property
    def is_stuck(self) -> bool:
        """Whether a request has waited too long, and nothing has been published since."""
        return self._numbers[0] < self._numbers[1]

    def stand_still(self, row: int) -> None:
        """Note that a request waited too long, while that row was the last published."""
        self._numbers[1] = row + 1


class _Group(NamedTuple):
    """Jobs of one commit, and the row up to which must be published before they are answered."""

    row: int
    until: float
    jobs: Sequence[Job]
    done: Callable[[], None]


class AfterPublication:
    """Has jobs wait for the publication of their rows, in one HTTP process; see store's AnswerAfter.

    `number` is the process's own among those of the service, from 0 on.
    """

    def __init__(
        self,
        publication: Publication,
        number: int,
        database: Database,
        answer_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._publication = publication
        self._bell = publication.bells[number]
        self._database = database
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

    def mark(self) -> int:
        """What must be published before anything of the transaction that is open is answered."""
        return last_row(self._database)

    def hold(self, mark: int, jobs: Sequence[Job], done: Callable[[], None]) -> None:
        """Finish the jobs, then call `done`, once that is published; where that takes too long they fail."""
        self._groups.put(_Group(mark, time.monotonic() + self._seconds, jobs, done))

    def _serve(self) -> None:
        while True:
            group = self._groups.get()
            is_published = self._is_published(group)
            for job in group.jobs:
                guarded(job.finish if is_published else partial(job.fail, NotPublished()))
            guarded(group.done)

    def _is_published(self, group: _Group) -> bool:
        """Whether it was, in time; blocks until then."""
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
