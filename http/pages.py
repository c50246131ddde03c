"""The pages of each service, `/` and `/docs`, and the files that they are made of.

A page holds no data: its script asks the service's own calls for it. So the page is the same for
everybody, and nothing in it needs a right. What others made lies in `vendor`.
"""

import hashlib
import html
import re
from pathlib import Path
from typing import Any, NamedTuple

import falcon

from tally.http.service import Json
from tally.redis_url import bracketed
from tally.version import VERSION

LOGIN = "/auth/login"  # on the accounts service

_STATIC = Path(__file__).with_name("static")
_VENDOR = Path(__file__).with_name("vendor")
_SERVED_OF_VENDOR = ("swagger-ui-bundle.js", "swagger-ui.css")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": falcon.MEDIA_JSON,
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LINKS = {
    "openapi": "openapi.json",
    "asyncapi": "asyncapi.json",
    "docs": "docs",
    "status": "status",
    "metrics": "metrics",
}  # relative: a proxy may put a path before them
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
    """Add the pages of `service` and their files to `app`."""
    app.add_route("/", RootResource(service, ports))
    app.add_route("/docs", PageResource("docs", service, ports))
    app.add_route("/static/{name}", StaticResource())


class PageResource:
    """The page `name` of a service: HTML, whatever Accept says."""

    def __init__(self, name: str, service: str, ports: Ports) -> None:
        self._page = (_STATIC / f"{name}.html").read_text(encoding="utf-8").replace("{service}", service)
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


class RootResource(PageResource):
    """The page for people; for a program that prefers JSON, where to go from here."""

    def __init__(self, service: str, ports: Ports) -> None:
        super().__init__(service, service, ports)
        self._index = Json.encode({"service": service, "version": VERSION, **_LINKS})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The page, or JSON by Accept."""
        resp.append_header("Vary", "Accept")
        if req.client_prefers((falcon.MEDIA_HTML, falcon.MEDIA_JSON)) == falcon.MEDIA_JSON:
            _send(req, resp, ".json", self._index)
        else:
            super().on_get(req, resp)


class StaticResource:
    """The files beside the page, held in memory."""

    def __init__(self) -> None:
        ours = [file for file in _STATIC.iterdir() if file.suffix != ".html"]
        files = [*ours, *(_VENDOR / name for name in _SERVED_OF_VENDOR)]
        self._files = {file.name: file.read_bytes() for file in files}

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
