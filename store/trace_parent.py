"""W3C trace context: the `traceparent` of a request, as it travels with the events it caused."""

import re

_ODD = frozenset("13579bdf")  # last digits of flags with the lowest bit, "sampled", set
_TRACE_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z",
)


def parse(raw: str | None) -> str | None:
    """The trace parent if it is valid, else None: anybody may have sent it."""
    return raw if raw and _TRACE_PARENT.match(raw) else None


def is_sampled(trace_parent: str) -> bool:
    """Whether the caller records this trace, and so wants to follow it."""
    return trace_parent[-1:] in _ODD
