"""A database that was put back from a backup goes on as a new source.

The stream has events of its old source that it does not know, and the numbers of these were given. What
it has committed since is published under the new name. Of customers.db, which then is what counts, the
unknown events are taken off the stream; those of accounts.db stay, as if another had opened these accounts.
"""

import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tally.actors.lock import supervisor_of
from tally.actors.relay import refusal
from tally.events import (
    PAYLOAD_FIELD,
    TYPE_FIELD,
    CustomerCreated,
    EventId,
    InvalidEvent,
    InvoiceCreated,
    UnknownEventType,
    decode,
)
from tally.store import read_model
from tally.store.database import Database
from tally.store.outbox import Outbox
from tally.store.stream import Entry, EventStream
from tally.store.succession import Succession, earlier_sources, set_earlier_sources


class Loss(NamedTuple):
    """What the stream has of a database's sources that the database does not know.

    `kept` is how far the two agree, for every source that the database ever had; `entries` are those
    beyond, `counts` tells how many of each type, and `newest` the highest id in each table.
    """

    source: str
    kept: dict[str, int]
    entries: list[bytes]
    counts: Counter[str]
    newest: Counter[str]

    def told(self) -> str:
        """The loss and what is done about it, for the one who is asked."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))
        lost = f"{len(self.entries):,} later events ({kinds})" if kinds else "no later events"
        return (
            f"customers.db was restored from a backup: the stream holds {lost}. What customers.db holds now "
            "is what counts from now on, and later events are taken off the stream for good"
        )


def is_restored(database: Database, stream: EventStream) -> bool:
    """Whether the relay of this database refuses to publish."""
    return refusal(Outbox(database), stream, stream.published(database.source)) is not None


def find_loss(database: Database, stream: EventStream, advance: Callable[[int], None]) -> Loss:
    """What a restored database lacks; reads the whole stream."""
    outbox, source = Outbox(database), database.source
    earlier = earlier_sources(database)
    kept = {each: earlier.get(each, 0) for each in Succession(stream).family(source)}
    kept[source] = min(outbox.published(), stream.published_by_source().get(source, 0))
    loss = Loss(source, kept, [], Counter(), Counter())
    for entry, name in _named(stream, advance):
        if name.source == source and name.sequence == kept[source] + 1 and _same(entry, outbox, name):
            kept[source] += 1
        elif name.sequence > kept.get(name.source, name.sequence):
            _add(loss, entry)
    return loss


def go_on_anew(customers: Database, live: Database, stream: EventStream, loss: Loss) -> None:
    """Take what was lost off the stream, and give customers.db a new identity.

    Can be interrupted anywhere, and is then to be done again: until it is done the relay refuses, and from
    its first step to the end of the rebuilding /status says why. `customers` is to be opened anew.
    """
    identity, succession = secrets.token_hex(4), Succession(stream)
    with live.transaction():
        read_model.set_due(
            live, "customers.db was restored, and `rebuild accounts` is not finished; run it again"
        )
    with customers.transaction():
        for table, id in loss.newest.items():  # first: what tells of them is about to go
            _raise_ids(customers, table, id)
    # Before anything goes: a relay with the old identity would take it for a stream that was emptied.
    succession.give_up(loss.kept, f"{customers.service}@{identity}")
    succession.withdraw(loss.entries, loss.kept)
    _rename(customers, identity, loss)


def part_ways(live: Database, stream: EventStream, loss: Loss) -> None:
    """Give an accounts.db that has gone its own way a new identity; it is to be opened anew.

    Can be interrupted anywhere, and is then to be done again: until it is done the relay refuses.
    """
    identity = secrets.token_hex(4)
    Succession(stream).give_up([loss.source], f"{live.service}@{identity}")
    _rename(live, identity, loss)


def renew_actors(directory: Path) -> None:
    """Have a running supervisor start the actors again, which know the old identity."""
    if supervisor := supervisor_of(directory):
        os.kill(supervisor, signal.SIGHUP)


def _rename(database: Database, identity: str, loss: Loss) -> None:
    agreed = loss.kept[loss.source]
    with database.transaction():
        Outbox(database).begin_anew(agreed)
        set_earlier_sources(database, earlier_sources(database) | {loss.source: agreed})
        database.set_meta("identity", identity)


def _named(stream: EventStream, advance: Callable[[int], None]) -> Iterator[tuple[Entry, EventId]]:
    done = 0
    for entries in stream.pages():
        for entry in entries:
            if isinstance(name := entry.event_name, EventId):
                yield entry, name
        done += len(entries)
        advance(done)


def _same(entry: Entry, outbox: Outbox, name: EventId) -> bool:
    return outbox.payload(name.sequence) == entry.fields.get(PAYLOAD_FIELD)


def _add(loss: Loss, entry: Entry) -> None:
    loss.entries.append(entry.id)
    loss.counts[entry.fields.get(TYPE_FIELD, b"?").decode(errors="replace")] += 1
    try:
        event = decode(entry.fields)
    except (InvalidEvent, UnknownEventType):
        return
    if isinstance(event, CustomerCreated):
        loss.newest["customer"] = max(loss.newest["customer"], event.id)
    elif isinstance(event, InvoiceCreated):
        loss.newest["invoice"] = max(loss.newest["invoice"], event.id)


def _raise_ids(customers: Database, table: str, id: int) -> None:
    """Give new rows of a table ids above `id`."""
    customers.execute("INSERT INTO sqlite_sequence SELECT ?1, 0 WHERE NOT EXISTS"
                      " (SELECT 1 FROM sqlite_sequence WHERE name = ?1)", (table,))  # fmt: skip
    customers.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (id, table))
