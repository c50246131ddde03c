"""What is taken of waitress."""

import re

from support.tally import ROOT


def test_one_file_reaches_into_waitress() -> None:
    files = [
        file
        for folder in ("actors", "commands", "http", "recovery", "store")
        for file in (ROOT / folder).glob("*.py")
    ]
    imports = re.compile(r"^\s*(import|from) waitress\b", re.MULTILINE)
    assert [file.name for file in files if imports.search(file.read_text())] == ["waitress_server.py"]
