"""Healing: a database put back from an older copy takes back what it had published since."""

from collections.abc import Callable

import structlog

from tally.events import PAYLOAD_FIELD, TRACE_PARENT_FIELD, TYPE_FIELD, EventId, decode
from tally.store.accounts import Accounts
from tally.store.outbox import OutboxRow
from tally.store.stream import Entry, EventStream

_log = structlog.get_logger()


def take_back(accounts: Accounts, stream: EventStream, beat: Callable[[], None]) -> None:
    """Put the database's own events that only the stream holds back into its outbox, with their effects.

    Takes what follows the newest event of the outbox without a gap, and that event must be the same on
    the stream: where it differs, the database has gone its own way since, and nothing can be taken back.
    Reads the whole stream, calling `beat` with every page. May be repeated; raises RedisError or
    StoreUnavailable.
    """
    outbox = accounts.outbox
    first = last = outbox.last()
    same = last == 0
    for entries in stream.entries_of(outbox.source):
        beat()
        with accounts.database.transaction():
            for entry in entries:
                row = _row(entry)
                if row is None:
                    continue
                if row.sequence == first:
                    same = row.payload == outbox.payload(first)
                elif same and row.sequence == last + 1:
                    outbox.restore(row)
                    accounts.apply([decode(entry.fields)])
                    last = row.sequence
    _log.warning("took_back_own_events", source=outbox.source, first=first + 1, count=last - first)


def _row(entry: Entry) -> OutboxRow | None:
    """The row that the outbox had for an entry of its own."""
    name, fields = entry.event_name, entry.fields
    if not isinstance(name, EventId):
        return None
    trace = fields.get(TRACE_PARENT_FIELD, b"").decode(errors="replace") or None
    return OutboxRow(name.sequence, fields[TYPE_FIELD].decode(), fields[PAYLOAD_FIELD], trace)
