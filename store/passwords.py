"""Passwords: kept as argon2id hashes. A check costs the same whether the user exists or not."""

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

SHORTEST = 8
LONGEST = 1024  # characters

# OWASP's parameters for argon2id: 19 MiB and 2 passes, so a small machine can do several at a time. If they
# change, each password is hashed again when its user signs in.
_hasher = PasswordHasher(memory_cost=19 * 1024, time_cost=2, parallelism=1)


class UnfitPassword(ValueError):
    """The password can't be taken; the message says why."""


def hashed(password: str) -> str:
    """The hash to keep of a new password. Takes some 50 ms of a core, and 19 MiB. Raises UnfitPassword."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UnfitPassword(f"expected {SHORTEST} to {LONGEST} characters, got {len(password)}")
    return _hasher.hash(_normal(password))


def matches(kept: str | None, password: str) -> bool:
    """Whether `kept` is a hash of `password`. Without `kept`, it does the same work for nothing."""
    if kept is None:
        _hasher.hash(_normal(password))
        return False
    try:
        return _hasher.verify(kept, _normal(password))
    except VerifyMismatchError:
        return False


def is_outdated(kept: str) -> bool:
    """Whether `kept` was made with outdated parameters."""
    return _hasher.check_needs_rehash(kept)


def _normal(password: str) -> str:
    """One form for text that looks alike but that keyboards compose differently (RFC 8265)."""
    return unicodedata.normalize("NFC", password)
