"""A light HTTP client: it shares the machine's cores with the measured processes."""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

ANSWER_SECONDS = 30.0


class Unexpected(Exception):
    """A working Tally doesn't answer like this. The message has the expected and the actual answer."""


class Client:
    """One kept-alive connection to the service at `port` of 127.0.0.1, opened at the first request.

    For one thread. Waits up to ANSWER_SECONDS for an answer; repeats no request.
    """

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Send a request; return the status, and the JSON of the answer."""
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def get(self, path: str) -> Any:
        """The JSON at `path`. Raises Unexpected when there is none."""
        status, content = self.request("GET", path)
        return _expected(200, status, content)

    def post(self, path: str, content: object) -> Any:
        """Create something, and return the JSON of the answer. Raises Unexpected if it was refused."""
        return self.post_encoded(path, json.dumps(content).encode())

    def post_encoded(self, path: str, body: bytes) -> Any:
        """Like `post`, for JSON that was encoded before."""
        status, content = self.request("POST", path, body)
        return _expected(201, status, content)

    def close(self) -> None:
        """May be repeated."""
        self._connection.close()


def post_all(port: int, path: str, bodies: Sequence[bytes], clients: int) -> list[Any]:
    """POST each body by its own request, `clients` at a time; return the answers, in the same order."""
    waiting = deque(enumerate(bodies))
    answers: list[Any] = [None] * len(bodies)

    def work() -> None:
        with closing(Client(port)) as client:
            while waiting:
                try:
                    index, body = waiting.popleft()
                except IndexError:
                    return
                answers[index] = client.post_encoded(path, body)

    with ThreadPoolExecutor(clients) as threads:
        try:
            for done in [threads.submit(work) for _ in range(clients)]:
                done.result()
        finally:
            waiting.clear()  # after a failure or Ctrl-C the others end as well
    return answers


def until(look: Callable[[], bool], pause: float, seconds: float = 60.0) -> None:
    """Poll every `pause` seconds until `look` is true. Raises Unexpected after `seconds`."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise Unexpected(f"not true after {seconds:.0f} s: {look.__qualname__}")
        time.sleep(pause)


def _expected(wanted: int, status: int, content: Any) -> Any:
    if status != wanted:
        raise Unexpected(f"expected the status {wanted}, got {status}: {content}")
    return content
