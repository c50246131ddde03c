"""A client's mistakes and their answers: all errors have one form, and nothing is changed."""

import gzip
import http.client
import itertools
import json
import re
import socket
from contextlib import closing
from typing import NamedTuple

import pytest
import urllib3
from integration.conftest import (
    PROBLEM,
    Watch,
    invoice,
    new_account,
    new_customer,
    new_invoice,
    problem,
    told,
)

from support.tally import Client, Tally
from support.waiting import eventually

MIB = 1024 * 1024
NOBODY = str(2**63 - 1)
SINGLES = ["/customers", "/invoices", "/accounts"]
BATCHES = ["/customers/batch", "/invoices/batch"]


def _service(tally: Tally, path: str) -> Client:
    return tally.accounts if path.startswith("/accounts") else tally.customers


def _post(tally: Tally, path: str, body: bytes) -> urllib3.BaseHTTPResponse:
    return _service(tally, path).request("POST", path, body=body)


def _good(path: str, customer_id: str) -> bytes:
    """A body that is accepted at `path`."""
    content = {
        "/customers": {"name": "Ada", "account_id": "1"},
        "/invoices": invoice(customer_id),
        "/accounts": {"name": "one", "owned_by": "user1"},
    }[path.removesuffix("/batch")]
    return json.dumps([content] if path.endswith("/batch") else content).encode()


@pytest.fixture(scope="module")
def customer_id(customers: Client) -> str:
    """A customer that no test here deletes."""
    return new_customer(customers)


@pytest.fixture(scope="module")
def account_id(accounts: Client) -> str:
    """An account that no test here deletes."""
    return new_account(accounts)


# 400: no JSON, or not the expected JSON

