"""The command line describes itself correctly: help with examples that run, and completion."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import redis
from click.shell_completion import BashComplete
from click.testing import CliRunner

from support.cli import command
from support.program import SUPERVISOR
from support.tally import ROOT, Tally, running
from support.terminal import on_terminal
from support.waiting import eventually
from tally.commands.command_line import imported
from tally.events import EVENT_TYPES
from tally.supervisor import main


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from _commands(sub if path else imported(name), (*path, name))


COMMANDS = list(_commands(main))
NAMES = ["python supervisor.py", "python -m tally", "tally"]


def _example(*path: str, name: str = "python supervisor.py") -> str:
    """The example in the command's help when Tally is called by that name."""
    shown = CliRunner().invoke(main, [*path, "--help"], prog_name=name)
    assert shown.exit_code == 0
    assert shown.output.startswith(" ".join(["Usage:", name, *path]))
    (example,) = re.findall(r"^  Example: (.+)$", shown.output, re.MULTILINE)
    return str(example)


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally with an account, for all tests here."""
    with running(tmp_path_factory.mktemp("help")) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        yield tally


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_of_it_by_the_name_that_was_called(
    path: tuple[str, ...], name: str
) -> None:
    program, *words = shlex.split(_example(*path, name=name))
    called = " ".join([program, *words])
    if path == ("completion",):
        assert "tally completion" in called
    else:
        assert called.startswith(" ".join([name, *path]))


@pytest.mark.parametrize("name", main.commands)
def test_the_list_of_commands_has_the_first_line_of_each_one_s_help(name: str) -> None:
    listed, shown = main.commands[name], imported(name)
    assert listed.name == shown.name
    for width in (45, 60, 200):
        assert listed.get_short_help_str(width) == shown.get_short_help_str(width)


def test_listing_the_commands_imports_none_of_them() -> None:
    code = "import sys; from tally.supervisor import main; main(['--help'], standalone_mode=False);"
    told = "print([name for name in sys.modules if name.startswith('tally.commands.')])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} {told}"], capture_output=True, text=True, timeout=20
    )
    assert done.stdout.splitlines()[-1] == "['tally.commands.inherited', 'tally.commands.command_line']"


@pytest.mark.parametrize(
    ("called", "name"),
    [([str(SUPERVISOR)], NAMES[0]), (["-m", "tally"], NAMES[1])],
    ids=["a script of a checkout", "a module"],
)
def test_tally_knows_the_name_that_it_was_called_by(called: list[str], name: str) -> None:
    done = subprocess.run([sys.executable, *called, "--help"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {name} ")
    assert f"Example: {name} run\n" in done.stdout


def test_wrong_usage_is_told_by_the_name_that_was_called() -> None:
    said = command("nonsense").stderr
    assert said.startswith("Usage: python supervisor.py ")
    assert "Try 'python supervisor.py --help'" in said


ENDING = ["status", "events", "import", "dead-letters list", "dead-letters redrive", "dead-letters"]
"""Commands whose examples end by themselves, once the parts that run for ever are left out."""


@pytest.mark.parametrize("path", ENDING)
def test_the_example_runs(tally: Tally, tmp_path: Path, path: str) -> None:
    (tmp_path / "purchases.csv").write_text("customer,purchase_date,amount\nAnn,2019-01-06,29.33\n")
    _, script, *words = shlex.split(_example(*path.split()))
    assert script == "supervisor.py"
    arguments = [word for word in words if word not in ("--watch", "--follow")]
    config = str(tally.directory / "tally.toml")
    group = 2 if path.startswith("dead-letters") else 1
    done = subprocess.run(
        [sys.executable, ROOT / script, *arguments[:group], "--config", config,
         *arguments[group:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done


def _completed(*words: str) -> set[str]:
    """The completions for the last of these words."""
    offered = BashComplete(main, {}, "tally", "_TALLY_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return {item.value for item in offered}


def test_commands_options_types_and_roles_are_completed() -> None:
    assert {"run", "check", "status", "events", "dead-letters", "import"} <= _completed("")
    assert {"--follow", "--from", "--since", "--type", "--customer", "--account", "--json"} <= _completed(
        "events", "--"
    )
    assert _completed("events", "--type", "") == set(EVENT_TYPES)
    assert _completed("run", "--only", "") == {"customers", "accounts", "redis"}
    assert _completed("completion", "") == {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_calls_tally(shell: str) -> None:
    done = command("completion", shell)
    assert done.returncode == 0
    assert f"_TALLY_COMPLETE={shell}_complete" in done.stdout


def test_bash_completes_with_what_completion_prints(tmp_path: Path) -> None:
    bash, installed = shutil.which("bash"), Path(sys.executable).parent
    if bash is None or not (installed / "tally").exists():
        pytest.skip("no bash here, or tally isn't installed")
    file = tmp_path / "completion"
    file.write_text(command("completion", "bash").stdout)
    words = "COMP_WORDS=(tally events --type Inv) COMP_CWORD=3"
    script = f"source {shlex.quote(str(file))}; {words}; _tally_completion tally; echo ${{COMPREPLY[@]}}"
    environment = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == ["InvoiceCreated", "InvoiceUpdated", "InvoiceDeleted"], done


# Tables: for people on a terminal, plain for programs


def test_status_is_plain_aligned_and_whole_when_piped(tally: Tally) -> None:
    done = command("status", "--config", tally.directory / "tally.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    actors, services, *_ = done.stdout.split("\n\n")
    assert {line.split()[0] for line in actors.splitlines()[1:]} == tally.pids().keys()
    heading, *rows = services.splitlines()
    assert heading.split() == ["service", "status", "outbox", "pending", "lag", "dead", "letters"]
    assert [row.split()[0] for row in rows] == ["customers", "accounts"]
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_status_keeps_to_the_terminals_width_and_watch_redraws_until_ctrl_c(tally: Tally) -> None:
    config = tally.directory / "tally.toml"
    status, shown = on_terminal("status", "--config", config, columns=80)
    assert (status, "customers-http-1" in shown) == (0, True)
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) < 24
    assert "next:" not in shown

    status, shown = on_terminal(
        "status", "--watch", "--config", config, until=lambda seen: seen.count("customers-relay") >= 3
    )
    assert status == 0
    assert "Traceback" not in shown


def test_status_watched_by_a_program_is_one_object_a_line(tally: Tally) -> None:
    arguments = ["status", "--watch", "--json", "--config", str(tally.directory / "tally.toml")]
    with subprocess.Popen(
        [sys.executable, SUPERVISOR, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["actors"]
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (0, "")


def test_dead_letters_are_listed_whole_for_programs_and_folded_for_people(tally: Tally) -> None:
    config = tally.directory / "tally.toml"

    with redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
        client.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": '{"cents": 100}'})
        eventually(lambda: client.xlen("{event-stream}:dead") == 2)

    piped = command("dead-letters", "list", "--config", config).stdout.splitlines()
    assert piped[0].split() == ["id", "failed", "at", "group", "event", "reason"]
    assert all(line.endswith("missing required field `id`") for line in piped[1:])

    listed = command("dead-letters", "list", "--json", "--config", config).stdout.splitlines()
    letters = [json.loads(line) for line in listed]
    assert [letter["Payload"] for letter in letters] == [{"cents": 100}] * 2
    assert [letter["id"] for letter in letters] == [line.split()[0] for line in piped[1:]]
    assert {letter["Group"].partition("@")[0] for letter in letters} == {"customers", "accounts"}

    status, shown = on_terminal("dead-letters", "list", "--config", config, columns=60)
    assert status == 0
    assert max(map(len, shown.splitlines())) <= 60
    assert "…" not in shown
