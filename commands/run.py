"""`run`: starts all that the settings ask for, and stays with it."""

import gc
import sys
import time
from collections.abc import Sequence

import click

from tally.actors import family, logs, redis_access, redis_server, systemd
from tally.actors.control import ControlSocket
from tally.actors.listening import let_in_no_more
from tally.actors.lock import DirectoryLock
from tally.actors.services import SERVICES
from tally.actors.supervision import Child, Supervisor
from tally.commands import terminal
from tally.commands.inherited import let_go_of_output
from tally.commands.shared import Command, faults_told
from tally.commands.users import warn_without_admin
from tally.config import Settings

ROLES = ("customers", "accounts", "redis")


@click.command(cls=Command, example="run --only customers --only redis")
@click.option(
    "--only",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Start only this role; may be given several times.",
)
def run(settings: Settings, roles: tuple[str, ...]) -> None:
    """Start everything and stay until told to stop (Ctrl-C or SIGTERM)."""
    logs.configure(settings.log, "supervisor")
    with faults_told(settings):
        _run(settings, roles or ROLES)


def _run(settings: Settings, roles: Sequence[str]) -> None:
    started = time.monotonic()
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(settings.directory)
    family.prepare(settings, roles)
    if "accounts" in roles and settings.auth.mode == "jwt":
        warn_without_admin(settings)
    services = [service for service in SERVICES if service in roles]
    listeners = {service: family.listen(settings, service) for service in services}
    redis = redis_server.choose(settings, may_start="redis" in roles)
    own_url = redis_access.private_url(settings) if redis.server else settings.redis.full_url
    members = family.Family(settings, own_url, listeners, is_private=redis.server is not None)
    specs = members.redis(redis.server) if redis.server else []
    specs += [spec for service in services for spec in members.service(service)]
    _tell(f"data: {settings.directory}\n{redis.told}")

    def on_ready(children: Sequence[Child]) -> None:
        rows = [(each.spec.name, str(each.pid), each.spec.address) for each in children]
        _tell(terminal.plain([("actor", "pid", "address"), *rows]))
        _tell(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        systemd.tell("READY=1")

    gc.collect()
    gc.freeze()  # the actors keep sharing the memory of everything loaded by now

    def before_stop() -> None:
        members.note_end()
        let_in_no_more(listeners.values())
        for listener in listeners.values():
            listener.close()  # the HTTP processes accept who is there, and close it as well

    control = ControlSocket(settings.directory)
    try:
        Supervisor(
            specs, settings.supervisor, settings.log, on_ready, lock.descriptors, control, before_stop
        ).run()
    finally:
        control.close()
        if lock.is_in_place():  # files in another directory are not ours
            members.put_logs_aside()


def _tell(text: str) -> None:
    """Print help for people; if that fails, go on. Flushes, so that no actor prints it again."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError:
        let_go_of_output()
