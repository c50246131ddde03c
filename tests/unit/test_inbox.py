"""The inbox: every event counts once, and the record of applied events stays small."""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tally.events import EVENT_ID_FIELD, EventId
from tally.store import inbox
from tally.store.database import Database
from tally.store.inbox import EventName, Inbox
from tally.store.ranges import Range, merge
from tally.store.stream import Entry


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "inbox.db", "accounts", inbox.SCHEMA)
    yield database
    database.close()


def _take(database: Database, names: list[EventName], entry_ms: int = 0) -> set[EventName]:
    with database.transaction():
        return set(Inbox(database).take({name: name for name in names}, entry_ms))


class _Delivery(NamedTuple):
    entry: Entry


_PARTS = st.sampled_from(
    [b"a", b"b@1", b":", b"1", b"0", b"7", b"123456789012345678", b"\xff", b" ", b"x" * 181]
)


@settings(deadline=None)
@given(st.lists(st.lists(_PARTS, max_size=5).map(b"".join), max_size=12))
def test_what_is_delivered_is_taken_by_the_names_of_its_entries(names: list[bytes]) -> None:
    entries = [Entry(f"{n}-0".encode(), {EVENT_ID_FIELD: name}) for n, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "inbox.db", "accounts", inbox.SCHEMA)
        fresh = {entry.event_name: entry for entry in entries}
        for again in (False, True):
            with database.transaction():
                taken = Inbox(database).take_delivered(map(_Delivery, entries), 0)
            assert {each.entry.event_name: each.entry for each in taken} == ({} if again else fresh)
            assert len(taken) == (0 if again else len(fresh))
        for name in fresh:
            assert Inbox(database).has_applied(name)
        database.close()


def _ranges(database: Database) -> list[tuple[str, int, int]]:
    return database.rows("SELECT source, first, last FROM inbox_range ORDER BY source, first")


def test_a_name_is_fresh_once(database: Database) -> None:
    assert _take(database, ["1-0", "EventId:x", "1-0"]) == {"1-0", "EventId:x"}
    assert _take(database, ["1-0", "2-0"]) == {"2-0"}


def test_an_event_id_with_a_blank_is_not_taken_for_the_one_before_the_blank(database: Database) -> None:
    """A deletion that another publisher named after its invoice was taken for the invoice, without effect."""
    assert _take(database, ["EventId:42"]) == {"EventId:42"}
    assert _take(database, ["EventId:42 deleted"]) == {"EventId:42 deleted"}


def test_an_entry_that_an_earlier_release_noted_by_its_id_counts_once(database: Database) -> None:
    _take(database, ["1-0"])
    assert _take(database, ["1-0 0123456789abcdef"]) == set()


def test_a_name_is_kept_while_any_entry_with_it_may_come_again(database: Database) -> None:
    """It went by the first of them: with the group set back later, the second one counted once more."""
    _take(database, ["EventId:x"], entry_ms=1000)
    _take(database, ["EventId:x"], entry_ms=5000)
    _take(database, ["EventId:x"], entry_ms=1000)
    with database.transaction():
        assert Inbox(database).prune(first_ms=5000, limit=10) == 0
    assert _take(database, ["EventId:x"]) == set()
    with database.transaction():
        assert Inbox(database).prune(first_ms=5001, limit=10) == 1


def test_a_transaction_that_fails_has_taken_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction():
        Inbox(database).take({EventId("a", 1): 1, "1-0": 2}, 0)
        1 / 0  # noqa: B018
    assert _take(database, [EventId("a", 1), "1-0"]) == {EventId("a", 1), "1-0"}


def test_contiguous_sequences_take_one_row_for_each_source(database: Database) -> None:
    for start in (1001, 1, 501, 1501):
        _take(database, [EventId(source, start + i) for i in range(500) for source in "ab"])
    assert _ranges(database) == [("a", 1, 2000), ("b", 1, 2000)]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8))))
def test_merged_ranges_hold_the_same_numbers_and_no_two_touch(pairs: list[tuple[int, int]]) -> None:
    ranges = [Range(first, first + length) for first, length in pairs]
    merged = merge(ranges)
    assert {n for r in merged for n in range(r.first, r.last + 1)} == {
        n for r in ranges for n in range(r.first, r.last + 1)
    }
    assert all(before.last + 1 < after.first for before, after in pairwise(merged))


_NAMES = st.one_of(
    st.builds(EventId, st.sampled_from(["a", "b"]), st.integers(1, 30)),
    st.sampled_from(["1-0", "2-0", "EventId:z"]),
)


@given(st.lists(st.lists(_NAMES, max_size=12), max_size=12))
def test_any_batches_in_any_order_are_fresh_exactly_once(batches: list[list[EventName]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "inbox.db", "accounts", inbox.SCHEMA)
        seen: set[EventName] = set()
        for batch in batches:
            assert _take(database, batch) == set(batch) - seen
            seen |= set(batch)
        numbers = {
            source: {x.sequence for x in seen if isinstance(x, EventId) and x.source == source}
            for source in "ab"
        }
        for source, first, last in _ranges(database):
            held = set(range(first, last + 1))
            assert held <= numbers[source]
            numbers[source] -= held
        assert not any(numbers.values())
        database.close()
