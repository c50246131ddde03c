"""The common parts of both services: writes that share commits, reads from a pool, and answers."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import falcon
from msgspec import Struct, json

from tally.events import Id
from tally.http.auth import SAFE_METHODS, principal
from tally.http.long_lists import LongLists
from tally.http.neighbours import LOGIN, SESSION, Neighbours
from tally.http.problems import FieldError, Refusal, WrongFields
from tally.http.status import StatusReport
from tally.http.tokens import Tokens
from tally.store.accounts import Accounts
from tally.store.cause import Cause, parse_trace_parent
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.errors import StoreUnavailable
from tally.store.group_commit import AnswerAfter, GroupCommit
from tally.store.idempotency import Answer, IdempotencyKeys, KeyedRequest, encode_answer
from tally.store.ranges import Range

SINGLE_BODY = 1024 * 1024  # bytes
BATCH_BODY = 16 * SINGLE_BODY
NODE = "Tally-Node"  # of a list: the node whose it is
EVENT_ID = "Tally-Event-Id"  # of an answer: the events that tell of the change
VISIBLE_ASCII = "^[!-~]{1,200}$"  # what an Idempotency-Key is

_NO_CHANGES = (LOGIN, SESSION, "/operations/redrive", "/operations/edit", "/operations/discard", "/imports")
_VISIBLE_ASCII = re.compile(VISIBLE_ASCII)
_REVISION = re.compile("[0-9]{1,18}")


Store = Accounts | Customers
"""The data of a service, in one database."""

S = TypeVar("S", bound=Store)
T = TypeVar("T")


class Outside(NamedTuple):
    """The settings and parts that a process gives to the service that it serves.

    `service` is its name, `node` the number of its node. `open_database` opens its database; `refusal` tells
    why nothing may be written there. `after_commit` is called after each commit and must not block. `status`
    answers GET /status, for an admin or not. With `tokens`, users sign in; without, everybody may do
    everything. For `neighbours` see create_app. It applies the events of sources whose names begin with
    `source_prefix`. `gone` asks Redis which events of a group no outbox has any more, by source; none while
    it is away. It may block.
    """

    service: str
    node: int
    open_database: Callable[[], Database]
    refusal: Callable[[], StoreUnavailable | None]
    after_commit: Callable[[], None]
    status: Callable[[bool], StatusReport]
    tokens: Tokens | None
    neighbours: Neighbours
    source_prefix: str
    gone: Callable[[str], Mapping[str, list[Range]]]


class Service(Generic[S]):
    """One service's state in an HTTP process: one connection that writes, others that read.

    It is made also while its database can't be opened: then each call that needs it says why, until it can.
    Its data are that kind of `store`; for `answer_after` see GroupCommit. Safe for any number of threads.
    """

    def __init__(
        self, outside: Outside, store: Callable[[Database], S], answer_after: AnswerAfter | None = None
    ) -> None:
        self.outside = outside
        self._open_store: Callable[[], S] = lambda: store(outside.open_database())
        self.commits = GroupCommit(self._open_writer, outside.after_commit, answer_after)
        self.long_lists = LongLists()
        self._idle: list[S] = []  # readers; a list's append and pop are atomic

    def write(self, change: Callable[[S], T]) -> T:
        """Run `change` in a transaction that it may share with others; see GroupCommit.run.

        Raises NotPrimary, NotInPlace or NotRenewed if nothing may be written here.
        """
        self.insist_on_permission()
        return self.note(change)

    def note(self, change: Callable[[S], T]) -> T:
        """Like `write`, but for data of this machine only, without events. Works at a standby, too."""
        return self.commits.run(lambda: change(self._writer))

    def insist_on_permission(self) -> None:
        """Check that this may write: a standby may not. Raises NotPrimary, NotInPlace or NotRenewed."""
        if refusal := self.outside.refusal():
            raise refusal

    def take_away(self, resp: falcon.Response, change: Callable[[S], object]) -> None:
        """Like `write`, and answer 204."""
        _, events = self.write(lambda store: store.outbox.telling(lambda: change(store)))
        resp.status = falcon.HTTP_204
        if events:
            resp.set_header(EVENT_ID, str(events))

    def create(
        self, req: falcon.Request, resp: falcon.Response, body: bytes, change: Callable[[S, Cause], Answer]
    ) -> None:
        """Like `write`, and answer 201; with an Idempotency-Key, `change` runs only the first time.

        It gets the Cause for its events. Raises WrongFields for an invalid key, KeyReused for one that came
        with another request.
        """
        resp.location = self._answer_once(req, resp, body, change).location
        resp.status = falcon.HTTP_201

    def change_row(
        self, req: falcon.Request, resp: falcon.Response, body: bytes, change: Callable[[S, Cause], Any]
    ) -> None:
        """Like `create`, but answer the row that `change` returns; its revision is its ETag."""
        answer = self._answer_once(
            req, resp, body, lambda store, cause: Answer(None, encode_answer(change(store, cause)))
        )
        resp.etag = str(json.decode(answer.body)["revision"])

    def _answer_once(
        self, req: falcon.Request, resp: falcon.Response, body: bytes, change: Callable[[S, Cause], Answer]
    ) -> Answer:
        key = req.env.get("HTTP_IDEMPOTENCY_KEY")
        keyed = None
        if key is not None:
            if not _VISIBLE_ASCII.match(key):
                raise WrongFields(
                    [FieldError("Idempotency-Key", "Expected 1 to 200 visible ASCII characters")]
                )
            own_key = f"{principal(req).name} {key}".lstrip()  # different for each user; a key holds no blank
            keyed = KeyedRequest(own_key, req.path, body)
        told = cause(req, keyed)

        def make(store: S) -> Answer:
            made, events = store.outbox.telling(lambda: change(store, told))
            return Answer(made.location, made.body, str(events) if events else None)

        answer = self.write(
            lambda store: self._keys.once(keyed, lambda: make(store)) if keyed else make(store)
        )
        if answer.events is not None:
            resp.set_header(EVENT_ID, answer.events)
        resp.data = answer.body
        return answer

    def close(self) -> None:
        """Close the database. Nothing may be under way, and nothing may follow."""
        self.commits.close()
        for store in self._idle:
            store.database.close()

    @contextmanager
    def read(self) -> Iterator[S]:
        """Read from a snapshot. Keep it short, and never wait for a client inside."""
        store = self._idle.pop() if self._idle else self._open_store()
        try:
            with store.database.snapshot():
                yield store
        finally:
            self._idle.append(store)

    def _open_writer(self) -> Database:
        self._writer = self._open_store()
        self._keys = IdempotencyKeys(self._writer.database)
        self._writer.database.expect_writes()
        return self._writer.database


class Resource(Struct, Generic[S]):
    """Answers calls of a service."""

    _service: Service[S]


def is_change(method: str, path: str) -> bool:
    """Whether a request changes something in the database.

    Signing in doesn't count, because checking a password takes long. Dead letters don't, because Redis has
    them. An imported file doesn't, because reading it first takes long.
    """
    path = "/" + path.lstrip("/")  # as waitress reads slashes
    return method not in SAFE_METHODS and path not in _NO_CHANGES


def wanted_revisions(req: falcon.Request) -> list[int] | None:
    """The revisions that the row may have, by If-Match; None for any.

    A text without any tag allows none. Falcon reads it as if the header were missing.
    """
    text = req.env.get("HTTP_IF_MATCH")
    if text is None or text.strip() == "*":
        return None
    tags = req.if_match or ()
    strong = (str(tag) for tag in tags if isinstance(tag, falcon.ETag) and not tag.is_weak)
    return [int(tag) for tag in strong if _REVISION.fullmatch(tag)]


def read_body(req: falcon.Request, limit: int = SINGLE_BODY) -> bytes:
    """The request's body, whatever its Content-Type.

    Raises Refusal above `limit` bytes, and HTTPUnsupportedMediaType for one with a
    Content-Encoding, such as gzip.
    """
    length = req.content_length or 0  # waitress counts chunked bodies
    if length > limit:
        raise Refusal(413, "Body too large", f"At most {limit} bytes are taken here.")
    coding = req.env.get("HTTP_CONTENT_ENCODING")
    if coding and coding.lower() != "identity":
        raise falcon.HTTPUnsupportedMediaType(
            title="Packed body",
            description=f"Bodies are taken as they are, not as Content-Encoding: {coding[:100]}.",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
        )
    body: bytes = req.stream.read(length)
    return body


def cause(req: falcon.Request, keyed: KeyedRequest | None = None) -> Cause:
    """A request's Cause for its events: trace context (if it is valid), key, and user."""
    trace_parent = parse_trace_parent(req.env.get("HTTP_TRACEPARENT"))
    return Cause(trace_parent, keyed.request_key() if keyed else None, principal(req).name or None)


def path_id(raw: str, kind: str) -> Id:
    """An id in a path. Raises HTTPNotFound for text that can't be an id."""
    try:
        return Id.parse(raw)
    except ValueError:
        raise falcon.HTTPNotFound(description=f"There is no {kind} {raw[:100]}.") from None
