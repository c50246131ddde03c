"""Random histories with faults and time: accepted changes count once, or `status` says what to do.

`TALLY_TEST_HISTORIES` sets how many of each kind run: by default 1,000 in all. Few are of a primary and its
standby, as these take some six times as long.
`TALLY_TEST_FIRST_HISTORY` sets the first one's number. A number always gives the same history, and a
failure prints it. So a soak is

    TALLY_TEST_HISTORIES=1000000 python -m pytest -n 2 tests/faults/test_model.py
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support import pair
from support.world import Step, run, shortest, steps_of

pytestmark = pytest.mark.usefixtures("alone", "quiet")

Run = Callable[[int, list[Step], Path], object]

HISTORIES = int(os.environ.get("TALLY_TEST_HISTORIES", "950"))
OF_PAIRS = int(os.environ.get("TALLY_TEST_HISTORIES", "25"))
FIRST = int(os.environ.get("TALLY_TEST_FIRST_HISTORY", "0"))
AT_ONCE = 50
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 -- here no commit waits for a disk, if the machine has this folder


def _run(seed: int, steps: list[Step], runs: Run = run) -> None:
    at = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=at) as directory:
        runs(seed, steps, Path(directory))


def _fails_as(seed: int, kind: type[BaseException], runs: Run) -> Callable[[list[Step]], bool]:
    def fails(steps: list[Step]) -> bool:
        try:
            _run(seed, steps, runs)
        except Exception as error:
            return type(error) is kind
        return False

    return fails


@pytest.mark.parametrize("first", range(FIRST, FIRST + HISTORIES, AT_ONCE))
def test_any_history_with_any_faults_ends_well(first: int) -> None:
    for seed in range(first, min(first + AT_ONCE, FIRST + HISTORIES)):
        _ends_well(seed, steps_of(seed), run)


@pytest.mark.parametrize("first", range(FIRST, FIRST + OF_PAIRS, AT_ONCE))
def test_any_history_of_a_primary_and_its_standby_ends_well(first: int) -> None:
    for seed in range(first, min(first + AT_ONCE, FIRST + OF_PAIRS)):
        _ends_well(seed, pair.steps_of(seed), pair.run)


@pytest.mark.parametrize("first", range(FIRST, FIRST + OF_PAIRS, AT_ONCE))
def test_any_history_in_which_only_parts_are_killed_goes_on_under_the_same_names(first: int) -> None:
    for seed in range(first, min(first + AT_ONCE, FIRST + OF_PAIRS)):
        _ends_well(seed, pair.unnoticed_steps_of(seed), pair.run_under_the_same_names)


_RECORDED_AGAIN: list[Step] = [
    ("record", 3699429805),
    ("credit", 878794238),
    ("take_back", 1972163660),
    ("a_standby_is_promoted", 1420995336),
    ("all_turn", 2513164158),
    ("record", 2231564250),
]
"""A credit is taken back, and its invoice's request comes to another primary, too."""

_FOUND: dict[str, tuple[int, list[Step]]] = {
    "a request that a rolled back primary answered too counts once": (
        71001838,
        [
            ("redis_is_saved", 3551710737),
            ("a_standby_is_promoted", 4110593462),
            ("part_turns", 770212253),
            ("record", 4243950421),
            ("record", 1407464819),
            ("redis_falls_back", 4233644259),
        ],
    ),
    "a deletion that two primaries fitted to changes": (
        80000047,
        [
            ("record", 433532865),
            ("all_turn", 2571777382),
            ("a_standby_is_promoted", 3813380280),
            ("delete", 2622232515),
            ("all_turn", 4017372896),
            ("change", 2688756970),
            ("change", 979468050),
            ("change", 1658171043),
            ("change", 3108568838),
            ("all_turn", 1034660812),
            ("all_turn", 3284124278),
            ("a_standby_is_promoted", 3844592442),
        ],
    ),
    "a credit that was taken back stays so at a standby": (
        81004992,
        _RECORDED_AGAIN,
    ),
    "a credit that was taken back stays so where its invoice was recorded twice": (
        81004992,
        [
            *_RECORDED_AGAIN,
            ("part_turns", 3002882246),
            ("a_standby_is_promoted", 3179337305),
            ("delete", 3603491557),
        ],
    ),
    "what comes again at an earlier place than before reaches the standby": (
        85500491,
        [
            ("redis_is_saved", 4199395841),
            ("a_machine_is_killed", 2909288718),
            ("rename", 667262024),
            ("rename", 1077069806),
            ("record", 53502141),
            ("credit", 1877731531),
            ("part_turns", 1751618563),
            ("a_machine_turns", 1516105339),
            ("redis_is_saved", 3489678032),
            ("redis_falls_back", 3625798929),
            ("all_turn", 1045312311),
            ("all_turn", 3766600408),
            ("rename", 874209804),
            ("redis_falls_back", 3767645045),
        ],
    ),
}
"""Short histories of pairs that once failed."""


@pytest.mark.parametrize(("seed", "steps"), _FOUND.values(), ids=_FOUND)
def test_what_once_failed_ends_well(seed: int, steps: list[Step]) -> None:
    _ends_well(seed, steps, pair.run)


def _ends_well(seed: int, steps: list[Step], runs: Run) -> None:
    try:
        _run(seed, steps, runs)
    except Exception as error:
        few = shortest(seed, steps, _fails_as(seed, type(error), runs))
        told = "\n".join(f"    {name}, {drawn}" for name, drawn in few)
        error.add_note(f"This is history {seed}. These of its {len(steps)} steps suffice:\n{told}")
        raise
