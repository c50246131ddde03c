"""Finds out who sent a request, before anything else is done with it.

With auth off, anyone who reaches the service may do everything; only other sites' pages in that person's
browser must be kept out. With tokens, each call says who its user is. The resources ask `owner`, so they have
one path for both.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import falcon
from msgspec import Struct

from tally.http.neighbours import LOGIN, SESSION
from tally.http.tokens import STATUS, Bearer, InvalidToken, Tokens
from tally.store.errors import StoreError

COOKIE = "tally-session"  # the token of the user who signed in on a page

OPEN_TO_ALL = ("/health/live", "/health/ready", "/health/primary", LOGIN)
OF_STATUS = ("/status", "/metrics")
PAGE = ("/", "/docs", "/operations")  # the pages themselves hold no data
PAGE_FOLDER = "/static/"  # and neither do its scripts and styles

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Principal(NamedTuple):
    """The sender of a request."""

    name: str
    admin: bool


EVERYBODY = Principal("", admin=True)  # no user has an empty name


def principal(req: falcon.Request) -> Principal:
    """Who the request is from."""
    found: Principal = req.context.principal
    return found


def owner(req: falcon.Request) -> str | None:
    """The user whose accounts the request may see and change; None means all accounts."""
    who = principal(req)
    return None if who.admin else who.name


class Forbidden(falcon.HTTPForbidden):
    """403: known who it is, and not allowed."""

    def __init__(self, detail: str) -> None:
        super().__init__(title="Not allowed", description=detail)


def insist_on_admin(req: falcon.Request, what: str) -> None:
    """Raises Forbidden for others; the message says that `what`, as in "Operations are", is for admins."""
    if not principal(req).admin:
        raise Forbidden(f"{what} for admins.")


CHALLENGE = 'Bearer realm="tally"'


class Unauthorized(falcon.HTTPUnauthorized):
    """401: a token is wanted, or a better one (RFC 6750)."""

    def __init__(self, detail: str, error: str | None = None) -> None:
        challenge = CHALLENGE + (f', error="{error}"' if error else "")
        super().__init__(title="Sign in", description=detail, challenges=[challenge])


class OpenGate:
    """Lets in everybody at a loopback address, except other sites' pages in a browser."""

    def refusal(self, authorization: str | None, cookie: str | None) -> str | None:
        """None: nobody needs a token."""
        return None

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises Forbidden."""
        host = req.env.get("HTTP_HOST")
        if host and not _is_of_this_machine(host):
            raise Forbidden(
                f"The service is not known as {host[:100]}: reach it as localhost or by its IP address, "
                "and have a proxy in front send that as the Host."
            )
        _insist_on_own_page(req)
        req.context.principal = EVERYBODY


class TokenGate(Struct, frozen=True):
    """Lets in requests with a token. `is_still_there` tells whether its user still exists."""

    _tokens: Tokens
    _is_still_there: Callable[[Bearer], bool]

    def refusal(self, authorization: str | None, cookie: str | None) -> str | None:
        """Why the token in these headers is refused; None if it is good."""
        try:
            self._bearer(authorization, cookie)
        except Unauthorized as error:
            return error.description
        except StoreError as error:
            return str(error)
        return None

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises Unauthorized, and Forbidden."""
        if not is_open_to_all(req):
            req.context.principal = self._principal(req)

    def _principal(self, req: falcon.Request) -> Principal:
        authorization = req.get_header("Authorization")
        bearer = self._bearer(authorization, req.get_header("Cookie"))
        # A browser adds a cookie by itself, even when another site's page sends the request.
        if authorization is None:
            _insist_on_own_page(req)
        try:
            if not self._is_still_there(bearer):
                raise Unauthorized("The user is no longer there.", "invalid_token")
        except StoreError:
            if req.path not in OF_STATUS:  # these tell what is wrong with the database
                raise
        if bearer.scope == STATUS and req.path not in OF_STATUS:
            raise Forbidden(f"This token is for {' and '.join(OF_STATUS)} alone.")
        return Principal(bearer.sub, bearer.admin)

    def _bearer(self, authorization: str | None, cookie: str | None) -> Bearer:
        token = _kept(cookie) if authorization is None else None
        try:
            return self._tokens.read(bearer_token(authorization) if token is None else token)
        except InvalidToken as error:
            raise Unauthorized(str(error), "invalid_token") from None


Gate = OpenGate | TokenGate


def bearer_token(authorization: str | None) -> str:
    """The token in a header Authorization. Raises Unauthorized."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized(
            "A token is missing. POST /auth/login of the accounts service gives one; "
            "send it in the header Authorization, behind the word Bearer."
        )
    return token.strip()


def _kept(cookie: str | None) -> str | None:
    """The token in a header Cookie, or None."""
    parts = (part.strip().partition("=") for part in (cookie or "").split(";"))
    return next((token for name, _, token in parts if name == COOKIE), None)


def is_open_to_all(req: falcon.Request) -> bool:
    """Whether no token is needed: for health, signing in and out, and pages, which have no data."""
    if req.path in OPEN_TO_ALL or (req.method == "DELETE" and req.path == SESSION):
        return True
    return req.method in SAFE_METHODS and (req.path in PAGE or req.path.startswith(PAGE_FOLDER))


@lru_cache(maxsize=256)
def _is_of_this_machine(host: str) -> bool:
    """Whether a Host header names an address, or localhost. Any other name could be made to lead here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _insist_on_own_page(req: falcon.Request) -> None:
    """Raises Forbidden if a browser sends a change for another site's page, as Go's net/http decides it."""
    if req.method in SAFE_METHODS:
        return
    site, origin = req.env.get("HTTP_SEC_FETCH_SITE"), req.env.get("HTTP_ORIGIN")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        is_own = origin is None or origin.partition("://")[2] == req.get_header("Host")
    if not is_own:
        raise Forbidden("Another site's page may not change anything here.")
