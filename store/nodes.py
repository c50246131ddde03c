"""Nodes: Tallys with data directories of their own, that share a stream.

Each has a number, which decides the ids that it gives: see ids. A customer, invoice, credit or account is
changed at the node that gave its id. A registry in Redis tells which database has which number (see
membership). Each database keeps a copy of the registry as it last read it.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tally.store.database import Database
from tally.store.errors import Misdirected, NotFound, StoreError
from tally.store.ids import given, is_in_block, node_of, numbered
from tally.store.outbox import Outbox

HIGHEST = 9006  # keeps every id below 2^53, which JavaScript needs

KNOWN = "nodes"  # in meta, as JSON: from database to text for `Node.parse`
FOLLOWS = "follows"  # in meta of a standby's database, which writes nothing of its own
DIFFERS = "differs_from_primary"  # in meta of a standby's: it has other events under the same numbers
AWAITED = "awaited_standby"  # in meta of a primary's: the standby that has more to hand over
REMOVED = "removed"  # replaces the address
STANDBY = "standby"  # stands before the address
_NODE = re.compile(r"([0-9]{1,4}):([0-9]{1,15})(?: (.*))?")


class Node(NamedTuple):
    """A database's registration: its node's number, and its service's address, "" if unknown.

    `is_removed`: it is gone for good. `is_standby`: it follows the one that has the number. `changes` counts
    how often the registration was changed.
    """

    number: int
    url: str = ""
    is_removed: bool = False
    changes: int = 0
    is_standby: bool = False

    @classmethod
    def parse(cls, text: str) -> "Node | None":
        """Read a value of `{stream}:nodes`; None if Tally did not write it."""
        found = _NODE.fullmatch(text)
        if found is None or int(found[1]) > HIGHEST:
            return None
        state, _, url = (found[3] or "").partition(" ")
        if state not in (REMOVED, STANDBY):
            state, url = "", found[3] or ""
        return cls(int(found[1]), url, state == REMOVED, int(found[2]), state == STANDBY)

    @property
    def has_number(self) -> bool:
        """Whether it is the database that gives the ids of its number."""
        return not (self.is_removed or self.is_standby)


class WrongNumber(StoreError):
    """The database can't be of the node that node.number says; the message says what to set."""


def assign(database: Database, number: int) -> None:
    """Make a database give the ids of that node. May be repeated. Raises WrongNumber."""
    if database.node != number:
        with database.transaction():
            insist_on_number(database, number)
            database.assign(number)


def insist_on_number(database: Database, number: int) -> None:
    """Raise WrongNumber if a database is another node's, and has given its ids, or published something."""
    if database.node != number and not may_be_assigned(database):
        raise WrongNumber(
            f"{database.path} is node {database.node}'s, and has given its ids, but node.number is "
            f"{number}: set node.number = {database.node}, or data.directory to one of node {number}"
        )


def may_be_assigned(database: Database) -> bool:
    """Whether a database can become another node's: it has given no ids and published nothing."""
    # accounts.db has rows of other nodes too: its outbox shows whether it gave ids itself.
    own = database.service != "accounts" and any(given(database, table) for table in numbered(database))
    return not (own or is_in_block(database) or Outbox(database).last())


def known_texts(database: Database) -> dict[str, str]:
    """The registry as this database last read it: from database to text for `Node.parse`."""
    return msgspec.json.decode(database.meta(KNOWN) or "{}", type=dict[str, str])


def known_nodes(database: Database) -> dict[str, Node]:
    """The databases of all nodes, as this database last heard."""
    return parsed(known_texts(database))


def parsed(texts: Mapping[str, str]) -> dict[str, Node]:
    """The values of `{stream}:nodes` that can be read."""
    return {name: node for name, text in texts.items() if (node := Node.parse(text))}


def address_of(database: Database, number: int) -> str | None:
    """The last known address of that node's service of this kind; None for an unknown node."""
    for name, node in known_nodes(database).items():
        if node.number == number and node.has_number and name.startswith(f"{database.service}@"):
            return node.url
    return None


def awaited(database: Database) -> str:
    """The standby that has handed over a part of its events, and has more; "" without one."""
    return str(database.meta(AWAITED) or "")


def follows(database: Database) -> bool:
    """Whether it is a standby's: it takes in the primary's events, and writes nothing of its own."""
    return bool(database.meta(FOLLOWS))


def differs(database: Database) -> bool:
    """Whether it is a standby's, and has other events than its primary under the same numbers."""
    return follows(database) and bool(database.meta(DIFFERS))


def keep(database: Database, nodes: dict[str, str]) -> None:
    """Keep the registry in the database, in a transaction of its own."""
    with database.transaction():
        database.set_meta(KNOWN, msgspec.json.encode(nodes).decode())


def missing(database: Database, kind: str, id: int) -> StoreError:
    """The error for a row that isn't here: Misdirected when a known node gave its id, else NotFound."""
    number = node_of(id)
    url = None if number == database.node else address_of(database, number)
    return NotFound(kind, id) if url is None else Misdirected("id", kind, [(0, id)], number, url)


def insist_on_own(database: Database, kind: str, id: int) -> None:
    """Raise Misdirected if another known node gave the id: only that node changes the row.

    Rows of removed nodes and of other programs may be changed anywhere.
    """
    error = missing(database, kind, id)
    if isinstance(error, Misdirected):
        raise error
