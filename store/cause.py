"""The cause of a change's events: a request, or another event."""

import hashlib
from typing import NamedTuple


class Cause(NamedTuple):
    """Its W3C trace context, its `request_key` if it is a request with an Idempotency-Key, and the user."""

    trace_parent: str | None = None
    request_key: str | None = None
    by: str | None = None


UNKNOWN = Cause()


class RequestKey(NamedTuple):
    """A request with an Idempotency-Key, as noted in its events, without the key itself.

    `request` is a hash of key, path and user, `content` one of path and body, both hexadecimal. It notes
    whether it is a batch: a batch has another answer than a request that makes one thing. `events` is how
    many belong to it.
    """

    request: str
    content: str
    is_batch: bool
    events: int

    def __str__(self) -> str:
        return f"{self.request}:{self.content}:{'batch-' if self.is_batch else ''}{self.events}"

    @classmethod
    def parse(cls, text: str) -> "RequestKey | None":
        """Parse text written by `str`; None for anything else."""
        request, _, rest = text.partition(":")
        content, _, told = rest.partition(":")
        digits = told.removeprefix("batch-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 7):
            return None
        return cls(request, content, told != digits, int(digits))


def short_hash(content: bytes) -> str:
    """128 bits of a hash of it, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]
