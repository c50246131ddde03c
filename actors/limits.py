"""The limits of one HTTP process, which follow from its machine: files, memory, processors."""

import ctypes
import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

MIB = 1024**2

MOST_CONNECTIONS = 2000
FEWEST_CONNECTIONS = 10
MOST_BODIES_BYTES, FEWEST_BODIES_BYTES = 256 * MIB, 32 * MIB  # the least has room for one of the longest
MOST_UNSENT_BYTES, FEWEST_UNSENT_BYTES = 64 * MIB, 8 * MIB
MOST_SIGN_INS = 8
SOONEST_SECONDS, LATEST_SECONDS = 3.0, 60.0  # until memory is looked at again

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt(3)

_MUCH_BYTES = 16 * MIB

_FILES_WANTED = 4096  # room for MOST_CONNECTIONS
_FILES_OF_A_THREAD = 8  # its connection to the database, and what GET /status opens
_OTHER_FILES = 50  # the threads that write and make long answers, the log, what Python opens now and then
_BODIES_SHARE, _UNSENT_SHARE = 16, 64  # of the memory, one part in so many


class Limits(NamedTuple):
    """Of one process: how much of each there may be at once."""

    connections: int
    body_bytes: int  # announced or there, of all large bodies together
    unsent_bytes: int  # of all answers together; beyond, none is made further
    sign_ins: int  # passwords that are checked: each takes a processor and 19 MiB for a while


def of_this_process(threads: int) -> Limits:
    """The limits of this process, which has so many threads. Raises the number of files it may open.

    To be called before anybody is connected, when what it holds for good is open.
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

    glibc keeps what lies below something that is still in use, in pools of which each thread gets one. Where
    the C library is another, nothing happens.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        self._began, self._pause, self._due = _resident_bytes(), SOONEST_SECONDS, 0.0
        if tune := getattr(library, "mallopt", None):
            for setting, value in ((_ARENA_MAX, 2), (_MMAP_THRESHOLD, MIB // 4), (_TRIM_THRESHOLD, MIB)):
                tune(setting, value)

    def give_back(self) -> None:
        """Give back unused memory where it may be much. Call it often: it seldom takes milliseconds."""
        if not self._trim or time.monotonic() < self._due:
            return
        before = _resident_bytes()
        if before > self._began + _MUCH_BYTES:
            self._trim(0)
            gave = before - _resident_bytes() > MIB
            self._pause = SOONEST_SECONDS if gave else min(2 * self._pause, LATEST_SECONDS)
        self._due = time.monotonic() + self._pause


def _resident_bytes() -> int:
    _, resident, *_ = Path("/proc/self/statm").read_text().split()
    return int(resident) * os.sysconf("SC_PAGE_SIZE")


def most_connections(files: int, opened: int, threads: int) -> int:
    """How many connections a process may hold that may have `files` open, and has `opened` already.

    A long body or answer takes a file too, for a while: one in two connections may have one.
    """
    free = files - opened - threads * _FILES_OF_A_THREAD - _OTHER_FILES
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, free * 2 // 3))


def memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or what this process's control groups (cgroups 1 or 2) may have of it if less.

    What they tell is read below `root`.
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
        # Within a container, what is mounted may begin at its own group, which the path doesn't know of.
        folders = [top, *(top / part for part in _parents(path))]
        told = (line for folder in folders for line in _lines(folder / name))
        least = min([least, *(int(each) for each in told if each.isdigit())])
    return least


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _raise_file_limit() -> int:
    """Each connection is a file, and the usual limit is 1,024. The limit as it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_WANTED:
        soft = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _FILES_WANTED if soft == resource.RLIM_INFINITY else soft
