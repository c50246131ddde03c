"""A service's HTTP process: a WSGI application on waitress, on a socket shared with its siblings.

waitress cancels queued requests when it is told to stop, so the loop is driven from here. On SIGTERM the
process stops accepting (its siblings go on), answers everything it has accepted, and then ends.

The one writing thread answers requests that change something, many in one commit. waitress's pool answers all
others.
"""

import time
from collections.abc import Callable

import structlog

from tally.actors.actor import TURN_SECONDS, Actor
from tally.actors.limits import Memory
from tally.actors.waitress_server import Server

SPARE_CONNECTIONS = 20  # one in this many is kept free, by closing those that got nothing for longest
FEWEST_SPARE = 5  # waitress counts some of its own among them
LINGER_SECONDS = 0.5

_log = structlog.get_logger()


def run(actor: Actor, server: Server, trouble: Callable[[], str | None]) -> None:
    """Be an HTTP process of a service: serve until told to stop. Ends the server's threads.

    `trouble` is asked again and again why nothing can be written.
    """
    limits = server.limits
    _log.info(
        "limits",
        connections=limits.connections,
        body_bytes=limits.body_bytes,
        unsent_bytes=limits.unsent_bytes,
        sign_ins=limits.sign_ins,
    )
    actor.ready()
    connections = limits.connections - max(FEWEST_SPARE, limits.connections // SPARE_CONNECTIONS)
    actor.on_stop = server.pull_trigger
    memory = Memory()
    while not actor.stopping.is_set():
        actor.beat()
        server.turn(TURN_SECONDS)
        server.make_room(connections)
        actor.trouble(trouble())
        if not server.is_busy():
            memory.give_back()
    server.stop_accepting()
    stopped = time.monotonic()
    # Requests may be under way on connections that are kept open.
    while server.is_busy() or (server.active_channels and time.monotonic() - stopped < LINGER_SECONDS):
        actor.beat()
        server.turn(0.05)
    server.end()
