"""A redis-server of a measurement's own, configured as the one that Tally starts."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.client import until
from benchmarks.running import free_ports, scratch
from tally.actors.actor import die_with_parent
from tally.actors.redis_server import answers, configuration, find_server
from tally.config import RedisSettings


@contextmanager
def private_redis(base: Path | None) -> Iterator[str]:
    """Run an empty redis-server, its append-only file under `base`; gives its URL."""
    [port] = free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    with scratch(base) as directory:
        process = subprocess.Popen(
            [find_server(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        try:
            assert process.stdin
            with process.stdin as stdin:
                stdin.write(configuration(RedisSettings(url=url).address, directory).encode())
            until(lambda: answers(url), pause=0.01, seconds=10)
            yield url
        finally:
            process.kill()
            process.wait()


def calm(url: str) -> None:
    """Have the append-only file rewritten now, so that it is not while something is measured."""
    client = redis.Redis.from_url(url, protocol=2)

    def at_rest() -> bool:
        told: dict[str, Any] = client.info("persistence")
        return not (told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])

    until(at_rest, pause=0.02)  # one may have begun by itself
    client.bgrewriteaof()
    until(at_rest, pause=0.02)
    client.close()
