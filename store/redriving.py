"""Redrives dead letters, many at a time, and tells the outcome."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from tally.store.dead_letters import DeadLetter, DeadLetters, GroupGone, Order

_LOOK_SECONDS = 0.1


class Outcome(NamedTuple):
    """The outcome of redriving letters; so many were `gone` already.

    `failed` has the new letters of those that failed again, by their old ids. `waiting` were not tried yet.
    `refused` has the reasons, by id, for letters that no group would try.
    """

    applied: list[DeadLetter]
    failed: dict[str, DeadLetter]
    waiting: list[DeadLetter]
    refused: dict[str, str]
    gone: int


def redrive(letters: DeadLetters, chosen: Sequence[DeadLetter], seconds: float) -> Outcome:
    """Redrive letters to the groups that failed, and wait up to `seconds` for the outcome.

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
    """Wait until the orders are carried out, `seconds` at most; answer those that are not."""
    waiting, deadline = letters.not_carried_out(orders), time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        waiting = letters.not_carried_out(waiting)
    return waiting
