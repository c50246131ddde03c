"""Sets of numbers stored as ranges: the contents are right after any additions and removals."""

from hypothesis import given
from hypothesis import strategies as st

from tally.store import ranges
from tally.store.ranges import Range

RANGES = st.lists(
    st.builds(lambda first, more: Range(first, first + more), st.integers(1, 60), st.integers(0, 9))
)


def _numbers(these: list[Range]) -> set[int]:
    return {n for each in these for n in range(each.first, each.last + 1)}


@given(RANGES, RANGES)
def test_without_and_both_are_what_sets_make_of_them(these: list[Range], those: list[Range]) -> None:
    assert _numbers(ranges.without(these, those)) == _numbers(these) - _numbers(those)
    assert _numbers(ranges.both(these, those)) == _numbers(these) & _numbers(those)


@given(RANGES, st.integers(1, 70), st.integers(0, 20))
def test_those_between_two_and_the_first_of_them(these: list[Range], first: int, more: int) -> None:
    merged = ranges.merge(these)
    assert _numbers(ranges.both(merged, [Range(first, first + more)])) == _numbers(merged) & {
        *range(first, first + more + 1)
    }
    assert sorted(_numbers(ranges.first_of(merged, more))) == sorted(_numbers(merged))[:more]
    assert ranges.count(merged) == len(_numbers(merged))


@given(RANGES)
def test_they_are_text_and_back(these: list[Range]) -> None:
    assert ranges.parsed(ranges.shown(these)) == these
