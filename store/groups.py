"""The consumer groups that read the stream, Tally's and other programs', and what is kept for each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from tally.store.asks import Asks
from tally.store.stream import Age, EventStream, is_a_services, is_missing


class Group(NamedTuple):
    """A group that reads the stream: its position, and how many entries are pending and unread.

    `idle_ms` is the time since the last read, None before the first.
    """

    name: str
    last_delivered: str
    pending: int
    unread: int
    idle_ms: int | None


def behind(noted: Mapping[str, Age], readers: Mapping[str, Age]) -> list[str]:
    """The groups that have acknowledged more than their databases hold: these were put back from copies.

    Read the ages that are `noted` beside the stream first: those of the databases grow meanwhile.
    """
    return [group for group, age in readers.items() if not age.includes(noted.get(group, Age()))]


class Groups:
    """The groups that read a stream. Every call raises RedisError when Redis can't be asked."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._client = stream.client

    def holding(self) -> dict[str, str]:
        """The services' groups that hold entries beyond the retention, and the position of each.

        They did so at the last trimming, and still do. A service without a group is listed by its own name.
        """
        noted = self._stream.hash("holding")
        if not noted or not self._stream.length():  # the stream was deleted since
            return {}
        stand = {}  # the oldest pending entry of each group, else the last that it was handed
        for name, group in self._stream.groups().items():
            if pending := self._told(self._client.xpending, group["name"]):
                stand[name] = (pending["min"] or group["last-delivered-id"]).decode()
        services = {group.partition("@")[0] for group in stand}
        return {
            name: id
            for name, id in noted.items()
            if (stand.get(name, "0-0") == id if "@" in name else name not in services)
        }

    def overtaken(self) -> dict[str, int]:
        """How many entries were removed, for their age, before other programs' groups had read them."""
        return {group: int(count) for group, count in self._stream.hash("overtaken").items()}

    def all(self, most_unread: int | None = None) -> list[Group]:
        """Every group that reads the stream, by name; empty without a stream.

        With `most_unread`, at most so many unread entries are counted for each.
        """
        found = []
        for name, each in self._stream.groups().items():
            last, idle = each["last-delivered-id"], self.idle_ms(each["name"])
            if most_unread is None:
                unread = sum(map(len, self._stream.pages(last)))
            else:
                unread = len(self._stream.read(last, most_unread, block_ms=0))
            found.append(Group(name, last.decode(), int(each["pending"]), unread, idle))
        return sorted(found)

    def idle_ms(self, group: str | bytes) -> int | None:
        """The time since the last read from a group; None before the first, or without such a group."""
        consumers = self._told(self._client.xinfo_consumers, group) or []
        return min([each["idle"] for each in consumers], default=None)

    def _told(self, ask: Callable[[str, Any], Any], group: str | bytes) -> Any:
        """Redis's answer about a group; None without the group, or without a stream."""
        try:
            return ask(self._stream.key, group)
        except redis.ResponseError as error:
            if not is_missing(error):
                raise
            return None

    def remove(self, group: str) -> bool:
        """Remove a group and all notes about it; False when there was none. May be repeated.

        The database of a service's group counts as gone for good: its events are not asked for any more.
        """
        asks = Asks(self._stream)
        is_asked = is_a_services(group) and asks.give_up(group)
        asks.forget(group)
        with self._client.pipeline(transaction=True) as transaction:
            for noted in ("holding", "overtaken", "ages"):
                transaction.hdel(self._stream.beside(noted), group)
            transaction.execute()
        if edited := self._stream.hash("edited", group):
            self._client.hdel(self._stream.beside("edited", group), *edited)
        is_there = self._stream.length() and self._client.xgroup_destroy(self._stream.key, group)
        return bool(is_there or is_asked)
