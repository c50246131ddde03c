"""How much memory the Redis of the stream uses, and how much of it the stream has."""

from typing import Any

import redis
from msgspec import Struct

from tally.store.stream import EventStream

_SAMPLES = 5  # nodes of the stream that Redis looks at, and takes for all: so it answers at once


class Memory(Struct, frozen=True):
    """Bytes: all that is used, at most how much may be (None: no limit), and what the stream has, estimated.

    What Redis does not tell this user is None too; `limit_is_known` says which of both it is.
    """

    used: int | None = None
    limit: int | None = None
    limit_is_known: bool = False
    stream: int | None = None


def memory_of(stream: EventStream) -> Memory:
    """Ask Redis, which needs no time for it, however large the stream is. Raises RedisError."""
    told: Any = _allowed(lambda: stream.client.info("memory")) or {}
    usage: Any = _allowed(lambda: stream.client.memory_usage(stream.key, samples=_SAMPLES))
    return Memory(
        used=told.get("used_memory"),
        limit=told.get("maxmemory") or None,
        limit_is_known="maxmemory" in told,
        stream=usage,
    )


def _allowed(ask: Any) -> Any:
    """What Redis answers; None where the user lacks the right to ask."""
    try:
        return ask()
    except redis.exceptions.NoPermissionError:
        return None
