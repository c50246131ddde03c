"""waitress's loop, run one turn at a time, and the threads that answer its requests.

Only the files waitress_*.py use waitress's internals. They may change, so its release is pinned (setup.cfg);
3.0.2 is the newest. The public drain of its open pull request 499 could replace `stop_accepting` and
`is_busy`.
"""

import errno
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
import waitress.server
import waitress.task
from waitress import wasyncore
from waitress.adjustments import Adjustments

from tally.actors.limits import Limits
from tally.actors.waitress_connections import MONOTONIC, MOST_UNREAD_BYTES, RETRY, SEND_BYTES, Channel
from tally.actors.waitress_requests import LARGE_BODY_BYTES, MOST_BODY_BYTES, MOST_HEADER_BYTES, Refused
from tally.http.after import Waiting
from tally.http.auth import CHALLENGE
from tally.http.seldom import Seldom
from tally.http.service import is_change
from tally.store.group_commit import GroupCommit

IDLE_SECONDS = 60
LONG = 8  # one more thread for each so many; these only make long answers and read large bodies
ACCEPTED_AT_ONCE = 32
STALLED_SECONDS = 2.0  # a client that reads nothing for so long doesn't delay the process's end
TURN_SECONDS = 0.05  # then the loop looks again: much work must not look like a hang
COURTESY_SECONDS = 0.005  # how long the loop waits for the writing thread before it works beside it
PAUSE_SECONDS = 0.1  # how long accepting pauses when it fails
SILENCE_SECONDS = 60  # between two log lines about it
COUNT_SECONDS = 0.05  # between two counts of unsent bytes

_log = structlog.get_logger()

waitress.server.time = MONOTONIC


class _Behind(NamedTuple):
    """A request that came before the one ahead of it was answered. It waits until the loop rests.

    Otherwise the loop would wait for the interpreter's lock at each of a thousand busy connections. With
    1,500 that send 240 requests in a packet, a health probe waits for 0.2 s. Among other requests' threads it
    would be 2.4 s, and in a thread of their own without this wait 13.6: `python -m benchmarks --part floods`.
    """

    channel: Channel

    def service(self) -> None:
        """Answer it."""
        self.channel.server.rests.wait(TURN_SECONDS)
        self.channel.service()

    def cancel(self) -> None:
        """waitress's hook: the process ends."""
        self.channel.cancel()


