"""All measurements: `python -m benchmarks` from the repository root.

Each part measures Tally, its limits and its peers in turn, and prints tables. When all parts have been
measured at full scale, or --output is given, the tables are also written to a file.
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks import (
    backlog,
    batches,
    busy,
    capacity,
    cdnow,
    consume,
    finding,
    floods,
    idle,
    importing,
    killed,
    nodes,
    pages,
    posting,
    reading,
    recover,
    relay,
    report,
    results,
    scale,
    standby,
    start,
    visible,
)
from benchmarks.plan import Plan, Result


class Part(NamedTuple):
    """A measurement, and its title."""

    title: str
    measure: Callable[[Plan], Result]


PARTS = {
    "consume": Part("Events consumed", consume.measure),
    "relay": Part("Events published", relay.measure),
    "post": Part("POST /invoices", posting.measure),
    "batches": Part("POST /invoices/batch", batches.measure),
    "visible": Part("POST answered to visible", visible.measure),
    "read": Part("GET /accounts/{id} while events are consumed", reading.measure),
    "backlog": Part("A backlog caught up", backlog.measure),
    "recover": Part("What was lost is back", recover.measure),
    "scale": Part("Filled files", scale.measure),
    "import": Part("Files imported", importing.measure),
    "find": Part("Looking things up", finding.measure),
    "pages": Part("Pages in a browser", pages.measure),
    "capacity": Part("More processes", capacity.measure),
    "nodes": Part("More nodes", nodes.measure),
    "standby": Part("A standby", standby.measure),
    "cdnow": Part("CDNOW", cdnow.measure),
    "start": Part("Start to ready", start.measure),
    "killed": Part("A killed actor back at work", killed.measure),
    "idle": Part("All processes idle", idle.measure),
    "floods": Part("Floods", floods.measure),
    "busy": Part("All processes busy", busy.measure),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--part",
    "chosen",
    multiple=True,
    type=click.Choice([*PARTS]),
    help="Only this; may be given several times.",
)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Runs of each.")
@click.option(
    "--scale",
    default="full",
    show_default=True,
    type=click.Choice(["full", "small"]),
    help="`small` takes about a minute a part, and is good for trying only.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where data directories are made and removed; where a disk is, else a commit looks free.",
)
@click.option(
    "--redis-server",
    "server",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure with this redis-server or valkey-server, where a part starts one itself.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results here; by default to benchmarks/RESULTS.md, and only all parts at full scale.",
)
def main(
    chosen: Sequence[str],
    runs: int,
    scale: str,
    directory: Path | None,
    server: Path | None,
    output: Path | None,
) -> None:
    """Measure Tally on this machine and print tables; progress goes to standard error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends everything that runs, as Ctrl-C does
    plan = Plan(runs, directory, scale == "small", _say, server)
    names = [name for name in PARTS if not chosen or name in chosen]
    collected = results.Results(report.machine(directory, server), plan)
    click.echo(collected.machine)
    for name in names:
        others = report.Others()
        result = PARTS[name].measure(plan)
        section = collected.add(PARTS[name].title, result, others.cores())
        click.echo(f"\n{section}")
    if output is None and len(names) == len(PARTS) and not plan.small:
        output = results.FILE
    if output:
        output.write_text(collected.document(), encoding="utf-8")


def _say(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    main()
