"""Which accounts, customers and invoices new rows of customers.db may name: what exists, and who owns it.

With an `owner`, other users' accounts and all in them are treated as if they did not exist. So is an account
whose creation has not come yet.
"""

from collections.abc import Mapping, Sequence

from tally.store import nodes
from tally.store.database import Database, numbers
from tally.store.errors import Misdirected, UnknownReference
from tally.store.ids import node_of

# An account may be known only by its deletion, if that came first.
OPEN_ACCOUNT = "SELECT 1 FROM known_account WHERE owned_by IS NOT NULL AND NOT deleted"
_OWN_ACCOUNT = "SELECT 1 FROM known_account WHERE id = value AND owned_by = :owner AND NOT deleted"
_NUMBERED = "customer INDEXED BY customer_number"
_KNOWN_CUSTOMER = f"SELECT 1 FROM {_NUMBERED} WHERE id = value"
_OWN_CUSTOMER = (
    f"SELECT 1 FROM {_NUMBERED} JOIN known_account ON known_account.id = account_id"
    " WHERE customer.id = value AND owned_by = :owner AND NOT deleted"
)


def owns_account(database: Database, owner: str | None, id: int) -> bool:
    """Whether the account is that user's; always so without an owner."""
    return owner is None or not _without(database, [id], _OWN_ACCOUNT, owner)


def owns_customer(database: Database, owner: str | None, id: int) -> bool:
    """Whether the customer is in an account of that user's."""
    return owner is None or not _without(database, [id], _OWN_CUSTOMER, owner)


def insist_on_customers(database: Database, ids: Sequence[int], owner: str | None = None) -> None:
    """Raise UnknownReference unless each is a customer, of that owner's if one is given."""
    sql = _KNOWN_CUSTOMER if owner is None else _OWN_CUSTOMER
    insist(database, _without(database, ids, sql, owner), "customer_id", "customer")


def insist_on_accounts(
    database: Database, ids: Sequence[int], owner: str | None, must_be_known: bool
) -> None:
    """Raise UnknownReference unless each is an open account of that owner's.

    Without an owner, it may be anybody's; it may also be unknown or deleted, unless it `must_be_known`.
    """
    if owner is not None or must_be_known:
        sql = f"{OPEN_ACCOUNT} AND id = value" if owner is None else _OWN_ACCOUNT
        insist(database, _without(database, ids, sql, owner), "account_id", "account")


def insist(database: Database, missing: Mapping[int, int], field: str, kind: str, shown: str = "") -> None:
    """Raise UnknownReference if new rows name `missing` ids, Misdirected if one is another node's.

    `missing` has them by the index of the row. An account may be any node's.
    """
    elsewhere = {id: nodes.missing(database, kind, id) for id in missing.values() if field != "account_id"}
    for error in elsewhere.values():
        if isinstance(error, Misdirected):
            theirs = [(index, id) for index, id in missing.items() if node_of(id) == error.node]
            raise Misdirected(field, kind, theirs, error.node, error.url)
    if missing:
        raise UnknownReference(field, shown or kind, [*missing.items()])


def _without(database: Database, ids: Sequence[int], sql: str, owner: str | None = None) -> dict[int, int]:
    """Those of `ids` for which `sql` finds nothing, by their index; it knows each as `value`."""
    asked = sorted(set(ids))
    # This is cheaper for a single id, the most frequent case.
    of, bound = ("(SELECT :ids AS value)", asked[0]) if len(asked) == 1 else ("carray(:ids)", numbers(asked))
    found = database.rows(f"SELECT value FROM {of} WHERE NOT EXISTS ({sql})", {"ids": bound, "owner": owner})
    missing = {id for (id,) in found}
    return {index: int(id) for index, id in enumerate(ids) if id in missing}
