"""customers.db again, from the stream and, where there is one, a copy of the file."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tally.events import decode
from tally.recovery.first_start import BESIDE, emptied, known_sources, put_in_place
from tally.recovery.taking_back import own_row, take_back
from tally.store import customers, lacking
from tally.store.copying import copy_database
from tally.store.customers import Customers
from tally.store.errors import StoreError
from tally.store.ids import BLOCK, raise_ids
from tally.store.stream import EventStream
from tally.store.succession import Succession, set_earlier_sources

_NUMBERED = ("customer", "invoice")

Beat = Callable[[], None]


class CannotRecover(StoreError):
    """There is nothing to recover from, or no need to; the message says which."""


class Recovered(NamedTuple):
    """What the new customers.db has."""

    source: str
    customers: int
    invoices: int
    from_stream: int


def recover(directory: Path, stream: EventStream, copy: Path | None, beat: Beat) -> Recovered:
    """Make the customers.db that the stream knows of again, in `directory`, beginning with `copy`, if any.

    It has its name once it is complete and on the disk; until then nothing is there, and it may be repeated.
    No Tally may run there with its customers service. Raises CannotRecover, StoreError or RedisError.
    """
    _insist_on_none(directory)
    folder = emptied(directory)
    known = known_sources(directory, stream)
    if copy:
        copy_database(copy, folder / customers.FILE, lambda done: None)
        store = Customers(customers.open_database(folder, migrate=True))
        if known and store.outbox.source not in known:
            raise CannotRecover(
                f"{copy} is a copy of {store.outbox.source}, and the stream knows {_and(known)}"
            )
    else:
        store = _named_again(folder, stream, known)
    database, source = store.database, store.outbox.source
    count = take_back(store, stream, beat)
    with database.transaction():
        database.set_meta("published", stream.published(source).last)
        [(every, invoices)] = database.rows(
            "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM invoice)"
        )
    database.close()
    put_in_place(folder, directory)
    return Recovered(source, every, invoices, count)


def lacks(directory: Path) -> list[str]:
    """What the customers.db in `directory` lacks since it was put back or made again, in words."""
    database = customers.open_database(directory, make=False)
    try:
        return lacking.told(database)
    finally:
        database.close()


def begin_empty(directory: Path) -> str:
    """Make an empty customers.db beside those that are known, and answer its source.

    Its numbers come from a block of BLOCK that is drawn at random, so that none meets one of theirs. Raises
    CannotRecover or StoreError.
    """
    _insist_on_none(directory)
    folder = emptied(directory)
    database = customers.open_database(folder)
    first = random.SystemRandom().randrange(1000, BLOCK) * BLOCK
    with database.transaction():
        database.set_meta(BESIDE, 1)
        for table in _NUMBERED:
            raise_ids(database, table, first)
    source = database.source
    database.close()
    put_in_place(folder, directory)
    return source


def _named_again(folder: Path, stream: EventStream, known: set[str]) -> Customers:
    """An empty database that is called as the lost one was, with what it was called before."""
    given_up = Succession(stream).given_up()
    lost = known - given_up.keys()
    if not lost:
        raise CannotRecover("the stream knows of no customers.db: `run` makes an empty one")
    if len(lost) > 1:
        raise CannotRecover(
            f"the stream knows {_and(lost)}: two databases, which may have given the same numbers. With a "
            "copy of the one that you want: `--from FILE`"
        )
    (source,) = lost
    database = customers.open_database(folder)
    published = stream.published_by_source()
    earlier = {old: published.get(old, 0) for old, successor in given_up.items() if successor == source}
    with database.transaction():
        database.set_meta("identity", source.partition("@")[2])
        set_earlier_sources(database, earlier)
    database.close()
    store = Customers(customers.open_database(folder))
    for each, last in earlier.items():
        _make_again(store, stream, each, last)
    return store


def _make_again(store: Customers, stream: EventStream, source: str, last: int) -> None:
    """Have what an earlier source published, which is no longer to be published from here."""
    done = 0
    for entries in stream.entries_of(source):
        fresh = {}
        for entry in entries:
            if (row := own_row(entry)) and done < row.sequence <= last:
                fresh[row.sequence], done = decode(entry.fields), row.sequence
        with store.database.relaxed(), store.database.transaction():
            store.make_again(list(fresh.values()))


def _insist_on_none(directory: Path) -> None:
    if (directory / customers.FILE).exists():
        raise CannotRecover(
            f"{directory / customers.FILE} is there; to put a copy in its place: `restore DIR`"
        )


def _and(sources: set[str]) -> str:
    return " and ".join(sorted(sources))
