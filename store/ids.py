"""The numbers that rows get.

As a rule they are counted up, as SQLite does (AUTOINCREMENT): no number is given twice. A database that can't
know which numbers were given takes them from a block that is drawn at random, and so was nobody's.
"""

import random
from pathlib import Path

import msgspec

from tally.events import Id
from tally.store.database import Database
from tally.store.ranges import Range, merge

BLOCK = 10**6  # numbers
_FIRST_BLOCK, _BLOCKS = 1000, 10**6  # those that are drawn: above what anybody counts up to, below 10^12
_LAST_COUNTED = _FIRST_BLOCK * BLOCK

_RENUMBERED = "renumbered"  # in meta

_random = random.SystemRandom()


def give(database: Database, table: str, count: int) -> list[Id]:
    """The numbers of so many new rows of a table. In the transaction that is open."""
    [(in_block, highest)] = database.rows(
        "SELECT (SELECT value FROM meta WHERE key = ?), (SELECT seq FROM sqlite_sequence WHERE name = ?)",
        (_key(table), table),
    )
    last: int = in_block if in_block is not None else highest or 0
    if in_block is not None:
        if last % BLOCK + count > BLOCK:
            last = _draw(database, table)
        database.set_meta(_key(table), last + count)
    return [Id(number) for number in range(last + 1, last + 1 + count)]


def raise_ids(database: Database, table: str, id: int) -> None:
    """Give new rows of a table numbers above `id`, in the transaction that is open. May be repeated."""
    database.execute(
        "INSERT INTO sqlite_sequence SELECT ?1, 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
        (table,),
    )
    database.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (id, table))


def given(database: Database, table: str) -> list[Range]:
    """The numbers that rows of a table may have got here: nobody else has given any of them."""
    counted: int = (
        database.value("SELECT seq FROM sqlite_sequence WHERE name = ? AND seq <= ?", (table, _LAST_COUNTED))
        or database.value(f"SELECT max(id) FROM {table} WHERE id <= ?", (_LAST_COUNTED,))
        or 0
    )
    rows = database.rows(f"SELECT DISTINCT (id - 1) / {BLOCK} FROM {table} WHERE id > ?", (_LAST_COUNTED,))
    blocks = {block for (block,) in rows}
    if (last := database.meta(_key(table))) is not None:
        blocks.add(last // BLOCK)
    ranges = [Range(block * BLOCK + 1, (block + 1) * BLOCK) for block in blocks]
    return merge([*([Range(1, counted)] if counted else []), *ranges])


def begin_block(database: Database) -> None:
    """From now on, give numbers that nobody had, in every table whose rows are numbered."""
    for table in _numbered(database):
        database.set_meta(_key(table), _draw(database, table))


def note_renumbered(database: Database, source: str, count: int, file: Path) -> None:
    """Note that rows got other numbers, which the file tells. In the transaction that is open."""
    noted = msgspec.json.decode(database.meta(_RENUMBERED) or "[]")
    noted.append(
        f"{count:,} rows that this database had recorded as {source} beside another have other numbers now: "
        f"{file} tells which; what clients were told before holds no longer"
    )
    database.set_meta(_RENUMBERED, msgspec.json.encode(noted).decode())


def renumbered(database: Database) -> list[str]:
    """What `note_renumbered` has noted, in words."""
    return msgspec.json.decode(database.meta(_RENUMBERED) or "[]", type=list[str])


def _numbered(database: Database) -> list[str]:
    rows = database.rows(
        "SELECT name FROM sqlite_schema"
        " WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' AND name != 'outbox'"
    )
    return [str(name) for (name,) in rows]


def _draw(database: Database, table: str) -> int:
    """The last number before a block of which this database, at least, knows no number."""
    while True:
        before = _random.randrange(_FIRST_BLOCK, _BLOCKS) * BLOCK
        taken = database.value(
            f"SELECT 1 FROM {table} WHERE id > ? AND id <= ? LIMIT 1", (before, before + BLOCK)
        )
        if taken is None:
            return before


def _key(table: str) -> str:
    return f"last_{table}_id"  # in meta, while numbers come from a block
