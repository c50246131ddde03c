"""The costs of each of Tally's processes while something happens."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from benchmarks.client import Unexpected
from benchmarks.report import spread, table
from benchmarks.running import Running

_LOOK_SECONDS = 0.1  # between two looks for a peak


class Cost(NamedTuple):
    """One process: per cent of one core, and its proportional set size in MB (10^6 bytes)."""

    cpu: float
    memory: float


Costs = dict[str, Cost]


def watch(tally: Running, during: Callable[[], object]) -> Costs:
    """The costs of each process while `during` runs, by name; the memory is measured at the end.

    Raises Unexpected if a process is replaced meanwhile.
    """
    processes = tally.processes()
    started = time.perf_counter()
    used = spent(tally, during)
    seconds = time.perf_counter() - started
    memory = {name: process.memory_full_info().pss for name, process in processes.items()}
    return {name: Cost(used[name] / seconds * 100, memory[name] / 1e6) for name in processes}


def spent(tally: Running, during: Callable[[], object]) -> dict[str, float]:
    """The seconds of processor time of each process while `during` runs, by name.

    Raises Unexpected if a process is replaced meanwhile.
    """
    processes = tally.processes()
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    during()
    after = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    if tally.processes() != processes:
        raise Unexpected("a process ended or began meanwhile")
    return {name: after[name] - before[name] for name in processes}


class Peaks:
    """The highest memory seen of each process while this is entered, in MB, by name."""

    def __init__(self, tally: Running) -> None:
        self._processes = tally.processes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.megabytes = self._now()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            for name, found in self._now().items():
                self.megabytes[name] = max(self.megabytes[name], found)

    def _now(self) -> dict[str, float]:
        return {name: process.memory_full_info().pss / 1e6 for name, process in self._processes.items()}


def cpu(windows: Sequence[Costs]) -> list[float]:
    """Per cent of one core in each window, for all processes together."""
    return [sum(cost.cpu for cost in costs.values()) for costs in windows]


def memory(windows: Sequence[Costs]) -> list[float]:
    """MB in each window, for all processes together."""
    return [sum(cost.memory for cost in costs.values()) for costs in windows]


def tabled(windows: Sequence[Costs]) -> str:
    """A table: all processes together, then each."""
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
