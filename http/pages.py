"""The page of each service at `/`, and the files that it is made of.

A page holds no data: its script asks the service's own calls for it. So the page is the same for
everybody, and nothing in it needs a right.
"""

import hashlib
import html
import re
from pathlib import Path
from typing import Any, NamedTuple

import falcon

from tally.redis_url import bracketed

LOGIN = "/auth/login"  # on the accounts service

_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_SECURITY = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'{login}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class Ports(NamedTuple):
    """Where the two services listen: a page links to the other one's under the host it was asked at."""

    customers: int
    accounts: int


def add_pages(app: Any, service: str, ports: Ports) -> None:
    """Add the page of `service` and its files to `app`."""
    app.add_route("/", PageResource(service, ports))
    app.add_route("/static/{name}", StaticResource())


class PageResource:
    """The page: HTML, whatever Accept says."""

    def __init__(self, service: str, ports: Ports) -> None:
        self._page = (_STATIC / f"{service}.html").read_text(encoding="utf-8")
        self._service = service
        self._ports = ports

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The page, with the addresses of its neighbours filled in."""
        host = bracketed(req.host) if _HOST.fullmatch(req.host) else "localhost"
        customers, accounts = (f"{req.scheme}://{host}:{port}" for port in self._ports)
        login = LOGIN if self._service == "accounts" else accounts + LOGIN
        page = self._page
        for name, value in (("customers", customers), ("accounts", accounts), ("login", login)):
            page = page.replace(f"{{{name}}}", html.escape(value))
        elsewhere = f" {accounts}" if self._service == "customers" else ""
        resp.set_header("Content-Security-Policy", _POLICY.format(login=elsewhere))
        _send(req, resp, ".html", page.encode())


class StaticResource:
    """The files beside the page, held in memory."""

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in _STATIC.iterdir() if file.suffix != ".html"}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """One file. Raises HTTPNotFound."""
        if name not in self._files:
            raise falcon.HTTPNotFound
        _send(req, resp, Path(name).suffix, self._files[name])


def _send(req: falcon.Request, resp: falcon.Response, suffix: str, content: bytes) -> None:
    """Answer with the content, or with 304 to whoever holds it already."""
    resp.set_headers(_SECURITY)
    resp.etag = hashlib.sha256(content).hexdigest()[:32]
    if req.if_none_match and any(tag in ("*", resp.etag.strip('"')) for tag in req.if_none_match):
        resp.status = falcon.HTTP_304
        return
    resp.content_type = _TYPES[suffix]
    resp.data = content
