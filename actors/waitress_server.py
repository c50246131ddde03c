"""waitress as Tally serves with it: all that reaches into it stands here, and nothing else imports it.

Its release is pinned (setup.cfg), as much of what is used here is its own affair. 3.0.2 is the newest. What
of this a later release makes needless, by its main branch of March 2026:

- `_Parser`: two Hosts or two Content-Lengths are 400 there (pull request 484), `chunked` twice is 501 (474).
  A Content-Length beside a coding closes the connection there (475), but is answered. The rest is as it was.
- `_Chunks`, `_Task`, `Server.accept_one`: nothing yet.
- The public drain of pull request 499, which is open, would do for `stop_accepting` and `is_busy`.
"""

import errno
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import structlog
import waitress.channel
import waitress.parser
import waitress.receiver
import waitress.server
import waitress.task
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest, Error, InternalServerError, build_http_date

from tally.actors.limits import Limits
from tally.http.after import WAITS_UNTIL, NotYet, Waiting
from tally.http.auth import CHALLENGE
from tally.http.problems import CONTENT_TYPE, render
from tally.http.requests import ANSWERED
from tally.http.seldom import Seldom
from tally.http.service import BATCH_BODY, is_change
from tally.store.errors import StoreError
from tally.store.group_commit import GroupCommit

IDLE_SECONDS = 60
MOST_HEADER_BYTES = 32 * 1024  # of a request, and of the trailers behind chunks
MOST_BODY_BYTES = 2 * BATCH_BODY  # up to here a body that is refused is read, so that its sender hears why
KNOWN_HEADER_BYTES = 1024  # up to which a header is remembered: most are the same as one before
LARGE_BODY_BYTES = 64 * 1024  # beyond that, whoever sends it is asked for a token first
MOST_AHEAD = 4  # requests of a connection that are read at once: each takes a hundred times its bytes
MOST_UNREAD_BYTES = 768 * 1024  # of an answer; then it is made no further. From a MiB on it would be a file
TURN_BYTES = 1024**2  # of a long answer; then it is the next one's turn
LONG = 8  # of the threads, one in so many more makes long answers and reads large bodies, and nothing else
MOST_SENT_BYTES = 1024**2  # in one buffer of an answer: it lets go of nothing before all of it is sent
ACCEPTED_AT_ONCE = 32
SEND_BYTES = 64 * 1024  # what is less is sent by the loop, header and body and several clients' at once
STALLED_SECONDS = 2.0  # a client that reads nothing for so long doesn't hold up the process's end
TURN_SECONDS = 0.05  # then the loop looks anew: what it has to do is never a hang
COURTESY_SECONDS = 0.005  # how long the loop lets the writing thread work before it goes on beside it
PAUSE_SECONDS = 0.1  # without accepting, when it can't be done
SILENCE_SECONDS = 60  # until that is told again
COUNT_SECONDS = 0.05  # until what is unsent is counted anew

_log = structlog.get_logger()


class _Clock:
    """waitress tells idle connections by the wall clock; one that is set would end them all."""

    time = staticmethod(time.monotonic)


waitress.server.time = waitress.channel.time = _Clock


# Requests: where one ends must be beyond doubt (RFC 9112)

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(_TOKEN + rb" [!-~]+ HTTP/([0-9]\.[0-9])\r\n")
_FIELD = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*")
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_CODING = re.compile(rb"\r\ntransfer-encoding:[\t ]*([^\r]*?)[\t ]*\r\n")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*(?:\r?\Z|[!-~])")
_PORT = r"(?::[0-9]*)?"
_HOST = re.compile(
    rf"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{{2}})+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\]){_PORT}"
)
_MANY_BODIES = "There are many large bodies on their way; try again"
_RETRY, _SIGN_IN = ("Retry-After", "1"), ("WWW-Authenticate", CHALLENGE)
_OF_THE_FRAME = (b"content-length:", b"transfer-encoding:", b"host:")
_LONGEST_CHUNK_LINE = 1024


