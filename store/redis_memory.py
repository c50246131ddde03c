"""The memory that the stream's Redis uses, and the stream's part of it."""

from contextlib import suppress
from typing import Any

from msgspec import Struct
from redis.exceptions import NoPermissionError

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
    told: Any = {}
    usage: Any = None
    with suppress(NoPermissionError):
        told = stream.client.info("memory")
    with suppress(NoPermissionError):
        usage = stream.client.memory_usage(stream.key, samples=_SAMPLES)
    return Memory(
        used=told.get("used_memory"),
        limit=told.get("maxmemory") or None,
        limit_is_known="maxmemory" in told,
        stream=usage,
    )
