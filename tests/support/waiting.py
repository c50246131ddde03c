"""Waiting for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

import redis
import urllib3

T = TypeVar("T")
PATIENCE = 120.0  # seconds: a busy machine is no fault of a test
NOT_YET = (AssertionError, OSError, urllib3.exceptions.HTTPError, redis.RedisError)


def eventually(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Call `look` until its result is true; return it. Fails when the time is over.

    An AssertionError from `look` counts as not yet, and so does an error of HTTP, Redis or the system.
    """
    started = time.monotonic()
    last: object = None
    while (waited := time.monotonic() - started) < seconds:
        try:
            if seen := look():
                return seen
            last = seen
        except NOT_YET as error:
            last = error
        time.sleep(min(max(0.01, waited / 10), 0.1))  # looking costs whoever answers a part of a processor
    raise AssertionError(f"not within {seconds} s; last seen: {last!r}")


def known(look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Call `look` until its result is not None; return it."""
    found = eventually(lambda: None if (seen := look()) is None else (seen,), seconds)
    assert found
    return found[0]
