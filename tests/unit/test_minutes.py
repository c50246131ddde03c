"""The last hour by the minute, from counts noted at full minutes."""

from tally.http.minutes import MINUTES, Counts, Minute, Minutes


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_minute_tells_what_was_counted_from_its_beginning_to_its_end() -> None:
    clock = Clock(6000)
    minutes = Minutes(clock)
    minutes.note(Counts(5, 1))
    clock.now = 6060
    minutes.note(Counts(12, 1))
    clock.now = 6070
    told = minutes.told(Counts(13, 4))
    assert told == [Minute(6000, 7, 0), Minute(6060, 1, 3)]


def test_what_is_noted_says_when_to_note_again_and_the_first_note_counts() -> None:
    clock = Clock(6010)
    minutes = Minutes(clock)
    assert minutes.note(Counts(5, 1)) == 50
    clock.now = 6059
    assert minutes.note(Counts(9, 9)) == 1
    assert minutes.told(Counts(9, 9)) == [Minute(6000, 4, 8)]


def test_a_minute_that_nobody_noted_is_unknown_and_not_nothing() -> None:
    clock = Clock(6000)
    minutes = Minutes(clock)
    minutes.note(Counts(0, 0))
    clock.now = 6120
    minutes.note(Counts(9, 9))
    unknown = [Minute(6000, None, None), Minute(6060, None, None)]
    assert minutes.told(Counts(9, 10)) == [*unknown, Minute(6120, 0, 1)]


def test_an_hour_is_told_and_no_more_and_a_count_that_falls_is_no_change() -> None:
    clock = Clock(6000)
    minutes = Minutes(clock)
    for minute in range(200):
        clock.now = 6000 + 60 * minute
        minutes.note(Counts(minute, -minute))
    told = minutes.told(Counts(199, 0))
    assert [minute.at for minute in told] == [6000 + 60 * minute for minute in range(200 - MINUTES, 200)]
    assert {minute.recorded for minute in told[:-1]} == {1}
    assert {minute.applied for minute in told[:-1]} == {0}


def test_before_anything_was_noted_the_minute_that_goes_on_is_unknown() -> None:
    assert Minutes(Clock(6000)).told(Counts(1, 1)) == [Minute(6000, None, None)]
