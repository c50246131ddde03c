"""Publishes rows of an outbox, as its relay does."""

from collections.abc import Sequence

from tally.store.outbox import OutboxRow
from tally.store.stream import EventStream, Published, Publishing


def publish(stream: EventStream, source: str, rows: Sequence[OutboxRow], floor: int = 0) -> Published:
    stream.published(source)  # it gives Redis the script
    publishing = Publishing(stream)
    publishing.send(source, floor, rows)
    return publishing.answer()
