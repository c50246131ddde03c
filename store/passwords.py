"""Passwords: kept by argon2id, and checked at a cost that does not tell whether the user exists."""

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

SHORTEST = 8
LONGEST = 1024  # characters

# OWASP's choice for argon2id: 19 MiB and 2 passes, so that several at a time do a small machine no harm.
# When it changes, passwords are kept anew as their users sign in.
_hasher = PasswordHasher(memory_cost=19 * 1024, time_cost=2, parallelism=1)


class UnfitPassword(ValueError):
    """The password can't be taken; the message says why."""


def hashed(password: str) -> str:
    """What to keep of a new password. Takes some 50 ms of a core, and 19 MiB. Raises UnfitPassword."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UnfitPassword(f"expected {SHORTEST} to {LONGEST} characters, got {len(password)}")
    return _hasher.hash(_normal(password))


def matches(kept: str | None, password: str) -> bool:
    """Whether `password` is the one that `kept` was made of. Without one, the same work for nothing."""
    if kept is None:
        _hasher.hash(_normal(password))
        return False
    try:
        return _hasher.verify(kept, _normal(password))
    except VerifyMismatchError:
        return False


def is_outdated(kept: str) -> bool:
    """Whether `kept` was made with other parameters than are used now."""
    return _hasher.check_needs_rehash(kept)


def _normal(password: str) -> str:
    """Keyboards differ in how they compose what looks alike (RFC 8265)."""
    return unicodedata.normalize("NFC", password)
