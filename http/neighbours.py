"""The addresses of both services for a browser, and the access of one's page to the other (CORS)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import falcon

from tally.redis_url import bracketed

LOGIN = "/auth/login"  # on the accounts service
SESSION = "/auth/session"  # on both

_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(":[0-9]*$")
_EXPOSED = "Retry-After, Tally-Event-Id"
_SENT = "Authorization, Prefer, Tally-After"


class Neighbours:
    """The links to both services on the pages of `service`.

    `ports` are those of both services, `urls` their addresses for a browser. Without one, a service is at its
    port of the host that was asked.
    """

    def __init__(self, service: str, ports: Mapping[str, int], urls: Mapping[str, str]) -> None:
        self.service = service
        (self._other,) = ports.keys() - {service}
        self._ports = ports
        self._urls = {name: url.rstrip("/") + "/" for name, url in urls.items() if url}

    def addresses(self, req: falcon.Request) -> dict[str, str]:
        """The address of each service, which ends with a slash."""
        # A port may be empty (RFC 9110, section 4.2.3). Falcon's `host` fails then.
        host = _PORT.sub("", req.env.get("HTTP_HOST", "")).strip("[]")
        host = bracketed(host) if _NAME.fullmatch(host) or _is_ipv6(host) else "localhost"
        found = {name: f"{req.scheme}://{host}:{port}/" for name, port in self._ports.items()}
        return found | self._urls

    def other(self, req: falcon.Request) -> str:
        """The origin of the other service, as a browser writes it (RFC 6454).

        That is its scheme, host and port, the port left out where it is the scheme's own.
        """
        url = urlsplit(self.addresses(req)[self._other])
        own = {"http": 80, "https": 443}[url.scheme]
        port = "" if url.port in (None, own) else f":{url.port}"
        return f"{url.scheme}://{bracketed(url.hostname or '')}{port}"

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a browser's preflight request: what the other service's page may send here."""
        if req.method != "OPTIONS" or not self._is_asked_by_other(req):
            return
        methods = "GET, POST, DELETE" if req.path in (LOGIN, SESSION) else "GET"
        resp.set_header("Access-Control-Allow-Methods", methods)
        resp.set_header("Access-Control-Allow-Headers", _SENT)
        resp.status = falcon.HTTP_204
        resp.complete = True

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Let the other service's page, which has another origin, read the answer in a browser."""
        if "HTTP_ORIGIN" not in req.env:
            return
        resp.append_header("Vary", "Origin")
        if self._is_asked_by_other(req):
            resp.set_header("Access-Control-Allow-Origin", req.env["HTTP_ORIGIN"])
            resp.set_header("Access-Control-Allow-Credentials", "true")
            resp.set_header("Access-Control-Expose-Headers", _EXPOSED)

    def _is_asked_by_other(self, req: falcon.Request) -> bool:
        return bool(req.env.get("HTTP_ORIGIN") == self.other(req))


def _is_ipv6(host: str) -> bool:
    """Whether this is an address, without a zone."""
    with suppress(ValueError):
        return "%" not in host and bool(IPv6Address(host))
    return False
