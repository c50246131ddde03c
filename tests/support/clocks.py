"""A settable clock for the processes that are started with it.

It is a few lines of C, loaded before the C library. libfaketime doesn't work here:
Python's time.sleep then fails with EINVAL, and the allocator of Debian's redis-server hangs.
"""

import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.disks import unavailable

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("TALLY_TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *seen = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (seen == MAP_FAILED) abort();
    close(file);
    ahead = seen;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
    return failed;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The time of day of the processes started with it. Their monotonic clock is the true one."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(struct.pack("l", 0))
        with file.open("r+b") as opened:
            self._ahead = mmap.mmap(opened.fileno(), 0)

    def set(self, seconds: int) -> None:
        """Set the clock this far ahead of the true time (or behind, if negative). Takes effect at once."""
        self._ahead[:] = struct.pack("l", seconds)


def clock_in(directory: Path) -> tuple[Clock, dict[str, str]]:
    """A clock, and the environment variables that make a process use it."""
    library, file = directory / "clock.so", directory / "clock"
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", library, "-xc", "-"],
            input=_SOURCE.encode(),
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        unavailable("a C compiler", f"{getattr(error, 'stderr', error)!r}")
    return Clock(file), {"LD_PRELOAD": str(library), "TALLY_TEST_CLOCK": str(file)}


@contextmanager
def settable_clock(directory: Path) -> Iterator[Clock]:
    """Processes that are started inside use the clock."""
    clock, environment = clock_in(directory)
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield clock
    finally:
        os.environ.clear()
        os.environ.update(before)
