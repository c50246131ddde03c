"""Which modules use waitress, how its loop runs, and how many log lines anybody can cause."""

import io
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from support.clients import answer, connect, connections, head
from support.tally import ROOT
from support.waiting import eventually
from tally.actors.limits import Limits
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with (
        socket.socket() as listener,
        closing(GroupCommit(lambda: open_database(tmp_path), lambda: None)) as commits,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        limits = Limits(connections=1000, body_bytes=10**6, unsent_bytes=10**6, sign_ins=1)
        server = Server(_answered, listener, 1, limits, "", commits, lambda _authorization, _cookie: None)
        yield server
        server.end()
        server.make_room(0)


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
