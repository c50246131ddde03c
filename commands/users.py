"""`users`: who may sign in."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Literal

import click

from tally.actors import family
from tally.actors.lock import is_held
from tally.commands import terminal
from tally.commands.command_line import Failed, say
from tally.commands.shared import Group, faults_told, parsed
from tally.config import Settings
from tally.http.tokens import STATUS, Bearer
from tally.http.values import Name
from tally.store import accounts, passwords
from tally.store.revocations import Revocations
from tally.store.users import Users

# A user's name, trimmed as services do: the `owned_by` of the accounts that it owns.
_name_argument = click.argument("name", callback=parsed(Name.parse))
_stdin_option = click.option(
    "--password-stdin", "piped", is_flag=True, help="Read the password from standard input."
)


@click.group(cls=Group, example="users list")
def users() -> None:
    """Who may sign in when auth.mode is "jwt". Works whether Tally runs or not."""


@users.command(example="users add alice --admin")
@_name_argument
@click.option(
    "--admin", is_flag=True, help="Sees and does everything; others only what is in their accounts."
)
@_stdin_option
def add(settings: Settings, name: str, admin: bool, piped: bool) -> None:
    """Let NAME sign in. NAME owns the accounts with that `owned_by`. Asks for a password."""
    password = _new_password(piped)
    with _users(settings, make=True) as everybody:
        everybody.add(name, password, admin)
    click.echo(f"{name} may sign in{', as an admin' if admin else ''}")
    if settings.auth.mode == "off":
        say('auth.mode is "off": nobody is asked to')


@users.command("list", example="users list")
def list_users(settings: Settings) -> None:
    """List who may sign in."""
    with _users(settings) as everybody:
        rows = [(user.name, "admin" if user.admin else "", user.created_date) for user in everybody.all()]
    if rows:
        terminal.show([("name", "rights", "since"), *rows])
    else:
        click.echo("nobody may sign in yet")


@users.command(example="users remove alice")
@_name_argument
def remove(settings: Settings, name: str) -> None:
    """Stop NAME from signing in, and end its tokens. The accounts that it owns stay."""
    with _users(settings) as everybody:
        _revoke(settings, everybody, name)
        everybody.remove(name)
    click.echo(f"{name} is removed; its tokens are good no more")
    warn_without_admin(settings)


@users.command(example="users passwd alice")
@_name_argument
@_stdin_option
def passwd(settings: Settings, name: str, piped: bool) -> None:
    """Give NAME another password, and end its tokens. Asks for the new one."""
    with _users(settings) as everybody:
        everybody.existing(name)  # else the user would type a password for nothing
    password = _new_password(piped)
    with _users(settings) as everybody:
        everybody.give_password(everybody.existing(name), password)
        _revoke(settings, everybody, name)
    click.echo(f"{name} has another password; its tokens are good no more")


@users.command(example="users revoke prometheus")
@_name_argument
def revoke(settings: Settings, name: str) -> None:
    """End all tokens that NAME was given up to now. It may sign in again."""
    with _users(settings) as everybody:
        _revoke(settings, everybody, name)
    click.echo(f"the tokens of {name} are good no more")


@users.command(example="users token prometheus --days 90")
@_name_argument
@click.option("--days", type=click.IntRange(1, 365), required=True, help="How long it is good, 1 to 365.")
@click.option(
    "--all-calls", is_flag=True, help="For all that NAME may do; by default only for /status and /metrics."
)
def token(settings: Settings, name: str, days: int, all_calls: bool) -> None:
    """Print a token of NAME, for a program that can't sign in, such as Prometheus. Not for admins.

    `users revoke NAME` ends it sooner.
    """
    with _users(settings) as everybody:
        tokens = family.tokens(settings, timedelta(days=days))
        if tokens is None:
            raise Failed('auth.mode is "off": nobody is asked for a token')
        user, read_at = everybody.existing(name), int(time.time())
    if user.admin:
        raise Failed(f"{name} is an admin")
    scope: Literal["", "status"] = "" if all_calls else STATUS
    click.echo(tokens.issue(Bearer(user.id, user.name, user.admin, scope), read_at)[0])


def _revoke(settings: Settings, everybody: Users, name: str) -> None:
    """Revoke tokens in the transaction, so that only one process at a time changes the list."""
    user = everybody.existing(name)
    Revocations(settings.directory).add(user.id, user.name, int(time.time()))


@contextmanager
def _users(settings: Settings, make: bool = False) -> Iterator[Users]:
    """The users, in one transaction. With `make`, a missing accounts.db is made unless Tally runs."""
    if settings.node.number:
        raise Failed(
            f"this is node {settings.node.number}, and all users are node 0's: run this command there"
        )
    with faults_told(settings):
        if make:
            settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            make = not is_held(settings.directory)  # else it would take the place of a lost one
        elif not (settings.directory / accounts.FILE).exists():
            raise Failed(
                f"there is no {accounts.FILE} in {settings.directory}; `run` or `users add` makes it"
            )
        with (
            closing(accounts.open_database(settings.directory, make=make)) as database,
            database.transaction(),
        ):
            yield Users(database)


def warn_without_admin(settings: Settings) -> None:
    """Warn on standard error if there is no admin."""
    if settings.node.number:
        return
    with _users(settings) as everybody:
        if not any(user.admin for user in everybody.all()):
            say("no user is an admin; `users add NAME --admin` makes one")


def _new_password(piped: bool) -> str:
    """The hash of a new password, from standard input or asked for twice."""
    if not piped and not sys.stdin.isatty():
        raise click.UsageError("this is no terminal: give the password on standard input, --password-stdin")
    try:
        if piped:
            given = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
        else:
            given = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return passwords.hashed(given)
    except UnicodeDecodeError:
        raise click.UsageError("the password is not UTF-8") from None
    except passwords.UnfitPassword as error:
        raise click.UsageError(f"the password: {error}") from None
