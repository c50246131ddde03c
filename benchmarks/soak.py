"""Chaos for hours: `python -m benchmarks.soak --hours 8` from the repository root.

The same faults and the same checks as tests/faults/test_chaos.py, round after round; stops at the first
account that is not exact. Progress goes to standard error, the summary to standard output.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.chaos import Chaos
from support.load import Load
from support.proxy import proxied
from support.redis_process import RedisProcess
from support.tally import running

ROUND_SECONDS = 300.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--hours", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--seed", type=int, help="Repeat the faults of an earlier run.")
def main(hours: float, seed: int | None) -> None:
    """Strike a running Tally at random, and print what it went through."""
    seed = random.randrange(2**32) if seed is None else seed
    until = time.monotonic() + hours * 3600
    struck: Counter[str] = Counter()
    events, longest, rounds = 0, 0.0, 0
    while (left := until - time.monotonic()) > 0:
        click.echo(f"round {rounds + 1}, seed {seed + rounds}", err=True)
        chaos, accepted = _round(seed + rounds, min(ROUND_SECONDS, left))
        struck += chaos.struck
        events += accepted
        longest = max(longest, chaos.longest_recovery)
        rounds += 1
    click.echo(f"seed {seed}, {rounds} rounds, {hours:g} h: every account exact")
    click.echo(f"invoices accepted  {events}")
    click.echo(f"longest recovery   {longest:.1f} s")
    for fault, count in struck.most_common():
        click.echo(f"{fault:<18} {count}")


def _round(seed: int, seconds: float) -> tuple[Chaos, int]:
    """Run faults and load for `seconds`, and check; return the chaos and the number of invoices."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = RedisProcess(directory / "redis")
        server.start()
        try:
            with proxied(server.port) as proxy:
                sections = {
                    "consumers": {"accounts": 3, "claim_idle_ms": 2000},
                    "supervisor": {"heartbeat_timeout": 2},
                }
                with running(directory, redis_url=proxy.url, **sections) as tally:
                    chaos, load = Chaos(tally, server, proxy, seed), Load(tally, spread=3)
                    end = time.monotonic() + seconds
                    with load:
                        while time.monotonic() < end:
                            chaos.strike()
                    load.exact(**chaos.to_be_exact, others=[chaos.probe])
                    return chaos, len(load.invoices)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
