"""A consumer tells Redis which events its database has applied."""

from pathlib import Path

from support.redis_double import RedisDouble
from tally.events import EventId
from tally.recovery.missing import APPLIED_SECONDS, Missing
from tally.store import accounts
from tally.store.inbox import Inbox
from tally.store.stream import EventStream


def test_it_is_told_again_though_the_connection_never_broke(tmp_path: Path) -> None:
    now = 0.0
    database = accounts.open_database(tmp_path)
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    missing = Missing(database, stream, lambda source: True, lambda: now)
    with database.transaction():
        Inbox(database).take({EventId("customers@1", 1): None}, 0)
    missing.look()
    told = stream.applied_by_source()
    assert told == {"customers@1": 1}

    stream.client.flushall()
    missing.look()
    assert stream.applied_by_source() == {}
    now += APPLIED_SECONDS
    missing.look()
    assert stream.applied_by_source() == told
    database.close()
