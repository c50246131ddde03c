"""waitress's parser, made strict: the end of a request must be beyond doubt (RFC 9112).

A proxy in front may read a doubtful request differently. Then bytes that one client sends are carried out as
another client's request. A later release will make some of this needless. On waitress's main branch of March
2026, two Hosts or two Content-Lengths are 400 (pull request 484), and `chunked` twice is 501 (474). There, a
Content-Length beside a coding closes the connection (475), but is still answered.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import waitress.parser
import waitress.receiver
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest, Error

from tally.http.service import BATCH_BODY

MOST_HEADER_BYTES = 32 * 1024  # of a request, and of the trailers behind chunks
MOST_BODY_BYTES = 2 * BATCH_BODY  # a refused body is read up to here, so that its sender gets the reason
KNOWN_HEADER_BYTES = 1024  # longer headers are not remembered: most repeat an earlier one
LARGE_BODY_BYTES = 64 * 1024  # beyond it, the sender needs a valid token first

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
_OF_THE_FRAME = (b"content-length:", b"transfer-encoding:", b"host:")
_LONGEST_CHUNK_LINE = 1024


class Refused(Error):  # type: ignore[misc]
    """The reason to refuse a request, with the answer's status and header."""

    def __init__(self, code: int, reason: str, body: str, *headers: tuple[str, str]) -> None:
        super().__init__(body)
        self.code, self.reason, self.headers = code, reason, headers


class Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """Refuses with 400 what HTTP forbids. waitress accepts much of it, in its own way."""

    command = path = ""  # empty until the request line is read
    body_rcv: Any
    completed: bool
    content_length: int
    body_bytes_received: int
    _room_for = 0  # bytes that came in chunks

    def received(self, data: bytes) -> int:
        """Read this request's bytes; answer how many there were. After a fault, all of them."""
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
            self.expect_continue = False  # else waitress asks for the body before it refuses
            return len(data)
        return taken

    def parse_header(self, header_plus: bytes) -> None:
        """waitress's hook: parse the request line and the headers, once all of them are there."""
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
        """Parse a header that is not remembered."""
        line = _REQUEST_LINE.match(header_plus)
        if line is None:
            raise waitress.parser.ParsingError("The request line can't be read")
        version = line[1].decode()
        if version not in ("1.0", "1.1"):
            self.error = Refused(505, "HTTP Version Not Supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
            return
        _insist_on_a_frame(header_plus, version)
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # urllib can't split the target, or a length has thousands of digits
            raise waitress.parser.ParsingError(str(error)) from error
        if not _is_host(self.headers.get("HOST", "none")):
            raise waitress.parser.ParsingError("The Host is none")
        if self.chunked:
            self.body_rcv = _Chunks(self.body_rcv.buf)
        elif self.body_rcv is None:
            self.expect_continue = False  # no body follows; waitress would take the next request for it
        if self.chunked or LARGE_BODY_BYTES < self.content_length < MOST_BODY_BYTES:
            shown = self.headers.get("AUTHORIZATION"), self.headers.get("COOKIE")
            self.error = self.adj.refusal(*shown) or self.adj.no_room()
            if self.error:
                self.body_rcv, self.content_length = None, 0

    def size(self) -> int:
        """How many bytes the body has, or will have as far as known."""
        return max(self.content_length, self.body_bytes_received)

    def _refuse(self, why: str) -> None:
        self.error, self.completed = BadRequest(why), True


@lru_cache(maxsize=256)
def _known(header_plus: bytes, adj: Adjustments) -> dict[str, Any] | None:
    """A parser's findings in a header; None if the body needs more than a length. Raises ParsingError.

    Most clients send the same header again and again. Reading it took a seventh of recording an invoice.
    """
    parser = Parser(adj)
    parser.parse_anew(header_plus)
    is_plain = not parser.error and not parser.chunked and not parser.expect_continue
    if not is_plain or parser.content_length > LARGE_BODY_BYTES:
        return None
    return {name: value for name, value in vars(parser).items() if name not in ("adj", "body_rcv")}


_is_host = lru_cache(maxsize=256)(_HOST.fullmatch)


def _insist_on_a_frame(header: bytes, version: str) -> None:
    """Raises ParsingError if the end of the body is in doubt, or a line is folded.

    waitress itself finds bare CR, LF and NUL.
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
    """Whether a line doesn't end with CR and LF, or holds NUL. The LF of a last CR may still come."""
    lines = lines.removesuffix(b"\r")
    ends = lines.count(b"\r\n")
    return lines.count(b"\n") != ends or lines.count(b"\r") != ends or b"\0" in lines


class _Chunks(waitress.receiver.ChunkedReceiver):  # type: ignore[misc]
    """A body in chunks (RFC 9112, section 7.1). Replaces waitress's ChunkedReceiver.

    That one accepts a bare line feed after a size, empty lines before a size, anything as a trailer, and
    lines of any length.
    """

    buf: Any
    completed: bool
    error: BadRequest | None

    def __init__(self, buf: Any) -> None:
        super().__init__(buf)
        self._left = 0  # bytes left of the chunk
        self._line = b""  # the beginning of a line
        self._expected: Callable[[bytes], None] = self._size
        self._trailers = 0  # bytes of trailers

    def received(self, data: bytes) -> int:
        """Read the body's bytes; answer how many there were."""
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
        """Check a trailer, and ignore it."""
        self._trailers += len(line)
        if not line:
            self.completed = True
        elif not _FIELD.fullmatch(line) or line.lower().startswith(_OF_THE_FRAME):
            self._refuse("There is a trailer that is none")
        elif self._trailers > MOST_HEADER_BYTES:
            self._refuse("There are too many trailers")

    def _refuse(self, why: str) -> None:
        self.error, self.completed = BadRequest(why), True
