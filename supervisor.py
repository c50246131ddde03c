"""The command line: `python supervisor.py run`, and the same as `tally run` once installed."""

import gc
import re
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from tally.actors import family, logs, redis_access, redis_server, systemd
from tally.actors.actor import CannotStart
from tally.actors.control import ControlSocket, NotRunning
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.actors.services import SERVICES
from tally.actors.supervision import Child, StartFailed, Supervisor
from tally.commands import checks, event_listing, next_command, status_report, terminal
from tally.commands.adopting import adopt
from tally.commands.copies import backup, join, promote, recover, restore
from tally.commands.data import export, rebuild
from tally.commands.demo_command import demo
from tally.commands.event_choice import Ago, Choice
from tally.commands.groups import groups_command
from tally.commands.import_command import import_
from tally.commands.inherited import let_go_of_output
from tally.commands.letters import dead_letters
from tally.commands.nodes import nodes_command
from tally.commands.shared import (
    FAILED,
    FROM_A_CHECKOUT,
    Group,
    config_option,
    end,
    load,
    printing,
    redis_url,
    say,
    some_id,
)
from tally.commands.users import users, warn_without_admin
from tally.config import Settings
from tally.events import EVENT_TYPES, Id
from tally.store.accounts import Accounts
from tally.store.accounts import open_database as open_accounts
from tally.store.errors import StoreError
from tally.store.stream import RedisError, connect
from tally.version import VERSION

ROLES = ("customers", "accounts", "redis")


def _stream_id(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is None or value == event_listing.NEW or re.fullmatch(r"\d{1,20}(-\d{1,20})?", value, re.ASCII):
        return value
    raise click.BadParameter("Expected the id of an event, such as 1553318690326-0")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tally")
def main() -> None:
    """Customers, invoices and account revenue, as two services over one Redis stream.

    \b
    Example: python supervisor.py run
    """


@main.command()
@config_option
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
    settings = load(file)
    logs.configure(settings.log, "supervisor")
    try:
        _run(settings, roles or ROLES)
    except (AlreadyRunning, CannotStart, StartFailed, StoreError, family.PortTaken) as error:
        end(FAILED, str(error))
    except OSError as error:
        end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")


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
        _tell(terminal.plain([("actor", "pid", "address"), *map(_row, children)]))
        _tell(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        systemd.tell("READY=1")

    gc.collect()
    gc.freeze()  # the actors go on sharing the memory of what is loaded by now

    def before_stop() -> None:
        for listener in listeners.values():
            listener.close()  # from now on the HTTP processes alone decide who is let in

    control = ControlSocket(settings.directory)
    try:
        Supervisor(
            specs, settings.supervisor, settings.log, on_ready, lock.descriptors, control, before_stop
        ).run()
    finally:
        control.close()
        if lock.is_in_place():  # what is in another's directory is not ours
            members.put_logs_aside()


def _tell(text: str) -> None:
    """Print what helps people; where that can't be, go on. Nothing is left for the actors to print."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError:
        let_go_of_output()


def _row(child: Child) -> tuple[str, str, str]:
    return child.spec.name, str(child.pid), child.spec.address


@main.command()
@config_option
def check(file: Path | None) -> None:
    """Tell whether `run` would work here: settings, data directory, ports, Redis.

    \b
    Example: python supervisor.py check --config production.toml
    """
    settings = load(file)
    click.echo("good  settings: valid")
    findings = list(checks.check(settings))
    for finding in findings:
        click.echo(f"{'good' if finding.good else 'BAD '}  {finding.subject}: {finding.seen}")
    if not all(finding.good for finding in findings):
        sys.exit(FAILED)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(file: Path | None, as_json: bool, watch: bool) -> None:
    """Show the running supervisor's actors, and what waits to be published and applied.

    What is wrong stands below, each trouble once, and the command to go on with after `next:`. Watched, it
    goes on while no supervisor runs, and sees it come back.

    Exit status 1 when no supervisor runs here.

    \b
    Example: python supervisor.py status --watch
    """
    settings = load(file)
    try:
        with printing():
            if watch:
                status_report.watch(settings, file, as_json)
            else:
                status_report.look(settings, file).show(as_json)
    except NotRunning as error:
        end(FAILED, f"{error}; next: {next_command.called('run', file)}")


@main.command()
@config_option
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option(
    "--from",
    "start",
    metavar="ID",
    callback=_stream_id,
    help=f"Begin with this id; {event_listing.NEW} begins with those that come.",
)
@click.option("--since", type=Ago(), metavar="AGO", help="Begin so long ago: 10m, 90s, 2h, 1d, 1h30m.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(list(EVENT_TYPES)),
    help="Only events of this type; may be given several times.",
)
@click.option("--customer", metavar="ID", callback=some_id, help="Only what concerns this customer.")
@click.option(
    "--account", metavar="ID", callback=some_id, help="Only what concerns this account or its customers."
)
@click.option("--json", "form", flag_value="json", help="One JSON object a line, with every field.")
@click.option("--raw", "form", flag_value="raw", help="Every field as Redis has it, as redis-cli shows them.")
def events(
    file: Path | None,
    follow: bool,
    start: str | None,
    since: timedelta | None,
    types: tuple[str, ...],
    customer: Id | None,
    account: Id | None,
    form: event_listing.Form | None,
) -> None:
    """Print the stream: id, time, type and payload of each event.

    An event is printed when it meets all of --type, --customer and --account that are given. Of an account
    are its customers' invoices and credits too.

    \b
    Example: python supervisor.py events --since 10m --follow --type InvoiceCreated
    """
    if start and since is not None:
        raise click.UsageError("give --from or --since, not both")
    settings = load(file)
    key = settings.redis.stream
    client = connect(redis_url(settings), key=key)
    customers = [] if account is None else _customers_of(settings, account)
    listing = event_listing.Listing(Choice(types, customer, account, customers), form or "line")
    first = start or ("0" if since is None else since)
    if follow:
        pages = event_listing.endless_pages(client, key, first, say)
    else:
        pages = event_listing.pages(client, key, first)
    try:
        with printing():
            for page in pages:
                listing.print(page)
    except RedisError as error:
        end(FAILED, f"Redis at {settings.redis.address}: {error}")


def _customers_of(settings: Settings, account: Id) -> Collection[int]:
    """As accounts.db has them; where it can't be read, that is told, and the stream alone tells."""
    try:
        with closing(open_accounts(settings.directory, make=False)) as database:
            return Accounts(database).ids_of_customers(account)
    except StoreError as error:
        say(f"{error}: the stream alone tells whose invoices and credits are the account's")
        return []


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete the commands and options of `tally`.

    \b
    Example: eval "$(tally completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "tally", "_TALLY_COMPLETE").source())


for command in (
    users,
    dead_letters,
    groups_command,
    nodes_command,
    join,
    promote,
    demo,
    import_,
    export,
    adopt,
    rebuild,
    backup,
    restore,
    recover,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name=FROM_A_CHECKOUT)