class _Dispatcher(waitress.task.ThreadedTaskDispatcher):  # type: ignore[misc]
    """Gives requests to the threads that answer them."""

    def __init__(self, threads: int, commits: GroupCommit) -> None:
        super().__init__()
        self.set_thread_count(threads)
        self._commits = commits
        self._long, self._behind = (waitress.task.ThreadedTaskDispatcher() for _ in range(2))
        self._long.set_thread_count(max(1, threads // LONG))
        self._behind.set_thread_count(1)

    def add_task(self, task: Channel) -> None:
        """Hand over a request. For the loop's thread, and the one that just answered the channel."""
        request = task.requests[0]
        if task.is_full():
            task.parked = True
        elif task.is_long or request.body_bytes_received > LARGE_BODY_BYTES:
            self._long.add_task(task)
        elif not request.error and is_change(request.command, request.path):
            self._commits.submit(task)
        elif task.follows:
            self._behind.add_task(_Behind(task))
        else:
            super().add_task(task)

    def is_busy(self) -> bool:
        """Whether a thread has something to do."""
        return any(pool.queue or pool.active_count for pool in (self, self._long, self._behind))

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End the threads."""
        self._long.shutdown(cancel_pending, timeout)
        self._behind.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))


class Server(waitress.server.TcpWSGIServer):  # type: ignore[misc]
    """waitress on a listening socket that others may serve as well, driven a turn at a time.

    It keeps to `limits`. `trusted_proxy` is the address of a reverse proxy that tells its clients' addresses,
    or "". Requests that change something share `commits`. `refusal` tells why a request with these headers
    Authorization and Cookie is answered 401, before its large body is read. Only the loop's thread may call
    the methods, except `pull_trigger` and `unsent`, which any thread may call.
    """

    channel_class = Channel
    _is_woken = False

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        threads: int,
        limits: Limits,
        trusted_proxy: str,
        commits: GroupCommit,
        refusal: Callable[[str | None, str | None], str | None],
    ) -> None:
        adjustments = Adjustments(
            sockets=[listener],
            threads=threads,
            connection_limit=limits.connections,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=5,
            max_request_body_size=MOST_BODY_BYTES,
            max_request_header_size=MOST_HEADER_BYTES,
            outbuf_high_watermark=MOST_UNREAD_BYTES,
            outbuf_overflow=sys.maxsize,  # no answer becomes a file: there may be no room for it
            ident="tally",
            send_bytes=SEND_BYTES,
            clear_untrusted_proxy_headers=bool(trusted_proxy),  # otherwise nothing here reads them
            trusted_proxy=trusted_proxy or None,
            trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"} if trusted_proxy else set(),
        )
        adjustments.refusal, adjustments.no_room = self._refusal_of, self._no_room
        super().__init__(
            app,
            _start=False,
            _sock=listener,
            dispatcher=_Dispatcher(threads, commits),
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        self.limits = limits
        self._commits = commits
        commits.after_finish = self.pull_trigger
        self._refusal = refusal
        self.waiting = Waiting(self.add_task)
        self.rests = threading.Event()  # the loop has nothing to do
        self.rests.set()
        self._unsent, self._counts_again = 0, 0.0
        self._accepts_again = 0.0
        self._pauses, self._failures = Seldom(SILENCE_SECONDS), Seldom(SILENCE_SECONDS)
        self.accept_connections()

    def turn(self, seconds: float) -> None:
        """Wait for work, `seconds` at the most, and do it, for TURN_SECONDS or so."""
        self._commits.let_work(COURTESY_SECONDS)
        self._is_woken = False
        if self._is_pausing():
            seconds = min(seconds, PAUSE_SECONDS)
        ready = self._look(seconds)
        until = time.monotonic() + TURN_SECONDS
        self.rests.clear()
        for number, events in ready:
            if (channel := self._map.pop(number, None)) is None:
                continue
            self._map[number] = channel  # at the end, behind longer waiters
            wasyncore.readwrite(channel, events)
            if time.monotonic() > until:
                break
        self.rests.set()

    def pull_trigger(self) -> None:
        """Wake the loop, once for everything that happens before it looks again. For any thread."""
        if not self._is_woken:
            self._is_woken = True
            super().pull_trigger()

    def _look(self, seconds: float) -> list[tuple[int, int]]:
        """Wait until descriptors are ready; answer which, and for what."""
        poll = select.poll()
        for number, channel in list(self._map.items()):
            events = select.POLLIN | select.POLLPRI if channel.readable() else 0
            if channel.writable() and not channel.accepting:
                events |= select.POLLOUT
            if events:
                poll.register(number, events)
        return poll.poll(int(seconds * 1000))

    def readable(self) -> bool:
        """Whether to accept connections now."""
        return bool(super().readable() and not self._is_pausing())

    def handle_accept(self) -> None:
        """Accept several connections in one turn: each turn costs time for every open connection."""
        most = max(1, min(ACCEPTED_AT_ONCE, self.limits.connections // 40))  # fewer than are kept free
        while most and self.accept_one():
            most -= 1

    def accept_one(self) -> bool:
        """Take in one connection that the kernel has accepted; answers whether there was one.

        If that fails, for example because no file is left, accepting pauses. Else the loop would spin.
        """
        try:
            accepted = self.accept()
        except OSError as error:
            self._pause(error)
            return False
        if accepted is None:
            return False
        connection, address = accepted
        try:
            self.set_socket_options(connection)
            self.channel_class(self, connection, address, self.adj, map=self._map)
        except OSError:  # it is gone already
            connection.close()
        return True

    def maintenance(self, now: float) -> None:
        """waitress's hook, every few seconds: close idle connections."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            if channel.parked and channel.last_activity < now - IDLE_SECONDS:
                channel.will_close = True

    def make_room(self, connections: int) -> None:
        """Close the idle connections that got nothing for longest, until at most `connections` are left.

        A client that sends a byte now and then is idle, too: it must not keep a place from a new one.
        """
        excess = len(self.active_channels) - connections
        if excess > 0:
            idle = [channel for channel in self.active_channels.values() if not channel.requests]
            for channel in sorted(idle, key=lambda it: it.served_at or it.creation_time)[:excess]:
                channel.handle_close()

    def stop_accepting(self) -> None:
        """Take in connections that the kernel has accepted already, and close the listening socket."""
        self.accepting = False
        self.waiting.end()
        while self.accept_one():
            pass
        self.del_channel()
        self.socket.close()

    def is_busy(self) -> bool:
        """Whether there are requests to answer, or clients that are still reading."""
        reading_since = time.monotonic() - STALLED_SECONDS
        return self.task_dispatcher.is_busy() or any(
            (channel.requests and not channel.parked)
            or (channel.total_outbufs_len and channel.last_activity > reading_since)
            for channel in list(self.active_channels.values())
        )

    def end(self) -> None:
        """End the threads."""
        self.task_dispatcher.shutdown(timeout=1)

    def tell_failed(self, error: OSError) -> None:
        """Log that a connection was given up for a fault of the surroundings."""
        if (more := self._failures.due()) is not None:
            _log.warning("connection_failed", reason=str(error), more=more)

    def unsent(self) -> int:
        """How many bytes of all answers wait to be sent, as counted a moment ago."""
        now = time.monotonic()
        if now >= self._counts_again:
            self._counts_again = now + COUNT_SECONDS
            self._unsent = sum(channel.total_outbufs_len for channel in list(self.active_channels.values()))
        return self._unsent

    def _refusal_of(self, authorization: str | None, cookie: str | None) -> Refused | None:
        """The refusal of a large body whose sender is not known."""
        if why := self._refusal(authorization, cookie):
            return Refused(401, "Sign in", why.removesuffix("."), ("WWW-Authenticate", CHALLENGE))
        return None

    def _no_room(self) -> Refused | None:
        """The refusal of a large body while there are too many."""
        bodies = sum(channel.body_bytes() for channel in list(self.active_channels.values()))
        if bodies > self.limits.body_bytes:
            why = "There are many large bodies on their way; try again"
            return Refused(503, "Too much at once", why, RETRY)
        return None

    def _is_pausing(self) -> bool:
        return time.monotonic() < self._accepts_again

    def _pause(self, error: OSError) -> None:
        self._accepts_again = time.monotonic() + PAUSE_SECONDS
        if self._pauses.due() is not None:
            _log.warning("accepting_paused", reason=str(error), connections=len(self.active_channels))
        if error.errno in (errno.EMFILE, errno.ENFILE):
            self.make_room(len(self.active_channels) - 1)
