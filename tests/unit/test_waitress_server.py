"""What is taken of waitress, who waits for its threads, and how much of it all is logged."""

import re
from typing import Any

from support.tally import ROOT
from tally.actors.waitress_server import TURNS, _Queue
from tally.http.seldom import Seldom


def test_one_file_reaches_into_waitress() -> None:
    files = [
        file
        for folder in ("actors", "commands", "http", "recovery", "store")
        for file in (ROOT / folder).glob("*.py")
    ]
    imports = re.compile(r"^\s*(import|from) waitress\b", re.MULTILINE)
    assert [file.name for file in files if imports.search(file.read_text())] == ["waitress_server.py"]


class _Waiting:
    """Stands for a connection that waits for a thread."""

    def __init__(self, follows: bool) -> None:
        self.follows = follows


def test_who_sent_many_requests_at_once_stands_behind_who_sent_one_and_has_its_turn_all_the_same() -> None:
    queue: Any = _Queue()
    for follows in [True] * 100 + [False] * 20:
        queue.append(_Waiting(follows))
    turns = [queue.popleft().follows for _ in range(len(queue))]
    assert turns[: 20 + 20 // (TURNS - 1)].count(False) == 20
    assert turns.index(True) < TURNS
    assert (turns.count(True), len(queue)) == (100, 0)


def test_of_what_anybody_can_cause_a_few_lines_are_logged_and_how_many_more_there_were() -> None:
    lines = Seldom(seconds=1000, lines=3)
    assert [lines.due() for _ in range(5)] == [0, 0, 0, None, None]
    one = Seldom(seconds=0)
    assert [one.due() for _ in range(3)] == [0, 0, 0]
