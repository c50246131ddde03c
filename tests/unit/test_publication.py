"""Answers that wait until their events are published."""

import queue
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tally.actors.publication import AfterPublication, Publication
from tally.store.errors import NotPublished, StoreError

LONG, SHORT = 20.0, 0.05  # seconds


class Told(NamedTuple):
    """A job that reports its name when it finishes, and also the reason when it fails."""

    name: str
    told: "queue.Queue[str]"

    def work(self) -> None:
        """The work is already done."""

    def finish(self) -> None:
        self.told.put(self.name)

    def fail(self, reason: StoreError) -> None:
        self.told.put(f"{self.name}: {type(reason).__name__}")


@pytest.fixture
def told() -> "queue.Queue[str]":
    return queue.Queue()


@pytest.fixture
def hold(told: "queue.Queue[str]") -> Callable[[AfterPublication, int, str], None]:
    """Makes a job with that name wait for a row. `done` is reported after it."""

    def hold(after: AfterPublication, row: int, name: str) -> None:
        after.hold(row, [Told(name, told)], lambda: told.put("done"))

    return hold


def _told(told: "queue.Queue[str]", count: int) -> list[str]:
    return [told.get(timeout=LONG) for _ in range(count)]


def test_what_waits_is_answered_in_order_and_no_sooner(
    told: "queue.Queue[str]", hold: Callable[[AfterPublication, int, str], None]
) -> None:
    publication = Publication(listeners=1)
    after = AfterPublication(publication, 0, LONG)
    publication.reached(1)
    hold(after, 1, "was there")
    assert _told(told, 2) == ["was there", "done"]
    hold(after, 2, "second")
    hold(after, 3, "third")
    publication.reached(2)
    assert _told(told, 2) == ["second", "done"]
    assert told.empty()
    publication.reached(3)
    assert _told(told, 2) == ["third", "done"]


def test_who_waits_in_vain_is_told_and_nothing_is_begun_until_something_is_published(
    told: "queue.Queue[str]", hold: Callable[[AfterPublication, int, str], None]
) -> None:
    publication = Publication(listeners=1)
    after = AfterPublication(publication, 0, SHORT)
    after.insist()
    hold(after, 1, "first")
    assert _told(told, 2) == ["first: NotPublished", "done"]
    with pytest.raises(NotPublished, match="nothing is begun"):
        after.insist()
    publication.reached(1)
    after.insist()


def test_every_process_of_a_service_is_woken(
    told: "queue.Queue[str]", hold: Callable[[AfterPublication, int, str], None]
) -> None:
    publication = Publication(listeners=2)
    for number in range(2):
        hold(AfterPublication(publication, number, LONG), 1, "job")
    publication.reached(1)
    assert sorted(_told(told, 4)) == ["done", "done", "job", "job"]