OBJECT = b'{"name": "Ada", "account_id": "1", "owned_by": "user1", '
MALFORMED = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "a word": b"name",
    "NUL": b"\x00",
    "a form": b"name=Ada&account_id=1",
    "XML": b"<name>Ada</name>",
    "an open object": b"{",
    "an open array": b"[",
    "an open string": b'{"name": "Ada',
    "half a body": OBJECT + b'"x": ',
    "a comma too many": OBJECT + b"}",
    "single quotes": b"{'name': 'Ada', 'account_id': '1'}",
    "no quotes": b'{name: "Ada"}',
    "a comment": OBJECT + b'"x": 1} // Ada',
    "two objects": OBJECT + b'"x": 1} {}',
    "two arrays": b"[] []",
    "NaN": OBJECT + b'"x": NaN}',
    "Infinity": OBJECT + b'"x": Infinity}',
    "minus Infinity": OBJECT + b'"x": -Infinity}',
    "a leading zero": OBJECT + b'"x": 01}',
    "a plus": OBJECT + b'"x": +1}',
    "no digit before the point": OBJECT + b'"x": .5}',
    "no digit behind the point": OBJECT + b'"x": 1.}',
    "hexadecimal": OBJECT + b'"x": 0x10}',
    "True": OBJECT + b'"x": True}',
    "a raw line feed in a string": OBJECT + b'"x": "a\nb"}',
    "an unknown escape": OBJECT + b'"x": "\\q"}',
    "half an escape": OBJECT + b'"x": "\\u00"}',
    "100,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 open brackets": b"[" * 100_000,
    "100,000 brackets in an array": b"[" + b"[" * 100_000 + b"]" * 100_000 + b"]",
    "100,000 brackets in a known field": b'{"account_id": "1", "name": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "100,000 brackets in an unknown field": OBJECT + b'"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects": b'{"name":' * 100_000 + b"1" + b"}" * 100_000,
    "UTF-16": '{"name": "Ada", "account_id": "1"}'.encode("utf-16"),
}
NO_UTF8 = {
    "a byte that is none": b"\xff",
    "Latin-1": "Zoë".encode("latin-1"),
    "cut short": "😀".encode()[:3],
    "a lone continuation": b"\x80",
    "overlong": b"\xc0\xaf",
    "an encoded surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_no_json_is_malformed(customers: Client, watch: Watch, body: bytes) -> None:
    with watch.nothing_changes():
        problem(customers.request("POST", "/customers", body=body), 400)


@pytest.mark.parametrize("spoilt", NO_UTF8.values(), ids=NO_UTF8)
@pytest.mark.parametrize(
    "last", [b'"name": "A%s"', b'"x": "%s"', b'"%s": 1'], ids=["known field", "unknown field", "field's name"]
)
def test_a_body_that_is_no_utf_8_is_malformed_wherever_that_shows(
    customers: Client, watch: Watch, spoilt: bytes, last: bytes
) -> None:
    with watch.nothing_changes():
        problem(customers.request("POST", "/customers", body=OBJECT + last % spoilt + b"}"), 400)


@pytest.mark.parametrize("path", ["/customers/batch", "/invoices", "/invoices/batch", "/accounts"])
def test_a_malformed_body_is_told_so_wherever_it_is_sent(shared: Tally, watch: Watch, path: str) -> None:
    bodies = [*MALFORMED.values(), *(OBJECT + b'"name": "A%s"}' % spoilt for spoilt in NO_UTF8.values())]
    with watch.nothing_changes():
        for body in bodies:
            problem(_post(shared, path, body), 400)


NO_OBJECTS = [b"[]", b"[{}]", b"null", b"true", b"7", b"1.5", b'"Ada"', b'""']
NO_ARRAYS = [b"{}", b"null", b"false", b"7", b'"[]"']


@pytest.mark.parametrize(
    ("path", "body"), [*itertools.product(SINGLES, NO_OBJECTS), *itertools.product(BATCHES, NO_ARRAYS)]
)
def test_where_an_object_or_an_array_is_due_nothing_else_is_taken(
    shared: Tally, watch: Watch, path: str, body: bytes
) -> None:
    with watch.nothing_changes():
        problem(_post(shared, path, body), 400)


@pytest.mark.parametrize("path", [*SINGLES, *BATCHES])
def test_neither_is_taken_for_the_other(shared: Tally, watch: Watch, customer_id: str, path: str) -> None:
    good = _good(path, customer_id)
    with watch.nothing_changes():
        problem(_post(shared, path, b"[" + good + b"]" if path in SINGLES else good[1:-1]), 400)


# 413: bodies that are too large


def _padded(body: bytes, size: int) -> bytes:
    return b" " * (size - len(body)) + body


@pytest.mark.parametrize("path", SINGLES)
def test_a_single_body_of_1_mib_is_taken(shared: Tally, customer_id: str, path: str) -> None:
    assert _post(shared, path, _padded(_good(path, customer_id), MIB)).status == 201


@pytest.mark.parametrize("path", SINGLES)
@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 16 * MIB - 1])
def test_a_single_body_of_more_than_1_mib_is_too_large(
    shared: Tally, watch: Watch, customer_id: str, path: str, size: int
) -> None:
    with watch.nothing_changes():
        problem(_post(shared, path, _padded(_good(path, customer_id), size)), 413)


@pytest.mark.parametrize("path", BATCHES)
@pytest.mark.parametrize("size", [MIB + 1, 16 * MIB])
def test_a_batch_of_16_mib_is_taken(shared: Tally, customer_id: str, path: str, size: int) -> None:
    response = _post(shared, path, _padded(_good(path, customer_id), size))
    assert response.status == 201, response.data
    assert len(response.json()["ids"]) == 1


