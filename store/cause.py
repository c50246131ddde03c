"""The cause of a change's events: a request, or another event."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tally.events import BY_FIELD, TRACE_PARENT_FIELD, Event

_ODD = frozenset("13579bdf")  # last digits of flags with the lowest bit, "sampled", set
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


class Cause(NamedTuple):
    """Its W3C trace context, its `request_key` if it is a request with an Idempotency-Key, and the user."""

    trace_parent: str | None = None
    request_key: str | None = None
    by: str | None = None


UNKNOWN = Cause()

CauseOf = Callable[[Event], Cause]
"""Answers what caused an event."""


def unknown(event: Event) -> Cause:
    """Knows of no event what caused it."""
    return UNKNOWN


def parse_trace_parent(raw: str | None) -> str | None:
    """The W3C trace parent if it is valid, else None: anybody may have sent it."""
    return raw if raw and _TRACE_PARENT.match(raw) else None


def is_sampled(trace_parent: str) -> bool:
    """Whether the caller records this trace, and so wants to follow it."""
    return trace_parent[-1:] in _ODD


def cause_in(fields: Mapping[bytes, bytes]) -> Cause:
    """The cause that the fields of an entry tell of, without the request."""
    by = fields.get(BY_FIELD)
    trace = parse_trace_parent(fields.get(TRACE_PARENT_FIELD, b"").decode(errors="replace"))
    return Cause(trace, by=by.decode(errors="replace") if by else None)


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

    @classmethod
    def parse(cls, text: str) -> "RequestKey | None":
        """Parse what `KeyedRequest.request_key` and the number of events make; None for anything else."""
        request, _, rest = text.partition(":")
        content, _, told = rest.partition(":")
        digits = told.removeprefix("batch-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 7):
            return None
        return cls(request, content, told != digits, int(digits))


def short_hash(content: bytes) -> str:
    """128 bits of a hash of it, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]
