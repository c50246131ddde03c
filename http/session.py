"""/auth/session: the pages' sign-in, which the browser keeps in a cookie that scripts can't read.

A cookie is sent to all ports and paths of a host (RFC 6265, section 8.5). So one sign-in is enough for the
pages of both services. If the services have different host names, the page sets the cookie at both.
"""

import falcon

from tally.http.auth import COOKIE, bearer_token, principal
from tally.store.idempotency import encode_answer


class WhoResource:
    """Tells who is signed in."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The user's name, "" if nobody signs in, and whether it is an admin."""
        resp.set_header("Cache-Control", "no-store")
        who = principal(req)
        resp.data = encode_answer({"username": who.name, "admin": who.admin})


class SessionResource(WhoResource):
    """Also makes the browser keep a token until it is closed, or forget it."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Keep the token that came in the header Authorization. Raises Unauthorized."""
        token = bearer_token(req.get_header("Authorization"))
        secure = req.scheme == "https"
        resp.set_cookie(COOKIE, token, path="/", secure=secure, http_only=True, same_site="Strict")
        resp.status = falcon.HTTP_204

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Forget it."""
        resp.unset_cookie(COOKIE, path="/", same_site="Strict")
        resp.status = falcon.HTTP_204
