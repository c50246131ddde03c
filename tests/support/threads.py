"""Stop a thread of another process, while its other threads run."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from support.disks import unavailable

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_ALL_THREADS = 0x40000000  # __WALL

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def stopped(thread: int) -> Iterator[None]:
    """Stop the thread with that number for as long as the context lasts, if it lives that long."""
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        os.waitpid(thread, _ALL_THREADS)
        yield
    finally:
        if (
            _libc.ptrace(_DETACH, thread, None, None) < 0
        ):  # it was killed, and its process waits until we reap it
            os.waitpid(thread, _ALL_THREADS)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) < 0:
        unavailable("ptrace", os.strerror(ctypes.get_errno()))
