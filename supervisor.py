"""The command line: `python supervisor.py run`, and the same as `tally run` once installed."""

import gc
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import click
from click.shell_completion import get_completion_class

from tally import config
from tally.actors import checks, event_listing, family, logs, redis_server, status_report, systemd, terminal
from tally.actors.actor import CannotStart
from tally.actors.control import ControlSocket, NotRunning
from tally.actors.lock import AlreadyRunning, DirectoryLock
from tally.actors.purchase_file import Columns
from tally.actors.supervision import Child, StartFailed, Supervisor
from tally.config import InvalidSettings, Settings
from tally.events import EVENT_TYPES, Id
from tally.http.tokens import Bearer
from tally.http.values import Name
from tally.store import accounts, passwords
from tally.store.dead_letters import DeadLetter, DeadLetters
from tally.store.errors import StoreError
from tally.store.stream import EventStream, RedisError, connect
from tally.store.users import Users
from tally.version import VERSION

ROLES = ("customers", "accounts", "redis")
STREAM_ID = re.compile(r"\d{1,20}-\d{1,20}")
FAILED, WRONG_USAGE = 1, 2  # exit statuses; click's own for wrong usage is 2 as well


def _account_id(_context: object, _parameter: object, value: str) -> Id:
    try:
        return Id.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _delimiter(_context: object, _parameter: object, value: str | None) -> str | None:
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("Expected one character, or tab")
    return value


