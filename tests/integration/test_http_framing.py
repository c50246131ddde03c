"""The end of a request must be certain: otherwise one client's bytes run as another client's request.

A request that HTTP/1.1 (RFC 9112) forbids gets 400. The connection closes, and nothing after it runs.
"""

import contextlib
import socket

import pytest
from integration.conftest import PROBLEM, Watch, new_customer, told

from support.clients import answer, answers, connect
from support.tally import Client, Tally

LINE = b"POST /customers HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
BODY = b'{"name": "Ada", "account_id": "1"}'
CHUNKED = LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def _headed(*lines: bytes) -> bytes:
    """A POST with these extra header lines and an empty body in chunks."""
    return LINE + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n0\r\n\r\n"


LENGTHS = {
    "two that differ": (b"Content-Length: 5", b"Content-Length: 50"),
    "two alike": (b"Content-Length: 5", b"content-length: 5"),
    "two in one": (b"Content-Length: 5, 5",),
    "a plus": (b"Content-Length: +5",),
    "a minus": (b"Content-Length: -5",),
    "hexadecimal": (b"Content-Length: 0x5",),
    "an exponent": (b"Content-Length: 5e0",),
    "a fraction": (b"Content-Length: 5.0",),
    "an underscore": (b"Content-Length: 1_0",),
    "a blank inside": (b"Content-Length: 5 5",),
    "a vertical tab": (b"Content-Length: \x0b5",),
    "a form feed behind": (b"Content-Length: 5\x0c",),
    "a hard blank": (b"Content-Length: \xa05",),
    "next line behind": (b"Content-Length: 5\x85",),
    "an Arabic digit": ("Content-Length: \N{ARABIC-INDIC DIGIT FIVE}".encode(),),
    "a superscript": (b"Content-Length: \xb2",),
    "quotes": (b'Content-Length: "5"',),
    "nothing": (b"Content-Length:",),
    "5,000 digits": (b"Content-Length: " + b"0" * 5000 + b"5",),
}
CODINGS = {
    "a length before": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "a length behind": (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "a length of 0": (b"transfer-encoding: CHUNKED", b"CONTENT-LENGTH: 0"),
    "a length that is none": (b"Transfer-Encoding: chunked", b"Content-Length: x"),
    "twice in one": (b"Transfer-Encoding: chunked, chunked",),
    "twice": (b"Transfer-Encoding: chunked", b"Transfer-encoding: chunked"),
    "another before": (b"Transfer-Encoding: gzip, chunked",),
    "another behind": (b"Transfer-Encoding: chunked, gzip",),
    "another alone": (b"Transfer-Encoding: gzip",),
    "identity": (b"Transfer-Encoding: identity",),
    "identity and chunked": (b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    "nothing": (b"Transfer-Encoding:",),
    "a comma": (b"Transfer-Encoding: ,chunked",),
    "a parameter": (b"Transfer-Encoding: chunked;q=1",),
    "quotes": (b'Transfer-Encoding: "chunked"',),
    "a letter more": (b"Transfer-Encoding: xchunked",),
    "a vertical tab": (b"Transfer-Encoding: \x0bchunked",),
    "a hard blank": (b"Transfer-Encoding: chunked\xa0",),
    "a line of its own": (b"Transfer-Encoding:", b" chunked"),
}
HEADERS = {
    "a blank before the colon": (b"Content-Length : 5",),
    "a tab before the colon": (b"Transfer-Encoding\t: chunked",),
    "folded": (b"X: a", b" b"),
    "folded with a tab": (b"X: a", b"\tContent-Length: 5"),
    "no name": (b": 5",),
    "no colon": (b"Content-Length 5",),
    "a blank in the name": (b"Content Length: 5",),
    "NUL in a name": (b"X\x00: 5",),
    "NUL in a value": (b"X: 5\x00",),
    "DEL in a value": (b"X: 5\x7f",),
    "a bare CR": (b"X: 5\rContent-Length: 5",),
    "a bare LF": (b"X: 5\nContent-Length: 5",),
    "CR before the end": (b"X: 5\r",),
    "LF before the end": (b"X: 5\n",),
    "LF at the beginning": (b"\nX: 5",),
}
FORBIDDEN = {
    **{f"length: {words}": _headed(*lines) for words, lines in LENGTHS.items()},
    **{f"coding: {words}": _headed(*lines) for words, lines in CODINGS.items()},
    **{f"header: {words}": _headed(*lines) for words, lines in HEADERS.items()},
    "coding: in HTTP/1.0": b"POST /customers HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding: in HTTP/1.0, with a length": b"POST /customers HTTP/1.0\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
}


def _in_chunks(chunks: bytes) -> bytes:
    return CHUNKED + chunks


SIZES = {
    "none": b"\r\n5\r\nabcde\r\n0\r\n\r\n",
    "hexadecimal by name": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "a plus": b"+5\r\nabcde\r\n0\r\n\r\n",
    "a minus": b"-5\r\nabcde\r\n0\r\n\r\n",
    "a blank before": b" 5\r\nabcde\r\n0\r\n\r\n",
    "a blank behind": b"5 \r\nabcde\r\n0\r\n\r\n",
    "an underscore": b"0_5\r\nabcde\r\n0\r\n\r\n",
    "no digit": b"g\r\nabcde\r\n0\r\n\r\n",
    "a line feed behind": b"5\n\r\nabcde\r\n0\r\n\r\n",
    "ended by a line feed": b"5\nabcde\r\n0\r\n\r\n",
    "a carriage return behind": b"5\r\r\nabcde\r\n0\r\n\r\n",
    "17 digits": b"00000000000000005\r\nabcde\r\n0\r\n\r\n",
    "beyond 64 bits": b"1" + b"0" * 16 + b"\r\nabcde\r\n0\r\n\r\n",
    "1,000 digits": b"0" * 1000 + b"\r\n\r\n",
    "an extension that is none": b"5;\x00\r\nabcde\r\n0\r\n\r\n",
    "a line feed in an extension": b"5;a\n\r\nabcde\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 10_000 + b"\r\nabcde\r\n0\r\n\r\n",
    "a chunk that goes on": b"5\r\nabcdef\r\n0\r\n\r\n",
    "a chunk that ends with LF": b"5\r\nabcde\n0\r\n\r\n",
    "a chunk that ends with CR": b"5\r\nabcde\r0\r\n\r\n",
    "a last chunk with a line feed": b"0\n\r\n\r\n",
    "a trailer that is none": b"0\r\nnonsense\r\n\r\n",
    "a trailer with a line feed": b"0\r\nX: a\nY: b\r\n\r\n",
    "a trailer that is folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer that is a request": b"0\r\nGET / HTTP/1.1\r\nX: y\r\n\r\n",
    "a trailer with a length": b"0\r\nContent-Length: 5\r\n\r\n",
    "an endless trailer": b"0\r\n" + b"X: a\r\n" * 10_000,
}
FORBIDDEN.update({f"chunk: {words}": _in_chunks(chunks) for words, chunks in SIZES.items()})

REQUEST_LINES = {
    "two blanks": b"POST  /customers HTTP/1.1",
    "a blank behind": b"POST /customers HTTP/1.1 ",
    "a tab": b"POST\t/customers HTTP/1.1",
    "a vertical tab": b"POST /customers HTTP/1.1\x0b",
    "CR behind": b"POST /customers HTTP/1.1\r",
    "LF behind": b"POST /customers HTTP/1.1\n",
    "no version": b"POST /customers",
    "a version in small letters": b"POST /customers http/1.1",
    "a version of two digits": b"POST /customers HTTP/1.10",
    "a method in small letters": b"post /customers HTTP/1.1",
    "NUL in the target": b"POST /customers\x00 HTTP/1.1",
    "a tab in the target": b"POST /custo\tmers HTTP/1.1",
    "a blank before": b" POST /customers HTTP/1.1",
    "a tab before": b"\tPOST /customers HTTP/1.1",
    "LF before": b"\nPOST /customers HTTP/1.1",
    "CR before": b"\rPOST /customers HTTP/1.1",
    "an empty line and LF before": b"\r\n\nPOST /customers HTTP/1.1",
}
FORBIDDEN.update(
    {
        f"request line: {words}": line + b"\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
        for words, line in REQUEST_LINES.items()
    }
)

HOSTS = {
    "none": (),
    "two alike": (b"Host: localhost", b"Host: localhost"),
    "two that differ": (b"Host: localhost", b"host: 127.0.0.1"),
    "empty": (b"Host:",),
    "a list": (b"Host: localhost, 127.0.0.1",),
    "a blank": (b"Host: local host",),
    "a user": (b"Host: user@localhost",),
    "a path": (b"Host: localhost/customers",),
    "a scheme": (b"Host: http://localhost",),
    "a port that is none": (b"Host: localhost:http",),
    "two ports": (b"Host: localhost:80:80",),
    "an open bracket": (b"Host: [::1",),
    "something behind a bracket": (b"Host: [::1]x",),
    "half an escape": (b"Host: localhost%4",),
    "a letter beyond ASCII": ("Host: localhöst".encode(),),
}
FORBIDDEN.update(
    {
        f"host: {words}": LINE + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 0\r\n\r\n"
        for words, lines in HOSTS.items()
    }
)
FORBIDDEN["host: two, in HTTP/1.0"] = b"POST /customers HTTP/1.0\r\nHost: localhost\r\nHost: b\r\n\r\n"
FORBIDDEN["line feeds alone"] = b"POST /customers HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n"


def _hidden(customer: str) -> bytes:
    return b"DELETE /customers/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % customer.encode()


def _send(client: socket.socket, *parts: bytes) -> None:
    """Send each part as its own packet, even if the server has stopped reading."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):
        for part in parts:
            client.sendall(part)


def _rest(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            came += part
    return came


def _is_refused(client: socket.socket, status: int = 400) -> None:
    """The client gets one answer, then the connection closes."""
    answered, kind, body = answer(client)
    assert (answered, kind) == (status, PROBLEM), body
    told(body, status)
    assert _rest(client) == b""


@pytest.mark.parametrize("sent", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_http_forbids_is_refused_and_nothing_behind_it_is_carried_out(
    customers: Client, watch: Watch, sent: bytes
) -> None:
    customer = new_customer(customers)
    hidden = _hidden(customer)
    middle = len(sent) // 2
    with watch.nothing_changes():
        for parts in ([sent + hidden], [sent, hidden], [sent[:middle], sent[middle:] + hidden]):
            with connect(customers.port) as client:
                _send(client, *parts)
                _is_refused(client)
        if len(sent) < 300:
            with connect(customers.port) as client:
                _send(client, *(bytes([byte]) for byte in sent + hidden))
                _is_refused(client)
    assert customers.get(f"/customers/{customer}")["id"] == customer


def test_behind_a_good_request_a_forbidden_one_is_refused_too(customers: Client) -> None:
    customer = new_customer(customers)
    good = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    forbidden = _headed(b"Transfer-Encoding: chunked", b"Content-Length: 5")
    with connect(customers.port) as client:
        client.sendall(good + good + forbidden + _hidden(customer))
        came = answers(client)
        assert [next(came)[0] for _ in range(3)] == [200, 200, 400]
        assert _rest(client) == b""
    assert customers.get(f"/customers/{customer}")["id"] == customer


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0"])
def test_another_version_of_http_is_refused(customers: Client, version: str) -> None:
    customer = new_customer(customers)
    with connect(customers.port) as client:
        _send(client, f"GET /customers HTTP/{version}\r\nHost: localhost\r\n\r\n".encode(), _hidden(customer))
        _is_refused(client, 505)
    assert customers.get(f"/customers/{customer}")["id"] == customer


# Requests that HTTP allows

ALLOWED = {
    "a length": (LINE + HOST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY),
    "blanks about a length": (LINE + HOST + b"Content-Length: \t %d \t\r\n\r\n" % len(BODY) + BODY),
    "a length in capitals": (LINE + HOST + b"CONTENT-LENGTH:%d\r\n\r\n" % len(BODY) + BODY),
    "zeros before a length": (LINE + HOST + b"Content-Length: 00%d\r\n\r\n" % len(BODY) + BODY),
    "chunked": CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    "chunked in capitals": LINE
    + HOST
    + b"TRANSFER-ENCODING:Chunked \r\n\r\n22\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "zeros before a size": CHUNKED + b"00022\r\n" + BODY + b"\r\n000\r\n\r\n",
    "extensions": CHUNKED + b'22;a;b=c;d="e;f"\r\n' + BODY + b"\r\n0;z\r\n\r\n",
    "small chunks": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "hexadecimal digits": CHUNKED + b"1a\r\n" + BODY[:26] + b"\r\n8\r\n" + BODY[26:] + b"\r\n0\r\n\r\n",
    "capital hexadecimal digits": CHUNKED
    + b"1A\r\n"
    + BODY[:26]
    + b"\r\n8\r\n"
    + BODY[26:]
    + b"\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"22\r\n" + BODY + b"\r\n0\r\nX: y\r\nZ:\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + CHUNKED + b"22\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a value beyond ASCII": LINE + HOST + b"X: \xe9\r\nContent-Length: 34\r\n\r\n" + BODY,
    "an empty value": LINE + HOST + b"X:\r\nContent-Length: 34\r\n\r\n" + BODY,
    "a whole address": b"POST http://localhost/customers HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 34\r\n\r\n"
    + BODY,
}


@pytest.mark.parametrize("sent", ALLOWED.values(), ids=ALLOWED)
def test_what_http_allows_is_taken_and_the_next_request_begins_where_it_ends(
    customers: Client, sent: bytes
) -> None:
    following = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for parts in ([sent + sent + following], [bytes([byte]) for byte in sent * 2 + following]):
        with connect(customers.port) as client:
            _send(client, *parts)
            came = answers(client)
            assert [next(came)[0] for _ in range(3)] == [201, 201, 200]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        *((host, host) for host in ("localhost", "127.0.0.1", "[::1]", "tally.localhost")),
        *((f"{host}:80", host) for host in ("localhost", "[::1]")),
        *((f"{host}:", host) for host in ("LOCALHOST", "127.0.0.1", "[::1]")),
        (f"localhost:{'9' * 5000}", "localhost"),
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(
    customers: Client, host: str, shown: str
) -> None:
    """A page's link to the other service goes to the same host."""
    for path in (b"/customers", b"/"):
        with connect(customers.port) as client:
            client.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://x\r\n\r\n" % (path, host.encode()))
            status, _, page = answer(client)
            assert status == 200
    assert f'"http://{shown}:' in page.decode()


@pytest.mark.parametrize("lines", [b"", HOST])
def test_http_1_0_needs_no_host(customers: Client, lines: bytes) -> None:
    with connect(customers.port) as client:
        client.sendall(b"GET /customers HTTP/1.0\r\n" + lines + b"\r\n")
        assert answer(client)[0] == 200
        assert _rest(client) == b""


# A client that asks before it sends (Expect: 100-continue)


def test_who_asks_before_sending_is_told_to_go_on(customers: Client) -> None:
    head = LINE + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with connect(customers.port) as client:
        client.sendall(head)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert answer(client)[0] == 201


def test_who_asks_and_has_nothing_to_send_is_answered(customers: Client) -> None:
    """waitress would read the next request as part of this one."""
    customer = new_customer(customers)
    with connect(customers.port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n")
        assert answer(client)[0] == 200
        client.sendall(_hidden(customer))
        assert answer(client)[0] == 204


def test_who_asks_for_what_is_refused_is_told_so_at_once(customers: Client) -> None:
    for lines, status in (
        (b"Content-Length: 1000000000", 413),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    ):
        with connect(customers.port) as client:
            client.sendall(LINE + HOST + b"Expect: 100-continue\r\n" + lines + b"\r\n\r\n")
            _is_refused(client, status)


def test_none_of_this_left_a_stack_in_the_log(shared: Tally) -> None:
    for sent in (*FORBIDDEN.values(), *ALLOWED.values()):
        with connect(shared.customers.port) as client:
            _send(client, sent[:-1])
    assert "Traceback" not in shared.said()
    assert "uncaptured python exception" not in shared.said()
