"""Which values are accepted as a W3C trace parent."""

import pytest

from tally.store.cause import is_sampled, parse_trace_parent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("raw", [TRACE, "cc" + TRACE[2:], TRACE[:-2] + "ff"])
def test_a_trace_parent_is_kept_as_it_is(raw: str) -> None:
    assert parse_trace_parent(raw) == raw


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "",
        "nonsense",
        TRACE.upper(),
        TRACE + "\n",
        TRACE + "-more",
        " " + TRACE,
        TRACE[:-1],
        "ff" + TRACE[2:],
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        TRACE.replace("b7ad6b7169203331", "0" * 16),
        TRACE.replace("0", "\u0660"),
    ],
)
def test_anything_else_is_none(raw: str | None) -> None:
    assert parse_trace_parent(raw) is None


def test_the_lowest_bit_of_the_flags_says_whether_the_caller_samples_it() -> None:
    assert [is_sampled(f"{TRACE[:-2]}{flags:02x}") for flags in range(256)] == [False, True] * 128
