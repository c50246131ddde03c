"""The users who may sign in. They live in accounts.db: the accounts service takes the logins."""

from msgspec import Struct

from tally.events import now, rfc3339
from tally.store.database import Database
from tally.store.errors import StoreError

# AUTOINCREMENT: a number is never given again, so an old user's token can't become another user's.
SCHEMA = """
CREATE TABLE user (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    admin INTEGER NOT NULL,
    password TEXT NOT NULL,
    created_date TEXT NOT NULL
) STRICT;
"""


class NameTaken(StoreError):
    """There is already a user of that name."""


class NoSuchUser(StoreError):
    """There is no user of that name."""


class User(Struct, frozen=True):
    """Somebody who may sign in; `password` is the hash from passwords.hashed."""

    id: int
    name: str
    admin: bool
    password: str
    created_date: str


class Users:
    """The users in one database. Methods that change something run in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, password: str, admin: bool) -> None:
        """Let somebody sign in; `password` is a hashed one. Raises NameTaken."""
        if self.named(name):
            raise NameTaken(
                f"there is already a user {name}; `users passwd {name}` gives it another password"
            )
        sql = "INSERT INTO user (name, admin, password, created_date) VALUES (?, ?, ?, ?)"
        self._database.execute(sql, (name, admin, password, rfc3339(now())))

    def remove(self, name: str) -> None:
        """Let somebody sign in no more. The accounts stay. Raises NoSuchUser."""
        self._database.execute("DELETE FROM user WHERE id = ?", (self.existing(name).id,))

    def give_password(self, user: User, password: str) -> None:
        """Give somebody another hashed password, or another hash of the same one.

        It replaces the hash that `user` was read with. A password given since then stays.
        """
        self._database.execute(
            "UPDATE user SET password = ? WHERE id = ? AND password = ?", (password, user.id, user.password)
        )

    def named(self, name: str) -> User | None:
        """The user of that name."""
        return next(iter(self._find("WHERE name = ?", (name,))), None)

    def existing(self, name: str) -> User:
        """The user of that name. Raises NoSuchUser."""
        if user := self.named(name):
            return user
        raise NoSuchUser(f"there is no user {name}; `users list` shows them")

    def are_there(self, id: int, name: str) -> bool:
        """Whether the user with this number still exists."""
        return bool(self._database.rows("SELECT 1 FROM user WHERE id = ? AND name = ?", (id, name)))

    def all(self) -> list[User]:
        """Everybody, by name."""
        return self._find("ORDER BY name")

    def _find(self, clause: str, bindings: tuple[str, ...] = ()) -> list[User]:
        sql = f"SELECT id, name, admin, password, created_date FROM user {clause}"
        rows = self._database.rows(sql, bindings)
        return [User(id, name, bool(admin), *rest) for id, name, admin, *rest in rows]
