"""Turns of several parts at the same time, in one thread.

A part may stand still at each command to Redis and before each transaction, as on a busy machine.
Another goes on meanwhile. The same seed gives the same turns again.
"""

import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from tally.store.database import Database

K = TypeVar("K")


class _Killed(BaseException):
    """The end of a killed part. Nothing of Tally's catches it; what is not committed is undone."""


class Turn:
    """A turn of a part, which pauses; `error` is what ended it, None if nothing did.

    After `lives` pauses, it is killed.
    """

    def __init__(
        self, part: Callable[[], Exception | None], database: Database, lives: float = math.inf
    ) -> None:
        self.error: Exception | None = None
        self._lives = lives
        self._part = part
        self._connection = database._connection
        self._own: Any = greenlet(self._run)
        self._own.turn = self

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to go on with."""
        return bool(self._own.dead)

    def go_on(self) -> None:
        """Begin, or go on, up to the next pause or the end."""
        self._own.switch()

    def pause(self) -> None:
        """Let others go on, but for whoever holds the lock of its database: they might wait for it."""
        self._lives -= 1
        if self._lives < 0:
            raise _Killed
        if not self._connection.in_transaction:
            self._own.parent.switch()

    def _run(self) -> None:
        self._connection.exec_trace = self._before
        with suppress(_Killed):
            self.error = self._part()
        self._connection.exec_trace = None

    def _before(self, _: object, statement: str, __: object) -> bool:
        if statement.startswith("BEGIN"):
            self.pause()
        return True


def pause() -> None:
    """Let others go on, if this is a part's turn at the same time as others."""
    turn: Turn | None = getattr(getcurrent(), "turn", None)
    if turn:
        turn.pause()


def take(turns: Mapping[K, Turn], choose: random.Random, meanwhile: Callable[[], None]) -> dict[K, Exception]:
    """Take these turns at the same time, to their ends; answer the errors. Something may happen `meanwhile`.

    Which one goes on is drawn anew at each pause, or after many: then the others stand still for long.
    """
    stays, left = choose.choice([0.0, 0.7, 0.95]), list(turns.values())
    while left:
        turn = choose.choice(left)
        turn.go_on()
        while not turn.is_over and choose.random() < stays:
            turn.go_on()
        if turn.is_over:
            left.remove(turn)
        if choose.random() < 0.1:
            meanwhile()
    return {key: turn.error for key, turn in turns.items() if turn.error}
