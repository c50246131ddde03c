"""Revoked tokens, by user, in a file that both services read: customers.db knows no users."""

import os
from pathlib import Path

import msgspec

from tally.store.copying import rewrite
from tally.store.errors import StoreUnavailable

FILE = "revoked.json"
KEPT_SECONDS = 366 * 86_400  # longer than any token is valid


class Revocation(msgspec.Struct, frozen=True):
    """A user's tokens up to that time (seconds) are revoked. Another user may get the number later."""

    user: int
    name: str
    at: int


class Revocations:
    """The list in a data directory. Safe for any number of threads, but for `add`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        # The file that was read, and when each user's tokens were revoked last. It is replaced as a whole, so
        # that a thread that read an older file can't leave its list beside the mark of a newer one.
        self._read: tuple[tuple[int, int, int] | None, dict[tuple[int, str], int]] = (None, {})

    def cover(self, user: int, name: str, issued: int) -> bool:
        """Whether a user's token issued at that time is revoked. Sees changes of the list at once.

        Raises StoreUnavailable if the list can't be read: else a damaged list would let everybody in.
        """
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable(error) from None
        place = found.st_ino, found.st_mtime_ns, found.st_size
        read, latest = self._read
        if read != place:
            latest = self._latest()
            self._read = place, latest
        return issued <= latest.get((user, name), -1)

    def add(self, user: int, name: str, now: int) -> None:
        """Revoke a user's tokens up to now, or longer if they are. It is on the disk when this returns.

        Only one call at a time: run it in a transaction of accounts.db. Raises StoreUnavailable.
        """
        latest = self._latest()
        now = max(now, latest.pop((user, name), now))
        kept = [Revocation(*who, at) for who, at in latest.items() if at > now - KEPT_SECONDS]
        rewrite(self._file, lambda _: msgspec.json.encode([*kept, Revocation(user, name, now)]))

    def all(self) -> list[Revocation]:
        """The list. Raises StoreUnavailable if it can't be read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[Revocation])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            raise self._unreadable(error) from None

    def _latest(self) -> dict[tuple[int, str], int]:
        return {(each.user, each.name): each.at for each in self.all()}

    def _unreadable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self._file}: the list of revoked tokens can't be read: {error}")
