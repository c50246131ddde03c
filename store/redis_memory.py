"""The memory that the stream's Redis uses, and the stream's part of it."""

from typing import Any

import redis
from msgspec import Struct

from tally.store.stream import EventStream

_SAMPLES = 5  # Redis samples so many of the stream's nodes, and so answers at once


class Memory(Struct, frozen=True):
    """In bytes: the used memory, its limit (None: no limit), and the stream's estimated part.

    A figure that Redis denies this user is None, too; `limit_is_known` tells the two apart.
    """

    used: int | None = None
    limit: int | None = None
    limit_is_known: bool = False
    stream: int | None = None


def memory_of(stream: EventStream) -> Memory:
    """Ask Redis. It answers at once, however large the stream is. Raises RedisError."""
    told: Any = _allowed(lambda: stream.client.info("memory")) or {}
    usage: Any = _allowed(lambda: stream.client.memory_usage(stream.key, samples=_SAMPLES))
    return Memory(
        used=told.get("used_memory"),
        limit=told.get("maxmemory") or None,
        limit_is_known="maxmemory" in told,
        stream=usage,
    )


def _allowed(ask: Any) -> Any:
    """The answer of Redis; None if the user lacks the right to ask."""
    try:
        return ask()
    except redis.exceptions.NoPermissionError:
        return None
