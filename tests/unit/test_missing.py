"""A consumer tells Redis which events its database has applied, and asks for lost letters."""

from pathlib import Path

from support.publishing import publish
from support.redis_double import RedisDouble
from tally.events import EventId
from tally.http import reasons
from tally.recovery.missing import APPLIED_SECONDS, LETTERS_SECONDS, Missing
from tally.store import accounts
from tally.store.asks import Asks
from tally.store.consumer_group import ConsumerGroup
from tally.store.inbox import DEAD, Inbox
from tally.store.outbox import OutboxRow
from tally.store.ranges import Range
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


def test_a_letter_that_is_just_being_written_is_not_lost(tmp_path: Path) -> None:
    """It is noted in the database, and then written, by a consumer that may be slow in between."""
    now = 0.0
    database = accounts.open_database(tmp_path)
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    group, other = (ConsumerGroup(stream, database.source, name) for name in ("1", "2"))
    group.create()
    missing = Missing(database, stream, lambda source: True, lambda: now)
    publish(stream, "customers@1", [OutboxRow(1, "Unknown", b"1", None)])
    (first,) = group.read_new(1)

    def note_dead(sequence: int) -> None:
        with database.transaction():
            Inbox(database).put_aside([EventId("customers@1", sequence)], DEAD)

    note_dead(1)
    group.bury(first, "why", 1)
    now += LETTERS_SECONDS
    missing.look()
    publish(stream, "customers@1", [OutboxRow(2, "Unknown", b"2", None)])
    (second,) = other.read_new(1)
    note_dead(2)
    missing.look()
    assert Asks(stream).of("customers@1") == {}

    other.bury(second, "why", 1)
    stream.client.xtrim(stream.beside("dead"), maxlen=0)
    for _ in range(2):
        now += LETTERS_SECONDS
        missing.look()
    assert Asks(stream).of("customers@1") == {database.source: [Range(1, 2)]}
    database.close()


def test_what_is_missing_is_asked_for_though_an_earlier_ask_was_never_answered(tmp_path: Path) -> None:
    """Its source was lost, and could not answer. The events asked for had come by the stream."""
    database = accounts.open_database(tmp_path)
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    ConsumerGroup(stream, database.source, "1").create()
    publish(stream, "customers@1", [OutboxRow(number, "Unknown", b"1", None) for number in range(1, 5)])
    stream.client.xgroup_setid("event-stream", database.source, "$")
    asks, missing = Asks(stream), Missing(database, stream, lambda source: True)
    asks.ask("customers@1", database.source, [Range(4, 4)])

    def look() -> object:
        for _ in range(2):
            missing.look()
        return asks.of("customers@1").get(database.source)

    for number in (1, 4):
        with database.transaction():
            Inbox(database).take({EventId("customers@1", number): None}, 0)
    assert look() == [Range(2, 3)]
    with database.transaction():
        Inbox(database).take({EventId("customers@1", 2): None}, 0)
    assert look() == [Range(2, 3)]  # the answer will hold what is missing
    database.close()


def test_of_a_database_that_is_there_again_no_event_counts_as_gone(tmp_path: Path) -> None:
    """A consumer had heard before that it was given up, and was slow to note it."""
    asks = Asks(EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream"))
    asks.give_up("customers@1")
    asks.note_gone("customers@1", "accounts@1", [Range(1, 2)])
    assert asks.gone("accounts@1") == {"customers@1": [Range(1, 2)]}
    asks.take_up_again({"customers@1"})
    asks.note_gone("customers@1", "accounts@2", [Range(1, 2)])
    assert asks.gone("accounts@2") == {}


def test_of_what_is_asked_for_status_counts_no_event_that_is_just_on_its_way(tmp_path: Path) -> None:
    asks = Asks(EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream"))
    database = accounts.open_database(tmp_path)
    asks.ask("customers@1", database.source, [Range(1, 2)])
    gone = asks.gone(database.source)
    [told] = reasons.lost(asks, database, {"customers@1": [Range(1, 2), Range(10, 500)]}, gone, {})
    assert told.startswith("2 events of customers@1 were taken off the stream")
    assert not [*reasons.lost(asks, database, {"customers@1": [Range(10, 500)]}, gone, {})]
    database.close()


def test_status_tells_of_an_ask_that_nobody_answers_also_where_other_events_are_gone(tmp_path: Path) -> None:
    """The database of the source was lost after it had answered an earlier ask."""
    asks = Asks(EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream"))
    database = accounts.open_database(tmp_path)
    asks.ask("customers@1", database.source, [Range(5, 6)])
    missing, gone = {"customers@1": [Range(1, 2), Range(5, 6)]}, {"customers@1": [Range(1, 2)]}
    first, second = reasons.lost(asks, database, missing, gone, {})
    assert first.startswith("2 events of customers@1 are missing for good")
    assert second.startswith("2 events of customers@1 were taken off the stream")
    database.close()
