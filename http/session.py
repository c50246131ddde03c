"""/auth/session: the sign-in of the pages, kept by the browser in a cookie that scripts can't read.

A cookie holds for all ports and paths of a host (RFC 6265, section 8.5). So one sign-in is enough for the
pages of both services; where these have host names of their own, the page has both keep it.
"""

import falcon

from tally.http.answers import Who
from tally.http.auth import COOKIE, bearer_token, principal
from tally.http.service import Json


class WhoResource:
    """Who it is that asks."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The name, "" where nobody signs in, and whether it is an admin."""
        resp.set_header("Cache-Control", "no-store")
        Json.send(resp, Who(*principal(req)))


class SessionResource(WhoResource):
    """Besides, has the browser keep a token until its window is closed, and forget it."""

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
