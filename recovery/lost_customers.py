"""Makes a lost customers.db again, from the stream and, where there is one, a copy of the file."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tally.recovery.first_start import emptied, known_sources, put_in_place
from tally.recovery.standing import Standing, later_names
from tally.store import accounts, customers, lacking, parts
from tally.store.copying import copy_database, told_of
from tally.store.customers import Customers
from tally.store.errors import StoreError
from tally.store.ids import begin_block
from tally.store.incarnations import begin, first_name, own_sources
from tally.store.membership import REPLACES, read_nodes
from tally.store.nodes import assign
from tally.store.outbox import Outbox, known_of
from tally.store.stream import EventStream


class CannotRecover(StoreError):
    """There is nothing to recover from, or no need to; the message says which."""


class Recovered(NamedTuple):
    """What the new customers.db has. `lacks` tells of the events that it lacks, in words."""

    source: str
    customers: int
    invoices: int
    from_stream: int
    lacks: list[str]


def recover(
    directory: Path, stream: EventStream, copy: Path | None, node: int = 0, wanted: str | None = None
) -> Recovered:
    """Make a node's lost customers.db again in `directory`, from the stream, beginning with `copy`, if any.

    Without a copy, `wanted` is a name of the database that is meant, where Redis has several. The file gets
    its name once it is complete and on the disk. Until then nothing is there, and this may be
    repeated. No Tally may run there with its customers service. Raises CannotRecover, StoreError or
    RedisError.
    """
    _insist_on_none(directory)
    with emptied(directory) as folder:
        known = known_sources(directory, stream, node)
        if copy:
            with told_of(copy, folder / customers.FILE, "take another backup's, or leave --from out"):
                copy_database(copy, folder / customers.FILE, lambda done: None)
                store = Customers(customers.open_database(folder, migrate=True))
            if known and not own_sources(store.database) & known:
                raise CannotRecover(
                    f"{copy} is a copy of {store.database.source}, and the stream knows {_and(known)}"
                )
            assign(store.database, node)
        else:
            store = _named_again(folder, _first_name_of(stream, known, wanted), node)
        database, before = store.database, known_of(store.database)
        database.directory = directory
        database.expect_writes()
        database.be_draft()
        if not copy:
            parts.put_off(database)
        *_, newest = Standing(store, stream).settle()
        parts.make_up(database)
        newest.outbox.mark_published(newest.published.last)
        if (held := read_nodes(stream).get(database.source)) and held.is_removed:
            with database.transaction():  # the removed one may still be somewhere, and give numbers
                begin(database, Outbox(database).last())
        [(every, invoices)] = database.rows(
            "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM invoice)"
        )
        came = sum(known_of(database).values()) - sum(before.values())
        recovered = Recovered(database.source, every, invoices, came, lacking.told(database))
        database.close()
        put_in_place(folder, directory)
    return recovered


def begin_empty(directory: Path, node: int = 0) -> str:
    """Make an empty customers.db for a node, beside those that are known, and answer its source.

    Its numbers come from blocks drawn at random, so that they don't collide with those of the others. Raises
    CannotRecover or StoreError.
    """
    _insist_on_none(directory)
    with emptied(directory) as folder:
        with closing(customers.open_database(folder)) as database, database.transaction():
            database.assign(node)
            database.set_meta(REPLACES, 1)
            begin_block(database)
        put_in_place(folder, directory)
    return database.source


def _first_name_of(stream: EventStream, known: set[str], wanted: str | None) -> str:
    """The first name of the one database that Redis has something of, or of the wanted one."""
    heirs = stream.heirs()
    first = {first_name(each, heirs) for each in known}
    if not first:
        raise CannotRecover("the stream knows of no customers.db: `run` makes an empty one")
    if wanted:
        if (meant := first_name(wanted, heirs)) not in first:
            raise CannotRecover(f"the stream knows {_and(first)}, not {wanted}")
        first = {meant}
    found = {each for each in first if any(map(stream.is_known, [each, *later_names({each}, heirs)]))}
    if not found:
        raise CannotRecover(
            f"{accounts.FILE} knows {_and(first)}, and Redis has nothing of it any more: with a copy of "
            "the file, `--from FILE`; to begin with an empty one all the same, `--empty`"
        )
    if len(found) > 1:
        raise CannotRecover(
            f"the stream knows {_and(found)}: tell with `--source` which of these databases is to be made "
            "again, or give a copy of it with `--from FILE`. What the others told goes on counting in the "
            "accounts"
        )
    (source,) = found
    return source


def _named_again(folder: Path, source: str, node: int) -> Customers:
    """An empty database with the first name of the lost one. Its later names come with the events."""
    with closing(customers.open_database(folder)) as database, database.transaction():
        database.set_meta("identity", source.partition("@")[2])
        database.assign(node)
    return Customers(customers.open_database(folder))


def _insist_on_none(directory: Path) -> None:
    if (directory / customers.FILE).exists():
        raise CannotRecover(
            f"{directory / customers.FILE} is there; to put a copy in its place: `restore DIR`"
        )


def _and(sources: set[str]) -> str:
    return " and ".join(sorted(sources))
