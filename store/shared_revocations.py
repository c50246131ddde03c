"""Tokens revoked at one node are revoked at all: `{stream}:revoked`, beside each node's own list."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from tally.store.revocations import KEPT_SECONDS, Revocation, Revocations
from tally.store.stream import EventStream

CLOCKS_DIFFER_SECONDS = 120  # at most: `check` refuses Redis's clock if it is off by more than half of this
_AT = re.compile(rb"[0-9]{1,10}")
_FIELD = re.compile(r"[0-9]{1,19} .+", re.DOTALL)  # a user's number and name


class SharedRevocations:
    """Syncs one node's list with the one beside the stream, in both directions. Redis may lose its own.

    `locked` gives the lock to hold while the node's list is changed.
    """

    def __init__(
        self, stream: EventStream, own: Revocations, locked: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._stream = stream
        self._own = own
        self._locked = locked

    def exchange(self, now: int) -> None:
        """Tell Redis this node's revocations, and note those of others here.

        May be repeated. Raises RedisError, StoreUnavailable or OSError.
        """
        key = self._stream.beside("revoked")
        found: dict[bytes, bytes] = self._stream.client.hgetall(key)  # type: ignore[assignment]
        shared = dict(filter(None, (_read(field, at, now) for field, at in found.items())))
        own = {
            f"{each.user} {each.name}": each.at for each in self._own.all() if each.at > now - KEPT_SECONDS
        }
        if unheard := {field: at for field, at in own.items() if at > shared.get(field, -1)}:
            self._stream.client.hset(key, mapping=unheard)  # type: ignore[arg-type]
        theirs = [_parsed(field, at) for field, at in shared.items() if at > own.get(field, -1)]
        fresh = [each for each in theirs if each.at > now - KEPT_SECONDS]
        if fresh:
            with self._locked():
                for each in fresh:
                    self._own.add(each.user, each.name, each.at)
        if outdated := [field for field, at in shared.items() if at <= now - KEPT_SECONDS]:
            self._stream.client.hdel(key, *outdated)


def _read(field: bytes, at: bytes, now: int) -> tuple[str, int] | None:
    """A field and its time; None for what Tally has not written."""
    name = field.decode(errors="replace")
    if not _FIELD.fullmatch(name) or not _AT.fullmatch(at) or int(at) > now + CLOCKS_DIFFER_SECONDS:
        return None
    return name, int(at)


def _parsed(field: str, at: int) -> Revocation:
    user, _, name = field.partition(" ")
    return Revocation(int(user), name, at)
