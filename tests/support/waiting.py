"""Waiting for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], seconds: float = 20.0) -> T:
    """Call `look` until its result is true; return it. Fails when the time is over.

    An AssertionError or an OSError from `look` counts as not yet.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if seen := look():
                return seen
            last = seen
        except (AssertionError, OSError) as error:
            last = error
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s; last seen: {last!r}")


def known(look: Callable[[], T | None], seconds: float = 20.0) -> T:
    """Call `look` until its result is not None; return it."""
    found = eventually(lambda: None if (seen := look()) is None else (seen,), seconds)
    assert found
    return found[0]
