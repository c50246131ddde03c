"""A Redis for one measurement, configured like Tally's private one, except for its users."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.client import until
from benchmarks.running import free_ports, scratch
from tally.actors import redis_binaries, redis_server
from tally.actors.redis_fitness import inspect
from tally.config import RedisSettings

_USERS = [("user", "default", "on", "nopass", "~*", "&*", "+@all")]


@contextmanager
def private_redis(base: Path | None, server: Path | None) -> Iterator[str]:
    """Run an empty `server` (default: the newest), its append-only file under `base`; yields its URL."""
    [port] = free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    with scratch(base) as directory:
        path = server or redis_binaries.server_for(directory).path
        configuration = redis_server.configuration(RedisSettings(url=url).address, directory, _USERS)
        process, ended = redis_server.start(path, configuration)
        try:
            until(lambda: inspect(url, "event-stream") is not None, pause=0.01, seconds=10)
            yield url
        finally:
            process.kill()
            process.wait()
            os.close(ended)


def calm(url: str) -> None:
    """Rewrite the append-only file now, so that Redis doesn't do it during a measurement."""
    client = redis.Redis.from_url(url, protocol=2)

    def at_rest() -> bool:
        told: dict[str, Any] = client.info("persistence")
        return not (told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])

    until(at_rest, pause=0.02)  # one may have begun by itself
    client.bgrewriteaof()
    until(at_rest, pause=0.02)
    client.close()


def processor_seconds(url: str) -> float:
    """The processor time of the server, without its forked children."""
    with closing(redis.Redis.from_url(url, protocol=2)) as client:
        told: dict[str, Any] = client.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])
