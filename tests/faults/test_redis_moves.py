"""Another server becomes the primary: Tally finds it, even if the old one keeps its connections open."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.load import Load
from support.proxy import Proxy, proxied
from support.redis_process import RedisProcess
from support.tally import running
from support.troubles import troubled, troubles
from support.waiting import eventually


@pytest.fixture
def other(tmp_path: Path, server: RedisProcess) -> Iterator[RedisProcess]:
    """An up-to-date replica of `server`."""
    other = RedisProcess(tmp_path / "other")
    other.start("--replicaof", f"127.0.0.1 {server.port}")
    try:
        eventually(lambda: _replication(other)["master_link_status"] == "up")
        yield other
    finally:
        other.kill()


@pytest.fixture
def proxy(server: RedisProcess) -> Iterator[Proxy]:
    with proxied(server.port) as proxy:
        yield proxy


def test_a_primary_that_is_demoted_is_let_go_of(
    tmp_path: Path, server: RedisProcess, other: RedisProcess, proxy: Proxy
) -> None:
    with running(tmp_path, redis_url=proxy.url) as tally:
        before, load = tally.pids(), Load(tally, clients=2, spread=3)
        for primary, replica in [(other, server), (server, other)]:
            with load:
                load.goes_on(100)
                _fail_over(primary, replica)
                eventually(lambda: len(troubled(tally, "read only replica")) >= 4)  # idle actors see none
                proxy.lead_to(primary.port)
                load.goes_on(100)
            eventually(lambda: not troubles(tally))
            load.exact()
            assert _replication(replica)["role"] == "slave"
        assert tally.pids() == before


def _fail_over(primary: RedisProcess, replica: RedisProcess) -> None:
    """Let the replica take over, without losing anything."""
    replica.client.config_set("min-replicas-to-write", 2)  # now the primary takes no more writes
    offset = _replication(replica)["master_repl_offset"]
    eventually(lambda: _replication(primary)["slave_repl_offset"] >= offset)
    primary.client.replicaof("NO", "ONE")
    replica.client.replicaof("127.0.0.1", str(primary.port))
    replica.client.config_set("min-replicas-to-write", 0)


def _replication(server: RedisProcess) -> dict[str, Any]:
    return dict(server.client.info("replication"))
