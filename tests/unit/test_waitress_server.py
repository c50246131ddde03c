"""Which modules use waitress, how its loop runs, and how many log lines anybody can cause."""

import io
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from support.clients import answer, connect, connections, head
from support.tally import ROOT
from support.waiting import PATIENCE, eventually
from tally.actors.limits import Limits
from tally.actors.waitress_connections import Channel
from tally.actors.waitress_server import Server
from tally.http.seldom import Seldom
from tally.store.customers import open_database
from tally.store.group_commit import GroupCommit


def test_the_files_of_waitress_alone_reach_into_it() -> None:
    files = [
        file
        for folder in ("actors", "commands", "http", "importing", "recovery", "store")
        for file in (ROOT / folder).glob("*.py")
    ]
    imports = re.compile(r"^\s*(import|from) waitress\b", re.MULTILINE)
    found = {file.name for file in files if imports.search(file.read_text())}
    rooms = ("requests", "answers", "connections", "server")
    assert found == {f"waitress_{room}.py" for room in rooms}


class _Slow:
    """Stands in for a connection that has much to do."""

    accepting = False

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        theirs.close()  # there is always something to read
        self.times = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self.times += 1
        time.sleep(0.01)

    def handle_close(self) -> None:
        """The connection stays."""


@contextmanager
def _serving(directory: Path, app: WSGIApplication, kind: type[Server] = Server) -> Iterator[Server]:
    with (
        socket.socket() as listener,
        closing(GroupCommit(lambda: open_database(directory), lambda: None)) as commits,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        limits = Limits(connections=1000, body_bytes=10**6, unsent_bytes=10**6, sign_ins=1)
        server = kind(app, listener, 1, limits, "", commits, lambda _authorization, _cookie: None)
        yield server
        server.end()
        server.make_room(0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with _serving(tmp_path, _answered) as server:
        yield server


def _answered(_environ: WSGIEnvironment, start_response: StartResponse) -> io.BytesIO:
    start_response("200 OK", [("Content-Length", "2")])
    return io.BytesIO(b"ok")


def test_a_turn_of_the_loop_ends_soon_whatever_there_is_to_do_and_everybody_has_one(server: Server) -> None:
    slow = [_Slow() for _ in range(100)]  # a second of work
    server._map.update({each.ours.fileno(): each for each in slow})
    server.turn(0)
    assert 1 <= sum(each.times for each in slow) <= 5 + 1
    while not all(each.times for each in slow):
        server.turn(0)
    assert max(each.times for each in slow) <= 2
    for each in slow:
        del server._map[each.ours.fileno()]
        each.ours.close()


def test_room_is_made_by_closing_who_got_nothing_for_longest_whatever_he_sends(server: Server) -> None:
    """A byte now and then does not keep a place that somebody new needs."""
    port = server.socket.getsockname()[1]
    with connections(port, 3) as clients, connect(port) as new:
        answered, silent, slow = clients
        _turn_until(server, lambda: len(server.active_channels) == 4)
        answered.sendall(head("GET", "/health/live"))
        _turn_until(server, lambda: any(select.select([answered], [], [], 0)))
        assert answer(answered)[0] == 200
        slow.sendall(b"G")
        _turn_until(server, lambda: any(each.request for each in server.active_channels.values()))
        server.make_room(2)
        assert _is_closed(silent)
        assert _is_closed(slow)
        new.sendall(head("GET", "/health/live"))
        _turn_until(server, lambda: any(select.select([new], [], [], 0)))
        assert answer(new)[0] == 200


def test_room_is_made_before_an_answer_is_sent_by_closing_others(tmp_path: Path) -> None:
    """A client that had been silent for longest was closed with its answer ready, and not sent yet."""
    may_answer = threading.Event()

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> io.BytesIO:
        assert may_answer.wait(PATIENCE)
        return _answered(environ, start_response)

    with _serving(tmp_path, answered) as server, connections(server.socket.getsockname()[1], 2) as clients:
        asks, silent = clients
        _turn_until(server, lambda: len(server.active_channels) == 2)
        asks.sendall(head("GET", "/"))
        _turn_until(server, lambda: any(each.requests for each in server.active_channels.values()))
        may_answer.set()
        eventually(lambda: not any(each.requests for each in server.active_channels.values()))
        server.make_room(1)
        assert _is_closed(silent)
        _turn_until(server, lambda: any(select.select([asks], [], [], 0)))
        assert answer(asks)[0] == 200


class _Tidy(Server):
    """A server that closes idle connections whenever something has happened."""

    def pull_trigger(self) -> None:
        self.maintenance(time.monotonic())
        super().pull_trigger()


def test_who_waited_long_for_an_answer_is_not_idle_when_it_has_come(tmp_path: Path) -> None:
    """It was closed if the loop looked between the answer and the note that something had happened."""

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> io.BytesIO:
        for each in tidy.active_channels.values():
            each.last_activity = float("-inf")
        return _answered(environ, start_response)

    with _serving(tmp_path, answered, _Tidy) as tidy, connect(tidy.socket.getsockname()[1]) as client:
        for _ in range(2):
            client.sendall(head("GET", "/"))
            _turn_until(tidy, lambda: any(select.select([client], [], [], 0)))
            assert answer(client)[0] == 200


class _Overtaken(Channel):
    """A connection whose thread ends the answer just when the loop looks whether it may close."""

    goes_on, has_ended = threading.Event(), threading.Event()
    _writes = _closes = False

    def handle_write(self) -> None:
        self._writes = True
        super().handle_write()
        self._writes = False

    @property
    def close_when_flushed(self) -> bool:
        if self._writes and not self.total_outbufs_len:
            self.goes_on.set()
            assert self.has_ended.wait(PATIENCE)
        return self._closes

    @close_when_flushed.setter
    def close_when_flushed(self, closes: bool) -> None:
        self._closes = closes
        self.has_ended.set()


def _is_left_to_the_loop(channel: Channel) -> bool:
    """Whether much of an answer is unsent, and no thread tries to send it."""
    return channel.total_outbufs_len > 100_000 and not channel._sending


def test_an_answer_that_ends_while_the_loop_sends_is_sent_to_its_end(tmp_path: Path) -> None:
    """The loop saw nothing left to send, and then that the answer was complete: it closed before the end."""

    class Pieces(io.BytesIO):
        def __iter__(self) -> Iterator[bytes]:
            yield b"x" * 500_000  # more than the kernel takes at once, and fewer than would stop the thread
            assert _Overtaken.goes_on.wait(PATIENCE)
            yield b"the end"

    def streamed(_environ: WSGIEnvironment, start_response: StartResponse) -> io.BytesIO:
        start_response("200 OK", [])
        return Pieces()

    with _serving(tmp_path, streamed) as server:
        server.channel_class = _Overtaken
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        with connect(server.socket.getsockname()[1], receive_buffer=4096) as client:
            client.sendall(head("GET", "/"))
            _turn_until(server, lambda: any(map(_is_left_to_the_loop, server.active_channels.values())))
            with ThreadPoolExecutor() as threads:
                came = threads.submit(answer, client)
                _turn_until(server, came.done)
            assert came.result()[2].endswith(b"xthe end")


class _Watched(Channel):
    """A connection that notes which thread closes it."""

    closed_by: ClassVar[list[threading.Thread]] = []

    def handle_close(self) -> None:
        self.closed_by.append(threading.current_thread())
        super().handle_close()


def test_the_loop_alone_closes_connections(tmp_path: Path) -> None:
    """A thread that asked a client for a body, and found it gone, closed what the loop was looking at."""
    is_gone = threading.Event()

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> io.BytesIO:
        assert is_gone.wait(PATIENCE)
        return _answered(environ, start_response)

    with _serving(tmp_path, answered) as server:
        server.channel_class = _Watched
        with connect(server.socket.getsockname()[1]) as client:
            expects = head("POST", "/", 10).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
            client.sendall(head("GET", "/") + expects)
            _turn_until(server, lambda: any(each.requests for each in server.active_channels.values()))
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # close by a reset
        is_gone.set()
        _turn_until(server, lambda: not server.active_channels)
    assert set(_Watched.closed_by) == {threading.current_thread()}


def _turn_until(server: Server, done: Callable[[], bool]) -> None:
    def turned() -> bool:
        server.turn(0.01)
        return done()

    eventually(turned)


def _is_closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1)
    except ConnectionResetError:  # it had sent something that was not read
        return True


def test_of_what_anybody_can_cause_a_few_lines_are_logged_and_how_many_more_there_were() -> None:
    lines = Seldom(seconds=1000, lines=3)
    assert [lines.due() for _ in range(5)] == [0, 0, 0, None, None]
    one = Seldom(seconds=0)
    assert [one.due() for _ in range(3)] == [0, 0, 0]
