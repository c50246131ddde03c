"""Take rights from Redis's users."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis


@contextmanager
def without_right(client: redis.Redis, command: str) -> Iterator[None]:
    """Forbid a command to every user, for as long as the context lasts."""
    client.execute_command("ACL", "SETUSER", "default", f"-{command}")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", f"+{command}")  # type: ignore[no-untyped-call]
