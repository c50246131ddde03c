"""Sorted lists that take seconds to make. They are made beside the requests, and kept for paging."""

import threading
import time
from array import array
from collections.abc import Callable
from typing import NamedTuple

from tally.events import now, rfc3339
from tally.store.customer_search import Rank

MOST_KEPT = 4  # each takes eight bytes for a customer
REST_SECONDS = 60
REST = 20  # or so many times the processor's time that it took: one order takes at most a twentieth of one


class Ranked(NamedTuple):
    """The customers to sort, and the order; with an `owner`, that user's."""

    owner: str | None
    account_id: int | None
    search: str | None
    rank: Rank


class Ranking(NamedTuple):
    """The sorted ids, as of a moment (RFC 3339)."""

    ids: "array[int]"
    as_of: str
    due: float  # when to make it again, by time.monotonic()


class Rankings:
    """The latest orders. Safe for any number of threads; one order is made at a time."""

    def __init__(self, make: Callable[[Ranked], "array[int]"], rest: float = REST_SECONDS) -> None:
        self._make = make
        self._rest = rest
        self._kept: dict[Ranked, Ranking] = {}  # the latest one comes last
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._at_work = threading.Lock()

    def ask(self, wanted: Ranked) -> Ranking | None:
        """The order, or None while it is unknown: it is being made, or will be when asked for again.

        Doesn't block. If making an order failed, raises its error once.
        """
        with self._lock:
            failure, self._failure = self._failure, None
            if failure:
                raise failure
            if found := self._kept.pop(wanted, None):
                self._kept[wanted] = found
        if (found is None or time.monotonic() >= found.due) and self._at_work.acquire(blocking=False):
            try:
                threading.Thread(target=self._work, args=(wanted,), name="ranking", daemon=True).start()
            except RuntimeError:  # the machine has no more threads to give: whoever asks again tries again
                self._at_work.release()
        return found

    def _work(self, wanted: Ranked) -> None:
        began, as_of = time.thread_time(), rfc3339(now())  # not by a clock: the process may stand still
        try:
            ids = self._make(wanted)
            rest = max(self._rest, REST * (time.thread_time() - began))
            with self._lock:
                self._kept.pop(wanted, None)
                self._kept[wanted] = Ranking(ids, as_of, time.monotonic() + rest)
                for oldest in [*self._kept][:-MOST_KEPT]:
                    del self._kept[oldest]
        except Exception as error:  # raised for the next caller
            self._failure = error
        finally:
            self._at_work.release()
