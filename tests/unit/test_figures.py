"""Counters and histograms in memory that processes share."""

import mmap
import multiprocessing
import threading
from itertools import count

import pytest

from tally.figures import PAGE_BYTES, Family, Figures, new_page, sums

ROWS = Family("rows_total", "Rows.", ("kind",))
SECONDS = Family("took_seconds", "Time.", (), (0.1, 1, 10))
FORK = multiprocessing.get_context("fork")  # as the supervisor does


def _count(page: mmap.mmap) -> None:
    figures = Figures(page)
    figures.add(ROWS, 2, ("a",))
    figures.observe(SECONDS, 0.5)


def _count_on(page: mmap.mmap) -> None:
    figures = Figures(page)
    for number in count():
        figures.observe(SECONDS, 1)
        figures.add(ROWS, 1, (str(number % 500),))


def test_what_several_processes_count_is_added_up_by_any_of_them() -> None:
    pages = [new_page(), new_page(), new_page()]
    for page in pages:
        process = FORK.Process(target=_count, args=(page,))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert sums(pages) == {("rows_total", "a"): [6], ("took_seconds",): [0, 3, 0, 0, 1.5]}


def test_a_process_that_is_started_again_goes_on_where_the_one_before_ended() -> None:
    page = new_page()
    for kind in ("a", "b", "a"):
        figures = Figures(page)
        figures.add(ROWS, 1, (kind,))
        figures.observe(SECONDS, 0.5)
    assert sums([page]) == {
        ("rows_total", "a"): [2],
        ("took_seconds",): [0, 3, 0, 0, 1.5],
        ("rows_total", "b"): [1],
    }


def test_a_page_does_not_grow_with_the_processes_that_wrote_to_it() -> None:
    page = new_page()
    sizes = set()
    for _ in range(3):
        Figures(page).add(ROWS, 1, ("a",))
        sizes.add(memoryview(page).cast("d")[0])
    assert len(sizes) == 1


def test_a_writer_that_was_killed_within_a_new_series_leaves_nothing_of_it() -> None:
    page = new_page()
    Figures(page).add(ROWS, 1, ("a",))
    used = int(memoryview(page).cast("d")[0])
    page[used : used + 200] = b"\xff" * 200
    Figures(page).add(ROWS, 1, ("b",))
    assert sums([page]) == {("rows_total", "a"): [1], ("rows_total", "b"): [1]}


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (0.1, 0), (0.11, 1), (1, 1), (10, 2), (10.1, 3)])
def test_a_bucket_holds_what_is_up_to_its_bound(value: float, bucket: int) -> None:
    page = new_page()
    Figures(page).observe(SECONDS, value, times=3)
    (*buckets, total), *_ = sums([page]).values()
    assert buckets == [3 if place == bucket else 0 for place in range(4)]
    assert total == value * 3


def test_no_count_is_lost_between_threads() -> None:
    page = new_page()
    figures = Figures(page)

    def work() -> None:
        for number in range(2000):
            figures.add(ROWS, 1, (str(number % 7),))
            figures.observe(SECONDS, 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sums([page])
    assert found.pop(("took_seconds",)) == [0, 16000, 0, 0, 16000]
    assert sum(number for (number,) in found.values()) == 16000


def test_a_page_can_be_read_while_it_is_written() -> None:
    page = new_page()
    writer = FORK.Process(target=_count_on, args=(page,))
    writer.start()
    try:
        seen = 0.0
        while len(found := sums([page])) < 501:
            assert writer.is_alive()
            now = sum(found.get(("took_seconds",), [0.0])[:-1])
            assert now >= seen
            seen = now
    finally:
        writer.kill()
        writer.join()


def test_a_series_that_finds_no_room_is_not_counted_and_disturbs_no_other() -> None:
    page = new_page()
    figures = Figures(page)
    many = [f"{number:0100}" for number in range(PAGE_BYTES // 100)]
    for kind in many:
        figures.add(ROWS, 1, (kind,))
    found = sums([page])
    assert 0.7 * len(many) < len(found) < len(many)
    figures.add(ROWS, 1, (many[0],))
    figures.add(ROWS, 1, (many[-1],))
    assert sums([page]) == {**found, ("rows_total", many[0]): [2]}
