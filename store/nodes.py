"""Nodes: Tallys with data directories of their own, that share a stream.

Each has a number, which says what ids it gives: see ids. A customer, invoice, credit or account is changed at
the node that gave its id. Which database has which number is kept in Redis (see membership). Each database
keeps what it has read of that.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tally.store.database import Database
from tally.store.errors import Misdirected, NotFound, StoreError
from tally.store.ids import given, is_in_block, node_of, numbered
from tally.store.outbox import Outbox

HIGHEST = 9006  # so that every id is below 2^53, as JavaScript wants it

KNOWN = "nodes"  # in meta, as JSON: from database to what `Node.parse` reads
FOLLOWS = "follows"  # in meta: it is a standby's, and writes nothing of its own
UNTOLD = "untold"  # in meta, as JSON, of a standby's: see `untold`
DIFFERS = "differs_from_primary"  # in meta, of a standby's: it has something that the primary has not
REMOVED = "removed"  # in the place of the address
STANDBY = "standby"  # before the address
_NODE = re.compile(r"([0-9]{1,4}):([0-9]{1,15})(?: (.*))?")


class Node(NamedTuple):
    """What is known of a database: its node's number, and its service's address, "" where that isn't told.

    One that `is_removed` is gone for good, one that `is_standby` follows the one that has the number.
    `changes` counts how often this was changed.
    """

    number: int
    url: str = ""
    is_removed: bool = False
    changes: int = 0
    is_standby: bool = False

    @classmethod
    def parse(cls, text: str) -> "Node | None":
        """Read a value of `{stream}:nodes`; None for what Tally has not written."""
        found = _NODE.fullmatch(text)
        if found is None or int(found[1]) > HIGHEST:
            return None
        state, _, url = (found[3] or "").partition(" ")
        if state not in (REMOVED, STANDBY):
            state, url = "", found[3] or ""
        return cls(int(found[1]), url, state == REMOVED, int(found[2]), state == STANDBY)

    @property
    def has_number(self) -> bool:
        """Whether it is the one that gives the ids of its number."""
        return not (self.is_removed or self.is_standby)


class WrongNumber(StoreError):
    """The database can't be of the node that node.number says; the message says what to set."""


def assign(database: Database, number: int) -> None:
    """Have a database give the ids of that node. May be repeated.

    Raises WrongNumber for one that has given ids of another, or told something.
    """
    if database.node == number:
        return
    with database.transaction():
        if not may_be_assigned(database):
            raise WrongNumber(
                f"{database.path} is node {database.node}'s, and has given its ids, but node.number is "
                f"{number}: set node.number = {database.node}, or data.directory to one of node {number}"
            )
        database.assign(number)


def may_be_assigned(database: Database) -> bool:
    """Whether a database can become another node's: it has given no ids, and told nothing."""
    # accounts.db has rows of other nodes too: what it gave ids itself is in its outbox.
    own = database.service != "accounts" and any(given(database, table) for table in numbered(database))
    return not (own or is_in_block(database) or Outbox(database).last())


def known_texts(database: Database) -> dict[str, str]:
    """The registry as this database has last read it: from database to what `Node.parse` reads."""
    return msgspec.json.decode(database.meta(KNOWN) or "{}", type=dict[str, str])


def known_nodes(database: Database) -> dict[str, Node]:
    """The databases of all nodes, as the database has last heard."""
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


def follows(database: Database) -> bool:
    """Whether it is a standby's: it has what the node's own database has told, and writes nothing."""
    return bool(database.meta(FOLLOWS))


def untold(database: Database) -> dict[str, int]:
    """The names under which a standby had accepted events, as a primary, that it had not published then.

    With the last number that it had published.
    """
    return msgspec.json.decode(database.meta(UNTOLD) or "{}", type=dict[str, int])


def differs(database: Database) -> bool:
    """Whether it is a standby's, and has something that its primary has not."""
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
    """Raise Misdirected for what a known node has given the id of, which alone changes it.

    What removed nodes and other programs have told of may be changed anywhere.
    """
    error = missing(database, kind, id)
    if isinstance(error, Misdirected):
        raise error
