"""Passwords: how they are stored, and which ones match."""

import statistics
import time

import pytest
from argon2 import PasswordHasher

from tally.store import passwords
from tally.store.passwords import UnfitPassword, hashed, is_outdated, matches

GOOD = "correct horse"


def test_a_password_is_kept_by_argon2id_and_never_twice_alike() -> None:
    first, second = hashed(GOOD), hashed(GOOD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert GOOD not in first


@pytest.mark.parametrize("given", ["", "correct hors", "correct horse ", "Correct horse", "x" * 1024])
def test_only_the_password_itself_matches(given: str) -> None:
    kept = hashed(GOOD)
    assert matches(kept, GOOD)
    assert not matches(kept, given)


def test_nothing_matches_where_there_is_no_user() -> None:
    assert not matches(None, GOOD)


def test_a_name_that_nobody_has_costs_what_a_wrong_password_costs() -> None:
    """Otherwise the time of an answer reveals which users exist: without hashing it is a thousandth."""
    kept = hashed(GOOD)

    def cost(user: str | None) -> float:
        began = time.thread_time()
        assert not matches(user, "another one")
        return time.thread_time() - began

    nobody, somebody = (statistics.median(cost(user) for _ in range(5)) for user in (None, kept))
    assert 1 / 3 < nobody / somebody < 3


def test_a_password_matches_however_a_keyboard_composes_it() -> None:
    assert matches(hashed("cafe\u0301 au lait"), "caf\u00e9 au lait")


@pytest.mark.parametrize("length", [0, 7, 1025])
def test_a_password_that_is_too_short_or_too_long_is_refused(length: int) -> None:
    with pytest.raises(UnfitPassword, match=f"8 to 1024 characters, got {length}"):
        hashed("x" * length)


@pytest.mark.parametrize("length", [passwords.SHORTEST, passwords.LONGEST])
def test_the_shortest_and_the_longest_password_are_taken(length: int) -> None:
    assert matches(hashed("x" * length), "x" * length)


def test_what_was_kept_at_a_lower_cost_still_matches_and_is_outdated() -> None:
    kept = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD)
    assert matches(kept, GOOD)
    assert is_outdated(kept)
    assert not is_outdated(hashed(GOOD))
