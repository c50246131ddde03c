"""`status` names each problem once, names the next command, and writes times the way people do."""

from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from tally.actors.control import ActorStatus
from tally.commands import next_command, terminal
from tally.commands.status import Status
from tally.http.reasons import ActorReport
from tally.http.status import RedisStatus, StatusReport
from tally.supervisor import main

AWAY = "Redis does not answer: Timeout connecting to server"


def _actor(name: str, trouble: str | None = None) -> ActorStatus:
    return ActorStatus(name, 7, "running", "", 7500.0, 1, trouble, None)


def _report(service: str, actors: list[ActorStatus], *reasons: str) -> StatusReport:
    mine = [each for each in actors if each.name.startswith(service)]
    waiting: dict[str, list[str]] = {}
    for each in mine:
        if each.trouble:
            waiting.setdefault(each.trouble, []).append(each.name)
    told = [f"{', '.join(names)}: {trouble}" for trouble, names in waiting.items()]
    return StatusReport(
        "degraded", [*told, *reasons], [], service, False, "0", None, 0, RedisStatus(), [],
        [ActorReport(each.name, each.state, each.restarts, each.trouble) for each in mine],
        None, None, "",
    )  # fmt: skip


def _degraded(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[str]:
    Status(*arguments).show(as_json=False)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("degraded: ")]


def test_one_trouble_of_several_actors_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    full = "OSError: No space left on device"
    actors = [_actor(name, full) for name in ("customers-relay", "accounts-relay", "redis")]
    services = [_report("customers", actors), _report("accounts", actors)]
    assert _degraded(capsys, actors, {}, services) == [
        f"degraded: customers-relay, accounts-relay, redis: {full}"
    ]


def test_a_redis_that_is_away_is_one_line_in_whatever_words_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    actors = [
        _actor("customers-relay", "TimeoutError: Timeout reading from socket"),
        _actor("accounts-relay", "ConnectionError: Error 111 connecting to 127.0.0.1:6379. Refused."),
    ]
    services = [
        _report("customers", actors, AWAY),
        _report("accounts", actors, "Redis does not answer: Error 111"),
    ]
    assert _degraded(capsys, actors, {}, services) == [f"degraded: {AWAY}"]


def test_actors_of_a_kind_share_a_row_where_the_terminal_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = [_actor(f"customers-http-{number}") for number in range(1, 41)]
    monkeypatch.setenv("LINES", "24")
    console = Console(width=80)
    with console.capture() as shown:
        console.print(Status(actors, {}, [], next="tally check").screen())
    lines = shown.get().splitlines()
    assert lines[1].split() == [
        "customers-http",
        "(40)",
        "-",
        "running",
        "2",
        "h",
        "5",
        "min",
        "40",
        "0",
        "MB",
    ]
    assert (len(lines), lines[-1].strip()) == (4, "next: tally check")


@pytest.mark.parametrize(
    ("reasons", "dead_letters", "expected"),
    [
        ([], False, None),
        ([], True, "dead-letters list"),
        ([AWAY], True, "check"),
        (["7 events are missing for good; the remedy is `rebuild accounts`"], True, "rebuild accounts"),
        (["the remedy is `rebuild accounts` at node 2, and `join` here"], False, "join DIR"),
        (["if it is gone for good: `groups remove accounts@1`"], False, "groups list"),
        (["something reads it; end it (`lsof` tells which)"], False, None),
    ],
)
def test_the_next_command_is_the_one_that_a_reason_names_and_never_one_that_loses_something(
    reasons: list[str], dead_letters: bool, expected: str | None
) -> None:
    with click.Context(main, info_name="tally"):
        assert next_command.against(reasons, dead_letters) == expected


@pytest.mark.parametrize("name", ["tally", "python supervisor.py"])
def test_the_next_command_can_be_copied(name: str) -> None:
    with click.Context(main, info_name=name):
        assert next_command.called("check") == f"{name} check"
    with click.Context(main, info_name=name, obj=Path("a b.toml")):
        assert next_command.called("run") == f"{name} run --config 'a b.toml'"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min"),
        (86399, "23 h 59 min"), (86400, "1 day"), (4 * 86400 + 7200, "4 days"),
    ],
)  # fmt: skip
def test_times_are_said_as_people_say_them(seconds: float, expected: str) -> None:
    assert terminal.spoken(seconds) == expected
