"""The key that tokens are signed with, where it is not given in the environment: a file of its own."""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from tally.store.errors import StoreError

FILE = "signing.key"

_MADE_BYTES = 32
_SHORTEST = 32  # characters: what was made has 64


class UnusableKey(StoreError):
    """The signing key can't be used; the message says what to do."""


def load(directory: Path) -> bytes:
    """The key in `directory`, which is made, for its owner's eyes only, when it is missing.

    Several processes that come at once get the same one. Raises UnusableKey or OSError.
    """
    path = directory / FILE
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
        return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        key = file.read().strip()
    if mode & 0o077:
        raise UnusableKey(
            f"{path}: others may read it (mode {mode:04o}), and could make tokens with it: "
            "delete it, and a new one is made; everybody signs in again"
        )
    if len(key) < _SHORTEST:
        raise UnusableKey(f"{path}: holds {len(key)} bytes, a key has {_SHORTEST} or more; delete it")
    return key


def _make(path: Path) -> None:
    """Put a new key there, whole or not at all, unless somebody else just did."""
    descriptor, draft = tempfile.mkstemp(prefix=FILE + ".", dir=path.parent)  # O_EXCL, mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_MADE_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        os.unlink(draft)
