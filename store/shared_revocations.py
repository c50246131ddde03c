"""Tokens revoked at one node are revoked at all: `{stream}:revoked`, beside each node's own list."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from tally.store.revocations import KEPT_SECONDS, Revocations
from tally.store.stream import EventStream

CLOCKS_DIFFER_SECONDS = 120  # at most: `check` refuses Redis's clock if it is off by more than half of this
_AT = re.compile(rb"[0-9]{1,10}")
_FIELD = re.compile(r"[0-9]{1,19} .+", re.DOTALL)  # a user's number and name


def exchange(
    stream: EventStream, own: Revocations, locked: Callable[[], AbstractContextManager[None]], now: int
) -> None:
    """Tell Redis this node's revocations, and note those of others here. Redis may lose its own.

    `locked` gives the lock to hold while the node's list is changed. May be repeated. Raises RedisError
    or StoreUnavailable.
    """
    key = stream.beside("revoked")
    found: dict[bytes, bytes] = stream.client.hgetall(key)  # type: ignore[assignment]
    shared = dict(filter(None, (_read(field, at, now) for field, at in found.items())))
    here = {f"{each.user} {each.name}": each.at for each in own.all() if each.at > now - KEPT_SECONDS}
    if outdated := [field for field, at in shared.items() if at <= now - KEPT_SECONDS]:
        stream.client.hdel(key, *outdated)  # first: a user may have been revoked anew since
    if unheard := {field: at for field, at in here.items() if at > shared.get(field, -1)}:
        stream.client.hset(key, mapping=unheard)  # type: ignore[arg-type]
    if fresh := {f: at for f, at in shared.items() if at > max(here.get(f, -1), now - KEPT_SECONDS)}:
        with locked():
            for field, at in fresh.items():
                user, _, name = field.partition(" ")
                own.add(int(user), name, at)


def _read(field: bytes, at: bytes, now: int) -> tuple[str, int] | None:
    """A field and its time; None for what Tally has not written."""
    name = field.decode(errors="replace")
    if not _FIELD.fullmatch(name) or not _AT.fullmatch(at) or int(at) > now + CLOCKS_DIFFER_SECONDS:
        return None
    return name, int(at)
