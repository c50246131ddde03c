"""POST /auth/login: a name and a password for a token."""

import math
import threading
import time
from typing import Any

import falcon
import structlog
from msgspec import Struct

from tally.events import rfc3339
from tally.http import bodies
from tally.http.answers import SignedIn
from tally.http.auth import Unauthorized
from tally.http.problems import NodeAddress, Refusal
from tally.http.seldom import Seldom
from tally.http.service import Service, Store, read_body
from tally.http.tokens import Bearer, Tokens
from tally.http.values import Name, Password
from tally.store import nodes, passwords
from tally.store.idempotency import encode_answer
from tally.store.login_attempts import LoginAttempts
from tally.store.users import User, Users

SHARE = 2  # one in so many threads may sign users in, or wait for a turn

_log = structlog.get_logger()


class LoginBody(Struct, frozen=True):
    """The body of POST /auth/login."""

    username: Name
    password: Password


class LoginResource:
    """Signs users in, at most `at_a_time` at once. The more failures, the slower."""

    def __init__(self, service: Service[Any], tokens: Tokens, threads: int, at_a_time: int) -> None:
        self._service = service
        self._tokens = tokens
        self._admitted = threading.BoundedSemaphore(max(1, threads // SHARE))
        self._free = threading.BoundedSemaphore(at_a_time)
        self._slowed_down = Seldom(seconds=1)
        self._failed = Seldom(seconds=10, lines=100)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign in. Raises Refusal at any node but 0."""
        if self._service.outside.node:
            with self._service.read() as store:
                url = nodes.address_of(store.database, 0) or ""
            where = f"Users sign in at node 0{url and f', {url}'}."
            raise Refusal(421, "At another node", where, node=NodeAddress(0, url))
        login = bodies.decode(read_body(req), LoginBody)
        user, issued = self._checked(login, req.remote_addr)
        token, expires = self._tokens.issue(Bearer(user.id, user.name, user.admin), issued)
        resp.set_header("Cache-Control", "no-store")
        resp.data = encode_answer(SignedIn(token, rfc3339(expires)))

    def _checked(self, login: LoginBody, address: str) -> tuple[User, int]:
        """The user with this name and password, and when it was read.

        Raises Unauthorized, or HTTPTooManyRequests. A client that must wait is refused first, and uses up
        no turn.
        """
        with self._service.read() as store:
            wait = LoginAttempts(store.database).wait(login.username, address)
        self._insist_on_patience(wait, login.username, address)
        if not self._admitted.acquire(blocking=False):
            raise _too_many(1)
        try:
            wait, user, read_at = self._service.note(lambda store: _begun(store, login.username, address))
            self._insist_on_patience(wait, login.username, address)
            with self._free:
                matches = passwords.matches(user.password if user else None, login.password)
            if user is None or not matches:
                if (more := self._failed.due()) is not None:
                    _log.warning("login_failed", username=login.username, address=address, more=more)
                raise Unauthorized("The name or the password is wrong.")
            self._note_success(login, user, address)
            _log.info("login_succeeded", username=user.name, address=address)
            return user, read_at
        finally:
            self._admitted.release()

    def _insist_on_patience(self, wait: float, username: str, address: str) -> None:
        """Raise HTTPTooManyRequests if the client must wait."""
        if wait:
            if (more := self._slowed_down.due()) is not None:
                _log.warning("login_slowed_down", username=username, address=address, more=more)
            raise _too_many(math.ceil(wait))

    def _note_success(self, login: LoginBody, user: User, address: str) -> None:
        renewed = passwords.hashed(login.password) if passwords.is_outdated(user.password) else None

        def note(store: Store) -> None:
            LoginAttempts(store.database).succeeded(login.username, address)
            if renewed:
                Users(store.database).give_password(user, renewed)

        self._service.note(note)


def _begun(store: Store, username: str, address: str) -> tuple[float, User | None, int]:
    """Begin an attempt: the seconds to wait, the user, and the time (s) at which it was read.

    In one transaction: if the user is removed or gets another password afterwards, the revocation has a later
    time, and ends the token.
    """
    database = store.database
    return LoginAttempts(database).begin(username, address), Users(database).named(username), int(time.time())


def _too_many(seconds: int) -> falcon.HTTPTooManyRequests:
    return falcon.HTTPTooManyRequests(
        title="Too many attempts", description=f"Try again in {seconds} s.", retry_after=seconds
    )
