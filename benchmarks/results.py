"""The results of all parts as one document: the targets first, then every table with its notes."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import apsw

from benchmarks.plan import Plan, Result, Target
from benchmarks.report import paragraph, table

FILE = Path(__file__).with_name("RESULTS.md")

_PACKAGES = (
    "redis",
    "hiredis",
    "apsw",
    "falcon",
    "waitress",
    "msgspec",
    "faststream",
    "protean",
    "fastapi",
    "pydantic",
    "uvicorn",
)


class Results:
    """The results so far, on this `machine`."""

    def __init__(self, machine: str, plan: Plan) -> None:
        self.machine = f"{machine}; {_versions()}"
        self._plan = plan
        self._sections: list[str] = []
        self._targets: list[Target] = []

    def add(self, title: str, result: Result, others: float) -> str:
        """Add a part; `others` is how many cores other programs used meanwhile. Returns its section."""
        scale = ", small scale: for trying only" if self._plan.small else ""
        heading = f"## {title}"
        told = f"Runs: {self._plan.runs}{scale}; other programs took {others:.2f} cores meanwhile."
        parts = [heading, told, *map(_fenced, result.text.split("\n\n"))]
        if result.targets:
            parts.append(_fenced(_judged(result.targets)))
        section = "\n\n".join(parts)
        self._sections.append(section)
        self._targets += result.targets
        return section

    def document(self) -> str:
        """The whole document, as Markdown."""
        parts = ["# Results", _INTRODUCTION, paragraph(self.machine), "## Targets"]
        parts += [_fenced(_judged(self._targets)), *self._sections, "## Elsewhere", _ORIGINAL]
        return "\n\n".join(parts) + "\n"


def _judged(targets: Sequence[Target]) -> str:
    rows = [["target", "wanted", "found, median (min..max)", ""]]
    rows += [[each.what, each.wanted, each.found, "met" if each.met else "MISSED"] for each in targets]
    return table(rows)


def _fenced(block: str) -> str:
    """Tables and paragraphs keep their text; only a table needs a fence."""
    return f"```\n{block}\n```" if "\n--" in block else block


def _versions() -> str:
    told = [f"SQLite {apsw.sqlite_lib_version()}"]
    for package in _PACKAGES:
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            told.append(f"no {package}")
    return ", ".join(told)


_INTRODUCTION = paragraph("""
    Written by `python -m benchmarks`, which measures everything side by side on one machine: Tally, its
    limits (the same parts with nothing of Tally's between them) and its peers, alternating within each run. A
    figure is the median of the runs with the smallest and the largest; a ratio is taken within each run, and
    then the median. What limits a figure is said below it.
""")

_ORIGINAL = paragraph("""
    The Go program that Tally took its task from was measured elsewhere, on two cores like these with
    PostgreSQL: about 420 to 700 invoices a second posted (median 1.3 ms alone, 28 ms with 16 clients, 145 ms
    with 64), 700 to 1,000 events a second consumed, POST to visible 9 ms in the median and 22 ms at p99. It
    was not run here, and nothing above is computed from these figures.
""")
