"""The pages of each service, `/`, `/docs` and `/operations`, and the files that they are made of.

A page holds no data: its script asks the service's own calls for it. So the page is the same for everybody,
and nothing in it needs a right. Files made by others are in `vendor`.
"""

import hashlib
import html
from pathlib import Path
from typing import Any

import falcon

from tally.http.neighbours import Neighbours
from tally.store.idempotency import encode_answer
from tally.version import VERSION

_STATIC = Path(__file__).with_name("static")
_HEAD = (_STATIC / "head.html").read_text(encoding="utf-8").strip()  # of every page
_VENDOR = Path(__file__).with_name("vendor")
_SERVED_OF_VENDOR = ("swagger-ui-bundle.js", "swagger-ui.css")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": falcon.MEDIA_JSON,
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LINKS = {name: f"{name}.json" for name in ("openapi", "asyncapi")} | {
    name: name for name in ("docs", "status", "metrics")
}  # relative: a proxy may put a path before them
_SECURITY = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' {other}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def add_pages(app: Any, neighbours: Neighbours, currency: str = "") -> None:
    """Add the pages of a service and their files to `app`; amounts are in `currency`, "" if unknown."""
    app.add_route("/", RootResource(neighbours, currency))
    app.add_route("/docs", PageResource("docs", neighbours, currency))
    app.add_route("/operations", PageResource("operations", neighbours, currency))
    app.add_route("/static/{name}", StaticResource())


class PageResource:
    """The page `name` of a service: HTML, whatever Accept says."""

    def __init__(self, name: str, neighbours: Neighbours, currency: str) -> None:
        self._page = (_STATIC / f"{name}.html").read_text(encoding="utf-8").replace("{head}", _HEAD)
        self._neighbours = neighbours
        self._filled_in = {"service": neighbours.service, "currency": currency}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The page, with the addresses of both services filled in."""
        page = self._page
        for name, value in (self._filled_in | self._neighbours.addresses(req)).items():
            page = page.replace(f"{{{name}}}", html.escape(value))
        resp.set_header("Content-Security-Policy", _POLICY.format(other=self._neighbours.other(req)))
        _send(req, resp, ".html", page.encode())


class RootResource(PageResource):
    """The page for people; for a program that prefers JSON, links."""

    def __init__(self, neighbours: Neighbours, currency: str) -> None:
        super().__init__(neighbours.service, neighbours, currency)
        self._index = encode_answer({"service": neighbours.service, "version": VERSION, **_LINKS})

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
    """Answer with the content, or with 304 if the client has it already."""
    resp.set_headers(_SECURITY)
    resp.etag = hashlib.sha256(content).hexdigest()[:32]
    if req.if_none_match and any(tag in ("*", resp.etag.strip('"')) for tag in req.if_none_match):
        resp.status = falcon.HTTP_304
        return
    resp.content_type = _TYPES[suffix]
    resp.data = content
