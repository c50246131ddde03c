"""A process with very much to do takes long, and is not taken for hung."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.figures import accounts_db
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.waiting import eventually

EVENTS = 2_000_000
PAYLOAD = (
    b'{"id":"1","customer_id":"1","purchase_price_cents":%d,"purchase_date":"2019-01-06",'
    b'"previous_price_cents":%d,"previous_date":"2019-01-06","revision":%d,"updated_date":"2026-01-06T12:00:00Z"}'
)


@pytest.fixture
def tally(tmp_path: Path, server: RedisProcess) -> Iterator[Tally]:
    """A Tally with the shortest heartbeat_timeout, on a Redis that may have other nodes."""
    with running(tmp_path, redis_url=server.url, supervisor={"heartbeat_timeout": 2}) as tally:
        yield tally


def _publish_very_much(tally: Tally, server: RedisProcess) -> tuple[str, int]:
    """Give the stopped Tally as many events as some days bring: published, read, and trimmed.

    Returns their source and the number of the last one.
    """
    customers, accounts = accounts_db(tally).with_name("customers.db"), accounts_db(tally)
    with closing(sqlite3.connect(customers)) as database, database:
        (identity,) = database.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        database.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n LIMIT ?)"
            " INSERT INTO outbox (type, payload) SELECT type,"
            ' CAST(replace(CAST(payload AS TEXT), \'{"id":"1"\', \'{"id":"\' || i || \'"\') AS BLOB)'
            " FROM outbox JOIN n WHERE type = 'InvoiceCreated'",
            (EVENTS,),
        )
        last, newest = database.execute("SELECT max(sequence), payload FROM outbox").fetchone()
        database.execute("UPDATE meta SET value = ? WHERE key = 'published'", (last,))
    source = f"customers@{identity}"
    with closing(sqlite3.connect(accounts)) as database, database:
        database.execute("UPDATE inbox_range SET last = ? WHERE source = ?", (last, source))
    entries: Any = server.client.xrevrange("event-stream", count=1)
    mark = f"{entries[0][0].decode()} {hashlib.sha1(newest, usedforsecurity=False).hexdigest()}"
    server.client.hset("{event-stream}:published", source, str(last))
    server.client.hset("{event-stream}:marks", source, mark)
    return source, last


def test_a_primary_that_looks_through_a_large_outbox_for_what_an_old_one_handed_over_lives(
    tally: Tally, server: RedisProcess
) -> None:
    """It was taken for hung each time, and so published nothing any more."""
    account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
    customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": 100}
    tally.customers.post("/invoices", invoice)
    eventually(tally.settled)
    assert tally.stop() == 0
    source, last = _publish_very_much(tally, server)
    handed = "{event-stream}:handed:customers:0"
    for more, (cents, before, revision) in enumerate([(150, 100, 2), (120, 100, 1)], 1):
        entry: dict[Any, Any] = {
            "EventTypeName": "InvoiceUpdated",
            "Payload": PAYLOAD % (cents, before, revision),
            "EventId": f"{source}:{last + more}",
        }
        server.client.xadd(handed, entry)
    tally.start()
    eventually(lambda: server.client.xlen(handed) == 0)
    assert "actor_hangs" not in tally.said()
