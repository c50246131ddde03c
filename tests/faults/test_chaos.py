"""Random faults under load: every account equals the sum of its accepted invoices."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from support.chaos import Chaos
from support.load import Load
from support.proxy import proxied
from support.redis_process import RedisProcess
from support.tally import running

SECONDS = float(os.environ.get("TALLY_TEST_CHAOS_SECONDS", "30"))
SHORT_SECONDS = 1.5


@pytest.mark.parametrize("retention", [None, SHORT_SECONDS], ids=["a week", "a moment"])
def test_random_faults_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, server: RedisProcess, capsys: pytest.CaptureFixture[str], retention: float | None
) -> None:
    seed = int(os.environ.get("TALLY_TEST_CHAOS_SEED", random.randrange(2**32)))
    with capsys.disabled():
        print(f"\nchaos for {SECONDS:.0f} s, TALLY_TEST_CHAOS_SEED={seed}")
    sections: dict[str, dict[str, Any]] = {
        "consumers": {"accounts": 3, "claim_idle_ms": 2000},
        "customers": {"processes": 2},
        "supervisor": {"heartbeat_timeout": 2},
        "data": {"retention_days": retention / 86_400} if retention else {},
    }
    with proxied(server.port) as proxy, running(tmp_path, redis_url=proxy.url, **sections) as tally:
        chaos = Chaos(tally, server, proxy, seed, retention)
        load = Load(tally, spread=3, pace=0)
        until = time.monotonic() + SECONDS
        with load:
            while time.monotonic() < until:
                chaos.strike()
        load.exact(**chaos.to_be_exact, others=[chaos.probe])
    with capsys.disabled():
        print(f"{len(load.invoices)} invoices, {dict(chaos.struck)}, "
              f"longest recovery {chaos.longest_recovery:.1f} s")  # fmt: skip
