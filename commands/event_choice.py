"""Chooses the events to show: by type, by customer, by account, and by time."""

import re
from collections.abc import Collection
from datetime import timedelta

import msgspec

from tally.events import PAYLOAD_FIELD, TYPE_FIELD, Id
from tally.store.stream import Entry

_AGO = re.compile(r"(?=\d)(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,5})s)?", re.ASCII)


def ago(value: str) -> timedelta:
    """A time ago in days, hours, minutes and seconds, or some of them. Raises ValueError."""
    found = _AGO.fullmatch(value)
    if found is None:
        raise ValueError("Expected how long ago, such as 10m, 90s, 2h, 1d or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


class _Names(msgspec.Struct):
    """The ids in a payload; any of them may be missing."""

    id: str | None = None
    customer_id: str | None = None
    account_id: str | None = None


_decoder = msgspec.json.Decoder(_Names)


class Choice:
    """Tells which entries match all criteria. Must see them in the stream's order.

    An account's events are its own, its customers', and those of their invoices and credits while they were
    its customers. Invoices don't name the account: `customers` are its customers now, and the stream tells
    when others moved. A payload that can't be read matches no customer and no account.
    """

    def __init__(
        self,
        types: Collection[str] = (),
        customer: Id | None = None,
        account: Id | None = None,
        customers: Collection[int] = (),
    ) -> None:
        self._types = {name.encode() for name in types}
        self._customer = None if customer is None else str(customer)
        self._account = None if account is None else str(account)
        self._customers = customers
        self._told: dict[str, bool] = {}  # by customer: whether it was the account's in its last event

    def wants(self, entry: Entry) -> bool:
        """Whether to show the entry."""
        type_ = entry.fields.get(TYPE_FIELD, b"")
        is_wanted = not self._types or type_ in self._types
        if self._customer is None and self._account is None:
            return is_wanted
        try:
            names = _decoder.decode(entry.fields.get(PAYLOAD_FIELD, b""))
        except (ValueError, RecursionError):
            return False
        customer = names.id if type_.startswith(b"Customer") else names.customer_id
        account = names.id if type_.startswith(b"Account") else names.account_id
        is_of_account = self._account is None or self._is_of_account(customer, account)
        return is_wanted and is_of_account and self._customer in (None, customer)

    def _is_of_account(self, customer: str | None, account: str | None) -> bool:
        if customer is None:
            return account == self._account
        before = self._told.get(customer)
        if account is None:
            is_one = customer.isascii() and customer.isdigit() and int(customer[:20]) in self._customers
            return is_one if before is None else before
        self._told[customer] = account == self._account
        return account == self._account or before is True  # it comes to the account, or leaves it
