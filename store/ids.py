"""The numbers that rows get.

Each node has a range of SPAN numbers. So two nodes never give the same number, and a number tells which node
gave it. Usually a node counts up from the start of its range. A database that can't know which numbers were
given takes them from a block, drawn at random within the range, that nobody has used.
"""

import random

from tally.events import Id
from tally.store.database import Database
from tally.store.ranges import Range, merge

SPAN = 10**12  # numbers that each node has
BLOCK = 10**6  # numbers
_FIRST_BLOCK, _BLOCKS = 1000, SPAN // BLOCK  # random blocks lie above the counted numbers
_COUNTED = _FIRST_BLOCK * BLOCK  # numbers at the beginning of the range, which are counted up

_random = random.SystemRandom()


def node_of(id: int) -> int:
    """The node that gives this number."""
    return max(id - 1, 0) // SPAN


def give(database: Database, table: str, count: int) -> list[Id]:
    """The numbers of so many new rows of a table. In the open transaction."""
    sql = "SELECT (SELECT value FROM meta WHERE key = ?), (SELECT seq FROM sqlite_sequence WHERE name = ?)"
    [(in_block, highest)] = database.rows(sql, (_key(table), table))
    base = database.node * SPAN
    last: int
    if in_block is not None:
        last = in_block if in_block % BLOCK + count <= BLOCK else _draw(database, table)
    else:
        last = highest if highest and base < highest <= base + _COUNTED else _counted(database, table)
        if last + count > base + _COUNTED:
            in_block = last = _draw(database, table)
    if in_block is not None:
        is_full = (last + count) % BLOCK == 0
        database.set_meta(_key(table), _draw(database, table) if is_full else last + count)
    return [Id(number) for number in range(last + 1, last + 1 + count)]


def raise_ids(database: Database, table: str, id: int) -> None:
    """Give new rows of a table numbers above `id`, in the open transaction. May be repeated.

    Numbers of blocks, or of another node's range, are ignored.
    """
    if 0 < id - database.node * SPAN <= _COUNTED:
        database.set_meta(_floor(table), max(id, database.meta(_floor(table)) or 0))
        raise_sequence(database, table, id)


def raise_sequence(database: Database, table: str, last: int) -> None:
    """Make SQLite number new rows of a table above `last`. In the open transaction."""
    database.execute(
        "INSERT INTO sqlite_sequence SELECT ?1, 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
        (table,),
    )
    database.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, table))


def given(database: Database, table: str) -> list[Range]:
    """The numbers that may have been given here to rows of a table, and nowhere else."""
    base = database.node * SPAN
    counted = _counted(database, table)
    sql = f"SELECT DISTINCT (id - 1) / {BLOCK} FROM {table} WHERE id > ? AND id <= ?"
    rows = database.rows(sql, (base + _COUNTED, base + SPAN))
    blocks = {block for (block,) in rows}
    if (last := database.meta(_key(table))) is not None:
        blocks.add(last // BLOCK)
    ranges = [Range(block * BLOCK + 1, (block + 1) * BLOCK) for block in blocks]
    return merge([*([Range(base + 1, counted)] if counted > base else []), *ranges])


def _counted(database: Database, table: str) -> int:
    """The last counted number. SQLite doesn't know it if the table has rows of other nodes."""
    base = database.node * SPAN
    found = database.value(
        f"SELECT max(found) FROM (SELECT max(id) AS found FROM {table} WHERE id BETWEEN ?1 AND ?2"
        " UNION ALL SELECT value FROM meta WHERE key = ?3 AND value BETWEEN ?1 AND ?2"
        " UNION ALL SELECT seq FROM sqlite_sequence WHERE name = ?4 AND seq BETWEEN ?1 AND ?2)",
        (base + 1, base + _COUNTED, _floor(table), table),
    )
    return found or base


def is_in_block(database: Database) -> bool:
    """Whether it gives numbers from random blocks."""
    return any(database.meta(_key(table)) is not None for table in numbered(database))


def begin_block(database: Database, draw: random.Random = _random) -> None:
    """From now on, give numbers from fresh blocks in every numbered table."""
    for table in numbered(database):
        database.set_meta(_key(table), _draw(database, table, draw))


def numbered(database: Database) -> list[str]:
    """The tables whose rows get numbers."""
    rows = database.rows(
        "SELECT name FROM sqlite_schema"
        " WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' AND name != 'outbox' ORDER BY name"
    )
    return [str(name) for (name,) in rows]


def _draw(database: Database, table: str, draw: random.Random = _random) -> int:
    """The last number before a random block of which this database knows no number."""
    while True:
        before = database.node * SPAN + draw.randrange(_FIRST_BLOCK, _BLOCKS) * BLOCK
        taken = database.value(
            f"SELECT 1 FROM {table} WHERE id > ? AND id <= ? LIMIT 1", (before, before + BLOCK)
        )
        if taken is None:
            return before


def _key(table: str) -> str:
    return f"last_{table}_id"  # in meta, while numbers come from a block


def _floor(table: str) -> str:
    return f"given_{table}_id"  # in meta: the highest number known to have been given, perhaps to no row
