"""A client of a running service's HTTP interface, over one kept connection.

It uses the standard library: one connection and two methods need no pool, and a refused request raises an
exception of ours anyway.
"""

import csv
import http.client
import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from tally.commands.command_line import Failed
from tally.commands.inherited import CannotPrint
from tally.config import AccountsSettings, CustomersSettings
from tally.events import now
from tally.redis_url import bracketed
from tally.store.idempotency import KEPT_SECONDS

PATIENCE_SECONDS = 60  # how long a service may be away, for example for a restart

_ANSWER_SECONDS = 60
_LIGHT = "/accounts/0/is-owned-by/nobody"  # on accounts: a call that is always cheap
_MARGIN_SECONDS = 600  # the service keeps a key a little longer than its client waits
_PASSING = (502, 503, 504)
_AS_CSV = {"Accept": "text/csv"}
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 where a server listens, and how it is reached from here


class Unavailable(Failed):
    """The service can't be reached, or can't work at the moment; trying again may help.

    `may_be_done` tells whether it may have carried out the request anyway.
    """

    def __init__(self, message: str, may_be_done: bool) -> None:
        super().__init__(message)
        self.may_be_done = may_be_done


class Refused(Failed):
    """The service answered, with the HTTP status `http_status`, that it will not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = status
        self.may_be_done = not 400 <= status < 500


def patient(**told: Any) -> Retrying:
    """Retries a function while a service is away, for PATIENCE_SECONDS unless `told` otherwise."""
    usual: dict[str, Any] = {
        "retry": retry_if_exception_type(Unavailable),
        "wait": wait_random_exponential(multiplier=0.1, max=2),
        "stop": stop_after_delay(PATIENCE_SECONDS),
        "reraise": True,
    }
    return Retrying(**usual | told)


@contextmanager
def insisting(remedy: str) -> Iterator[None]:
    """If a service can't be reached, end the program, with `remedy` in the message."""
    try:
        yield
    except Unavailable as error:
        raise Failed(f"{error}; {remedy}") from error


def is_forgotten(sent: datetime) -> bool:
    """Whether a service may have forgotten an Idempotency-Key that was first sent at that time."""
    return now() - sent > timedelta(seconds=KEPT_SECONDS - _MARGIN_SECONDS)


class _Made(msgspec.Struct):
    """The answer to a POST: the id of what was made, or all ids of a batch."""

    id: str = ""
    ids: list[str] = []

    def __post_init__(self) -> None:
        if not self.id and not self.ids:
            raise ValueError("Expected ids")


def address(settings: AccountsSettings | CustomersSettings) -> str:
    """A service's address from this machine, as a URL without a path."""
    return f"http://{bracketed(_ANYWHERE.get(settings.host, settings.host))}:{settings.port}"


class ServiceClient:
    """A client of one service. Each request is sent once, and waits for up to a minute.

    Every call raises Refused, or Unavailable when it can't be done now. Not for two threads at once.
    """

    def __init__(self, name: str, settings: AccountsSettings | CustomersSettings, token: str | None) -> None:
        host = _ANYWHERE.get(settings.host, settings.host)
        self._name = f"the {name} service at {address(settings)}"
        self._connection = http.client.HTTPConnection(host, settings.port, timeout=_ANSWER_SECONDS)
        self.events: str | None = None
        """The events of the last change."""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def has_token(self) -> bool:
        """Whether its requests are those of a user, who may see only a part of what is there."""
        return bool(self._headers)

    def get(self, path: str) -> Any:
        """The content at `path`."""
        return self._request("GET", path)

    def await_events(self, events: str, seconds: int) -> None:
        """On accounts: wait until these events are applied; Unavailable if that takes longer."""
        self._request("GET", _LIGHT, headers={"Tally-After": events, "Prefer": f"wait={seconds}"})

    def post(self, path: str, content: Any, idempotency_key: str) -> list[str]:
        """Make something, or all of a batch, and answer the ids. May be repeated."""
        made: _Made = self._request("POST", path, content, {"Idempotency-Key": idempotency_key}, _Made)
        return made.ids or [made.id]

    def patch(self, path: str, content: Any) -> None:
        """Change something. May be repeated."""
        self._request("PATCH", path, content)

    def delete(self, path: str, revision: int) -> None:
        """Delete something with this revision; Refused with 412 if it has another. May be repeated."""
        self._request("DELETE", path, headers={"If-Match": f'"{revision}"'})

    def rows(self, path: str) -> Iterator[list[str]]:
        """The rows of a list, as they come, without the header line. Read it to the end."""
        with self._answered("GET", path, headers=_AS_CSV) as response:
            rows = csv.reader(io.TextIOWrapper(response, "utf-8", newline=""))
            next(rows, None)
            yield from rows

    def download(self, path: str, to: BinaryIO) -> None:
        """Write a list to a file as CSV, as it comes. If this raises, the file is incomplete."""
        with self._answered("GET", path, headers=_AS_CSV) as response:
            shutil.copyfileobj(response, to)

    @contextmanager
    def _answered(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, to be read as it comes."""
        try:
            self._connection.request(method, path, body, {**self._headers, **headers})
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error
        try:
            with self._connection.getresponse() as response:
                self._insist_on_success(response)
                yield response
        except (BrokenPipeError, CannotPrint):  # of whoever reads the list: the service never gives these
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """May be repeated."""
        self._connection.close()

    def _request(
        self, method: str, path: str, content: Any = None, headers: Mapping[str, str] = {}, answer: Any = Any
    ) -> Any:
        body = None if content is None else msgspec.json.encode(content, enc_hook=str)
        with self._answered(method, path, body, headers) as response:
            answered = response.read()
        self.events = response.headers.get("Tally-Event-Id")
        if response.status == 204:
            return None
        try:
            return msgspec.json.decode(answered, type=answer)
        except msgspec.DecodeError as error:
            raise Refused(response.status, f"{self._name} answers as no Tally does: {error}") from error

    def _unavailable(self, error: Exception) -> Unavailable:
        self._connection.close()
        sent = not isinstance(error, ConnectionRefusedError)
        return Unavailable(
            f"{self._name} does not answer: {str(error) or type(error).__name__}", may_be_done=sent
        )

    def _insist_on_success(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status in (200, 201, 204):
            return
        said = f"{self._name} answers {status}: {_reason(response.read())}"
        if status in _PASSING:
            raise Unavailable(said, may_be_done=True)
        how = "give a token with --token or TALLY_TOKEN (POST /auth/login has them)"
        raise Refused(status, f"{said.rstrip('.')}; {how}" if status == 401 else said)


def _reason(content: bytes) -> str:
    """A problem's message, with the first of its errors, on one line."""
    try:
        problem = msgspec.json.decode(content)
        first, *_ = problem.get("errors") or [None]
        detail = str(problem["detail"])
        return f"{detail} {first['field']}: {first['message']}" if first else detail
    except (ValueError, KeyError, TypeError, AttributeError):
        return repr(content[:200])
