"""A Tally on a Redis that the test can kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis_process import RedisProcess
from support.tally import Tally, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A running redis-server for this test only."""
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def on_server(tmp_path: Path, server: RedisProcess) -> Iterator[Tally]:
    """A Tally that runs on that server. No fault of Redis may end one of its actors."""
    with running(tmp_path, redis_url=server.url) as tally:
        before = tally.pids()
        yield tally
        assert tally.pids() == before
