"""Users of a running Tally, each with their own clients."""

import time
from contextlib import closing
from typing import NamedTuple

from support.tally import Client, Tally
from tally.store import accounts, passwords
from tally.store.revocations import Revocations
from tally.store.users import Users

PASSWORD = "correct horse battery staple"


class SignedIn(NamedTuple):
    """A user with a token, and clients of both services that send it."""

    name: str
    token: str
    customers: Client
    accounts: Client


def add(tally: Tally, name: str, admin: bool = False) -> None:
    """Add a user, as `users add` does."""
    password = passwords.hashed(PASSWORD)
    with closing(accounts.open_database(tally.directory / "data")) as database, database.transaction():
        Users(database).add(name, password, admin)


def remove(tally: Tally, name: str) -> None:
    """Remove a user, as `users remove` does."""
    data = tally.directory / "data"
    with closing(accounts.open_database(data)) as database, database.transaction():
        user = Users(database).named(name)
        assert user
        Revocations(data).add(user.id, user.name, int(time.time()))
        Users(database).remove(name)


def sign_in(tally: Tally, name: str) -> SignedIn:
    """Sign a user in."""
    answer = tally.accounts.request("POST", "/auth/login", {"username": name, "password": PASSWORD})
    assert answer.status == 200, answer.data
    return with_token(tally, name, answer.json()["token"])


def with_token(tally: Tally, name: str, token: str) -> SignedIn:
    """Clients of both services with this token."""
    return SignedIn(name, token, Client(tally.customers.port, token), Client(tally.accounts.port, token))
