"""The names of accounts, which the customers page asks accounts.db for."""

from collections.abc import Collection

from msgspec import Struct

from tally.events import Id
from tally.store.database import Database, numbers
from tally.store.searching import contains

_NAMED = "SELECT id, name FROM account WHERE NOT deleted AND created_date IS NOT NULL"


class AccountName(Struct, frozen=True):
    """An account and its name."""

    id: Id
    name: str


class AccountNames:
    """The open accounts in one database; with `owner`, only that user's."""

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self._database = database
        self._sql = _NAMED if owner is None else f"{_NAMED} AND owned_by = ?"
        self._bindings: list[object] = [] if owner is None else [owner]

    def of(self, ids: Collection[int]) -> list[AccountName]:
        """Those of these accounts that exist, with a lookup for each."""
        return self._found("id IN carray(?)", [numbers(sorted(set(ids)))])

    def like(self, text: str, limit: int) -> list[AccountName]:
        """Up to `limit` accounts whose name contains the text, or whose id is the text, by name.

        Reads accounts until enough are found.
        """
        name, bindings = contains("name", text)
        return self._found(
            f"({name} OR cast(id AS TEXT) = ?) ORDER BY name COLLATE NOCASE, id LIMIT ?",
            [*bindings, text, limit],
        )

    def _found(self, condition: str, bindings: list[object]) -> list[AccountName]:
        rows = self._database.rows(f"{self._sql} AND {condition}", [*self._bindings, *bindings])
        return [AccountName(Id(id), name) for id, name in rows]
