"""The command line: `python supervisor.py run`, and the same as `tally run` once installed."""

import gc
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from tally import config
from tally.actors import checks, family, logs, redis_server, status_report
from tally.actors.actor import CannotStart
from tally.actors.control import ControlSocket, NotRunning
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.actors.supervision import Child, StartFailed, Supervisor
from tally.config import InvalidSettings, Settings
from tally.events import TYPE_FIELD
from tally.store.dead_letters import DeadLetter, DeadLetters
from tally.store.errors import StoreError
from tally.store.stream import EventStream, RedisError, connect
from tally.version import VERSION

ROLES = ("customers", "accounts", "redis")
STREAM_ID = re.compile(r"\d{1,20}-\d{1,20}")
FAILED, WRONG_USAGE = 1, 2  # exit statuses; click's own for wrong usage is 2 as well


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tally")
def main() -> None:
    """Customers, invoices and account revenue, as two services over one Redis stream."""


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        help="Settings file; it may hold only what differs from the defaults.",
    )(command)


@main.command()
@_config_option
@click.option(
    "--only",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Start only this role; may be given several times.",
)
def run(file: Path | None, roles: tuple[str, ...]) -> None:
    """Start everything and stay until told to stop (Ctrl-C or SIGTERM).

    \b
    Example: python supervisor.py run --only customers --only redis
    """
    settings = _load(file)
    logs.configure(settings.log, "supervisor")
    try:
        _run(settings, roles or ROLES)
    except (AlreadyRunning, CannotStart, StartFailed, StoreError, family.PortTaken) as error:
        _end(FAILED, str(error))
    except OSError as error:
        _end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")