def _answer(client: Client, *sent: bytes) -> tuple[int, str | None, bytes]:
    """Send raw bytes, then read the status, content type and body of the answer."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        for part in sent:
            connection.sendall(part)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers["Content-Type"], response.read()


def _refuses(client: Client, status: int, *sent: bytes) -> None:
    answered, content_type, body = _answer(client, *sent)
    assert (answered, content_type) == (status, PROBLEM), body
    told(body, status)


@pytest.mark.parametrize("path", SINGLES + BATCHES)
@pytest.mark.parametrize("size", [64 * MIB, 2**31, 2**63, 10**30])
def test_a_body_that_is_said_to_be_too_large_is_refused_before_it_is_sent(
    shared: Tally, watch: Watch, path: str, size: int
) -> None:
    with watch.nothing_changes():
        _refuses(
            _service(shared, path),
            413,
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), size),
        )


CHUNKED = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.parametrize("path", SINGLES)
def test_a_single_body_in_chunks_of_more_than_1_mib_is_too_large(
    shared: Tally, watch: Watch, customer_id: str, path: str
) -> None:
    body = _padded(_good(path, customer_id), MIB + 1)
    with watch.nothing_changes():
        _refuses(
            _service(shared, path),
            413,
            CHUNKED % path.encode(),
            _chunk(body[:1000]),
            _chunk(body[1000:]),
            _chunk(b""),
        )


@pytest.mark.parametrize("path", SINGLES + BATCHES)
def test_a_body_in_chunks_of_more_than_16_mib_is_too_large(
    shared: Tally, watch: Watch, customer_id: str, path: str
) -> None:
    body = _padded(_good(path, customer_id), 16 * MIB + 1)
    with watch.nothing_changes():
        _refuses(_service(shared, path), 413, CHUNKED % path.encode() + _chunk(body) + _chunk(b""))


@pytest.mark.parametrize("path", BATCHES)
def test_a_batch_in_chunks_of_16_mib_is_taken(shared: Tally, customer_id: str, path: str) -> None:
    body = _padded(_good(path, customer_id), 16 * MIB)
    status, _, answer = _answer(shared.customers, CHUNKED % path.encode(), _chunk(body), _chunk(b""))
    assert status == 201, answer


@pytest.mark.parametrize("path", SINGLES + BATCHES)
def test_a_body_in_chunks_is_taken(shared: Tally, customer_id: str, path: str) -> None:
    body = _good(path, customer_id)
    chunks = (_chunk(body[at : at + 3]) for at in range(0, len(body), 3))
    status, _, answer = _answer(_service(shared, path), CHUNKED % path.encode(), *chunks, _chunk(b""))
    assert status == 201, answer


@pytest.mark.parametrize("path", ["/customers", "/customers/batch", "/accounts"])
@pytest.mark.parametrize("size", [16 * MIB + 1, 20 * MIB])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["with its length", "in chunks"])
def test_a_client_that_sends_all_of_a_body_before_it_reads_is_told_that_it_was_too_large(
    shared: Tally, watch: Watch, path: str, size: int, in_chunks: bool
) -> None:
    """http.client and most others work like this. A reset connection would tell them nothing."""
    body = b" " * size
    connection = http.client.HTTPConnection("127.0.0.1", _service(shared, path).port, timeout=10)
    with watch.nothing_changes(), closing(connection):
        connection.request("POST", path, iter([body]) if in_chunks else body, encode_chunked=in_chunks)
        response = connection.getresponse()
        assert response.status == 413
        told(response.read(), 413)


# 415: compressed bodies


@pytest.mark.parametrize("path", SINGLES + BATCHES)
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "x", "identity, gzip", "gzip,"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_body_in_a_content_coding_is_not_taken_even_if_it_only_says_so(
    shared: Tally, watch: Watch, customer_id: str, path: str, coding: str, packed: bool
) -> None:
    body = _good(path, customer_id)
    headers = {"Content-Encoding": coding}
    with watch.nothing_changes():
        response = _service(shared, path).request(
            "POST", path, body=gzip.compress(body) if packed else body, headers=headers
        )
        assert coding in problem(response, 415)["detail"]
        assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("path", SINGLES + BATCHES)
@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_body_in_no_content_coding_is_taken(
    shared: Tally, customer_id: str, path: str, coding: str
) -> None:
    headers = {"Content-Encoding": coding}
    response = _service(shared, path).request("POST", path, body=_good(path, customer_id), headers=headers)
    assert response.status == 201


# Requests that do not reach the application

ENDED = b"\r\nHost: localhost\r\n\r\n"
UNREADABLE = {
    "no HTTP": b"nonsense\r\n\r\n",
    "a length that is no number": b"POST /customers HTTP/1.1\r\nContent-Length: abc" + ENDED,
    "a negative length": b"POST /customers HTTP/1.1\r\nContent-Length: -1" + ENDED,
    "two lengths": b"POST /customers HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2" + ENDED,
    "an unknown coding": b"POST /customers HTTP/1.1\r\nTransfer-Encoding: gzip" + ENDED,
    "a chunk of no size": b"POST /customers HTTP/1.1\r\nTransfer-Encoding: chunked" + ENDED + b"zz\r\n",
    "a header without a colon": b"GET /customers HTTP/1.1\r\nnonsense" + ENDED,
    "bytes in the path": b"GET /customers/\xff HTTP/1.1" + ENDED,
    "bytes in the query": b"GET /customers?limit=\xff HTTP/1.1" + ENDED,
    "a target with a bracket": b"GET http://[ HTTP/1.1" + ENDED,
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_request_that_can_not_be_read_is_told_so(
    shared: Tally, watch: Watch, service: str, sent: bytes
) -> None:
    with watch.nothing_changes():
        _refuses(getattr(shared, service), 400, sent)


def test_headers_that_are_too_large_are_refused(shared: Tally) -> None:
    _refuses(shared.customers, 431, b"GET /customers HTTP/1.1\r\nX: " + b"x" * 40_000 + ENDED)


def test_after_all_that_a_client_can_send_no_traceback_was_logged(shared: Tally) -> None:
    for sent in UNREADABLE.values():
        with socket.create_connection(("127.0.0.1", shared.customers.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.recv(1000)
    assert "uncaptured python exception" not in shared.said()
    assert "Traceback" not in shared.said()


# 404: nothing there

NO_IDS = {
    "unknown": NOBODY,
    "empty": "",
    "zero": "0",
    "a leading zero": "01",
    "zeros": "00",
    "negative": "-1",
    "a plus": "+1",
    "a fraction": "1.0",
    "an exponent": "1e0",
    "hexadecimal": "0x1",
    "a word": "one",
    "2^63": str(2**63),
    "2^64 + 1": str(2**64 + 1),
    "1,000 digits": "1" * 1000,
    "Arabic digits": "%D9%A1",
    "a superscript": "%C2%B2",
    "a blank behind": "1%20",
    "a line feed behind": "1%0A",
    "NUL": "1%00",
    "no UTF-8": "%FF",
    "a semicolon": "1;x",
    "quotes": "%22%27",
    "a percent sign": "%",
}
CALLS = [
    ("GET", "/customers/{}"),
    ("DELETE", "/customers/{}"),
    ("GET", "/invoices/{}"),
    ("DELETE", "/invoices/{}"),
    ("GET", "/accounts/{}"),
    ("DELETE", "/accounts/{}"),
    ("DELETE", "/accounts/{}?cascade=true"),
    ("GET", "/accounts/{}/customers"),
]


@pytest.mark.parametrize("id", NO_IDS.values(), ids=NO_IDS)
def test_what_is_no_id_of_anything_is_not_found(shared: Tally, watch: Watch, id: str) -> None:
    with watch.nothing_changes():
        for method, path in CALLS:
            problem(_service(shared, path).request(method, path.format(id)), 404)


@pytest.mark.parametrize("id", NO_IDS.values(), ids=NO_IDS)
def test_what_is_no_account_is_owned_by_nobody(accounts: Client, id: str) -> None:
    """As in the original: its callers ask nothing else."""
    assert accounts.get(f"/accounts/{id}/is-owned-by/user1") == {"ok": False}


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_id_with_leading_zeros_is_no_id(
    shared: Tally, watch: Watch, customer_id: str, method: str, path: str
) -> None:
    """Otherwise one thing would have many names."""
    ids = {
        "customers": customer_id,
        "invoices": new_invoice(shared.customers, customer_id),
        "accounts": new_account(shared.accounts),
    }
    id = ids[path.split("/")[1]]
    with watch.nothing_changes():
        problem(_service(shared, path).request(method, path.format("0" + id)), 404)


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("customers", "/nothing"),
        ("customers", "/Customers"),
        ("customers", "/customers/1/invoices"),
        ("customers", "/customers/batch/1"),
        ("customers", "/accounts"),
        ("customers", "/health"),
        ("customers", "/" + "x" * 5000),
        ("customers", "/../../etc/passwd"),
        ("customers", "/%00"),
        ("customers", "/%FF%FE"),
        ("accounts", "/customers"),
        ("accounts", "/accounts/1/is-owned-by"),
        ("accounts", "/accounts/1/nothing"),
    ],
    ids=lambda value: value[:30],
)
def test_a_path_that_is_not_offered_is_not_found(
    shared: Tally, watch: Watch, service: str, path: str
) -> None:
    client: Client = getattr(shared, service)
    with watch.nothing_changes():
        for method in ("GET", "POST", "PUT", "DELETE"):
            problem(client.request(method, path), 404)


# 405: methods that a path does not offer


@pytest.mark.parametrize(
    ("path", "offered"),
    [
        ("/customers", {"GET", "POST"}),
        ("/customers/batch", {"POST"}),
        ("/customers/{customer}", {"GET", "PATCH", "DELETE"}),
        ("/invoices", {"GET", "POST"}),
        ("/invoices/batch", {"POST"}),
        ("/invoices/{invoice}", {"GET", "PATCH", "DELETE"}),
        ("/accounts", {"GET", "POST"}),
        ("/accounts/{account}", {"GET", "PATCH", "DELETE"}),
        ("/accounts/{account}/customers", {"GET"}),
        ("/accounts/{account}/is-owned-by/user1", {"GET"}),
        ("/status", {"GET"}),
        ("/health/live", {"GET"}),
        ("/health/ready", {"GET"}),
        ("/openapi.json", {"GET"}),
    ],
)
def test_a_method_that_is_not_offered_is_told_which_are(
    shared: Tally, watch: Watch, customer_id: str, path: str, offered: set[str]
) -> None:
    ids = {
        "customer": customer_id,
        "invoice": new_invoice(shared.customers, customer_id),
        "account": new_account(shared.accounts),
    }
    with watch.nothing_changes():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - offered:
            response = _service(shared, path).request(method, path.format(**ids), {})
            problem(response, 405)
            assert offered | ({"HEAD"} if "GET" in offered else set()) <= {
                each.strip() for each in response.headers["Allow"].split(",")
            }


# HEAD: the answer of GET, without the body


@pytest.mark.parametrize(
    "path",
    ["/customers", "/invoices?limit=1", "/accounts?limit=5", "/status", "/health/live", "/", "/nothing"],
)
def test_head_is_get_without_the_body(shared: Tally, path: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", _service(shared, path).port, timeout=10)) as client:
        answers = []
        for method in ("HEAD", "GET"):  # if HEAD had sent a body, the answer to GET would be unreadable
            client.request(method, path)
            answers.append(client.getresponse())
            body = answers[-1].read()
    head, answer = answers
    assert (head.status, head.headers["Content-Type"]) == (answer.status, answer.headers["Content-Type"])
    assert head.headers.keys() == answer.headers.keys()
    assert int(head.headers["Content-Length"]) > 0
    assert len(body) == int(answer.headers["Content-Length"])


def test_head_of_what_is_sent_in_parts_is_a_head_alone(shared: Tally) -> None:
    account = new_account(shared.accounts)
    names = [{"name": f"{number} {'x' * 90}", "account_id": account} for number in range(5000)]
    shared.customers.post("/customers/batch", names)
    eventually(lambda: len(shared.accounts.get(f"/accounts/{account}")["customers"]) == len(names))
    with socket.create_connection(("127.0.0.1", shared.accounts.port), timeout=10) as connection:
        connection.sendall(b"HEAD /accounts/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % account.encode())
        said = b""
        while part := connection.recv(65536):
            said += part
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in said
    assert said.index(b"\r\n\r\n") == len(said) - 4


@pytest.mark.parametrize("path", ["/customers", "/accounts", "/nothing"])
def test_a_method_that_nobody_knows_is_refused(shared: Tally, watch: Watch, path: str) -> None:
    with watch.nothing_changes():
        response = _service(shared, path).request("BREW", path, {})
        assert response.status in (400, 404, 405, 501)
        problem(response, response.status)


# 422: wrong queries

LISTS = ["/customers", "/invoices", "/accounts", "/accounts/{account}/customers"]
NO_LIMITS = {
    "0": "0",
    "1001": "1001",
    "a word": "abc",
    "empty": "",
    "negative": "-1",
    "a fraction": "1.0",
    "an exponent": "1e2",
    "a plus": "%2B5",
    "a blank before": "%205",
    "a blank behind": "5%20",
    "two of them": "5,6",
    "Arabic digits": "%D9%A3",
    "NUL": "5%00",
    "no UTF-8": "%FF",
    "30 digits": "9" * 30,
    "5,000 digits": "9" * 5000,
}
NO_IDS_IN_QUERIES = {
    "negative": "-1",
    "a word": "abc",
    "empty": "",
    "a leading zero": "07",
    "a fraction": "1.0",
    "a plus": "%2B1",
    "a blank before": "%201",
    "a line feed behind": "1%0A",
    "Arabic digits": "%D9%A3",
    "NUL": "1%00",
    "no UTF-8": "%FF",
    "2^63": str(2**63),
    "5,000 digits": "9" * 5000,
}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", NO_LIMITS.values(), ids=NO_LIMITS)
def test_a_limit_that_is_none_is_refused(shared: Tally, account_id: str, path: str, limit: str) -> None:
    path = path.format(account=account_id)
    problem(_service(shared, path).request("GET", f"{path}?limit={limit}"), 422, "limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("after", NO_IDS_IN_QUERIES.values(), ids=NO_IDS_IN_QUERIES)
def test_a_start_that_is_no_id_is_refused(shared: Tally, account_id: str, path: str, after: str) -> None:
    path = path.format(account=account_id)
    problem(_service(shared, path).request("GET", f"{path}?after={after}"), 422, "after")


@pytest.mark.parametrize(("path", "field"), [("/customers", "account_id"), ("/invoices", "customer_id")])
@pytest.mark.parametrize("id", NO_IDS_IN_QUERIES.values(), ids=NO_IDS_IN_QUERIES)
def test_a_filter_that_is_no_id_is_refused(customers: Client, path: str, field: str, id: str) -> None:
    problem(customers.request("GET", f"{path}?{field}={id}"), 422, field)


def test_all_that_is_wrong_with_a_query_is_reported_at_once(customers: Client, accounts: Client) -> None:
    response = customers.request("GET", "/customers?limit=0&after=-1&account_id=x")
    problem(response, 422, "limit", "after", "account_id")
    response = customers.request("GET", "/invoices?limit=&after=&customer_id=")
    problem(response, 422, "limit", "after", "customer_id")
    problem(accounts.request("GET", "/accounts?limit=1001&after=x"), 422, "limit", "after")


# 422: batches


def test_an_unknown_customer_in_a_batch_is_named_with_its_index(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    sent = [invoice(customer_id)] * 9
    sent[3] = sent[7] = invoice(NOBODY)
    with watch.nothing_changes():
        response = customers.request("POST", "/invoices/batch", sent)
        problem(response, 422, "[3].customer_id", "[7].customer_id")


def test_a_deleted_customer_in_a_batch_is_named_with_its_index(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    deleted = new_customer(customers)
    customers.delete(f"/customers/{deleted}")
    with watch.nothing_changes():
        response = customers.request("POST", "/invoices/batch", [invoice(customer_id), invoice(deleted)])
        problem(response, 422, "[1].customer_id")


@pytest.mark.parametrize("index", [0, 1, 9_999])
def test_one_wrong_item_keeps_all_of_a_batch_out(
    customers: Client, watch: Watch, customer_id: str, index: int
) -> None:
    sent = [invoice(customer_id)] * 10_000
    sent[index] = sent[0] | {"purchase_date": "2019-02-30"}
    with watch.nothing_changes():
        problem(customers.request("POST", "/invoices/batch", sent), 422, f"[{index}].purchase_date")
    sent[index] = invoice(NOBODY)
    with watch.nothing_changes():
        problem(customers.request("POST", "/invoices/batch", sent), 422, f"[{index}].customer_id")


@pytest.mark.parametrize("path", BATCHES)
def test_a_batch_of_10_001_is_refused(shared: Tally, watch: Watch, customer_id: str, path: str) -> None:
    item = _good(path, customer_id)[1:-1]
    with watch.nothing_changes():
        response = _post(shared, path, b"[" + b",".join([item] * 10_001) + b"]")
        assert re.search("10,?000", _one_error(response))


@pytest.mark.parametrize("path", BATCHES)
def test_a_batch_that_is_too_long_is_refused_for_that_whatever_it_holds(
    shared: Tally, watch: Watch, path: str
) -> None:
    """Otherwise 16 MiB of empty objects would give hundreds of MiB of missing fields."""
    with watch.nothing_changes():
        response = _post(shared, path, b"[" + b",".join([b"{}"] * 20_000) + b"]")
        assert re.search("10,?000", _one_error(response))


def _one_error(response: urllib3.BaseHTTPResponse) -> str:
    """The message of the single error in a 422."""
    assert response.status == 422
    errors = response.json()["errors"]
    assert len(errors) == 1, f"{len(errors)} errors in {len(response.data)} bytes"
    problem(response, 422, errors[0]["field"])
    message: str = errors[0]["message"]
    return message


# Every error is JSON, whatever the client prefers


class Wrong(NamedTuple):
    """A request that is refused with `status`."""

    status: int
    method: str
    path: str
    body: bytes = b""


WRONGS = [
    Wrong(400, "POST", "/customers", b"{"),
    Wrong(404, "GET", f"/customers/{NOBODY}"),
    Wrong(404, "GET", "/nothing"),
    Wrong(405, "PUT", "/customers", b"{}"),
    Wrong(413, "POST", "/customers", b" " * (MIB + 1)),
    Wrong(422, "POST", "/customers", b"{}"),
    Wrong(422, "GET", "/customers?limit=0"),
]
ACCEPTED = {
    "nothing": "",
    "XML": "application/xml",
    "text": "text/plain",
    "HTML": "text/html",
    "a browser's": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "anything": "*/*",
    "JSON": "application/json",
    "no JSON": "application/json;q=0, application/problem+json;q=0",
    "problem+xml": "application/problem+xml",
    "nonsense": "nonsense;;;q=x,,/",
}


@pytest.mark.parametrize(
    "wrong", WRONGS, ids=lambda wrong: f"{wrong.status} {wrong.method} {wrong.path[:11]}"
)
@pytest.mark.parametrize("accept", ACCEPTED.values(), ids=ACCEPTED)
def test_an_error_is_a_json_problem_whatever_is_accepted(
    customers: Client, wrong: Wrong, accept: str
) -> None:
    headers = {"Accept": accept, "Accept-Encoding": "br", "Accept-Language": "de", "Accept-Charset": "utf-16"}
    response = customers.request(wrong.method, wrong.path, body=wrong.body, headers=headers)
    assert (response.status, response.headers["Content-Type"]) == (wrong.status, PROBLEM)
    assert response.json()["status"] == wrong.status


@pytest.mark.parametrize("accept", ACCEPTED.values(), ids=ACCEPTED)
def test_an_answer_is_json_whatever_is_accepted(customers: Client, accounts: Client, accept: str) -> None:
    for client, path in ((customers, "/customers?limit=1"), (accounts, "/accounts?limit=1")):
        response = client.request("GET", path, headers={"Accept": accept})
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
        response.json()


def test_no_path_and_no_query_of_a_client_is_taken_for_a_format(customers: Client) -> None:
    """A detail that repeats the request must not be read as a template, and must not break the JSON."""
    for path in ("/{}", "/{req}", "/%22%7D", "/%0D%0ASet-Cookie:x", "/%s%d", "/customers/{0.__class__}"):
        response = customers.request("GET", path)
        problem(response, 404)
        assert "Set-Cookie" not in response.headers
