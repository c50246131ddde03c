"""Numbers that a table gives to its rows: counted by SQLite, which never gives one twice (AUTOINCREMENT)."""

from tally.store.database import Database

BLOCK = 10**6  # how many numbers a database begins with that can't know which were given


def raise_ids(database: Database, table: str, id: int) -> None:
    """Give new rows of a table ids above `id`, in the transaction that is open. May be repeated."""
    database.execute(
        "INSERT INTO sqlite_sequence SELECT ?1, 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
        (table,),
    )
    database.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (id, table))
