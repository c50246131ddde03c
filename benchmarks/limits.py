"""The speed of the same parts without Tally's code between them: the most that Tally could reach.

Each function must run in a process of its own.
"""

import logging
import signal
import socket
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import falcon
import redis
import waitress

from benchmarks import entries
from benchmarks.apart import Tell
from benchmarks.spent import Spent

AT_ONCE = 500
THREADS = 16


def read(url: str, key: str, group: str, count: int) -> Spent:
    """Read `count` entries as a new group and acknowledge them, nothing else; return the time spent."""
    client = redis.Redis.from_url(url, protocol=2)
    client.xgroup_create(key, group, id="0")
    started = Spent.now()
    left = count
    while left > 0:
        answer: Any = client.xreadgroup(group, "reader", {key: ">"}, count=AT_ONCE, block=1000)
        [[_, found]] = answer
        client.xack(key, group, *[id for id, _ in found])
        left -= len(found)
    return Spent.since(started)


def read_all(url: str, key: str) -> Spent:
    """Read the stream from end to end, nothing else; return the time spent."""
    client: Any = redis.Redis.from_url(url, protocol=2)
    started = Spent.now()
    after = b"-"
    while found := client.xrange(key, min=after, count=AT_ONCE):
        after = b"(" + found[-1][0]
    return Spent.since(started)


def write(url: str, key: str, count: int) -> Spent:
    """Append `count` entries made beforehand; return the time spent."""
    client = redis.Redis.from_url(url, protocol=2)
    made = [invoice.fields() for invoice in entries.invoices(count)]
    client.ping()
    started = Spent.now()
    rest = iter(made)
    while chunk := list(islice(rest, AT_ONCE)):
        with client.pipeline(transaction=False) as pipeline:
            for fields in chunk:
                pipeline.xadd(key, fields)  # type: ignore[arg-type]
            pipeline.execute()
    return Spent.since(started)


def commit(directory: Path, count: int) -> Spent:
    """Insert `count` rows in durable transactions of AT_ONCE; return the time spent."""
    connection = apsw.Connection(str(directory / "commit.db"))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT")
    rows = iter([(invoice.payload,) for invoice in entries.invoices(count)])
    started = Spent.now()
    while chunk := list(islice(rows, AT_ONCE)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO event (payload) VALUES (?)", chunk)
        connection.execute("COMMIT")
    return Spent.since(started)


class _Constant:
    """Reads the posted body, and always gives the same answer."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 201."""
        req.bounded_stream.read()
        resp.status = falcon.HTTP_201
        resp.data = b'{"id":"1"}'
        resp.content_type = falcon.MEDIA_JSON


def answer(tell: Tell) -> None:
    """Serve POST /invoices by Falcon on waitress, unchanged; tell the port. Ends at SIGTERM."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # as Tally does
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    app = falcon.App()
    app.add_route("/invoices", _Constant())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = waitress.create_server(app, sockets=[listener], threads=THREADS)
    tell(listener.getsockname()[1])
    server.run()
