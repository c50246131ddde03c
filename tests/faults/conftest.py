"""A Tally on a Redis that the test can kill; what tests want in whose process Tally itself runs."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
import structlog

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


@pytest.fixture
def alone() -> Iterator[None]:
    """No other process has these files open, so SQLite needs no locks between processes and no shared index.

    Between the connections of this process it locks as always.
    """
    before = apsw.vfs_names()[0]
    apsw.set_default_vfs("unix-excl")
    yield
    apsw.set_default_vfs(before)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Discard what Tally logs in this process."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)
