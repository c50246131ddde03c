"""docs/operations/logs.md lists every event that is logged, with its levels and fields, and no others."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.tally import ROOT

PAGE = ROOT / "docs" / "operations" / "logs.md"
SOURCES = [
    file
    for folder in (".", "commands", "actors", "http", "importing", "recovery", "store")
    for file in sorted((ROOT / folder).glob("*.py"))
]

LEVELS = {
    "debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error",
    "log": "info, debug",  # chosen at run time between these two
}  # fmt: skip
LIBRARY = "library"  # actors/logs.py makes it from the log lines of libraries


class Call(NamedTuple):
    """A place in the code that logs."""

    where: str
    name: str | None
    level: str
    fields: frozenset[str]


def _calls(file: Path) -> Iterator[Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, method = node.func.value, node.func.attr
        if "_log" not in (getattr(owner, "id", ""), getattr(owner, "attr", "")) or method not in LEVELS:
            continue
        position = 1 if method == "log" else 0
        name = node.args[position] if len(node.args) > position else None
        yield Call(
            f"{file.name}:{node.lineno}",
            str(name.value) if isinstance(name, ast.Constant) else None,
            LEVELS[method],
            frozenset(_fields(node)) - {"exc_info"},
        )


def _fields(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg:
            yield keyword.arg
        else:  # `**traced(entry)` gives a line about a single event its trace
            assert ast.unparse(keyword.value).startswith("traced("), ast.unparse(call)
            yield "trace_parent"


CALLS = [call for file in SOURCES for call in _calls(file)]


def _listed() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ?([\w, ]*?) ?\| \S", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, *_ in rows}), "an event is listed twice"
    return {name: (levels, set(filter(None, fields.split(", ")))) for name, levels, fields in rows}


def test_every_place_that_logs_names_its_event_in_lower_case() -> None:
    assert len(CALLS) > 15
    unnamed = [call.where for call in CALLS if not re.fullmatch(r"[a-z]+(_[a-z]+)*", call.name or "")]
    assert unnamed == []


def test_no_field_is_called_what_the_logger_takes_itself() -> None:
    assert [call.where for call in CALLS if {"event", "self"} & call.fields] == []


def test_the_page_lists_exactly_the_events_that_are_logged() -> None:
    assert set(_listed()) == {call.name for call in CALLS} | {LIBRARY}


def test_the_page_gives_each_event_the_levels_and_fields_it_has() -> None:
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for call in CALLS:
        levels[str(call.name)].add(call.level)
        fields[str(call.name)] |= call.fields
    listed = _listed()
    del listed[LIBRARY]
    assert {name: (", ".join(sorted(levels[name])), fields[name]) for name in levels} == listed
