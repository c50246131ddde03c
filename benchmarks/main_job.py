"""Tally's main job, measured: `python -m benchmarks.main_job` from the repository root.

Part A is the real data through the HTTP interface; part B are the figures that Tally is held to.
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks import cdnow, idle, killed, report, start, visible


class Part(NamedTuple):
    """A measurement: `measure(runs, base, say)` answers what is to be printed below the title."""

    title: str
    measure: Callable[[int, Path | None, Callable[[str], None]], str]


CDNOW = {"cdnow": Part("A. CDNOW", cdnow.measure)}
FIGURES = {
    "start": Part("B. Figures: start to ready", start.measure),
    "killed": Part("B. Figures: a killed actor back at work", killed.measure),
    "idle": Part("B. Figures: all processes idle", idle.measure),
    "visible": Part("B. Figures: POST answered to visible", visible.measure),
}
PARTS = CDNOW | FIGURES


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--part",
    "chosen",
    multiple=True,
    type=click.Choice([*CDNOW, "figures", *FIGURES]),
    help="Only this part (`figures` is all of part B); may be given several times.",
)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Runs of each.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where data directories are made and removed; where a disk is, else a commit looks free.",
)
def main(chosen: Sequence[str], runs: int, directory: Path | None) -> None:
    """Measure Tally on this machine and print tables; progress goes to standard error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what runs, as Ctrl-C does
    click.echo(report.machine(directory))
    for name, part in PARTS.items():
        if not chosen or name in chosen or ("figures" in chosen and name in FIGURES):
            others = report.Others()
            text = part.measure(runs, directory, _say)
            heading = f"{part.title} (runs: {runs}; other programs took {others.cores():.2f} cores meanwhile)"
            click.echo(f"\n{heading}\n\n{text}")


def _say(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    main()
