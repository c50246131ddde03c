"""Things that a program inherits from its parent process: Tally copes, or says in one line why not."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.cli import settings
from support.program import SUPERVISOR
from support.tally import Tally, running
from support.troubles import actors
from support.waiting import eventually

ACTORS = 8

# Programs that set up what a shell can't, and then exec the named program.
IGNORING_SIGCHLD = (
    "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
BLOCKING_SIGTERM = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT});"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def _after(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def _redirected(redirection: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {redirection}', "sh"]


@contextmanager
def started(
    directory: Path,
    before: list[str],
    environment: Mapping[str, str] | None = None,
    stderr: int | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A ready Tally that the program `before` has started."""
    file = settings(directory, data={"directory": str(directory / "data")}, redis={"embedded": "always"})
    process = subprocess.Popen(
        [*before, sys.executable, str(SUPERVISOR), "run", "--config", str(file)],
        env={**os.environ, **(environment or {})},
        stderr=stderr,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(_pids(directory)) == ACTORS)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _pids(directory: Path) -> dict[str, int]:
    """The running actors, by name."""
    shown = actors(directory / "data")
    return {actor.name: actor.pid for actor in shown if actor.pid and actor.state == "running"}


def _works_and_stops(directory: Path, process: "subprocess.Popen[bytes]") -> None:
    """Every killed actor is replaced, and SIGTERM ends all processes."""
    for actor in ("accounts-relay", "customers-http-1", "redis"):
        _replaced(directory, actor)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not any(child.is_running() for child in children)


def _replaced(directory: Path, actor: str) -> None:
    """Kill an actor, and wait until a new process has its name and all actors run."""
    killed = _pids(directory)[actor]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: _pids(directory).get(actor, killed) != killed and len(_pids(directory)) == ACTORS)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(_after(IGNORING_SIGCHLD), id="SIGCHLD ignored"),
        pytest.param(_after(BLOCKING_SIGTERM), id="SIGTERM blocked"),
        *(
            pytest.param(_redirected(redirection), id=redirection)
            for redirection in (
                "<&-",
                ">&-",
                "2>&-",
                "<&- >&- 2>&-",
                ">/dev/full",
                "2>/dev/full",
                ">/dev/full 2>&1",
            )
        ),
    ],
)
def test_it_runs_whatever_it_inherits(tmp_path: Path, before: list[str]) -> None:
    with started(tmp_path, before) as process:
        _works_and_stops(tmp_path, process)


def test_it_runs_with_a_log_that_nobody_reads_any_more(tmp_path: Path) -> None:
    """A terminal after Ctrl-S, or a hanging log collector: the log is full, and stays full."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        os.set_blocking(writer, False)
        while True:
            os.write(writer, b"#")
    except BlockingIOError:
        os.set_blocking(writer, True)
    with started(
        tmp_path, [], stderr=writer, environment={"TALLY_SUPERVISOR_HEARTBEAT_TIMEOUT": "2"}
    ) as process:
        before = _pids(tmp_path)
        for _ in range(3):
            _replaced(tmp_path, "redis")  # every actor logs something about that
        assert {name for name, pid in _pids(tmp_path).items() if before[name] != pid} == {"redis"}
        _works_and_stops(tmp_path, process)
    os.close(reader)
    os.close(writer)


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("tally")) as tally:
        tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})
        eventually(tally.settled)
        yield tally


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    "command",
    ["status", "status --json", "status --watch", "events", "check", "--help", "run --help"],
)
def test_what_cannot_be_printed_is_told_in_one_line(tally: Tally, command: str, redirection: str) -> None:
    run = _run(tally, command, redirection)
    assert run.returncode == 1
    assert run.stderr.startswith("tally: can't write to standard output: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-"])
def test_what_cannot_be_told_is_told_by_the_exit_status(tally: Tally, redirection: str) -> None:
    assert _run(tally, "status", redirection).returncode == 0
    assert _run(tally, "dead-letters show 1-1", redirection).returncode == 1


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_both_databases_are_copied_and_put_back_before_anything_is_printed(
    tally: Tally, tmp_path: Path, redirection: str
) -> None:
    """One of them alone may lack what the other has."""
    copies, data = tmp_path / "copies", tmp_path / "data"
    elsewhere = {"TALLY_DATA_DIRECTORY": str(data)}
    assert _run(tally, f"backup {copies}", redirection).returncode == 1
    assert sorted(file.name for file in copies.iterdir()) == ["accounts.db", "customers.db"]
    assert _run(tally, f"restore {copies} --yes", redirection, elsewhere).returncode == 1
    assert sorted(file.name for file in data.glob("*.db")) == ["accounts.db", "customers.db"]


@pytest.mark.parametrize("form", ["", "--json"])
def test_what_an_encoding_lacks_is_printed_as_json_escapes_it(tally: Tally, form: str) -> None:
    name = "Zoë ✓ 😀"
    account = tally.accounts.post("/accounts", {"name": name, "owned_by": "u"})["id"]
    eventually(tally.settled)
    run = _run(tally, f"events --account {account} {form}", "", {"PYTHONIOENCODING": "ascii"})
    assert (run.returncode, run.stderr) == (0, "")
    told = json.loads(run.stdout[run.stdout.index("{") :])
    assert told.get("Payload", told)["name"] == name


@pytest.mark.parametrize("command", ["backup {}", "export invoices --from {}", "groups remove {}"])
def test_other_bytes_than_utf_8_are_refused(tally: Tally, tmp_path: Path, command: str) -> None:
    name = os.fsdecode(b"%s/\xff" % os.fsencode(tmp_path))
    run = _run(tally, command.format(name), "", {"PYTHONIOENCODING": "utf-8:strict"})
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"tally: {name!r}"[:-1])
    assert line.endswith(" is not UTF-8")
    assert not [*tmp_path.iterdir()]


def test_an_import_goes_on_when_its_warnings_cannot_be_told(tally: Tally, tmp_path: Path) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text("customer,purchase_date,amount\nAnn,2019-01-06,1\nBob,yesterday,1\n")
    assert _run(tally, f"import {file} --account 1 --skip-bad", "2>/dev/full").returncode == 0
    assert [each["name"] for each in tally.customers.get("/customers")["customers"]] == ["Ann"]


@pytest.mark.parametrize("command", ["run", "status", "--help"])
def test_without_docstrings_it_says_so(tally: Tally, command: str) -> None:
    run = _run(tally, command, "", {"PYTHONOPTIMIZE": "2"})
    assert run.returncode == 2
    assert "PYTHONOPTIMIZE=2" in run.stderr
    assert run.stderr.count("\n") == 1


def test_without_assertions_it_runs(tmp_path: Path) -> None:
    with started(tmp_path, [], {"PYTHONOPTIMIZE": "1"}) as process:
        _works_and_stops(tmp_path, process)


def _run(
    tally: Tally, command: str, redirection: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    config = [] if command.endswith("--help") else ["--config", str(tally.directory / "tally.toml")]
    return subprocess.run(
        [*_redirected(redirection), sys.executable, str(SUPERVISOR), *command.split(), *config],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
