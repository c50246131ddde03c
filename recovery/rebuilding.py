"""Builds the read model of accounts.db again, from the stream or from customers.db.

Works while Tally runs, and while only Redis does. Whatever interrupts it, the old figures stand until the new
ones are complete. Run again, it goes on where it stopped, or begins again if that was in the change-over.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from tally.store import accounts, customers
from tally.store.consumer_group import ConsumerGroup
from tally.store.dead_letters import Corrections, DeadLetters
from tally.store.errors import StoreError
from tally.store.inbox import Inbox
from tally.store.incarnations import own_sources
from tally.store.nodes import known_nodes
from tally.store.outbox import known_of
from tally.store.ranges import Range
from tally.store.read_model import STREAM, Shadow
from tally.store.revenue import money
from tally.store.stream import EventStream

_LOCK_SECONDS = 60.0  # how long to wait for the write lock, once all is ready
_PUBLISH_SECONDS = 2.0  # how long to wait for a relay to publish what has been recorded; it may not run

Advance = Callable[[int], None]
Show = Callable[[str, int, int], AbstractContextManager[Advance]]


class CannotRebuild(StoreError):
    """It can't be done, or was not confirmed; the message says why in one line, for the user."""


def _unseen(_what: str, _total: int, _done: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda done: None)


class Rebuilding:
    """Builds the read model in `directory` again; `confirm` is asked before anything is lost.

    `show` shows a stage of the work while it lasts, given its name, its total and how much is done. It yields
    a callable to report progress to. With `make`, a missing accounts.db is made. Raises StoreError.
    """

    def __init__(
        self,
        directory: Path,
        stream: EventStream,
        confirm: Callable[[str], bool],
        show: Show = _unseen,
        make: bool = True,
    ) -> None:
        self._directory = directory
        self._stream = stream
        self._confirm = confirm
        self._show = show
        has_customers = (directory / customers.FILE).exists()
        self._customers = customers.open_database(directory, make=False) if has_customers else None
        self._live = accounts.open_database(directory, make=make)
        self._live.patience = _LOCK_SECONDS
        self._corrections = self._edited()

    def close(self) -> None:
        """Let go of the databases."""
        for database in (self._live, self._customers):
            if database:
                database.close()

    def run(self) -> str:
        """Try the stream first, then customers.db. If the last attempt had begun with one, go on with that.

        Answers what was done. May be repeated, also after it was interrupted. Raises CannotRebuild,
        StoreError or RedisError.
        """
        bases = [] if self._stream.is_trimmed() else [STREAM]
        bases += [self._customers.source] if self._customers else []
        while bases:
            shadow = Shadow.of(self._live, bases, self._stream, self._corrections.digest)
            wanted = [*self._told(), *self._applied()]  # asked first: what is told later may not be read
            self._build(shadow)
            if self._holds_all(shadow, wanted):
                self._insist_on_consent(shadow.vanishing(self._live, partial(self._read_on, shadow)))
                told = self._change_over(shadow, wanted)
                if told is not None:
                    others = self._others() if shadow.base != STREAM else ""
                    told = f"built again from {shadow.base}; {told}{others}"
                    shadow.discard()
                    return told
            bases = bases[bases.index(shadow.base) + 1 :]
            shadow.discard()
        raise CannotRebuild(
            f"the stream does not hold all events any more, and there is no {customers.FILE} in "
            f"{self._directory} to build from: put a copy there, and run it again; or begin again, with "
            "another node's backup: `join`"
        )

    def _others(self) -> str:
        """What to do at other nodes, so that they show the same figures."""
        known = known_nodes(self._live).items()
        there = {node.number for name, node in known if name.startswith("accounts@") and not node.is_removed}
        if not (others := there - {self._live.node}):
            return ""
        shown = " and ".join(map(str, sorted(others)))
        return (
            f". Accounts at node {shown} still show what they have applied: where "
            "that is more, begin them again there with `join`, and a backup from now"
        )

    def _build(self, shadow: Shadow) -> None:
        if not shadow.is_begun:
            assert self._customers
            total = self._customers.value("SELECT count(*) FROM customer")
            with self._show("customers", total, 0) as advance:
                shadow.copy(self._customers, advance)
        with self._show("events", self._stream.length(), shadow.count) as advance:
            self._read_on(shadow, advance)
        shadow.date_deletions(map(self._corrections.of, self._stream.pages()))

    def _read_on(self, shadow: Shadow, advance: Callable[[int], None] = lambda done: None) -> None:
        for entries in self._stream.pages(shadow.position):
            shadow.take(self._corrections.of(entries))
            advance(shadow.count)

    def _told(self) -> list[tuple[str, Range]]:
        """All events that there ever were. Waits for customers.db's newest ones to be published."""
        known = known_of(self._customers) if self._customers else {}
        deadline = time.monotonic() + _PUBLISH_SECONDS
        while True:
            published = self._stream.published_by_source()
            late = {source: last for source, last in known.items() if last > published.get(source, 0)}
            if not late or time.monotonic() > deadline:
                return [(source, Range(1, last)) for source, last in (published | late).items() if last > 0]
            time.sleep(0.05)

    def _applied(self) -> list[tuple[str, Range]]:
        return [(source, each) for source, ranges in Inbox(self._live).ranges().items() for each in ranges]

    def _holds_all(self, shadow: Shadow, wanted: Iterable[tuple[str, Range]]) -> bool:
        """Whether the shadow is complete. Built from the stream, it must have all that is wanted."""
        if shadow.base != STREAM:
            return True
        return not self._stream.is_trimmed() and all(shadow.has_seen(*each) for each in wanted)

    def _change_over(self, shadow: Shadow, wanted: Sequence[tuple[str, Range]]) -> str | None:
        """Replace the old figures with the new ones; None when the stream has lost something by now.

        The consumers wait meanwhile. Events that they applied are in the shadow. Pending ones are in the new
        inbox, or are applied later. Answers for how long nobody could write, and what revenue has become.
        """
        with self._live.transaction():
            began = time.monotonic()
            self._read_on(shadow)
            if self._edited().digest != self._corrections.digest:
                raise CannotRebuild("a dead letter was edited or discarded meanwhile: run it again")
            if not self._holds_all(shadow, [*wanted, *self._applied()]):
                return None
            before, now = shadow.take_place_in(self._live)
            if shadow.has_failures and self._live.source in self._stream.groups():
                ConsumerGroup(self._stream, self._live.source, "").set_back()
        told = f"changing over took {time.monotonic() - began:.1f} s"
        return f"{told}; revenue was {money(before)} in all, and is {money(now)}" if now != before else told

    def _insist_on_consent(self, vanishing: int) -> None:
        told = (
            f"{vanishing:,} customers that are shown now, or have revenue, are known neither to customers.db "
            "nor to what the stream still holds: they go, with their revenue"
        )
        if vanishing and not self._confirm(told):
            raise CannotRebuild("not confirmed, so it stays as it is; --yes confirms beforehand")

    def _edited(self) -> Corrections:
        return DeadLetters(self._stream).corrections(own_sources(self._live))
