"""Sources that were given up, and what became of their events.

A database that was restored from a backup lacks events that its source has on the stream, and its
next ones would get their numbers. So it goes on as a new source; the old one is a name for what both know.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from tally.store.database import Database
from tally.store.stream import EventStream

_EARLIER = "earlier_sources"  # in meta, as JSON
_AT_ONCE = 1000


def earlier_sources(database: Database) -> dict[str, int]:
    """What the database was called before, and up to which sequence of each its content goes."""
    return msgspec.json.decode(database.meta(_EARLIER) or "{}", type=dict[str, int])


def set_earlier_sources(database: Database, earlier: Mapping[str, int]) -> None:
    """In the transaction that is open."""
    database.set_meta(_EARLIER, msgspec.json.encode(earlier).decode())


class Succession:
    """Which source took the place of which, in a hash beside the stream: every one names the newest."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._client = stream.client

    def given_up(self) -> dict[str, str]:
        """Every source that publishes no more, and the one that does in its place."""
        every: dict[bytes, bytes] = self._client.hgetall(self._stream.successors_key)  # type: ignore[assignment]
        return {source.decode(): successor.decode() for source, successor in every.items()}

    def family(self, source: str) -> set[str]:
        """All sources that one and the same database has had, whatever it was restored from."""
        given_up = self.given_up()
        newest = given_up.get(source, source)
        return {source, newest, *(old for old, successor in given_up.items() if successor == newest)}

    def give_up(self, sources: Iterable[str], successor: str) -> None:
        """From now on nothing is published as one of `sources`, but as `successor`. May be repeated."""
        self._client.hset(self._stream.successors_key, mapping=dict.fromkeys(sources, successor))

    def withdraw(self, entries: Collection[bytes], kept: Mapping[str, int]) -> None:
        """Remove `entries`, which are all that there is of given-up sources above what of each is `kept`.

        Can be interrupted, and then done again with what is left.
        """
        ids = list(entries)
        for start in range(0, len(ids), _AT_ONCE):
            self._client.xdel(self._stream.key, *ids[start : start + _AT_ONCE])
        published = self._stream.published_by_source()
        with self._client.pipeline(transaction=True) as transaction:
            for source, last in kept.items():
                if source in published:
                    transaction.hset(self._stream.published_key, source, str(min(last, published[source])))
                    transaction.hdel(self._stream.marks_key, source)
            transaction.execute()
