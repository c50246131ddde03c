"""A standby takes its primary's place only while the primary gives no sign of life."""

from typing import Any

import pytest

from support.redis_double import RedisDouble
from tally.store.membership import Candidate, StillAlive, leases_of, promote, read_nodes
from tally.store.stream import EventStream

HOLDERS: dict[Any, Any] = {
    "customers@0000000a": "0:0",
    "customers@0000000b": "0:0",
    "accounts@0000000c": "0:0",
}
STANDBY = "customers@0000000d"


@pytest.fixture
def stream() -> EventStream:
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    stream.client.hset("{event-stream}:nodes", mapping=HOLDERS | {STANDBY: "0:0 standby"})
    return stream


@pytest.mark.parametrize("working", [["a"], ["b"], ["a", "b"], []], ids=" ".join)
def test_also_where_two_databases_hold_one_number(stream: EventStream, working: list[str]) -> None:
    """The leases of both were compared with each alone, so that one of them always seemed to be alive."""
    for each in working:
        stream.client.hset("{event-stream}:leases", f"customers@0000000{each}", f"place-{each} 1")
    leases = leases_of(stream, 0)
    stream.client.hset("{event-stream}:leases", "customers@0000000b", "place-b 2")
    with pytest.raises(StillAlive):
        promote(stream, 0, [Candidate(STANDBY, "")], leases)
    promote(stream, 0, [Candidate(STANDBY, "")], leases_of(stream, 0))
    known = read_nodes(stream)
    assert [name for name, node in known.items() if node.has_number] == ["accounts@0000000c", STANDBY]


def test_what_was_promoted_is_promoted_again(stream: EventStream) -> None:
    for _ in range(2):
        promote(stream, 0, [Candidate(STANDBY, "")], leases_of(stream, 0))
