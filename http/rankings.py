"""Orders that take seconds to find: made beside the requests, kept while people turn the pages."""

import threading
import time
from array import array
from collections.abc import Callable
from typing import NamedTuple

from tally.events import now, rfc3339
from tally.store.customer_search import Rank

MOST_KEPT = 4  # of eight bytes for each customer
REST_SECONDS = 60
REST = 20  # or so many times as long as it took: a twentieth of a processor at most is spent on one order


class Ranked(NamedTuple):
    """Which customers are sorted, and how; with an `owner`, that user's."""

    owner: str | None
    account_id: int | None
    search: str | None
    rank: Rank


class Ranking(NamedTuple):
    """The ids in order, as they were at a moment (RFC 3339)."""

    ids: "array[int]"
    as_of: str
    due: float  # when to make it anew, by time.monotonic()


class Rankings:
    """The orders asked for last. Safe for any number of threads; one order is made at a time."""

    def __init__(self, make: Callable[[Ranked], "array[int]"], rest: float = REST_SECONDS) -> None:
        self._make = make
        self._rest = rest
        self._kept: dict[Ranked, Ranking] = {}  # the one asked for last comes last
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._at_work = threading.Lock()

    def ask(self, wanted: Ranked) -> Ranking | None:
        """The order, or None while it isn't known: then it is being made, or will be when asked for again.

        Doesn't block. Raises, once, what kept an order from being made.
        """
        with self._lock:
            failure, self._failure = self._failure, None
            if failure:
                raise failure
            if found := self._kept.pop(wanted, None):
                self._kept[wanted] = found
        if (found is None or time.monotonic() >= found.due) and self._at_work.acquire(blocking=False):
            threading.Thread(target=self._work, args=(wanted,), name="ranking", daemon=True).start()
        return found

    def _work(self, wanted: Ranked) -> None:
        began, as_of = time.monotonic(), rfc3339(now())
        try:
            ids = self._make(wanted)
            ended = time.monotonic()
            with self._lock:
                self._kept.pop(wanted, None)
                self._kept[wanted] = Ranking(ids, as_of, ended + max(self._rest, REST * (ended - began)))
                for oldest in [*self._kept][:-MOST_KEPT]:
                    del self._kept[oldest]
        except Exception as error:  # to be told to whom asks next
            self._failure = error
        finally:
            self._at_work.release()
