"""A service's HTTP process: a WSGI application on waitress, on a socket shared with its siblings.

waitress cancels what is queued when it is told to stop, so the loop is driven from here: on SIGTERM
the process stops accepting (its siblings go on), answers everything it has accepted, and then ends.

Requests that change something are answered by the one thread that writes, many in one commit; all
others by waitress's pool.
"""

import os
import resource
import socket
import time
from typing import Any

from tally.actors.actor import TURN_SECONDS, Actor
from tally.actors.waitress_server import Server
from tally.http.service import Api

MOST_CONNECTIONS = 2000  # of one process
FEWEST_CONNECTIONS = 10
SPARE_CONNECTIONS = 20  # one in so many is kept free, by closing those that have been idle longest
FEWEST_SPARE = 5  # waitress counts some of its own among them
LINGER_SECONDS = 0.5

_FILES_WANTED = 4096  # room for MOST_CONNECTIONS
_FILES_OF_A_THREAD = 8  # its connection to the database, and what GET /status opens
_OTHER_FILES = 50  # the threads that write and make long answers, the log, what Python opens now and then


def run(
    actor: Actor,
    app: Any,
    listener: socket.socket,
    threads: int,
    trusted_proxy: str,
    api: Api,
) -> None:
    """Be an HTTP process of a service, whose `app` is observed."""
    connections = most_connections(_raise_file_limit(), len(os.listdir("/proc/self/fd")), threads)
    commits, refusal = api.service.commits, api.gate.refusal
    server = Server(app, listener, threads, connections, trusted_proxy, commits, refusal)
    actor.ready()
    _serve(actor, server, connections - max(FEWEST_SPARE, connections // SPARE_CONNECTIONS))


def most_connections(files: int, opened: int, threads: int) -> int:
    """How many connections a process may hold that may have `files` open, and has `opened` already.

    A long body or answer takes a file too, for a while: one in two connections may have one.
    """
    free = files - opened - threads * _FILES_OF_A_THREAD - _OTHER_FILES
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, free * 2 // 3))


def _serve(actor: Actor, server: Server, connections: int) -> None:
    """Serve until the actor is to stop, then answer what was accepted and return."""
    actor.on_stop(server.pull_trigger)
    while not actor.stopping.is_set():
        actor.beat()
        server.turn(TURN_SECONDS)
        server.make_room(connections)
    server.stop_accepting()
    stopped = time.monotonic()
    # Requests may be under way on connections that are kept open.
    while server.is_busy() or (server.active_channels and time.monotonic() - stopped < LINGER_SECONDS):
        actor.beat()
        server.turn(0.05)
    server.end()


def _raise_file_limit() -> int:
    """Each connection is a file, and the usual limit is 1,024. The limit as it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_WANTED:
        soft = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _FILES_WANTED if soft == resource.RLIM_INFINITY else soft
