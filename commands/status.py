"""`status`: what the running supervisor and the services tell, for people and for scripts, once or again."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from shutil import get_terminal_size
from typing import Any

import click
import msgspec
import psutil
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from tally.actors import control, redis_access
from tally.actors.control import ActorStatus, NotAnswering, NotRunning
from tally.commands import next_command, terminal
from tally.commands.command_line import Failed
from tally.commands.databases import DATABASES
from tally.commands.shared import Command, faults_told, printing
from tally.config import Settings
from tally.http.reasons import REDIS_AWAY, troubles
from tally.http.status import ANSWER_SECONDS, StatusProbe, StatusReport
from tally.http.visible import printable
from tally.store.database import OpenDatabase
from tally.store.stream import EventStream


@click.command(cls=Command, example="status --watch")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show the running supervisor's actors, and what waits to be published and applied.

    Below stands what is wrong, each trouble once, and behind `next:` the command to go on with. With --watch
    it goes on while no supervisor runs, and sees it come back.

    Exit status 1 when no supervisor runs here.
    """
    try:
        with faults_told(settings), printing():
            if watch:
                _watch(settings, as_json)
            else:
                _look(settings).show(as_json)
    except NotRunning as error:
        raise Failed(f"{error}; next: {next_command.called('run')}") from error


class Status(msgspec.Struct, frozen=True):
    """The actors with their memory in bytes, and a report on each service.

    `trouble` is why nothing is known of the actors: no supervisor runs. `next` is the command to go on with,
    if there is something to do.
    """

    actors: list[ActorStatus]
    memory_bytes: dict[str, int]
    services: list[StatusReport]
    trouble: str | None = None
    next: str | None = None

    def show(self, as_json: bool) -> None:
        """Print it as one JSON object, or as tables: for a terminal, or plain with nothing cut off."""
        if as_json:
            print(msgspec.json.encode(self).decode())
        elif sys.stdout.isatty():
            Console().print(self.tables())
            print(self._next(), end="")  # not folded, so that it can be copied
        else:
            for rows in self._tables():
                print(terminal.plain(rows), end="\n\n")
            print(self._told() + self._next(), end="")

    def tables(self) -> ConsoleRenderable:
        """Tables for a terminal, one below the other, and the problems; without the next command.

        If they are longer than the terminal, actors of one kind share a row.
        """
        tables, told = self._tables(), self._told() + self._next()
        if sum(len(rows) + 1 for rows in tables) + told.count("\n") > get_terminal_size().lines:
            tables = self._tables(by_kind=True)
        parts = [Padding(terminal.table(rows), (0, 0, 1, 0)) for rows in tables]
        return Group(*parts, Text(self._told(), end=""))

    def screen(self) -> ConsoleRenderable:
        """All of it, for a whole screen."""
        return Group(self.tables(), Text(self._next(), end=""))

    def _tables(self, by_kind: bool = False) -> list[terminal.Rows]:
        services = [_service(report) for report in self.services]
        tables: list[terminal.Rows] = [
            [("actor", "pid", "state", "uptime", "restarts", "memory"), *self._actors(by_kind)],
            [("service", "status", "outbox", "pending", "lag", "dead letters"), *services],
            *self._nodes(),
        ]
        return [rows for rows in tables if len(rows) > 1]

    def _actors(self, by_kind: bool) -> terminal.Rows:
        rows: dict[tuple[str, str], list[ActorStatus]] = {}
        for actor in self.actors:
            name = actor.name.rstrip("-0123456789") if by_kind else actor.name
            rows.setdefault((name, actor.state), []).append(actor)
        return [self._row(name, actors) for (name, _), actors in rows.items()]

    def _row(self, kind: str, actors: Sequence[ActorStatus]) -> tuple[str, ...]:
        """The row of one actor, or of several of a kind in one state: how long all of them run, and sums."""
        first = actors[0]
        uptimes = [actor.uptime_seconds for actor in actors if actor.uptime_seconds is not None]
        memory = sum(self.memory_bytes.get(actor.name, 0) for actor in actors)
        return (
            first.name if len(actors) == 1 else f"{kind} ({len(actors)})",
            str(first.pid or "-") if len(actors) == 1 else "-",
            first.state,
            terminal.spoken(min(uptimes)) if uptimes else "-",
            str(sum(actor.restarts for actor in actors)),
            f"{memory / 1e6:.0f} MB",
        )

    def _nodes(self) -> list[terminal.Rows]:
        """The nodes, as seen by the service that applies all events; empty if this is the only one."""
        by_service = {report.service: report.nodes for report in self.services}
        nodes = by_service.get("accounts") or by_service.get("customers") or []
        if all(node.here for node in nodes):
            return []
        rows = [
            (
                f"{node.number}{', standby' if node.standby else ''}{' (here)' if node.here else ''}",
                *(printable(name or "-") for name in (node.customers, node.accounts)),
                _shown(node.lag),
                "never" if node.idle_seconds is None else f"{terminal.spoken(node.idle_seconds)} ago",
                printable(" ".join(filter(None, (node.url_customers, node.url_accounts)))) or "-",
            )
            for node in nodes
        ]
        return [[("node", "customers", "accounts", "missing here", "has read", "address"), *rows]]

    def _told(self) -> str:
        """The problems and the notes for people: a line for each, and an empty one below them."""
        notes = dict.fromkeys(note for report in self.services for note in report.notes)
        lines = [
            *([self.trouble] if self.trouble else []),
            *(f"degraded: {reason}" for reason in _reasons(self.actors, self.services)),
            *(f"note: {note}" for note in notes),
        ]
        return "".join(f"{printable(line)}\n" for line in lines) + ("\n" if lines else "")

    def _next(self) -> str:
        return f"next: {self.next}\n" if self.next else ""