def _run(settings: Settings, roles: Sequence[str]) -> None:
    started = time.monotonic()
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(settings.directory)
    family.prepare(settings, roles)
    services = [service for service in family.SERVICES if service in roles]
    listeners = {service: family.listen(settings, service) for service in services}
    members = family.Family(settings, listeners)
    specs = [spec for service in services for spec in members.service(service)]
    embedded, told = redis_server.choose(settings)
    if embedded and "redis" in roles:
        specs = [*members.redis(), *specs]
    elif embedded:
        told = f"redis: none answers at {settings.redis.address} yet; waiting for it"
    click.echo(told)

    def on_ready(children: Sequence[Child]) -> None:
        click.echo(_table([("actor", "pid", "address"), *map(_row, children)]))
        click.echo(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        sys.stdout.flush()

    gc.collect()
    gc.freeze()  # the actors go on sharing the memory of what is loaded by now
    sys.stdout.flush()

    def before_stop() -> None:
        for listener in listeners.values():
            listener.close()  # from now on the HTTP processes alone decide who is let in

    control = ControlSocket(settings.directory)
    private = [lock.fileno()]
    try:
        Supervisor(specs, settings.supervisor, settings.log, on_ready, private, control, before_stop).run()
    finally:
        control.close()


def _row(child: Child) -> tuple[str, str, str]:
    return child.spec.name, str(child.pid), child.spec.address


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@main.command()
@_config_option
def check(file: Path | None) -> None:
    """Tell whether `run` would work here: settings, data directory, ports, Redis.

    \b
    Example: python supervisor.py check --config production.toml
    """
    settings = _load(file)
    click.echo("good  settings: valid")
    findings = list(checks.check(settings))
    for finding in findings:
        click.echo(f"{'good' if finding.good else 'BAD '}  {finding.subject}: {finding.seen}")
    if not all(finding.good for finding in findings):
        sys.exit(FAILED)


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(file: Path | None, as_json: bool, watch: bool) -> None:
    """Show the running supervisor's actors, and what waits to be published and applied.

    Exit status 1 when no supervisor runs here.

    \b
    Example: python supervisor.py status --watch
    """
    settings = _load(file)
    try:
        if watch:
            status_report.watch(settings, as_json)
        else:
            click.echo(status_report.look(settings).render(as_json))
    except NotRunning as error:
        _end(FAILED, str(error))
    except KeyboardInterrupt:
        return


@main.group("dead-letters")
def dead_letters() -> None:
    """Events that could not be applied: look at them, have them tried again, or forget them."""


@dead_letters.command("list")
@_config_option
def list_letters(file: Path | None) -> None:
    """List the dead letters, the oldest first.

    \b
    Example: python supervisor.py dead-letters list
    """
    with _letters(file) as letters:
        rows = [(each.id, each.failed_at, each.group, _type(each), each.reason) for each in letters.all()]
    if rows:
        click.echo(_table([("id", "failed at", "group", "event", "reason"), *rows]))


@dead_letters.command()
@_config_option
@click.argument("id")
def show(file: Path | None, id: str) -> None:
    """Show one dead letter with all its fields.

    \b
    Example: python supervisor.py dead-letters show 1553318690326-0
    """
    with _letters(file) as letters:
        letter = _known(letters, id)
    for name, value in letter.shown().items():
        click.echo(f"{name}: {value}")


@dead_letters.command()
@_config_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
def redrive(file: Path | None, ids: tuple[str, ...], every: bool) -> None:
    """Have the group that failed try again; no other group sees it. Counts once, however often done.

    \b
    Example: python supervisor.py dead-letters redrive --all
    """
    if bool(ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")
    with _letters(file) as letters:
        chosen = letters.all() if every else [_known(letters, id) for id in ids]
        done = sum(letters.redrive(letter) for letter in chosen)
    click.echo(f"{done} to be tried again")


@dead_letters.command()
@_config_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def discard(file: Path | None, ids: tuple[str, ...]) -> None:
    """Forget dead letters, for good.

    \b
    Example: python supervisor.py dead-letters discard 1553318690326-0
    """
    with _letters(file) as letters:
        for id in ids:
            _known(letters, id)
        done = sum(letters.discard(id) for id in ids)
    click.echo(f"{done} discarded")


@contextmanager
def _letters(file: Path | None) -> Iterator[DeadLetters]:
    settings = _load(file)
    try:
        yield DeadLetters(EventStream(connect(settings.redis.url), settings.redis.stream))
    except RedisError as error:
        _end(FAILED, f"Redis at {settings.redis.address}: {error}")


def _known(letters: DeadLetters, id: str) -> DeadLetter:
    letter = letters.get(id) if STREAM_ID.fullmatch(id) else None
    if letter is None:
        _end(FAILED, f"there is no dead letter {id}; `dead-letters list` shows them")
    return letter


def _type(letter: DeadLetter) -> str:
    return letter.entry.fields.get(TYPE_FIELD, b"?").decode(errors="replace")


@main.group()
def rebuild() -> None:
    """Build anew what can be built from something else.

    \b
    Example: python supervisor.py rebuild accounts
    """


@rebuild.command("accounts")
@_config_option
@click.option("--yes", is_flag=True, help="Don't ask, whatever is lost; you will be told.")
def rebuild_accounts(file: Path | None, yes: bool) -> None:
    """Build the customers and revenue in accounts.db again, while Tally runs or only Redis does.

    From the stream when it still holds everything, else from what customers.db holds now. The old
    figures are shown until the new ones are complete. Run it again when it was interrupted: it goes
    on. It is also the remedy for a customers.db that was restored from a backup.

    \b
    Example: python supervisor.py rebuild accounts
    """
    from tally.actors import rebuilding  # what shows progress takes 0.1 s to load; `run` does without

    def confirm(told: str) -> bool:
        _say(told)
        try:
            return yes or click.confirm("Go on?", err=True)
        except click.Abort:  # Ctrl-C, or nobody is there to answer
            click.echo(err=True)
            return False

    settings = _load(file)
    logs.configure(settings.log, "rebuild")
    try:
        click.echo(rebuilding.rebuild_accounts(settings, confirm))
    except RedisError as error:
        _end(FAILED, f"Redis at {settings.redis.address}: {error} (a private one alone: `run --only redis`)")
    except (rebuilding.CannotRebuild, AlreadyRunning, StoreError) as error:
        _end(FAILED, str(error))
    except OSError as error:
        _end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")
    except KeyboardInterrupt:
        _end(FAILED, "interrupted; run the same command again to go on")


@main.command()
@_config_option
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def backup(file: Path | None, directory: Path) -> None:
    """Copy customers.db and accounts.db into DIRECTORY, also while Tally runs.

    Nothing there is overwritten. docs/operations/backup.md tells how to put a copy back.

    \b
    Example: python supervisor.py backup /var/backups/tally/monday
    """
    from tally.actors import backups  # as above

    try:
        for copy in backups.back_up(_load(file).directory, directory):
            click.echo(copy)
    except (backups.CannotBackUp, StoreError) as error:
        _end(FAILED, str(error))
    except OSError as error:
        _end(FAILED, f"{error.filename or directory}: {error.strerror or error}")
    except KeyboardInterrupt:
        _end(FAILED, "interrupted; what is complete is kept")


def _load(file: Path | None) -> Settings:
    try:
        return config.load(file)
    except InvalidSettings as error:
        _end(WRONG_USAGE, "\n".join(error.faults))


def _say(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"tally: {line}", err=True)


def _end(status: int, message: str) -> NoReturn:
    _say(message)
    sys.exit(status)


if __name__ == "__main__":
    main()
