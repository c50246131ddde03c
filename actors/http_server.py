"""A service's HTTP process: a WSGI application on waitress, on a socket shared with its siblings.

waitress cancels what is queued when it is told to stop, so the loop is driven from here: on SIGTERM
the process stops accepting (its siblings go on), answers everything it has accepted, and then ends.

Requests that change something are answered by the one thread that writes, many in one commit; all
others by waitress's pool.
"""

import resource
import select
import socket
import time
from functools import lru_cache
from typing import Any

import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
from waitress import wasyncore
from waitress.utilities import InternalServerError, build_http_date

from tally.actors.actor import TURN_SECONDS, Actor
from tally.http.problems import CONTENT_TYPE, render
from tally.http.service import BATCH_BODY, is_change
from tally.store.group_commit import GroupCommit

MOST_CONNECTIONS = 2000  # of one process; idle ones are closed after IDLE_SECONDS
IDLE_SECONDS = 60
LINGER_SECONDS = 0.5
MOST_HEADER_BYTES = 32 * 1024
MOST_BODY_BYTES = 2 * BATCH_BODY  # up to here a body that is refused is read, so that its sender hears why
MOST_UNREAD_BYTES = 1024**3  # of an answer, in a file beyond the first MiB, that a slow client leaves waiting
MOST_SENT_BYTES = 1024**2  # in one buffer of an answer: it lets go of nothing before all of it is sent
SEND_BYTES = 64 * 1024  # what is less is sent by the loop, header and body and several clients' at once
STALLED_SECONDS = 2.0  # a client that reads nothing for so long doesn't hold up the process's end
COURTESY_SECONDS = 0.005  # how long the loop lets the writing thread work before it goes on beside it
SPARE_CONNECTIONS = 100  # kept free by closing those that have been idle longest


class _Clock:
    """waitress tells idle connections by the wall clock; one that is set would end them all."""

    time = staticmethod(time.monotonic)


waitress.server.time = waitress.channel.time = _Clock


class _ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """What waitress itself refuses is answered as a problem too."""

    def execute(self) -> None:
        error = self.request.error
        body = render(error.code, error.reason, str(error.body))
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", CONTENT_TYPE)]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """A request line that urllib can't split is the client's fault, and no end of the connection's."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise waitress.parser.ParsingError(str(error)) from error


@lru_cache(maxsize=2)
def _http_date(seconds: int) -> str:
    date: str = build_http_date(seconds)
    return date


class _Task(waitress.task.WSGITask):  # type: ignore[misc]
    """A request whose answer may have been made before it is sent."""

    _answer: Any = None

    def prepare(self) -> None:
        """Make the answer, and keep it. An answer that came to nothing may have read the body before."""
        environ = self.get_environment()
        environ["wsgi.input"].seek(0)
        self._answer = self.channel.server.application(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        self.status, self.complete = status, True
        self.response_headers = [each for each in headers if each[0].lower() != "content-length"]

    def build_response_header(self) -> bytes:
        head: bytes = super().build_response_header()
        if self.request.command == "HEAD":
            self.chunked_response = False  # or the last chunk, which is empty, would be sent all the same
        return head

    def execute(self) -> None:
        if self._answer is None:
            super().execute()
            return
        try:
            body = b"".join(self._answer) if self.has_body else b""
            self.content_length = len(body)
            self.channel.write_soon(self._head() + body)
            self.wrote_header = True
        finally:
            self._answer.close()

    def _head(self) -> bytes:
        """What waitress builds for any answer, in the plainest case at a tenth of the price."""
        if self.version != "1.1" or "CONNECTION" in self.request.headers:
            return self.build_response_header()
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name.title()}: {value}" for name, value in self.response_headers]
        if self.has_body:
            lines.append(f"Content-Length: {self.content_length}")
        lines += ["Server: tally", f"Date: {_http_date(int(self.start_time))}", "", ""]
        return "\r\n".join(lines).encode("latin-1")


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser
    error_task_class = _ProblemTask
    current_outbuf_count: int  # waitress's: the bytes that were given to the newest buffer
    _prepared: _Task | None = None
    _sending = False

    @staticmethod
    def task_class(channel: "_Channel", request: Any) -> _Task:
        """Waitress's name for what makes a task: the one that is prepared already, when there is one."""
        prepared, channel._prepared = channel._prepared, None
        return prepared or _Task(channel, request)

    def writable(self) -> bool:
        """Whether the loop is to send. Not while a thread does, or it would turn without rest."""
        if self.will_close or self.close_when_flushed:
            return True
        enough = SEND_BYTES if self.requests else 1
        return bool(self.total_outbufs_len >= enough and not self._sending)

    def write_soon(self, data: Any) -> int:
        """Send much of an answer at once, as far as the client takes it; what is left is the loop's."""
        self._sending = True
        try:
            written: int = super().write_soon(data)
        finally:
            self._sending = False
        if self.current_outbuf_count - self.total_outbufs_len >= MOST_SENT_BYTES:
            self.current_outbuf_count = self.adj.outbuf_high_watermark  # the next piece begins another
        if self.total_outbufs_len >= SEND_BYTES:
            self.server.pull_trigger()
        return written

    def work(self) -> None:
        """Make the answer to the first request that waits; see Job."""
        self._prepared = None
        if self.connected:
            task = _Task(self, self.requests[0])
            task.prepare()
            self._prepared = task

    def finish(self) -> None:
        """Send it; 500 where there is none."""
        if self.connected and self._prepared is None:
            self.requests[0].error = InternalServerError(
                "This is a fault of the service; its log tells more."
            )
        self.service()

    def service(self) -> None:
        """Answer one request; when the process is about to end, as the last on its connection."""
        if not self.server.accepting:
            self.requests[0].headers["CONNECTION"] = "close"
        super().service()


