"""The limits of one HTTP process, derived from its machine: files, memory, processors."""

import ctypes
import os
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 1024**2

MOST_CONNECTIONS = 2000
FEWEST_CONNECTIONS = 10
MOST_BODIES_BYTES, FEWEST_BODIES_BYTES = 256 * MIB, 32 * MIB  # the least fits one longest body
MOST_UNSENT_BYTES, FEWEST_UNSENT_BYTES = 64 * MIB, 8 * MIB
MOST_SIGN_INS = 8
SOONEST_SECONDS, LATEST_SECONDS = 3.0, 60.0  # between two looks at memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt(3)

_MUCH_BYTES = 16 * MIB

_FILES_WANTED = 4096  # room for MOST_CONNECTIONS
_FILES_OF_A_THREAD = 8  # its connection to the database, and the files of GET /status
_OTHER_FILES = 50  # the writing thread, those for long answers, the log, Python's own
_BODIES_SHARE, _UNSENT_SHARE = 16, 64  # one part in this many of the memory


class Limits(NamedTuple):
    """The most that one process may hold of each at once."""

    connections: int
    body_bytes: int  # of all large bodies together, announced ones included
    unsent_bytes: int  # of all answers together; beyond it, no answer is continued
    sign_ins: int  # password checks at once: each takes a processor and 19 MiB for a while


def of_this_process(threads: int) -> Limits:
    """The limits of this process, which has so many threads. Raises the number of files it may open.

    Call it before the first connection, when all files that stay open are open.
    """
    files, opened = _raise_file_limit(), len(os.listdir("/proc/self/fd"))
    memory, processors = memory_bytes(), len(os.sched_getaffinity(0))
    return Limits(
        most_connections(files, opened, threads),
        min(max(memory // _BODIES_SHARE, FEWEST_BODIES_BYTES), MOST_BODIES_BYTES),
        min(max(memory // _UNSENT_SHARE, FEWEST_UNSENT_BYTES), MOST_UNSENT_BYTES),
        min(2 * processors, MOST_SIGN_INS),
    )


class Memory:
    """Gives memory back to the system after a flood of requests.

    glibc keeps a pool of memory for each thread, and keeps all memory below a block that is still in use.
    With another C library, nothing happens.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        self._process = psutil.Process()
        self._began, self._pause, self._due = self._process.memory_info().rss, SOONEST_SECONDS, 0.0
        if tune := getattr(library, "mallopt", None):
            for setting, value in ((_ARENA_MAX, 2), (_MMAP_THRESHOLD, MIB // 4), (_TRIM_THRESHOLD, MIB)):
                tune(setting, value)

    def give_back(self) -> None:
        """Give back unused memory if there may be much. Call it often: it rarely takes milliseconds."""
        if not self._trim or time.monotonic() < self._due:
            return
        with suppress(OSError):  # no descriptor is left to read this from the system's files
            before = self._process.memory_info().rss
            if before > self._began + _MUCH_BYTES:
                self._trim(0)
                gave = before - self._process.memory_info().rss > MIB
                self._pause = SOONEST_SECONDS if gave else min(2 * self._pause, LATEST_SECONDS)
        self._due = time.monotonic() + self._pause


def most_connections(files: int, opened: int, threads: int) -> int:
    """How many connections a process may hold, with a limit of `files` and `opened` of them in use.

    A long body or answer also takes a file for a while: half of the connections may have one.
    """
    free = files - opened - threads * _FILES_OF_A_THREAD - _OTHER_FILES
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, free * 2 // 3))


def memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or the limit of this process's control groups (cgroups 1 or 2) if lower.

    Their files are read below `root`.
    """
    least = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container, the mount may begin at the container's own group. The path doesn't show that.
        own = top / path.strip("/")
        folders = [own, *own.parents]  # of these, those above `top` hold no such file
        told = (line for folder in folders for line in _lines(folder / name))
        least = min([least, *(int(each) for each in told if each.isdigit())])
    return least


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _raise_file_limit() -> int:
    """Raise the limit of open files, usually 1,024, as each connection takes one. Answers the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_WANTED:
        soft = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _FILES_WANTED if soft == resource.RLIM_INFINITY else soft
