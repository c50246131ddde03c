"""Tokens, which a signed-in user sends with each call. JWT, signed with HMAC-SHA-256 (RFC 7519)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import jwt
import msgspec
from msgspec import Struct

from tally.events import MAX_ID

_ALGORITHM = "HS256"
_ISSUER = "tally"
_CLAIMS = ["iss", "sub", "uid", "admin", "iat", "exp"]
STATUS: Literal["status"] = "status"  # the scope of GET /status and /metrics
_LEEWAY_SECONDS = 5  # the most by which two machines' clocks may differ


class InvalidToken(Exception):
    """The token is not valid; the message says why, as far as its bearer may know."""


class Bearer(Struct, frozen=True):
    """A token's user: number, name, and whether it is an admin.

    `scope` limits the token: STATUS, or "" for everything that the user may do.
    """

    uid: Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
    sub: Annotated[str, msgspec.Meta(min_length=1)]
    admin: bool
    scope: Literal["", "status"] = ""


class Tokens:
    """Gives out tokens and reads them. Any process with the same `key` can read them.

    `is_revoked` tells whether a token was revoked, by the user's number and name, and its time of issue.
    """

    def __init__(
        self, key: bytes, lifetime: timedelta, is_revoked: Callable[[int, str, int], bool] = lambda *_: False
    ) -> None:
        self._key = key
        self._lifetime = lifetime
        self._is_revoked = is_revoked

    def issue(self, bearer: Bearer, issued: int) -> tuple[str, datetime]:
        """A token, and its expiry. It was issued (s) when the bearer was read: later revocations end it."""
        expires = issued + int(self._lifetime.total_seconds())
        claims = {"iss": _ISSUER, **msgspec.structs.asdict(bearer), "iat": issued, "exp": expires}
        if not bearer.scope:
            del claims["scope"]
        return jwt.encode(claims, self._key, _ALGORITHM), datetime.fromtimestamp(expires, UTC)

    def read(self, token: str) -> Bearer:
        """The token's bearer. Raises InvalidToken."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],  # never the one that the token names
                issuer=_ISSUER,
                leeway=_LEEWAY_SECONDS,
                options={"require": _CLAIMS},
            )
            bearer = msgspec.convert(claims, Bearer)
            issued = int(claims["iat"])
        except jwt.ExpiredSignatureError:
            raise InvalidToken("The token has expired; sign in again.") from None
        except (jwt.InvalidTokenError, msgspec.ValidationError, RecursionError):  # deeply nested JSON
            raise InvalidToken("The token is not one that this service gave out.") from None
        if self._is_revoked(bearer.uid, bearer.sub, issued):
            raise InvalidToken("The token was revoked, or its user removed.")
        return bearer
