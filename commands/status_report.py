"""`status`: what the running supervisor and the two services tell, for people and for scripts."""

import sys
import time
from typing import Any

import msgspec
import psutil
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from tally.actors import control, family
from tally.actors.control import ActorStatus
from tally.actors.logs import printable
from tally.actors.services import SERVICES
from tally.commands import terminal
from tally.commands.shared import redis_url
from tally.config import Settings
from tally.http.status import StatusReport


class Status(msgspec.Struct, frozen=True):
    """The actors with their memory in bytes, and a report on each service.

    `trouble` is why nothing is known of the actors: no supervisor runs.
    """

    actors: list[ActorStatus]
    memory_bytes: dict[str, int]
    services: list[StatusReport]
    trouble: str | None = None

    def show(self, as_json: bool) -> None:
        """Print it as one JSON object, or as tables: for a terminal, or plain with nothing cut off."""
        if as_json:
            print(msgspec.json.encode(self).decode())
        elif sys.stdout.isatty():
            Console().print(self.tables())
        else:
            for part in (*map(terminal.plain, self._tables()), *self._told()):
                print(part, end="\n\n")

    def tables(self) -> ConsoleRenderable:
        """As tables for a terminal, one below the other."""
        parts = [*map(terminal.table, self._tables()), *map(Text, self._told())]
        return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))

    def _tables(self) -> list[terminal.Rows]:
        actors = [self._actor(actor) for actor in self.actors]
        services = [_service(report) for report in self.services]
        return [
            [("actor", "pid", "state", "uptime", "restarts", "memory", "trouble"), *actors],
            [("service", "status", "outbox", "pending", "lag", "dead letters"), *services],
            *self._nodes(),
        ]

    def _nodes(self) -> list[terminal.Rows]:
        """The nodes, as the service sees them that applies all events; none where this is the only one."""
        by_service = {report.service: report.nodes for report in self.services}
        nodes = by_service.get("accounts") or by_service.get("customers") or []
        if all(node.here for node in nodes):
            return []
        rows = [
            (
                f"{node.number}{', standby' if node.standby else ''}{' (here)' if node.here else ''}",
                *(printable(name or "-") for name in (node.customers, node.accounts)),
                _shown(node.lag),
                "never" if node.idle_seconds is None else f"{node.idle_seconds:.0f} s ago",
                printable(" ".join(filter(None, (node.url_customers, node.url_accounts)))) or "-",
            )
            for node in nodes
        ]
        return [[("node", "customers", "accounts", "missing here", "has read", "address"), *rows]]

    def _told(self) -> list[str]:
        return [*([printable(self.trouble)] if self.trouble else []), *self._degraded()]

    def _degraded(self) -> list[str]:
        reasons = dict.fromkeys(reason for report in self.services for reason in report.reasons)
        notes = dict.fromkeys(note for report in self.services for note in report.notes)
        told = [("degraded", reason) for reason in reasons] + [("note", note) for note in notes]
        return [f"{kind}: {printable(text)}" for kind, text in told]

    def _actor(self, actor: ActorStatus) -> tuple[str, ...]:
        return (
            actor.name,
            str(actor.pid or "-"),
            actor.state,
            "-" if actor.uptime_seconds is None else f"{actor.uptime_seconds:.0f} s",
            str(actor.restarts),
            f"{self.memory_bytes.get(actor.name, 0) / 1e6:.0f} MB",
            printable(actor.trouble or actor.failed or ""),
        )


def _service(report: StatusReport) -> tuple[str, ...]:
    lag = report.redis.lag
    return (
        report.service,
        report.status,
        _shown(report.outbox_depth),
        _shown(report.redis.pending),
        _shown(None if lag is None else sum(lag.values())),
        _shown(report.redis.dead_letters),
    )


def look(settings: Settings) -> Status:
    """Ask the supervisor, the databases and Redis. Raises NotRunning."""
    return _with_services(settings, control.ask(settings.directory))


def _with_services(settings: Settings, actors: list[ActorStatus], trouble: str | None = None) -> Status:
    url = redis_url(settings)
    probes = (
        family.status_probe(settings, service, url)
        for service in SERVICES
        if (settings.directory / f"{service}.db").exists()
    )
    return Status(actors, _memory(actors), [probe() for probe in probes], trouble)


def watch(settings: Settings, as_json: bool) -> None:
    """Show the status again every second, until KeyboardInterrupt, also while no supervisor runs.

    On a terminal it is drawn in place; otherwise one follows the other.
    """
    if as_json or not sys.stdout.isatty():
        while True:
            _look_anyway(settings).show(as_json)
            sys.stdout.flush()
            time.sleep(1)
    with Live(_look_anyway(settings).tables(), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(1)
            live.update(_look_anyway(settings).tables(), refresh=True)


def _look_anyway(settings: Settings) -> Status:
    try:
        return look(settings)
    except control.NotRunning as error:
        return _with_services(settings, [], trouble=str(error))


def _memory(actors: list[ActorStatus]) -> dict[str, int]:
    found = {}
    for actor in actors:
        try:
            if actor.pid:
                found[actor.name] = int(psutil.Process(actor.pid).memory_info().rss)
        except psutil.Error:
            continue  # it has just ended
    return found


def _shown(value: Any) -> str:
    return "?" if value is None else str(value)
