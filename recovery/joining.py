"""A new node, or a standby, begins from a copy of another machine's databases."""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tally.recovery.first_start import emptied, put_in_place
from tally.store import accounts, customers
from tally.store.copying import copy_database, told_of
from tally.store.database import NODE, Database, OpenDatabase
from tally.store.errors import StoreError
from tally.store.inbox import Inbox
from tally.store.incarnations import name_explicitly
from tally.store.membership import REPLACES
from tally.store.nodes import FOLLOWS, KNOWN
from tally.store.outbox import Outbox, known_of

# These belong to the database that was copied: its outbox, the answers it gave, and its users.
_FORGET = """
DELETE FROM outbox;
DELETE FROM publication;
DELETE FROM idempotency;
DELETE FROM inbox_aside;
DELETE FROM user;
DELETE FROM login_attempt;
DELETE FROM sqlite_sequence WHERE name != 'account';
"""
_KEEP = ("service", accounts.GIVEN_TWICE, KNOWN)  # in meta


class CannotJoin(StoreError):
    """There is nothing to begin from, or no need to; the message says which."""


def join(directory: Path, copy: Path, node: int) -> str:
    """Make an accounts.db of that node in `directory`, from a copy of another's, and answer its source.

    The new database reads on from there, and need not read the whole stream. The file gets its name once it
    is complete and on the disk. Until then nothing is there, and this may be repeated. Raises CannotJoin,
    StoreError or OSError.
    """
    _insist_on_room(directory / accounts.FILE, copy)
    with emptied(directory) as folder:
        with _copied(copy, folder, accounts.open_database) as database:
            _insist_on_anothers(database, copy, node)
            _become_another(database, node)
        put_in_place(folder, directory, accounts.FILE)
    return database.source


def follow(directory: Path, copies: Path, node: int) -> dict[str, str]:
    """Make that node's standby databases in `directory`, from copies of both; answers their sources by file.

    They keep the names that the primary published under. They also get identities of their own, under which
    they read the stream. Both get their names once both are complete; raises what `join` does.
    """
    sources = {}
    for each in (customers, accounts):
        _insist_on_room(directory / each.FILE, copies / each.FILE)
    with emptied(directory) as folder:
        for each in (customers, accounts):
            with _copied(copies / each.FILE, folder, each.open_database) as database:
                if database.node != node:
                    raise CannotJoin(f"{copies} has node {database.node}: set node.number = {database.node}")
                with database.transaction():
                    name_explicitly(database)
                    database.identity = secrets.token_hex(4)
                    database.set_meta("identity", database.identity)
                    database.set_meta(FOLLOWS, 1)
                sources[each.FILE] = database.source
        for file in sources:
            put_in_place(folder, directory, file)
    return sources


def _insist_on_room(file: Path, copy: Path) -> None:
    if file.exists():
        raise CannotJoin(f"{file} is there; move it away first, if it is not needed any more")
    if not copy.exists():
        raise CannotJoin(f"{copy}: is not there; `backup` at another machine makes one")


@contextmanager
def _copied(copy: Path, folder: Path, open_database: OpenDatabase) -> Iterator[Database]:
    """A database made in `folder` from a copy, to be turned into the new one inside."""
    made = folder / open_database.file
    with told_of(copy, made, "make another `backup` where it comes from"):
        copy_database(copy, made, lambda done: None)
        opened = open_database(folder, migrate=True, make=False)
    with closing(opened) as database:
        yield database


def _insist_on_anothers(database: Database, copy: Path, node: int) -> None:
    """Refuse a copy of this node, or one with events that were never published."""
    if database.node == node:
        raise CannotJoin(
            f"{copy} is of node {node} itself: set node.number to one of its own; to put it back: `restore`"
        )
    if waiting := Outbox(database).depth():
        raise CannotJoin(
            f"{copy}: {waiting:,} of its events had not been published when it was made, and may never be: "
            "make another `backup` once `status` there tells of no outbox"
        )


def _become_another(database: Database, node: int) -> None:
    """Note the copy's own events as applied: they are in it, and their sources are now another database's."""
    inbox, told = Inbox(database), known_of(database)
    with database.transaction():
        for source, last in told.items():
            inbox.fill(source, last)
        database.execute(_FORGET)
        database.execute("DELETE FROM meta WHERE key NOT IN (?, ?, ?)", _KEEP)
        database.set_meta("identity", secrets.token_hex(4))
        database.set_meta(NODE, node)
        database.set_meta(REPLACES, 1)  # it may take the number of a lost one, once that is idle
    database.identity, database.node = str(database.meta("identity")), node
