"""What all processes together cost while nobody asks anything of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import cdnow
from benchmarks.client import Unexpected
from benchmarks.report import paragraph, spread, table
from benchmarks.running import Running, running

CPU_TARGET = "at most 2 % of one core"
MEMORY_TARGET = "at most 300 MB"
CALM_SECONDS = 3.0
WINDOW_SECONDS = 20.0


class Cost(NamedTuple):
    """One process: per cent of one core, and its proportional set size in MB (10^6 bytes)."""

    cpu: float
    memory: float


Costs = dict[str, Cost]


def measure(runs: int, base: Path | None, say: Callable[[str], None]) -> str:
    """Watch an idle Tally `runs` times for WINDOW_SECONDS, each time a new one; answer a table in words."""
    purchases = cdnow.read(cdnow.FILE)
    windows = []
    for run in range(runs):
        say(f"idle: run {run + 1} of {runs}")
        with running(base) as tally:
            cdnow.load(tally, purchases, cdnow.in_batches)
            time.sleep(CALM_SECONDS)
            windows.append(watch(tally))
    return f"{_table(windows)}\n\n{_NOTES}"


def watch(tally: Running) -> Costs:
    """What each process costs, by name. Blocks for WINDOW_SECONDS; raises Unexpected when one is replaced."""
    processes = tally.processes()
    started = time.perf_counter()
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    time.sleep(WINDOW_SECONDS)
    after = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    seconds = time.perf_counter() - started
    memory = {name: process.memory_full_info().pss for name, process in processes.items()}
    if tally.processes() != processes:
        raise Unexpected("a process ended or began while all was idle")
    return {
        name: Cost((after[name] - before[name]) / seconds * 100, memory[name] / 1e6) for name in processes
    }


def _table(windows: Sequence[Costs]) -> str:
    cpu = [sum(cost.cpu for cost in costs.values()) for costs in windows]
    memory = [sum(cost.memory for cost in costs.values()) for costs in windows]
    each = [
        [
            f"  {name}",
            f"{statistics.median(costs[name].cpu for costs in windows):.2f}",
            f"{statistics.median(costs[name].memory for costs in windows):.1f}",
        ]
        for name in windows[0]
    ]
    return table(
        [
            ["", "% of one core, median (min..max)", "MB PSS, median (min..max)"],
            ["targets", f"[{CPU_TARGET}]", f"[{MEMORY_TARGET}]"],
            [f"all {len(each)} processes", spread(cpu, ".2f"), spread(memory, ".1f")],
            *each,
        ]
    )


_NOTES = paragraph(f"""
    Default settings, {WINDOW_SECONDS:.0f} s of user and system time, beginning {CALM_SECONDS:.0f} s after
    the CDNOW data was loaded in batches: idle after work, not fresh. Proportional set size: what processes
    share is divided among them. MB is 10^6 bytes. The kernel counts processor time in steps of 10 ms, 0.05
    % of the window for each process.
""")
