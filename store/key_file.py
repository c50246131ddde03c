"""A secret of Tally in a file of its own: made once, and readable only by its owner."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tally.store.copying import drafted
from tally.store.errors import StoreError

_MADE_BYTES = 32
_SHORTEST = 32  # characters: a generated one has 64


class UnusableKey(StoreError):
    """The secret can't be used; the message says what to do."""


class KeyFile(NamedTuple):
    """The file's name, and for messages: what a thief could do, and the cost of a new secret."""

    name: str
    danger: str
    cost: str

    def load(self, directory: Path) -> bytes:
        """The secret in `directory`, made when it is missing.

        Processes that call it at the same time get the same one. Raises UnusableKey or OSError.
        """
        self.keep(directory, secrets.token_hex(_MADE_BYTES).encode())
        path = directory / self.name
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            key = file.read().strip()
        if mode & 0o077:
            raise UnusableKey(
                f"{path}: others may read it (mode {mode:04o}), and could {self.danger}: "
                f"delete it, and a new one is made; {self.cost}"
            )
        if len(key) < _SHORTEST:
            raise UnusableKey(f"{path}: holds {len(key)} bytes, a key has {_SHORTEST} or more; delete it")
        return key

    def keep(self, directory: Path, secret: bytes) -> None:
        """Put this secret there, atomically, unless a file is there, or another process was faster.

        Raises OSError.
        """
        path = directory / self.name
        if not path.exists():
            with drafted(path, secret + b"\n") as draft, suppress(FileExistsError):
                os.link(draft, path)


SIGNING_KEY = KeyFile("signing.key", "make tokens with it", "everybody signs in again")
"""The key that signs tokens, in the data directory, unless the environment gives one."""
