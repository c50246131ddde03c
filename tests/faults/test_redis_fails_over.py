"""Redis with replicas: Tally finds the server that takes over the stream, and all counts once."""

from pathlib import Path

from support.cli import command
from support.load import Load
from support.redis_process import RedisProcess
from support.replicated import SECONDS, Cluster, Sentinels, cluster, sentinels
from support.tally import Tally, running
from support.troubles import troubles
from support.waiting import eventually


def test_with_sentinels_whoever_becomes_the_primary_is_found(tmp_path: Path) -> None:
    with (
        sentinels(tmp_path / "redis") as redis,
        running(tmp_path / "tally", redis_url=redis.url) as tally,
    ):
        before, load = tally.pids(), Load(tally, clients=2, spread=3)
        for _ in range(2):
            former = redis.primary()
            _killed_under_load(former, redis, tally, load)
            former.start()  # the sentinels make it a replica
            eventually(redis.is_whole, SECONDS)
        assert tally.pids() == before
        found = command("check", "--config", tally.directory / "tally.toml")
        assert f"now 127.0.0.1:{redis.primary().port}" in found.stdout


def test_in_a_cluster_whoever_has_the_slot_is_found(tmp_path: Path) -> None:
    with cluster(tmp_path / "redis") as redis, running(tmp_path / "tally", redis_url=redis.url) as tally:
        before, load = tally.pids(), Load(tally, clients=2, spread=3)
        former = redis.owner()
        _killed_under_load(former, redis, tally, load)
        redis.start(former)
        eventually(redis.is_whole, SECONDS)

        target = next(server for server in redis.servers[:3] if server not in (former, redis.owner()))
        with load:
            load.goes_on(100)
            redis.move_slot(target)
            load.goes_on(100)
        eventually(lambda: not troubles(tally))
        load.exact(once=False)
        assert tally.pids() == before


def _killed_under_load(former: RedisProcess, redis: Sentinels | Cluster, tally: Tally, load: Load) -> None:
    """Kill the stream's primary; all accepted before, meanwhile and after counts once."""
    with load:
        load.goes_on(100)
        former.kill()
        load.goes_on(100)
        redis.fails_over(former)
        load.goes_on(100)
    eventually(lambda: not troubles(tally))
    load.exact(once=False)  # events that the replica lacked were published again
