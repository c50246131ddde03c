"""What Redis lets its users do."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis


@contextmanager
def without_right(client: redis.Redis, command: str) -> Iterator[None]:
    """Take the right to a command from everybody, for as long as the context lasts."""
    client.execute_command("ACL", "SETUSER", "default", f"-{command}")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", f"+{command}")  # type: ignore[no-untyped-call]
