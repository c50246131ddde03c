"""Tokens: what a user who has signed in shows with each call. JWT, signed with HMAC-SHA-256 (RFC 7519)."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
import msgspec
from msgspec import Struct

_ALGORITHM = "HS256"
_ISSUER = "tally"
_CLAIMS = ["iss", "sub", "uid", "admin", "iat", "exp"]
_LEEWAY_SECONDS = 5  # how far the clocks of two machines may be apart


class InvalidToken(Exception):
    """The token is not good; the message says why, as far as its bearer may know."""


class Bearer(Struct, frozen=True):
    """Who a token was given to: the user's number and name, and whether it is an admin."""

    uid: int
    sub: Annotated[str, msgspec.Meta(min_length=1)]
    admin: bool


class Tokens:
    """Gives out tokens and reads them. Any process that has the same `key` reads them."""

    def __init__(self, key: bytes, lifetime: timedelta) -> None:
        self._key = key
        self._lifetime = lifetime

    def issue(self, bearer: Bearer) -> tuple[str, datetime]:
        """A token, and until when it is good."""
        issued = int(time.time())
        expires = issued + int(self._lifetime.total_seconds())
        claims = {"iss": _ISSUER, **msgspec.structs.asdict(bearer), "iat": issued, "exp": expires}
        return jwt.encode(claims, self._key, _ALGORITHM), datetime.fromtimestamp(expires, UTC)

    def read(self, token: str) -> Bearer:
        """Who holds the token. Raises InvalidToken."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],  # never what the token itself asks for
                issuer=_ISSUER,
                leeway=_LEEWAY_SECONDS,
                options={"require": _CLAIMS},
            )
            return msgspec.convert(claims, Bearer)
        except jwt.ExpiredSignatureError:
            raise InvalidToken("The token has expired; sign in again.") from None
        except (jwt.InvalidTokenError, msgspec.ValidationError, RecursionError):  # deeply nested JSON
            raise InvalidToken("The token is not one that this service gave out.") from None