def _token(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[!-~]+", value):
        raise click.BadParameter("Expected visible ASCII characters")
    return value


def _stream_id(_context: object, _parameter: object, value: str) -> str:
    if value == event_listing.NEW or re.fullmatch(r"\d{1,20}(-\d{1,20})?", value, re.ASCII):
        return value
    raise click.BadParameter("Expected the id of an event, such as 1553318690326-0")


class UserName(click.ParamType[str]):
    """A user's name as services take it: the `owned_by` of the accounts that it owns."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Trimmed. Fails, as wrong usage, for what can't be a name."""
        try:
            return Name.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tally")
def main() -> None:
    """Customers, invoices and account revenue, as two services over one Redis stream.

    \b
    Example: python supervisor.py run
    """


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
    if "accounts" in roles and settings.auth.mode == "jwt":
        _warn_without_admin(settings)
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
        click.echo(terminal.plain([("actor", "pid", "address"), *map(_row, children)]))
        click.echo(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        sys.stdout.flush()
        systemd.tell("READY=1")

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
        with _printing():
            if watch:
                status_report.watch(settings, as_json)
            else:
                status_report.look(settings).show(as_json)
    except NotRunning as error:
        _end(FAILED, str(error))


@main.command()
@_config_option
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option(
    "--from",
    "start",
    default="0",
    metavar="ID",
    callback=_stream_id,
    help=f"Begin with this id; {event_listing.NEW} begins with those that come.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(list(EVENT_TYPES)),
    help="Only events of this type; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
def events(file: Path | None, follow: bool, start: str, types: tuple[str, ...], as_json: bool) -> None:
    """Print the stream: id, time, type and payload of each event.

    \b
    Example: python supervisor.py events --follow --type InvoiceCreated
    """
    settings = _load(file)
    client, key = connect(settings.redis.url), settings.redis.stream
    listing = event_listing.Listing(types, as_json)
    if follow:
        pages = event_listing.endless_pages(client, key, start, _say)
    else:
        pages = event_listing.pages(client, key, start)
    try:
        with _printing():
            for page in pages:
                listing.print(page)
    except RedisError as error:
        _end(FAILED, f"Redis at {settings.redis.address}: {error}")


@main.group()
def users() -> None:
    """Who may sign in when auth.mode is "jwt". Works whether Tally runs or not.

    \b
    Example: python supervisor.py users list
    """


@users.command()
@_config_option
@click.argument("name", type=UserName())
@click.option(
    "--admin", is_flag=True, help="Sees and does everything; others only what is in their accounts."
)
@click.option("--password-stdin", "piped", is_flag=True, help="Read the password from standard input.")
def add(file: Path | None, name: str, admin: bool, piped: bool) -> None:
    """Let NAME sign in, who owns the accounts with that `owned_by`. Asks for a password.

    \b
    Example: python supervisor.py users add alice --admin
    """
    settings = _load(file)
    password = _new_password(piped)
    with _users(settings) as everybody:
        everybody.add(name, password, admin)
    click.echo(f"{name} may sign in{', as an admin' if admin else ''}")
    if settings.auth.mode == "off":
        click.echo('tally: auth.mode is "off": nobody is asked to', err=True)


@users.command("list")
@_config_option
def list_users(file: Path | None) -> None:
    """List who may sign in.

    \b
    Example: python supervisor.py users list
    """
    with _users(_load(file)) as everybody:
        rows = [(user.name, "admin" if user.admin else "", user.created_date) for user in everybody.all()]
    if rows:
        terminal.show([("name", "rights", "since"), *rows])


@users.command()
@_config_option
@click.argument("name", type=UserName())
def remove(file: Path | None, name: str) -> None:
    """Have NAME sign in no more. The accounts that it owns stay.

    \b
    Example: python supervisor.py users remove alice
    """
    settings = _load(file)
    with _users(settings) as everybody:
        everybody.remove(name)
    minutes = f"{settings.auth.token_minutes} min after it signed in"
    click.echo(f"{name} is removed; its tokens end now, on the customers service at the latest {minutes}")
    _warn_without_admin(settings)


@users.command()
@_config_option
@click.argument("name", type=UserName())
@click.option("--days", type=click.IntRange(1, 365), required=True, help="How long it is good, 1 to 365.")
def token(file: Path | None, name: str, days: int) -> None:
    """Print a token of NAME, for a program that can't sign in, such as Prometheus. Not for admins.

    Only a new signing key ends it sooner on both services.

    \b
    Example: python supervisor.py users token prometheus --days 90
    """
    settings = _load(file)
    with _users(settings) as everybody:
        user = everybody.named(name)
        tokens = family.tokens(settings, timedelta(days=days))
    if tokens is None:
        _end(FAILED, 'auth.mode is "off": nobody is asked for a token')
    if user is None or user.admin:
        _end(FAILED, f"{name} is an admin" if user else f"there is no user {name}; `users list` shows them")
    click.echo(tokens.issue(Bearer(user.id, user.name, user.admin))[0])


@contextmanager
def _users(settings: Settings) -> Iterator[Users]:
    """The users, in one transaction."""
    try:
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(accounts.open_database(settings.directory)) as database, database.transaction():
            yield Users(database)
    except StoreError as error:
        _end(FAILED, str(error))
    except OSError as error:
        _end(FAILED, f"{error.filename or settings.directory}: {error.strerror or error}")


def _warn_without_admin(settings: Settings) -> None:
    with _users(settings) as everybody:
        if not any(user.admin for user in everybody.all()):
            click.echo("tally: no user is an admin; `users add NAME --admin` makes one", err=True)


def _new_password(piped: bool) -> str:
    """A new password as it is to be kept: from standard input, or asked for twice."""
    if not piped and not sys.stdin.isatty():
        raise click.UsageError("this is no terminal: give the password on standard input, --password-stdin")
    try:
        if piped:
            return passwords.hashed(sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r"))
        return passwords.hashed(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    except UnicodeDecodeError:
        raise click.UsageError("the password is not UTF-8") from None
    except passwords.UnfitPassword as error:
        raise click.UsageError(f"the password: {error}") from None


@main.group("dead-letters")
def dead_letters() -> None:
    """Events that could not be applied: look at them, have them tried again, or forget them.

    \b
    Example: python supervisor.py dead-letters list
    """


@dead_letters.command("list")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
def list_letters(file: Path | None, as_json: bool) -> None:
    """List the dead letters, the oldest first.

    \b
    Example: python supervisor.py dead-letters list
    """
    with _letters(file) as letters, _printing():
        event_listing.print_letters(letters.all(), as_json)


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
        click.echo(terminal.printable(f"{name}: {value}"))


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


@main.command("import")
@_config_option
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--account", required=True, metavar="ID", callback=_account_id, help="The account they belong to."
)
@click.option("--customer-column", default="customer", show_default=True, metavar="NAME")
@click.option("--date-column", default="purchase_date", show_default=True, metavar="NAME")
@click.option("--amount-column", default="amount", show_default=True, metavar="NAME")
@click.option(
    "--delimiter",
    callback=_delimiter,
    help="Between columns; by default the comma, semicolon or tab of the header.",
)
@click.option(
    "--skip-bad", is_flag=True, help="Leave bad rows out; otherwise nothing is imported when there is one."
)
@click.option(
    "--resend", is_flag=True, help="Send what was in doubt, after you have looked; you will be told."
)
@click.option(
    "--token",
    envvar="TALLY_TOKEN",
    show_envvar=True,
    callback=_token,
    help="Of POST /auth/login, where auth.mode is not off.",
)
def import_(
    file: Path | None,
    source: BinaryIO,
    account: Id,
    customer_column: str,
    date_column: str,
    amount_column: str,
    delimiter: str | None,
    skip_bad: bool,
    resend: bool,
    token: str | None,
) -> None:
    """Import customers and their invoices from a CSV file into a running Tally; - is standard input.

    Each distinct customer is created once, and an invoice for each row, with an amount in decimal
    currency such as 29.33. The file is UTF-8 and begins with the names of its columns.

    Safe to run again: an import that was interrupted goes on where it was, one that is done adds
    nothing. One that was killed while a batch was on its way, and is run again only after 24 hours,
    asks you to look first. A file that was changed in any way is another import.

    \b
    Example: python supervisor.py import purchases.csv --account 1
    """
    from tally.actors import importing  # what shows progress takes 0.1 s to load; `run` does without

    columns = Columns(customer_column, date_column, amount_column)
    options = importing.Options(columns, delimiter, skip_bad, resend)
    try:
        click.echo(importing.import_file(_load(file), source, account, options, token))
    except (importing.CannotImport, StoreError) as error:
        _end(FAILED, str(error))
    except importing.Interrupted as error:
        _end(FAILED, f"interrupted: {error}; run the same command again to go on")
    except KeyboardInterrupt:
        _end(FAILED, "interrupted; run the same command again to go on")
    except OSError as error:
        _end(FAILED, f"{error.filename or source.name}: {error.strerror or error}")


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


@contextmanager
def _printing() -> Iterator[None]:
    """Ctrl-C, or a reader of standard output that goes, ends what is inside quietly, with status 0."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end


def _say(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"tally: {line}", err=True)


def _end(status: int, message: str) -> NoReturn:
    _say(message)
    sys.exit(status)


if __name__ == "__main__":
    main()