class _Alarm:
    """Wakes the loop: once for all that was done since it looked last, and for all answers to one commit."""

    def __init__(self, trigger: Any) -> None:
        self._trigger = trigger
        self._pulled = False
        self._held = False

    def pull_trigger(self) -> None:
        """Have the loop look at all channels anew. Of any thread, and as often as may be."""
        if not self._pulled and not self._held:
            self._pulled = True
            self._trigger.pull_trigger()

    def hold(self) -> None:
        """Wake it only at `release`, which comes within no time."""
        self._held = True

    def release(self) -> None:
        """Wake it now."""
        self._held = False
        self.pull_trigger()

    def reset(self) -> None:
        """Called by the loop before it looks."""
        self._pulled = False

    def close(self) -> None:
        self._trigger.close()


class _Dispatcher(waitress.task.ThreadedTaskDispatcher):  # type: ignore[misc]
    """Gives requests to the threads that answer them."""

    def __init__(self, threads: int, commits: GroupCommit | None) -> None:
        super().__init__()
        self.set_thread_count(threads)
        self._commits = commits

    def add_task(self, task: _Channel) -> None:
        """Of the loop's thread, and of the one that has just answered another request of the channel."""
        request = task.requests[0]
        if self._commits and not request.error and is_change(request.command, request.path):
            self._commits.submit(task)
        else:
            super().add_task(task)


class HttpServer:
    """Serves `app` on a listening socket that others may serve as well.

    `trusted_proxy` is the address of a reverse proxy that tells its clients' addresses, or "". With
    `commits`, requests that change something share them.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        threads: int,
        trusted_proxy: str = "",
        commits: GroupCommit | None = None,
    ) -> None:
        self._server = waitress.server.create_server(
            app,
            _start=False,
            _dispatcher=_Dispatcher(threads, commits),
            sockets=[listener],
            threads=threads,
            connection_limit=MOST_CONNECTIONS,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=5,
            max_request_body_size=MOST_BODY_BYTES,
            max_request_header_size=MOST_HEADER_BYTES,
            outbuf_high_watermark=MOST_UNREAD_BYTES,
            ident="tally",
            send_bytes=SEND_BYTES,
            clear_untrusted_proxy_headers=bool(trusted_proxy),  # otherwise nothing here looks at them
            trusted_proxy=trusted_proxy or None,
            trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"} if trusted_proxy else set(),
        )
        self._server.channel_class = _Channel
        self._alarm = self._server.trigger = _Alarm(self._server.trigger)
        self._commits = commits
        if commits:
            commits.after_finish = self._alarm.release
        self._server.accept_connections()

    def run(self, actor: Actor) -> None:
        """Serve until the actor is to stop, then answer what was accepted and return."""
        actor.on_stop(self._server.pull_trigger)
        while not actor.stopping.is_set():
            actor.beat()
            self._turn(TURN_SECONDS)
            self._make_room()
        self._server.accepting = False
        self._accept_waiting()
        self._server.del_channel()
        self._server.socket.close()
        idle_since = time.monotonic()
        while self._busy() or time.monotonic() - idle_since < self._linger():
            actor.beat()
            self._turn(0.05)
        self._server.task_dispatcher.shutdown(timeout=1)

    def _accept_waiting(self) -> None:
        """Take in the connections that the kernel has accepted already."""
        while select.select([self._server.socket], [], [], 0)[0]:
            self._server.handle_accept()

    def _make_room(self) -> None:
        """Close the connections that have been idle longest when nearly all are taken."""
        channels = self._server.active_channels
        excess = len(channels) - (MOST_CONNECTIONS - SPARE_CONNECTIONS)
        if excess > 0:
            idle = [channel for channel in channels.values() if not channel.requests]
            for channel in sorted(idle, key=lambda channel: channel.last_activity)[:excess]:
                channel.handle_close()

    def _linger(self) -> float:
        """How long to go on for requests that may be under way on connections kept open."""
        return LINGER_SECONDS if self._server.active_channels else 0.0

    def _turn(self, seconds: float) -> None:
        if self._commits:
            self._commits.let_work(COURTESY_SECONDS)
        self._alarm.reset()
        wasyncore.loop(seconds, use_poll=True, map=self._server._map, count=1)

    def _busy(self) -> bool:
        dispatcher = self._server.task_dispatcher
        reading_since = time.monotonic() - STALLED_SECONDS
        return bool(dispatcher.queue or dispatcher.active_count) or any(
            channel.requests or (channel.total_outbufs_len and channel.last_activity > reading_since)
            for channel in list(self._server.active_channels.values())
        )


def run(
    actor: Actor,
    app: Any,
    listener: socket.socket,
    threads: int,
    trusted_proxy: str,
    commits: GroupCommit,
) -> None:
    """Be an HTTP process."""
    _raise_file_limit()
    server = HttpServer(app, listener, threads, trusted_proxy, commits)
    actor.ready()
    server.run(actor)


def _raise_file_limit() -> None:
    """Each connection is a file; the usual soft limit of 1024 is lower than MOST_CONNECTIONS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + 500
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == -1 else min(wanted, hard), hard))
