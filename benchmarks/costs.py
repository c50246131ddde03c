"""What each of Tally's processes costs while something happens."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.client import Unexpected
from benchmarks.report import spread, table
from benchmarks.running import Running


class Cost(NamedTuple):
    """One process: per cent of one core, and its proportional set size in MB (10^6 bytes)."""

    cpu: float
    memory: float


Costs = dict[str, Cost]


def watch(tally: Running, during: Callable[[], object]) -> Costs:
    """What each process costs while `during` runs, by name; the memory is what it has at the end.

    Raises Unexpected when a process is replaced meanwhile.
    """
    processes = tally.processes()
    started = time.perf_counter()
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    during()
    after = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    seconds = time.perf_counter() - started
    memory = {name: process.memory_full_info().pss for name, process in processes.items()}
    if tally.processes() != processes:
        raise Unexpected("a process ended or began meanwhile")
    return {
        name: Cost((after[name] - before[name]) / seconds * 100, memory[name] / 1e6) for name in processes
    }


def cpu(windows: Sequence[Costs]) -> list[float]:
    """Of all processes together, per cent of one core, in each window."""
    return [sum(cost.cpu for cost in costs.values()) for costs in windows]


def memory(windows: Sequence[Costs]) -> list[float]:
    """Of all processes together, in MB, in each window."""
    return [sum(cost.memory for cost in costs.values()) for costs in windows]


def largest(windows: Sequence[Costs]) -> list[float]:
    """The memory of the actor that has most, in MB, in each window; redis-server is no actor of ours."""
    return [max(cost.memory for name, cost in costs.items() if name != "redis-server") for costs in windows]


def tabled(windows: Sequence[Costs]) -> str:
    """All processes together, then each."""
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
            [f"all {len(each)} processes", spread(cpu(windows), ".2f"), spread(memory(windows), ".1f")],
            *each,
        ]
    )
