"""Idempotency keys: the first answer to a request, kept with the change that it made."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from tally.events import EventRange
from tally.store.cause import RequestKey, short_hash
from tally.store.database import Database
from tally.store.errors import KeyReused
from tally.store.outbox import outboxes

KEPT_SECONDS = 24 * 60 * 60

SCHEMA = """
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    location TEXT,
    body BLOB NOT NULL,
    kept_since INTEGER NOT NULL,
    events TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (kept_since);
"""

ADDED = "ALTER TABLE idempotency ADD COLUMN events TEXT;"  # 0.1.0 lacks it

_encoder = msgspec.json.Encoder(enc_hook=str)  # msgspec doesn't know Id
_BY_HASH = "\0sha256:"  # prefix of a key whose hash alone is known; no client can send it


class Answer(Struct, frozen=True):
    """The answer to a request that made something: its body, and its `Location` if it has one.

    `events` are its events, as Tally-Event-Id shows them.
    """

    location: str | None
    body: bytes
    events: str | None = None


def encode_answer(content: Any) -> bytes:
    """The content as JSON; ids become strings."""
    return _encoder.encode(content)


def made(path: str, id: int) -> Answer:
    """The answer to a request that made one thing."""
    return Answer(f"{path}/{id}", b'{"id":"%d"}' % id)


def made_many(ids: Iterable[int]) -> Answer:
    """The answer to a request that made several."""
    return Answer(None, b'{"ids":[%s]}' % b",".join(b'"%d"' % id for id in ids))


class _Creation(Struct):
    created_date: datetime
    id: str


def answered_at(payload: bytes) -> tuple[datetime, int]:
    """When an answer was given, by the payload of its first event; of two to one request, the later counts.

    Raises msgspec.DecodeError for events that are no creations.
    """
    created = msgspec.json.decode(payload, type=_Creation)
    return created.created_date, int(created.id)


class KeyedRequest:
    """A request with an Idempotency-Key, with its path and body. The key is combined with the user."""

    def __init__(self, key: str, path: str, body: bytes) -> None:
        self.key = key
        self.hash = short_hash(f"{key}\n{path}".encode())
        """Identifies the request where the key is not known."""
        self.fingerprint = hashlib.sha256(path.encode() + b"\n" + body).digest()
        """Must be the same when the key comes again."""
        self._is_batch = path.endswith("/batch")

    def request_key(self) -> str:
        """The RequestKey of its events as text, without the number of events at its end."""
        return f"{self.hash}:{self.fingerprint.hex()[:32]}:{'batch-' if self._is_batch else ''}"


class IdempotencyKeys:
    """The keys that clients gave, each with its answer, for KEPT_SECONDS."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def once(self, request: KeyedRequest, make: Callable[[], Answer]) -> Answer:
        """Answer what `make` answers the first time that the key comes, and the same from then on.

        Use it only inside the transaction of the change that `make` does. Raises KeyReused when path or body
        differ. An error that `make` raises is not kept, so a request that changed nothing may be corrected.
        """
        rows = self._database.rows(
            "SELECT fingerprint, location, body, events FROM idempotency"
            " WHERE key IN (?, ?) AND kept_since > ? ORDER BY key DESC",  # one given here comes first
            (request.key, _BY_HASH + request.hash, int(self._clock()) - KEPT_SECONDS),
        )
        if rows:
            kept, location, body, events = rows[0] if len(rows) == 1 else self._that_counts(rows)
            if kept != request.fingerprint[: len(kept)]:
                raise KeyReused
            return Answer(location, body, events)
        answer = make()
        self._keep(request.key, request.fingerprint, answer, int(self._clock()))
        return answer

    def _that_counts(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Of two databases' answers the one that counts; in doubt, the one given here."""
        made = outboxes(self._database)
        try:
            told = [EventRange.parse(row[3]) for row in rows]
            order = [answered_at(made[each.source].payload(each.first) or b"") for each in told]
        except (KeyError, TypeError, ValueError):
            return rows[0]
        return rows[order.index(max(order))]

    def remember(self, key: RequestKey, answer: Answer, at: int) -> None:
        """Keep an answer that was made again from the database's own events, published `at` (seconds).

        In the open transaction. An answer older than KEPT_SECONDS is not kept.
        """
        if at > int(self._clock()) - KEPT_SECONDS:
            self._keep(_BY_HASH + key.request, bytes.fromhex(key.content), answer, at)

    def _keep(self, key: str, fingerprint: bytes, answer: Answer, at: int) -> None:
        sql = "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)"
        self._database.execute(sql, (key, fingerprint, answer.location, answer.body, at, answer.events))

    def prune(self, limit: int) -> int:
        """Forget up to `limit` keys that are older than KEPT_SECONDS; answer how many."""
        self._database.execute(
            "DELETE FROM idempotency WHERE key IN"
            " (SELECT key FROM idempotency WHERE kept_since <= ? LIMIT ?)",
            (int(self._clock()) - KEPT_SECONDS, limit),
        )
        return self._database.changes()
