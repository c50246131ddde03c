"""`status`: what the running supervisor and the two services tell, for people and for scripts."""

import io
import time
from typing import Any

import msgspec
import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tally.actors import control, family
from tally.actors.control import ActorStatus
from tally.config import Settings
from tally.http.status import StatusReport


class Status(msgspec.Struct, frozen=True):
    """The actors with their memory in bytes, and a report on each service."""

    actors: list[ActorStatus]
    memory_bytes: dict[str, int]
    services: list[StatusReport]

    def render(self, as_json: bool) -> str:
        """As one JSON object, or as tables."""
        if as_json:
            return msgspec.json.encode(self).decode()
        console = Console(file=io.StringIO(), width=160)
        console.print(self.tables())
        output: io.StringIO = console.file  # type: ignore[assignment]
        return output.getvalue().rstrip()

    def tables(self) -> Table:
        """As tables, one below the other."""
        grid = Table.grid()
        grid.add_row(self._actors())
        grid.add_row(self._services())
        for reason in dict.fromkeys(reason for report in self.services for reason in report.reasons):
            grid.add_row(Text(f"degraded: {reason}"))
        return grid

    def _actors(self) -> Table:
        table = Table("actor", "pid", "state", "uptime", "restarts", "memory", "trouble", box=None)
        for actor in self.actors:
            table.add_row(
                actor.name,
                str(actor.pid or "-"),
                actor.state,
                "-" if actor.uptime_seconds is None else f"{actor.uptime_seconds:.0f} s",
                str(actor.restarts),
                f"{self.memory_bytes.get(actor.name, 0) / 1e6:.0f} MB",
                Text(actor.trouble or actor.failed or ""),
            )
        return table

    def _services(self) -> Table:
        table = Table("service", "status", "outbox", "pending", "lag", "dead letters", box=None)
        for report in self.services:
            lag = report.redis.lag
            table.add_row(
                report.service,
                report.status,
                _shown(report.outbox_depth),
                _shown(report.redis.pending),
                _shown(None if lag is None else sum(lag.values())),
                _shown(report.redis.dead_letters),
            )
        return table


def look(settings: Settings) -> Status:
    """Ask the supervisor, the databases and Redis. Raises NotRunning."""
    actors = control.ask(settings.directory)
    probes = (
        family.status_probe(settings, service)
        for service in family.SERVICES
        if (settings.directory / f"{service}.db").exists()
    )
    return Status(actors, _memory(actors), [probe() for probe in probes])


def watch(settings: Settings, as_json: bool) -> None:
    """Show the status again every second, until KeyboardInterrupt. Raises NotRunning."""
    if as_json:
        while True:
            print(look(settings).render(as_json), flush=True)
            time.sleep(1)
    with Live(look(settings).tables(), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(1)
            live.update(look(settings).tables(), refresh=True)


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
