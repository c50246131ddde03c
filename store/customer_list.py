"""Lists of customers: searched by the words of their names, in the order asked for, a page at a time."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

import apsw
from msgspec import Struct

from tally.store import records
from tally.store.database import Database, composed
from tally.store.records import Customer

Order = Literal["id", "-id", "name", "-name"]

FEW = 20_000  # customers: this many are sorted, or read one by one, in some 20 ms

_TOKENIZER, _ARGUMENTS = "unicode61", ["remove_diacritics", "2"]
_DROPPED = ("''", "\N{RIGHT SINGLE QUOTATION MARK}", "-", ".")


def _words_of(name: str) -> str:
    name = joined = f"composed({name})"
    for each in _DROPPED:
        joined = f"replace({joined}, '{each}', '')"
    return f"{name}, nullif({joined}, {name})"


# The words of each name, without case, accents and the characters between them. "O'Brien" is found as `o
# brien`, and as `obrien`, which is in the second column. Names are composed first, as macOS writes them
# decomposed. Of those, the index would drop the marks of Russian letters, and keep Korean ones in pieces.
SCHEMA = f"""
CREATE INDEX customer_by_name ON customer (name COLLATE NOCASE);
CREATE VIRTUAL TABLE customer_word USING fts5 (
    name, joined, content = '', contentless_delete = 1, detail = none,
    tokenize = "{_TOKENIZER} {" ".join(_ARGUMENTS)}"
);
CREATE TRIGGER customer_word_came AFTER INSERT ON customer BEGIN
    INSERT INTO customer_word (rowid, name, joined) VALUES (NEW.id, {_words_of("NEW.name")});
END;
CREATE TRIGGER customer_word_changed AFTER UPDATE OF id, name ON customer
WHEN NEW.name <> OLD.name OR NEW.id <> OLD.id BEGIN
    DELETE FROM customer_word WHERE rowid = OLD.id;
    INSERT INTO customer_word (rowid, name, joined) VALUES (NEW.id, {_words_of("NEW.name")});
END;
CREATE TRIGGER customer_word_went AFTER DELETE ON customer BEGIN
    DELETE FROM customer_word WHERE rowid = OLD.id;
END;
"""
FILL = f"INSERT INTO customer_word (rowid, name, joined) SELECT id, {_words_of('name')} FROM customer;"


class CustomerQuery(Struct, frozen=True, kw_only=True):
    """Which customers, and in which order; `-` reverses it.

    `search` has beginnings of words of their names, in any order. `after` is the name and the id of the last
    customer on the previous page.
    """

    limit: int
    order: Order = "id"
    after: tuple[str, int] | None = None
    account_id: int | None = None
    search: str | None = None


class CustomerList:
    """The customers in one customers.db; with `owner`, those in that user's accounts only."""

    def __init__(self, database: Database, owner: str | None = None, few: int = FEW) -> None:
        self._database = database
        self._owner = owner
        self._few = few

    def page(self, query: CustomerQuery) -> list[Customer]:
        """The customers that are asked for.

        Takes time in proportion to the page. By name, within an account or an owner's accounts, it is in
        proportion to all their customers. With a search, it is in proportion to all that have the words. By
        name, of many that have them, it is also in proportion to the customers before the last one shown.
        """
        if query.search is None:
            return self._rows(query, self._source(query))
        words = [*dict.fromkeys(words_of(query.search))]
        if not words:
            return []
        match = _match(words)
        is_narrow = query.account_id is not None or self._owner is not None
        count = "SELECT count(*) FROM (SELECT 1 FROM customer_word(?) LIMIT ?)"
        are_many = not is_narrow and self._database.value(count, (match, self._few)) == self._few
        if are_many and query.order in ("id", "-id"):
            joined = "customer_word(:match) AS found CROSS JOIN customer ON customer.id = found.rowid"
            return self._rows(query, joined, "", match)
        source = self._source(query) if is_narrow or are_many else "customer"
        return self._rows(query, source, _FOUND, match)

    def all_of(self, query: CustomerQuery) -> tuple[str, dict[str, Any]]:
        """SQL for the ids of all customers asked for, unordered, and its bindings."""
        words = words_of(query.search or "")
        conditions, bindings = self._filters(query)
        if query.search is not None:
            conditions.append(_FOUND if words else "false")
            bindings["match"] = _match(words)
        return f"SELECT customer.id AS id FROM customer WHERE {' AND '.join(['true', *conditions])}", bindings

    def _source(self, query: CustomerQuery) -> str:
        if query.account_id is not None or self._owner is not None:
            return "customer INDEXED BY customer_by_account"
        return "customer INDEXED BY customer_by_name" if query.order.endswith("name") else "customer"

    def _rows(
        self, query: CustomerQuery, found_in: str, further: str = "", match: str = ""
    ) -> list[Customer]:
        conditions, bindings = self._filters(query)
        conditions += [further] if further else []
        bindings |= {"limit": query.limit, "match": match}
        direction, sign = ("DESC", "<") if query.order.startswith("-") else ("ASC", ">")
        by_name = query.order.endswith("name")
        id = "found.rowid" if "found" in found_in else "customer.id"  # so that SQLite need not sort
        if query.after:
            bindings["name"], bindings["id"] = query.after
            beyond = f"{id} {sign} :id"
            if by_name:
                key = "name COLLATE NOCASE"
                beyond = f"({key} {sign}= :name AND ({key} {sign} :name OR {beyond}))"
            conditions.append(beyond)
        keys = [*(["name COLLATE NOCASE"] if by_name else []), id]
        rows = self._database.rows(
            f"SELECT {records.CUSTOMER_COLUMNS} FROM {found_in} WHERE {' AND '.join(['true', *conditions])}"
            f" ORDER BY {', '.join(f'{key} {direction}' for key in keys)} LIMIT :limit",
            bindings,
        )
        return [records.customer(row) for row in rows]

    def _filters(self, query: CustomerQuery) -> tuple[list[str], dict[str, Any]]:
        conditions: list[str] = []
        bindings: dict[str, Any] = {}
        if query.account_id is not None:
            conditions.append("account_id = :account")
            bindings["account"] = query.account_id
        if self._owner is not None:
            conditions.append(OWN)
            bindings["owner"] = self._owner
        return conditions, bindings


_FOUND = "customer.id IN (SELECT rowid FROM customer_word(:match))"

OWN = "account_id IN (SELECT id FROM known_account WHERE owned_by = :owner AND NOT deleted)"


def _match(words: Iterable[str]) -> str:
    return " ".join(f'"{word}"*' for word in words)


@cache
def _tokenizer() -> apsw.FTS5Tokenizer:
    """SQLite's own, as the index uses it: Python knows other letters, and other accents, than SQLite."""
    return apsw.Connection(":memory:").fts5_tokenizer(_TOKENIZER, _ARGUMENTS)


def words_of(text: str) -> list[str]:
    """The words of a text as the index has them: without case and accents."""
    words = _tokenizer()(
        composed(text).encode(),
        apsw.FTS5_TOKENIZE_DOCUMENT,
        None,
        include_offsets=False,
        include_colocated=False,
    )
    return [*map(str, words)]
