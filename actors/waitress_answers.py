"""Writes answers: headers and bodies, problems, and long answers in several turns."""

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
import waitress.task
from waitress.utilities import build_http_date

from tally.http.after import WAITS_UNTIL
from tally.http.problems import CONTENT_TYPE, Problem

TURN_BYTES = 1024**2  # of a long answer; then the next one has its turn
PIECE_BYTES = 256 * 1024  # a longer answer is a long one: its client may be slow, and memory holds what waits


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """Answers requests that are refused here or by waitress itself, with a problem document."""

    def execute(self) -> None:
        """Send the answer."""
        error = self.request.error
        body = msgspec.json.encode(Problem(error.reason, error.code, f"{error.body}."))
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", CONTENT_TYPE), *getattr(error, "headers", ())]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


_http_date = lru_cache(maxsize=2)(build_http_date)


class Paused(BaseException):
    """Stops an answer until its client has read some of it. Not an Exception: waitress would answer that."""

    def __init__(self, task: "Task") -> None:
        self.task = task


class Task(waitress.task.WSGITask):  # type: ignore[misc]
    """Answers a request. The answer can be prepared before it is sent; a long one takes several turns."""

    is_long = False  # so long that the threads for long answers make it
    _answer: Any = None
    _pieces: Iterator[bytes] | None = None

    def prepare(self) -> None:
        """Make the answer, and keep it. Rewinds the body: an earlier try may have read it."""
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
        """Build the header. The plain case takes 5 µs here; waitress takes 13."""
        is_streamed = self.content_length is None and self.has_body
        if is_streamed or self.version != "1.1" or "CONNECTION" in self.request.headers:
            head: bytes = super().build_response_header()
            if self.request.command == "HEAD":
                self.chunked_response = False  # else the last, empty chunk would still be sent
            return head
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name.title()}: {value}" for name, value in self.response_headers]
        if self.has_body:
            lines.append(f"Content-Length: {self.content_length}")
        lines += ["Server: tally", f"Date: {_http_date(int(self.start_time))}", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def execute(self) -> None:
        """Send the answer. Raises Paused when others have their turn, or the client has enough to read."""
        if self._answer is None:
            self.prepare()
        try:
            if self.has_body:
                self._send()
        except Exception:
            self.close()
            raise
        self.close()

    def finish(self) -> None:
        """End the answer: the loop may send it, and need not wait for the next one."""
        super().finish()
        self.channel.last_activity = time.monotonic()  # else it is idle as soon as nothing is left to answer
        self.channel.answered = True

    def close(self) -> None:
        """Release the answer. May be repeated."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _send(self) -> None:
        self._pieces = self._pieces or self._cut()
        left = TURN_BYTES if self.is_long else 0  # one piece at first: this thread has to answer others
        for piece in self._pieces:
            self.write(piece)
            left -= len(piece)
            is_whole = self.content_bytes_written == self.content_length
            if not is_whole and (left <= 0 or self.channel.is_full()):
                self.is_long = True
                raise Paused(self)

    def _cut(self) -> Iterator[bytes]:
        """The body in pieces: as it is made, or, when its length is known, of PIECE_BYTES."""
        if self.content_length is None:
            return iter(self._answer)
        body = b"".join(self._answer)
        return (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))
