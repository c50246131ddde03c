"""A customers.db is made only where nobody knows of an earlier one.

An empty database in the place of a lost one would give its numbers again, and so its customers' revenue to
others. So Redis, the stream and the accounts.db beside it are asked first.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tally.recovery.taking_back import source_of
from tally.store import accounts, customers
from tally.store.copying import give_to_owner, sync
from tally.store.database import Database, insist_on_whole_restore
from tally.store.errors import StoreError, UnusableDatabase
from tally.store.inbox import Inbox
from tally.store.incarnations import earlier_sources, known_heirs, own_sources
from tally.store.membership import REPLACES, number_of, read_nodes
from tally.store.nodes import Node, assign, known_nodes
from tally.store.stream import EventStream


class LostDatabase(StoreError):
    """There was another customers.db, and this would take its place; the message says what to do."""


def known_sources(
    directory: Path, stream: EventStream | None, node: int, service: str = customers.SERVICE
) -> set[str]:
    """A node's databases of a service that Redis or the other service's database in `directory` knows.

    Where they know none of any node, the whole stream is read for them. Without `stream`, only the database
    is asked. Raises RedisError or StoreError.
    """
    prefix = f"{service}@"
    nodes, heirs, known = dict[str, Node](), dict[str, str](), set[str]()
    for database in _other(directory, service):  # Redis may have lost all of it
        nodes, heirs, known = known_nodes(database), known_heirs(database), {*Inbox(database).ranges()}
    if stream:
        nodes, heirs = nodes | read_nodes(stream), heirs | stream.heirs()
        known |= {*stream.published_by_source(), *stream.groups()}
    found = {source for source in {*known, *nodes} if source.startswith(prefix)}
    if stream and not found:
        on_stream = {source_of(entry) for entries in stream.pages() for entry in entries}
        found = {source for source in on_stream if source.startswith(prefix)}
    return {source for source in found if number_of(source, nodes, heirs) == node}


def insist_on_no_other(directory: Path, stream: EventStream | None, where: str, node: int = 0) -> None:
    """Make sure that no other customers.db of the node is known, if this one is absent or never published.

    Changes nothing. Without `stream`, Redis isn't asked; `where` says in words where it is. Raises
    LostDatabase, or RedisError or StoreError when nobody can tell.
    """
    own = _own(directory)
    if own is None:
        others = known_sources(directory, stream, node)
        if others:
            raise LostDatabase(
                f"there is no {customers.FILE} in {directory}, but {_and(others)} published to the stream "
                f"at {where}. Put a copy back with `restore DIR`, or make it again with `recover customers`. "
                "If this is another Tally, set node.number to one of its own, or redis.url to another Redis. "
                "To begin with an empty one all the same: `recover customers --empty`"
            )
    elif own and (others := known_sources(directory, stream, node)) and not own & others:
        raise LostDatabase(
            f"{directory / customers.FILE} has published nothing yet, but {_and(others)} did on the stream "
            f"at {where}: a second one would give its numbers again. Set node.number to one of its own, or "
            "redis.url to another Redis; or, if this file is not needed, remove it and see what `run` says "
            "then"
        )


def make(directory: Path, node: int = 0) -> None:
    """Make a node's customers.db, empty, and the directory, if need be. Raises StoreError or OSError."""
    insist_on_whole_restore(directory / customers.FILE)
    with emptied(directory) as folder:
        with closing(customers.open_database(folder)) as database:
            assign(database, node)
        put_in_place(folder, directory)


@contextmanager
def emptied(directory: Path, name: str = "new.partial") -> Iterator[Path]:
    """A folder in the data directory where databases are made: empty at first, and gone at the end.

    It may be left by a killed process. Nobody keeps a backup in a folder of such a name.
    """
    folder = directory / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, directory: Path, name: str = customers.FILE) -> None:
    """Give the file its name, unless somebody has made one meanwhile: then FileExistsError is raised."""
    made, file = folder / name, directory / name
    if any(made.with_name(made.name + suffix).exists() for suffix in ("-wal", "-shm")):
        raise UnusableDatabase(f"{made}: somebody else has it open; run the command again")
    for suffix in ("-wal", "-shm"):  # of the lost one: it would be read into this
        log = Path(f"{file}{suffix}")
        if log.exists():
            log.replace(f"{log}.of-the-one-that-is-gone-{secrets.token_hex(2)}")
    sync(made)
    os.link(made, file)
    give_to_owner(file)
    sync(directory)


def _own(directory: Path) -> set[str] | None:
    """The names that the database may have on the stream; empty if they don't matter, None without one."""
    if not (directory / customers.FILE).exists():
        return None
    with closing(customers.open_database(directory, make=False)) as database:
        if database.meta("published") or earlier_sources(database) or database.meta(REPLACES):
            return set()
        return own_sources(database)


def note_known_beside(directory: Path, stream: EventStream, service: str) -> None:
    """Tell Redis what the other service's database in `directory` has applied, and which name follows which.

    Its consumers and its relay do so too, but later. A Redis that lost its newest data doesn't know it any
    more. Raises RedisError or StoreError.
    """
    for database in _other(directory, service):
        stream.note_applied(database.source, Inbox(database).reached())
        stream.note_heirs(known_heirs(database))


def _other(directory: Path, service: str) -> Iterator[Database]:
    """The other service's database in that directory, if there is one."""
    other = accounts if service == customers.SERVICE else customers
    if (directory / other.FILE).exists():
        with closing(other.open_database(directory, make=False)) as database:
            yield database


def _and(sources: set[str]) -> str:
    shown = sorted(sources)[:3]
    return " and ".join(shown) + (" and others" if len(sources) > len(shown) else "")