def _reasons(actors: Sequence[ActorStatus], services: Sequence[StatusReport]) -> list[str]:
    """The reasons for "degraded", from services and all actors, each trouble once."""
    reasons: list[str] = []
    for report in services:
        of_actors = {*troubles(report.actors, ())}
        for reason in report.reasons:
            is_away = reason.startswith(REDIS_AWAY) and any(each.startswith(REDIS_AWAY) for each in reasons)
            if reason not in of_actors and reason not in reasons and not is_away:
                reasons.append(reason)
    return [*troubles([actor.report for actor in actors], reasons), *reasons]


def _service(report: StatusReport) -> tuple[str, ...]:
    redis = report.redis
    lag = None if redis.lag is None else sum(redis.lag.values())
    figures = (report.outbox_depth, redis.pending, lag, redis.dead_letters)
    return report.service, report.status, *map(_shown, figures)


def _look(settings: Settings, needs_supervisor: bool = True) -> Status:
    """Ask the supervisor, the databases and Redis. Raises NotRunning if a supervisor is needed."""
    actors, trouble, runs = list[ActorStatus](), None, False
    try:
        actors = control.ask(settings.directory, control.PATIENT_SECONDS)
    except NotRunning as error:
        if needs_supervisor:
            raise
        trouble, runs = str(error), isinstance(error, NotAnswering)
    # These have answered requests since Tally's start: their databases were there then.
    begun = {actor.name.partition("-http-")[0] for actor in actors if actor.state != "stopped"}
    url = redis_access.url(settings)
    services = [
        _probe(settings, url, name, opened, actors)()
        for name, opened in DATABASES.items()
        if (settings.directory / f"{name}.db").exists() or name in begun  # then it is lost
    ]
    words: str | None = None if runs else "run"
    if not trouble:
        letters = any(report.redis.dead_letters for report in services)
        words = next_command.against(_reasons(actors, services), letters)
    return Status(actors, _memory(actors), services, trouble, next_command.called(words) if words else None)


def _probe(
    settings: Settings, url: str, service: str, opened: OpenDatabase, actors: Sequence[ActorStatus]
) -> StatusProbe:
    """The StatusProbe of a service that has a database here."""
    mine = [actor.report for actor in actors if actor.name.startswith(f"{service}-")]
    return StatusProbe(
        service,
        lambda: closing(opened(settings.directory, make=False)),
        settings.directory,
        lambda: EventStream.at(url, settings.redis.stream, ANSWER_SECONDS),
        lambda: mine,
    )


def _watch(settings: Settings, as_json: bool) -> None:
    """Show the status every second, until KeyboardInterrupt, even while no supervisor runs.

    On a terminal it is redrawn in place; otherwise each follows the last.
    """
    if as_json or not sys.stdout.isatty():
        while True:
            _look(settings, needs_supervisor=False).show(as_json)
            sys.stdout.flush()
            time.sleep(1)
    with Live(_look(settings, needs_supervisor=False).screen(), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(1)
            live.update(_look(settings, needs_supervisor=False).screen(), refresh=True)


def _memory(actors: list[ActorStatus]) -> dict[str, int]:
    found = {}
    for actor in actors:
        with suppress(psutil.Error):  # it has just ended
            if actor.pid:
                found[actor.name] = int(psutil.Process(actor.pid).memory_info().rss)
    return found


def _shown(value: Any) -> str:
    return "?" if value is None else str(value)
