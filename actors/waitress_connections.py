"""A connection: its requests are read ahead, answered one by one, and no thread waits for its client.

No later release of waitress makes any of this needless yet.
"""

import sys
import time
from types import SimpleNamespace
from typing import Any

import waitress.channel
from waitress.utilities import InternalServerError

from tally.actors.waitress_answers import Paused, ProblemTask, Task
from tally.actors.waitress_requests import Parser, Refused
from tally.http.after import NotYet
from tally.http.requests import ANSWERED
from tally.store.errors import StoreError

MOST_AHEAD = 4  # requests of a connection read ahead: each takes a hundred times its bytes
MOST_UNREAD_BYTES = 768 * 1024  # of an answer; beyond, it is not continued
SEND_BYTES = 64 * 1024  # less is sent by the loop: header and body, and several clients', at once
RETRY = ("Retry-After", "1")


# For waitress. By the wall clock, setting it would end all idle connections.
MONOTONIC = SimpleNamespace(time=time.monotonic)
waitress.channel.time = MONOTONIC


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. Threads answer its requests one by one; the loop reads, and sends the rest.

    No thread waits for a client. An answer with many unread bytes is put aside (`parked`), and so is a
    request behind such answers. The loop hands it to a thread again once the client has read.
    """

    parser_class = Parser
    error_task_class = ProblemTask
    requests: list[Any]
    parked = False
    answered = False  # an answer is complete: send it without waiting for the next one
    request: Any
    sent_continue: bool
    _begun: Task | None = None
    follows = False  # the waiting request came behind another one
    waited_until: float | None = None  # set if the first request has waited: see NotYet
    served_at = 0.0  # when its client last got anything; what he sends proves nothing
    _sending = False
    _unparsed = b""  # the bytes behind the waiting requests

    @staticmethod
    def task_class(channel: "Channel", request: Any) -> Task:
        """waitress's hook that makes a task: answers the task that has begun already, if there is one."""
        begun, channel._begun = channel._begun, None
        return begun or Task(channel, request)

    def is_full(self) -> bool:
        """Whether this client, or all together, have so much unread that nothing more may be made."""
        unread, most = self.total_outbufs_len, self.server.limits.unsent_bytes
        return bool(unread > MOST_UNREAD_BYTES or (unread > SEND_BYTES and self.server.unsent() > most))

    @property
    def is_long(self) -> bool:
        """Whether a long answer has begun."""
        return bool(self._begun and self._begun.is_long)

    def body_bytes(self) -> int:
        """The size of its requests' bodies, as far as known."""
        return sum(each.size() for each in [*self.requests, self.request] if each)

    def received(self, data: bytes) -> None:
        """Take in received bytes, but parse no more requests than MOST_AHEAD."""
        with self.requests_lock:
            self.follows = bool(self.requests)
            self._unparsed += data
            self._parse()

    def _parse(self) -> None:
        """Parse up to MOST_AHEAD requests. The caller holds the lock of the requests."""
        if self.will_close or self.close_when_flushed:
            self._unparsed = b""
        while self._unparsed and len(self.requests) < MOST_AHEAD:
            request = self.request = self.request or self.parser_class(self.adj)
            taken = request.received(self._unparsed)
            self._unparsed = self._unparsed[taken:]
            waits = request.expect_continue and request.headers_finished
            if waits and not self.requests and not self.sent_continue:
                self.send_continue()
            if not request.completed:
                continue
            self.sent_continue, self.request = False, None
            if not request.empty:
                self.requests.append(request)
                if len(self.requests) == 1:
                    self.server.add_task(self)

    def writable(self) -> bool:
        """Whether the loop must send. Not while a thread sends, or the loop would spin."""
        if self.will_close or self.close_when_flushed or self.parked:
            return True
        if not self.total_outbufs_len or self._sending:
            return False
        return self.answered or not self.requests or self.total_outbufs_len >= SEND_BYTES

    def handle_write(self) -> None:
        """Send what the client takes. Then close, or resume a parked answer, if due."""
        self.answered = False  # reset first, as a thread may set it meanwhile
        self._flush_exception(self._flush_some_if_lockable)
        # In this order: with `close_when_flushed` nothing more comes; before it, a thread may add something.
        if self.close_when_flushed and not self.total_outbufs_len:
            self.will_close = True
        elif self.total_outbufs_len:
            self.answered = True
        if self.will_close:
            self.handle_close()
        elif self.parked and self.total_outbufs_len <= MOST_UNREAD_BYTES // 2 and not self.is_full():
            self.parked = False
            self.server.add_task(self)

    def write_soon(self, data: Any) -> int:
        """Send as much of an answer as the client takes; the loop sends the rest."""
        self._sending = True
        try:
            written: int = super().write_soon(data)
        finally:
            self._sending = False
        if self.total_outbufs_len >= SEND_BYTES:
            self.server.pull_trigger()
        return written

    def _flush_some(self, do_close: bool = False) -> bool:  # only the loop, which asks for it, may close
        sent = bool(super()._flush_some(do_close))
        if sent:
            self.served_at = time.monotonic()
        return sent

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Do nothing: waitress would make the thread wait here."""

    def work(self) -> None:
        """Make the answer to the first waiting request; see Job."""
        self._begun = None
        if self.connected:
            task = Task(self, self.requests[0])
            task.prepare()
            self._begun = task

    def finish(self) -> None:
        """Send the answer; 500 if there is none."""
        if self.connected and self._begun is None:
            self.requests[0].error = InternalServerError("This is a fault of the service; its log tells more")
        self.service()

    def fail(self, reason: StoreError) -> None:
        """Send 503 in place of the answer."""
        if self._begun:
            self._begun.environ[ANSWERED] = "503"
            self._begun.close()
            self._begun = None
        if self.connected:
            self.requests[0].error = Refused(503, "Not published", str(reason).removesuffix("."), RETRY)
        self.service()

    def service(self) -> None:
        """Answer one request. If the process is about to end, it is the last one on its connection."""
        if not self.server.accepting:
            self.requests[0].headers["CONNECTION"] = "close"
        if not self.connected and self._begun:
            self._begun.close()
        self.follows = True
        self.served_at = time.monotonic()  # now: once it is done, it looks idle before the answer is sent
        try:
            super().service()
        except Paused as paused:
            self._begun = paused.task
            self.server.add_task(self)
            self.server.pull_trigger()
        except NotYet as not_yet:
            self.waited_until = not_yet.until
            self.server.waiting.add(self, not_yet)
        else:
            with self.requests_lock:
                self._parse()

    def handle_close(self) -> None:
        """Close, and release a parked answer: no thread does that."""
        super().handle_close()
        if self.parked:
            self.parked = False
            if self._begun:
                self._begun.close()
            for request in self.requests:
                request.close()
            self.requests = []

    def handle_error(self) -> None:
        """Log a fault of the surroundings, such as no file left for a long body, in one line."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.server.tell_failed(error)
            self.handle_close()
        else:
            super().handle_error()
