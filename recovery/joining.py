"""A node of its own, begun from a copy of another's accounts.db: it need not read the whole stream."""

import secrets
import shutil
from contextlib import closing
from pathlib import Path

from tally.recovery.first_start import emptied, put_in_place
from tally.store import accounts
from tally.store.copying import copy_database
from tally.store.database import NODE, Database
from tally.store.errors import StoreError
from tally.store.inbox import Inbox
from tally.store.membership import REPLACES
from tally.store.nodes import KNOWN
from tally.store.outbox import Outbox, known_of

# These belong to the database that was copied: what it tells others, what it has answered, who may sign in.
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

    It has its name once it is complete and on the disk; until then nothing is there, and it may be repeated.
    Raises CannotJoin, StoreError or OSError.
    """
    file = directory / accounts.FILE
    if file.exists():
        raise CannotJoin(f"{file} is there; move it away first, if it is not needed any more")
    if not copy.exists():
        raise CannotJoin(f"{copy}: is not there; `backup` at another node makes one")
    folder = emptied(directory)
    try:
        copy_database(copy, folder / accounts.FILE, lambda done: None)
        with closing(accounts.open_database(folder, migrate=True)) as database:
            _insist_on_anothers(database, copy, node)
            _become_another(database, node)
            source = database.source
        put_in_place(folder, directory, accounts.FILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return source


def _insist_on_anothers(database: Database, copy: Path, node: int) -> None:
    """See that it is another node's, and that all that it has told can be known of."""
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
    """What it had told itself is in it: of others' sources, as these now are, all of it was applied."""
    inbox, told = Inbox(database), known_of(database)
    with database.transaction():
        for source, last in told.items():
            inbox.fill(source, last)
        database.execute(_FORGET)
        database.execute("DELETE FROM meta WHERE key NOT IN (?, ?, ?)", _KEEP)
        database.set_meta("identity", secrets.token_hex(4))
        database.set_meta(NODE, node)
        database.set_meta(REPLACES, 1)  # it may have the number of one that was lost, once that is idle
    database.identity, database.node = str(database.meta("identity")), node
