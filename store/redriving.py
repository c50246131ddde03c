"""Dead letters that are redriven, many at a time, and what comes of them."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from tally.store.dead_letters import DeadLetter, DeadLetters, GroupGone, Order

_LOOK_SECONDS = 0.1


class Outcome(NamedTuple):
    """What came of letters that were to be redriven; so many were `gone` already.

    `failed` has, by the id of each letter that failed again, the letter that it is now. `waiting` were not
    tried yet. `refused` has the reasons, by id, of those that no group would try.
    """

    applied: list[DeadLetter]
    failed: dict[str, DeadLetter]
    waiting: list[DeadLetter]
    refused: dict[str, str]
    gone: int


def redrive(letters: DeadLetters, chosen: Sequence[DeadLetter], seconds: float) -> Outcome:
    """Redrive these to the groups that failed, and wait up to `seconds` for what comes of it.

    May be repeated: each event counts once. Raises RedisError.
    """
    newest, refused, orders = letters.newest(), {}, []
    for letter in chosen:
        try:
            if order := letters.redrive(letter):
                orders.append(Order(letter, order))
        except GroupGone as error:
            refused[letter.id] = str(error)
    waiting = _wait(letters, orders, seconds)
    tried = [each.letter for each in orders if each not in waiting]
    failed = letters.again(tried, newest) if tried else {}
    applied = [letter for letter in tried if letter.id not in failed]
    gone = len(chosen) - len(orders) - len(refused)
    return Outcome(applied, failed, [each.letter for each in waiting], refused, gone)


def _wait(letters: DeadLetters, orders: list[Order], seconds: float) -> list[Order]:
    """Wait until the orders are carried out; answer those that are not, after a while."""
    waiting, deadline = letters.not_carried_out(orders), time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        waiting = letters.not_carried_out(waiting)
    return waiting