class _Refused(Error):  # type: ignore[misc]
    """Why a request is not carried out, with the status and the header that tell it."""

    def __init__(self, code: int, reason: str, body: str, *headers: tuple[str, str]) -> None:
        super().__init__(body)
        self.code, self.reason, self.headers = code, reason, headers


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """Refuses with 400 what HTTP forbids. waitress takes much of that, each in a way of its own.

    A proxy in front may take it in another way; then what one client sends is carried out as another's.
    """

    command = path = ""  # of what can't be read, until it is
    body_rcv: Any
    completed: bool
    content_length: int
    body_bytes_received: int
    _room_for = 0  # bytes that came in chunks

    def received(self, data: bytes) -> int:
        """Take in what belongs to this request; how many bytes that is. Behind a fault, all of them do."""
        if self.body_rcv is None:
            begun = self.header_plus
            if (begun or data)[0] <= 0x20 and not _EMPTY_LINES.match(begun + data):
                self._refuse("Only empty lines may come before a request")
                return len(data)
        taken: int = super().received(data)
        if self.body_rcv is None and not self.completed and _has_bare_ends(self.header_plus):
            self._refuse("There is a bare CR or LF, or NUL, in the header")
        if self.chunked and not self.completed and self.body_bytes_received > self._room_for:
            self._room_for = self.body_bytes_received + LARGE_BODY_BYTES
            self.error = self.adj.no_room()
            self.completed = self.error is not None
        if self.error:
            self.expect_continue = False  # else waitress asks for more of it before it tells
            return len(data)
        return taken

    def parse_header(self, header_plus: bytes) -> None:
        """waitress's hook: the request line and the headers, once all of them are there."""
        known = _known(header_plus, self.adj) if len(header_plus) <= KNOWN_HEADER_BYTES else None
        if known is None:
            self.parse_anew(header_plus)
            return
        self.__dict__.update(known)
        self.headers = known["headers"].copy()
        if self.content_length:
            self.body_rcv = FixedStreamReceiver(
                self.content_length, OverflowableBuffer(self.adj.inbuf_overflow)
            )

    def parse_anew(self, header_plus: bytes) -> None:
        """Parse a header that nobody has sent before."""
        version = _version(header_plus)
        if version not in ("1.0", "1.1"):
            self.error = _Refused(505, "HTTP Version Not Supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
            return
        _insist_on_a_frame(header_plus, version)
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a target that urllib can't split; a length of thousands of digits
            raise waitress.parser.ParsingError(str(error)) from error
        if not _is_host(self.headers.get("HOST", "none")):
            raise waitress.parser.ParsingError("The Host is none")
        if self.chunked:
            self.body_rcv = _Chunks(self.body_rcv.buf)
        elif self.body_rcv is None:
            self.expect_continue = False  # nothing follows; waitress would take the next request for it
        if self.chunked or LARGE_BODY_BYTES < self.content_length < MOST_BODY_BYTES:
            shown = self.headers.get("AUTHORIZATION"), self.headers.get("COOKIE")
            self.error = self.adj.refusal(*shown) or self.adj.no_room()
            if self.error:
                self.body_rcv, self.content_length = None, 0

    def size(self) -> int:
        """How many bytes of a body there are, or will be as far as that is known."""
        return max(self.content_length, self.body_bytes_received)

    def _refuse(self, why: str) -> None:
        self.error, self.completed = BadRequest(why), True


@lru_cache(maxsize=256)
def _known(header_plus: bytes, adj: Adjustments) -> dict[str, Any] | None:
    """What a parser finds in a header; None where there is more to it. Raises ParsingError.

    Most clients send the same header again and again: to read it was a seventh of recording an invoice.
    """
    parser = _Parser(adj)
    parser.parse_anew(header_plus)
    is_plain = not parser.error and not parser.chunked and not parser.expect_continue
    if not is_plain or parser.content_length > LARGE_BODY_BYTES:
        return None
    return {name: value for name, value in vars(parser).items() if name not in ("adj", "body_rcv")}


@lru_cache(maxsize=256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def _version(header: bytes) -> str:
    """The version that the request line tells. Raises ParsingError when that can't be read."""
    line = _REQUEST_LINE.match(header)
    if line is None:
        raise waitress.parser.ParsingError("The request line can't be read")
    return line[1].decode()


def _insist_on_a_frame(header: bytes, version: str) -> None:
    """Raises ParsingError where a field that tells where the body ends is in doubt, or a line is folded.

    Bare CR, LF and NUL waitress finds itself.
    """
    if b"\r\n " in header or b"\r\n\t" in header:
        raise waitress.parser.ParsingError("A header goes on in the next line")
    names = header.lower()
    hosts = names.count(b"\r\nhost:")
    lengths = names.count(b"\r\ncontent-length:")
    codings = names.count(b"\r\ntransfer-encoding:")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise waitress.parser.ParsingError(f"Expected one Host, got {hosts or 'none'}")
    if lengths > 1:
        raise waitress.parser.ParsingError(f"Expected one Content-Length at most, got {lengths}")
    if codings:
        coding = _CODING.search(names)
        if codings > 1 or coding is None or coding[1] != b"chunked":
            raise waitress.parser.ParsingError("Transfer-Encoding is taken as one `chunked` alone")
        if lengths or version == "1.0":
            raise waitress.parser.ParsingError("Transfer-Encoding goes neither with a length nor with 1.0")


def _has_bare_ends(lines: bytes) -> bool:
    """Whether a line ends otherwise than with CR and LF, or holds NUL. A last CR may wait for its LF."""
    lines = lines.removesuffix(b"\r")
    ends = lines.count(b"\r\n")
    return lines.count(b"\n") != ends or lines.count(b"\r") != ends or b"\0" in lines


class _Chunks(waitress.receiver.ChunkedReceiver):  # type: ignore[misc]
    """A body in chunks (RFC 9112, section 7.1), in the place of waitress's ChunkedReceiver.

    That one takes a size with a line feed behind it, empty lines before a size, anything for a trailer, and
    lines of any length.
    """

    buf: Any
    completed: bool
    error: BadRequest | None

    def __init__(self, buf: Any) -> None:
        super().__init__(buf)
        self._left = 0  # of the chunk
        self._line = b""  # the beginning of one
        self._expected: Callable[[bytes], None] = self._size
        self._trailers = 0  # bytes

    def received(self, data: bytes) -> int:
        """Take in what belongs to the body; how many bytes that is."""
        at = 0
        while at < len(data) and not self.completed:
            at = self._content(data, at) if self._left else self._rest_of_line(data, at)
        return at

    def _content(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._left]
        self.buf.append(piece)
        self._left -= len(piece)
        return at + len(piece)

    def _rest_of_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if len(self._line) > _LONGEST_CHUNK_LINE:
            self._refuse("A line among the chunks is too long")
        elif end:
            line, self._line = self._line, b""
            if line.endswith(b"\r\n"):
                self._expected(line[:-2])
            else:
                self._refuse("There is a bare LF among the chunks")
        return end or len(data)

    def _size(self, line: bytes) -> None:
        size = _CHUNK.fullmatch(line)
        if size is None:
            self._refuse("The size of a chunk can't be read")
            return
        self._left = int(size[1], 16)
        self._expected = self._end_of_chunk if self._left else self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line:
            self._refuse("A chunk is longer than its size")
        self._expected = self._size

    def _trailer(self, line: bytes) -> None:
        """They are read, and passed over."""
        self._trailers += len(line)
        if not line:
            self.completed = True
        elif not _FIELD.fullmatch(line) or line.lower().startswith(_OF_THE_FRAME):
            self._refuse("There is a trailer that is none")
        elif self._trailers > MOST_HEADER_BYTES:
            self._refuse("There are too many trailers")

    def _refuse(self, why: str) -> None:
        self.error, self.completed = BadRequest(why), True


# Answers


class _ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """What is refused here, and by waitress itself, is answered as a problem too."""

    def execute(self) -> None:
        error = self.request.error
        body = render(error.code, error.reason, f"{error.body}.")
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", CONTENT_TYPE), *getattr(error, "headers", ())]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


@lru_cache(maxsize=2)
def _http_date(seconds: int) -> str:
    date: str = build_http_date(seconds)
    return date


class _Paused(BaseException):
    """The client has much to read before more of the answer is made. No Exception: waitress answers those."""

    def __init__(self, task: "_Task") -> None:
        self.task = task


class _Task(waitress.task.WSGITask):  # type: ignore[misc]
    """A request whose answer may have been made before it is sent, and may be made in several goes."""

    is_long = False  # so long that others may make it
    _answer: Any = None
    _pieces: Iterator[bytes] | None = None

    def prepare(self) -> None:
        """Make the answer, and keep it. An answer that came to nothing may have read the body before."""
        environ = self.get_environment()
        environ["wsgi.input"].seek(0)
        if self.channel.waited_until is not None:
            environ[WAITS_UNTIL], self.channel.waited_until = self.channel.waited_until, None
        self._answer = self.channel.server.application(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        self.status, self.complete = status, True
        self.content_length = None
        self.response_headers = []
        for header in headers:
            if header[0].lower() == "content-length":
                self.content_length = int(header[1])
            else:
                self.response_headers.append(header)

    def build_response_header(self) -> bytes:
        """What waitress builds, in the plainest case at a third of the price."""
        is_streamed = self.content_length is None and self.has_body
        if is_streamed or self.version != "1.1" or "CONNECTION" in self.request.headers:
            head: bytes = super().build_response_header()
            if self.request.command == "HEAD":
                self.chunked_response = False  # or the last chunk, which is empty, would be sent all the same
            return head
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name.title()}: {value}" for name, value in self.response_headers]
        if self.has_body:
            lines.append(f"Content-Length: {self.content_length}")
        lines += ["Server: tally", f"Date: {_http_date(int(self.start_time))}", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def execute(self) -> None:
        """Send the answer. Raises _Paused when it is others' turn, or the client has enough to read."""
        if self._answer is None:
            self.prepare()
        try:
            if self.content_length is None and self.has_body:
                self._stream()
            elif self.has_body:
                self.write(b"".join(self._answer))
        except Exception:
            self.close()
            raise
        self.close()

    def finish(self) -> None:
        super().finish()
        self.channel.answered = True

    def close(self) -> None:
        """Let go of the answer. May be repeated."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _stream(self) -> None:
        self._pieces = self._pieces or iter(self._answer)
        left = TURN_BYTES if self.is_long else 0  # a piece at first: who answers all others has no more time
        for piece in self._pieces:
            self.write(piece)
            left -= len(piece)
            if left <= 0 or self.channel.is_full():
                self.is_long = True
                raise _Paused(self)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. Its requests are answered one by one, by threads; the loop reads, and sends what is left.

    No thread waits for a client. An answer of which much is unread is put aside (`parked`), and so is a
    request behind such answers; the loop hands it to a thread again once the client has read.
    """

    parser_class = _Parser
    error_task_class = _ProblemTask
    requests: list[Any]
    current_outbuf_count: int  # waitress's: the bytes that were given to the newest buffer
    parked = False
    answered = False  # an answer is whole: it doesn't wait for the next one to be sent
    request: Any
    sent_continue: bool
    _begun: _Task | None = None
    follows = False  # the request that waits came behind another one
    waited_until: float | None = None  # the first request has waited: see NotYet
    _sending = False
    _unparsed = b""  # what has come behind the requests that wait

    @staticmethod
    def task_class(channel: "_Channel", request: Any) -> _Task:
        """Waitress's name for what makes a task: the one that is begun already, when there is one."""
        begun, channel._begun = channel._begun, None
        return begun or _Task(channel, request)

    def is_full(self) -> bool:
        """Whether the client has enough to read, or all of them together have."""
        unread, most = self.total_outbufs_len, self.server.limits.unsent_bytes
        return bool(unread > MOST_UNREAD_BYTES or (unread > SEND_BYTES and self.server.unsent() > most))

    @property
    def is_long(self) -> bool:
        """Whether a long answer is begun."""
        return bool(self._begun and self._begun.is_long)

    def body_bytes(self) -> int:
        """How large the bodies are that are there, or to come."""
        every = [*self.requests, *([self.request] if self.request else [])]
        return sum(each.size() for each in every)

    def received(self, data: bytes) -> None:
        """Take in what has come, but no more requests than MOST_AHEAD."""
        with self.requests_lock:
            self.follows = bool(self.requests)
            self._unparsed += data
            self._parse()

    def _parse(self) -> None:
        """Under the lock of the requests. Without the limit, waitress does the same."""
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
        """Whether the loop is to send. Not while a thread does, or it would turn without rest."""
        if self.will_close or self.close_when_flushed or self.parked:
            return True
        if not self.total_outbufs_len or self._sending:
            return False
        return self.answered or not self.requests or self.total_outbufs_len >= SEND_BYTES

    def handle_write(self) -> None:
        """Send what the client takes; close, or go on with what is parked, when that is due."""
        self.answered = False  # at first, as a thread may set it meanwhile
        self._flush_exception(self._flush_some_if_lockable)
        if self.total_outbufs_len:
            self.answered = True
        elif self.close_when_flushed:
            self.will_close = True
        if self.will_close:
            self.handle_close()
        elif self.parked and self.total_outbufs_len <= MOST_UNREAD_BYTES // 2 and not self.is_full():
            self.parked = False
            self.server.add_task(self)

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

    def _flush_outbufs_below_high_watermark(self) -> None:
        """waitress would have the thread wait here."""

    def work(self) -> None:
        """Make the answer to the first request that waits; see Job."""
        self._begun = None
        if self.connected:
            task = _Task(self, self.requests[0])
            task.prepare()
            self._begun = task

    def finish(self) -> None:
        """Send it; 500 where there is none."""
        if self.connected and self._begun is None:
            self.requests[0].error = InternalServerError("This is a fault of the service; its log tells more")
        self.service()

    def fail(self, reason: StoreError) -> None:
        """Send 503 in the place of what was made."""
        if self._begun:
            self._begun.environ[ANSWERED] = "503"
            self._begun.close()
            self._begun = None
        if self.connected:
            self.requests[0].error = _Refused(503, "Not published", str(reason).removesuffix("."), _RETRY)
        self.service()

    def service(self) -> None:
        """Answer one request; when the process is about to end, as the last on its connection."""
        if not self.server.accepting:
            self.requests[0].headers["CONNECTION"] = "close"
        if not self.connected and self._begun:
            self._begun.close()
        self.follows = True
        try:
            super().service()
        except _Paused as paused:
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
        """Nobody else lets go of what is parked."""
        super().handle_close()
        if self.parked:
            self.parked = False
            if self._begun:
                self._begun.close()
            for request in self.requests:
                request.close()
            self.requests = []

    def handle_error(self) -> None:
        """A fault of the surroundings, such as no file left for a long body, is told in a line."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.server.tell_failed(error)
            self.handle_close()
        else:
            super().handle_error()


# The loop


class _Behind(NamedTuple):
    """A request that came behind another one. It waits until the loop rests as well.

    Else the loop, with a thousand connections that send much, waits for the interpreter at each of them.
    """

    channel: _Channel

    def service(self) -> None:
        """Answer it."""
        self.channel.server.rests.wait(TURN_SECONDS)
        self.channel.service()

    def cancel(self) -> None:
        """waitress's hook: the process ends."""
        self.channel.cancel()


class _Dispatcher(waitress.task.ThreadedTaskDispatcher):  # type: ignore[misc]
    """Gives requests to the threads that answer them."""

    def __init__(self, threads: int, commits: GroupCommit | None) -> None:
        super().__init__()
        self.set_thread_count(threads)
        self._commits = commits
        self._long, self._behind = (waitress.task.ThreadedTaskDispatcher() for _ in range(2))
        self._long.set_thread_count(max(1, threads // LONG))
        self._behind.set_thread_count(1)

    def add_task(self, task: _Channel) -> None:
        """Of the loop's thread, and of the one that has just answered another request of the channel."""
        request = task.requests[0]
        if task.is_full():
            task.parked = True
        elif task.is_long or request.body_bytes_received > LARGE_BODY_BYTES:
            self._long.add_task(task)
        elif self._commits and not request.error and is_change(request.command, request.path):
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

    It keeps to `limits`. `trusted_proxy` is the address of a reverse proxy that tells its
    clients' addresses, or "". With `commits`, requests that change something share them. `refusal` tells why
    a request with these headers Authorization and Cookie is answered 401, before its large body is read. All
    methods are of the thread that turns the loop, but `pull_trigger` and `unsent`, which any may call.
    """

    channel_class = _Channel
    _is_woken = False

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        threads: int,
        limits: Limits,
        trusted_proxy: str,
        commits: GroupCommit | None,
        refusal: Callable[[str | None, str | None], str | None] = lambda authorization, cookie: None,
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
            ident="tally",
            send_bytes=SEND_BYTES,
            clear_untrusted_proxy_headers=bool(trusted_proxy),  # otherwise nothing here looks at them
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
        if commits:
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
        """Wait until there is something to do, `seconds` at the most, and do it, for TURN_SECONDS or so."""
        if self._commits:
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
            self._map[number] = channel  # behind those who wait longer
            wasyncore.readwrite(channel, events)
            if time.monotonic() > until:
                break
        self.rests.set()

    def pull_trigger(self) -> None:
        """Wake the loop, once for all that happens before it looks again. Of any thread."""
        if not self._is_woken:
            self._is_woken = True
            super().pull_trigger()

    def _look(self, seconds: float) -> list[tuple[int, int]]:
        """Wait until there is something to do: for which descriptors, and what."""
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
        """The loop's word that there is one, or more: each turn costs time for every connection there is."""
        most = max(1, min(ACCEPTED_AT_ONCE, self.limits.connections // 40))  # less than is kept free
        while most and self.accept_one():
            most -= 1

    def accept_one(self) -> bool:
        """Take in one connection that the kernel has accepted; whether there was one.

        Where that can't be done, as no file is left, accepting pauses: the loop would turn without rest.
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
        """waitress's hook, each few seconds: have idle connections closed."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            if channel.parked and channel.last_activity < now - IDLE_SECONDS:
                channel.will_close = True

    def make_room(self, connections: int) -> None:
        """Close connections that have been idle longest, until there are no more than `connections`."""
        excess = len(self.active_channels) - connections
        if excess > 0:
            idle = [channel for channel in self.active_channels.values() if not channel.requests]
            for channel in sorted(idle, key=lambda channel: channel.last_activity)[:excess]:
                channel.handle_close()

    def stop_accepting(self) -> None:
        """Take in what the kernel has accepted already, and let go of the listening socket."""
        self.accepting = False
        self.waiting.end()
        while self.accept_one():
            pass
        self.del_channel()
        self.socket.close()

    def is_busy(self) -> bool:
        """Whether there are requests to answer, or clients that are reading."""
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
        """A connection was given up, for a fault of the surroundings."""
        if (more := self._failures.due()) is not None:
            _log.warning("connection_failed", reason=str(error), more=more)

    def unsent(self) -> int:
        """How many bytes of all answers wait to be sent, as it was a moment ago."""
        now = time.monotonic()
        if now >= self._counts_again:
            self._counts_again = now + COUNT_SECONDS
            self._unsent = sum(channel.total_outbufs_len for channel in list(self.active_channels.values()))
        return self._unsent

    def _refusal_of(self, authorization: str | None, cookie: str | None) -> Error | None:
        """Why a large body is not read: nobody knows who sends it."""
        why = self._refusal(authorization, cookie)
        return _Refused(401, "Sign in", why.removesuffix("."), _SIGN_IN) if why else None

    def _no_room(self) -> Error | None:
        """Why a large body is not read now: there are so many."""
        bodies = sum(channel.body_bytes() for channel in list(self.active_channels.values()))
        if bodies > self.limits.body_bytes:
            return _Refused(503, "Too much at once", _MANY_BODIES, _RETRY)
        return None

    def _is_pausing(self) -> bool:
        return time.monotonic() < self._accepts_again

    def _pause(self, error: OSError) -> None:
        self._accepts_again = time.monotonic() + PAUSE_SECONDS
        if self._pauses.due() is not None:
            _log.warning("accepting_paused", reason=str(error), connections=len(self.active_channels))
        if error.errno in (errno.EMFILE, errno.ENFILE):
            self.make_room(len(self.active_channels) - 1)
