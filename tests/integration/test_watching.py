"""`status --watch` goes on when the Tally that it watches ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import command
from support.program import SUPERVISOR
from support.tally import Tally, running
from support.terminal import on_terminal
from support.waiting import eventually

NONE_RUNS = "no supervisor answers in "


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    with running(tmp_path / "tally") as tally:
        yield tally


@contextmanager
def watching(tally: Tally, to: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs `status --watch`, which writes into a file."""
    config = str(tally.directory / "tally.toml")
    with to.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(SUPERVISOR), "status", "--watch", *options, "--config", config],
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_it_says_that_none_runs_and_goes_on(tally: Tally, tmp_path: Path, options: tuple[str, ...]) -> None:
    seen = tmp_path / "seen.txt"

    def since(start: int) -> str:
        return seen.read_text()[start:]

    with watching(tally, seen, *options) as process:
        eventually(lambda: "customers-relay" in since(0))
        for end in (tally.end, tally.stop):
            end()
            stopped = len(seen.read_text())
            eventually(lambda: NONE_RUNS in since(stopped))  # noqa: B023
            tally.start()
            started = len(seen.read_text())
            eventually(lambda: "customers-relay" in since(started))  # noqa: B023
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    if options:
        told = [json.loads(line) for line in seen.read_text().splitlines()]
        assert all(bool(each["actors"]) == (each["trouble"] is None) for each in told)
        assert all([service["service"] for service in each["services"]] for each in told)
        assert all(
            (each["next"] or "").startswith("python supervisor.py run") for each in told if each["trouble"]
        )
    else:
        assert f"\nnext: python supervisor.py run --config {tally.directory / 'tally.toml'}\n" in since(0)


def test_on_a_terminal_too(tally: Tally) -> None:
    tally.stop()
    config = tally.directory / "tally.toml"
    told = 0

    def until(shown: str) -> bool:
        nonlocal told
        if NONE_RUNS.strip() in shown and not told:
            told = len(shown)
            tally.start()
        return bool(told) and "customers-relay" in shown[told:]

    status, _ = on_terminal("status", "--watch", "--config", config, until=until, seconds=60)
    assert status == 0


def test_without_it_the_exit_status_tells(tally: Tally) -> None:
    tally.stop()
    for option in ((), ("--json",)):
        run = command("status", *option, "--config", tally.directory / "tally.toml")
        assert (run.returncode, run.stdout) == (1, "")
        (line,) = run.stderr.splitlines()
        next = f"python supervisor.py run --config {tally.directory / 'tally.toml'}"
        assert line == f"tally: {NONE_RUNS}{tally.directory / 'data'}; next: {next}"
