"""What is taken of waitress, and how many connections a process may have."""

import re

import pytest

from support.tally import ROOT
from tally.actors.http_server import FEWEST_CONNECTIONS, MOST_CONNECTIONS, most_connections


def test_one_file_reaches_into_waitress() -> None:
    files = [
        file
        for folder in ("actors", "commands", "http", "recovery", "store")
        for file in (ROOT / folder).glob("*.py")
    ]
    imports = re.compile(r"^\s*(import|from) waitress\b", re.MULTILINE)
    assert [file.name for file in files if imports.search(file.read_text())] == ["waitress_server.py"]


def test_connections_are_as_many_as_there_are_files_for_them_and_for_half_of_their_bodies() -> None:
    assert most_connections(files=4096, opened=40, threads=16) == MOST_CONNECTIONS
    assert most_connections(files=1_000_000, opened=40, threads=16) == MOST_CONNECTIONS
    few = most_connections(files=1024, opened=40, threads=16)
    assert 500 < few < 600
    assert few * 3 / 2 + 40 + 16 * 8 <= 1024


@pytest.mark.parametrize("files", [0, 20, 64, 256])
def test_connections_are_a_handful_at_least(files: int) -> None:
    assert most_connections(files, opened=40, threads=16) >= FEWEST_CONNECTIONS
