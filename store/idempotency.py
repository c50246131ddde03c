"""Idempotency keys: the first answer to a request, kept with the change that it made."""

import hashlib
import time
from collections.abc import Callable

from msgspec import Struct

from tally.store.database import Database
from tally.store.errors import KeyReused

KEPT_SECONDS = 24 * 60 * 60

SCHEMA = """
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    location TEXT,
    body BLOB NOT NULL,
    kept_since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (kept_since);
"""


class Answer(Struct, frozen=True):
    """What a request that made something is answered with: its `Location`, when it has one, and body."""

    location: str | None
    body: bytes


class IdempotencyKeys:
    """The keys that clients gave, each with its answer, for KEPT_SECONDS."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def once(self, key: str, request: bytes, make: Callable[[], Answer]) -> Answer:
        """Answer what `make` answers the first time `key` comes, and the same from then on.

        `request` is what must be the same: the path and the body. Only to be used inside the
        transaction of the change that `make` does. Raises KeyReused when `request` differs;
        what `make` raises is not kept, so a request that changed nothing may be mended.
        """
        fingerprint = hashlib.sha256(request).digest()
        rows = self._database.rows(
            "SELECT fingerprint, location, body FROM idempotency WHERE key = ? AND kept_since > ?",
            (key, int(self._clock()) - KEPT_SECONDS),
        )
        if rows:
            kept, location, body = rows[0]
            if kept != fingerprint:
                raise KeyReused
            return Answer(location, body)
        answer = make()
        self._database.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)",
            (key, fingerprint, answer.location, answer.body, int(self._clock())),
        )
        return answer

    def prune(self, limit: int) -> int:
        """Forget up to `limit` keys that are older than KEPT_SECONDS; answer how many."""
        self._database.execute(
            "DELETE FROM idempotency WHERE key IN"
            " (SELECT key FROM idempotency WHERE kept_since <= ? LIMIT ?)",
            (int(self._clock()) - KEPT_SECONDS, limit),
        )
        return self._database.changes()
