"""How measurements are printed: plain aligned tables, medians with their spread, and the machine."""

import os
import platform
import statistics
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tally.actors.redis_binaries import Release, server_for

WIDTH = 100  # of a paragraph, in characters


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and in parentheses the smallest and the largest; `form` is a format such as `.2f`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}}..{high:{form}})"


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows below each other, the first one underlined, every column as wide as it needs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in ruled
    )


def paragraph(text: str) -> str:
    """The words of `text` in lines of even length."""
    return textwrap.fill(" ".join(text.split()), WIDTH)


def machine(base: Path | None, server: Path | None) -> str:
    """One line about the machine and the programs, and how long the disk under `base` takes for a sync."""
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before, Python {platform.python_version()}, "
        f"{_redis(server)}, fsync {_fsync_ms(base):.2f} ms, "
        f"{platform.system()} {platform.release()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


class Others:
    """The processor use of all programs but this process and its children, since this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = self._processor_seconds()

    def cores(self) -> float:
        """The average number of cores, including the kernel's work and time withheld by a hypervisor."""
        used = self._processor_seconds() - self._before
        return max(0.0, used / (time.monotonic() - self._began))

    @staticmethod
    def _processor_seconds() -> float:
        every = psutil.cpu_times()
        busy = every.user + every.nice + every.system + every.irq + every.softirq + every.steal
        return float(busy - sum(os.times()[:4]))  # with ended children, and theirs


def _redis(server: Path | None) -> str:
    """The server's engine and version."""
    if server is None:
        return str(server_for(Path("nothing-yet")).release)
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return str(Release.parse(said))


def _fsync_ms(base: Path | None) -> float:
    """The median, in milliseconds, of appending 4 KiB to a file and syncing it."""
    taken = []
    with tempfile.TemporaryFile(dir=base) as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)
