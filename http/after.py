"""Read your own writes: a GET with `Tally-After` waits until the events that it names are applied here.

It waits without a thread: a request that is too early is put aside, and is answered again from the beginning
once its events have come, or its time is over.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import falcon
import structlog

from tally.events import EventRange
from tally.http.auth import is_open_to_all
from tally.http.problems import FieldError, Refusal, WrongFields
from tally.http.service import Service
from tally.store import ranges
from tally.store.errors import StoreError
from tally.store.inbox import DEAD, DISCARDED, Inbox
from tally.store.incarnations import own_sources
from tally.store.ranges import Range

WAIT_SECONDS = 1.0  # unless `Prefer: wait=N` says otherwise (RFC 7240)
LONGEST_WAIT_SECONDS = 30
LOOK_SECONDS = 0.005  # between two looks
RESTS = 4  # rests at least so many times the processor's time that a look at all of them takes
GONE_SECONDS = 1.0  # how long Redis's answer about lost events is kept
WAITS_UNTIL = "tally.waits_until"  # in the environment of a request that has waited: time.monotonic()

_log = structlog.get_logger()


class NotYet(BaseException):
    """The request must be answered later: at `until` (time.monotonic()), or as soon as `is_over`.

    Not an Exception: only the server may catch it.
    """

    def __init__(self, until: float, is_over: Callable[[], bool]) -> None:
        super().__init__()
        self.until = until
        self.is_over = is_over


class After:
    """Middleware of one service: holds back reads until the events that they name are applied."""

    def __init__(self, service: Service[Any]) -> None:
        self._service = service
        self._known_gone: Mapping[str, list[Range]] = {}
        self._asks_again = 0.0

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Raises NotYet, Refusal, or WrongFields for events that can't be waited for."""
        text = req.env.get("HTTP_TALLY_AFTER")
        if text is None or req.method not in ("GET", "HEAD") or is_open_to_all(req):
            return
        try:
            awaited = EventRange.parse(text)
        except ValueError as error:
            raise WrongFields([FieldError("Tally-After", str(error))]) from None
        if self._are_applied(awaited):
            return
        if WAITS_UNTIL not in req.env:
            until = time.monotonic() + _wait(req.env.get("HTTP_PREFER", ""))
            raise NotYet(until, lambda: self._are_applied(awaited, asks=True))
        why = f"Not all events of {awaited.source} up to {awaited.last} have been applied here."
        raise Refusal(503, "Not applied yet", why)

    def _are_applied(self, awaited: EventRange, asks: bool = False) -> bool:
        """Whether all of them are. Raises HTTPServiceUnavailable, or WrongFields, if they never will be."""
        with self._service.read() as store:
            if awaited.source in own_sources(store.database):
                return True
            if not awaited.source.startswith(self._service.outside.source_prefix):
                why = f"Events of {awaited.source} are not applied here"
                raise WrongFields([FieldError("Tally-After", why)])
            inbox = Inbox(store.database)
            missing = inbox.missing(awaited.source, awaited.last)
            dead = inbox.first_aside(DEAD, awaited.source, 1, awaited.last)
            discarded = inbox.first_aside(DISCARDED, awaited.source, awaited.first, awaited.last)
        if dead:
            how = "is a dead letter here, or was one until just now; see `dead-letters`"
            raise _never(f"The event {awaited.source}:{dead} {how}.")
        if discarded:  # a later event's read goes on without it
            raise _never(f"The event {awaited.source}:{discarded} was discarded here, and is never applied.")
        if not missing:
            return True
        if asks and time.monotonic() >= self._asks_again:  # only the thread that looks after all asks
            self._known_gone = self._service.outside.gone(store.database.source)
            self._asks_again = time.monotonic() + GONE_SECONDS
        said = self._known_gone if time.monotonic() < self._asks_again else {}
        if gone := ranges.both(missing, said.get(awaited.source, [])):
            numbers = ranges.shown(gone[:5])
            raise _never(f"The events {numbers} of {awaited.source} are missing; see `status`.")
        return False


def _never(why: str) -> falcon.HTTPServiceUnavailable:
    return falcon.HTTPServiceUnavailable(title="Not applied", description=why)


def _wait(prefer: str) -> float:
    """How long a request waits (RFC 7240). A preference that can't be understood is ignored."""
    for preference in prefer.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdigit():
            return min(int(value[:9]), LONGEST_WAIT_SECONDS)
    return WAIT_SECONDS


class Waiting:
    """Waiting requests. Once a request's wait is over, `go_on` is called with it.

    One thread looks after all of them, while there are any; `go_on` must not block it.
    """

    def __init__(self, go_on: Callable[[Any], None]) -> None:
        self._go_on = go_on
        self._waiting: list[tuple[Any, NotYet]] = []
        self._lock = threading.Lock()
        self._is_looking = False
        self._ended = False

    def add(self, request: Any, not_yet: NotYet) -> None:
        """Let a request wait. For any thread; does not block."""
        with self._lock:
            self._waiting.append((request, not_yet))
            if self._is_looking:
                return
            self._is_looking = True
        try:
            threading.Thread(target=self._look, name="waiting", daemon=True).start()
        except RuntimeError:  # the machine has no more threads to give, so nobody waits
            self._go_on_at_once()

    def _go_on_at_once(self) -> None:
        with self._lock:
            waiting, self._waiting, self._is_looking = self._waiting, [], False
        for request, _ in waiting:
            self._go_on(request)

    def end(self) -> None:
        """End all waits, present and future: all requests go on. May be repeated."""
        self._ended = True

    def _look(self) -> None:
        while True:
            with self._lock:
                looked_at, self._waiting = self._waiting, []
                if not looked_at:
                    self._is_looking = False
                    return
            began = time.thread_time()  # not by a clock: the process may stand still meanwhile (Ctrl-Z)
            left = []
            for request, not_yet in looked_at:
                if self._ended or time.monotonic() >= not_yet.until or _is_over(not_yet):
                    self._go_on(request)
                else:
                    left.append((request, not_yet))
            with self._lock:
                self._waiting += left
            if left:  # looks take a small part of the time, however many requests wait
                time.sleep(max(LOOK_SECONDS, RESTS * (time.thread_time() - began)))


def _is_over(not_yet: NotYet) -> bool:
    """Whether the wait is over. True if it is in vain, or that can't be told: the request finds out why."""
    try:
        return not_yet.is_over()
    except (falcon.HTTPError, StoreError):
        return True
    except Exception:
        _log.exception("wait_failed")  # the others are looked after all the same
        return True
