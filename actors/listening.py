"""Sockets that listen for clients, and how they stop without cutting anybody off."""

import ctypes
import socket
import struct
import time
from collections.abc import Collection
from contextlib import suppress

from tally.redis_url import bracketed

HANDSHAKE_SECONDS = 0.05  # in which clients that are about to connect have done so
_BACKLOG = 1024
_SO_ATTACH_FILTER = 26  # socket(7) of Linux; Python has no name for it
# A program for packets, in the code that bpf(4) describes: pass all but those that open a connection.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of a TCP header's flags (RFC 9293, 3.1)
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # yes: drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass all of it
)


class PortTaken(Exception):
    """A service's address can't be listened on; the message says which, and why."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens on the address that `setting` gives. Raises PortTaken."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise PortTaken(
            f"can't listen on {bracketed(host)}:{port}: {error.strerror}; "
            f"stop what holds it, or set {setting}"
        ) from error


def let_in_no_more(listeners: Collection[socket.socket]) -> None:
    """Let no further client connect, in any process that has these sockets. Takes HANDSHAKE_SECONDS.

    The kernel completes connections by itself, and resets those that nobody has accepted when the socket is
    closed. A client may have sent its request by then. So call this first, then accept what is there, and
    close. Who tries to connect meanwhile hears nothing, tries again a second later and is refused. Where the
    kernel has no such filter (only Linux has), nothing changes.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _NO_SYN))
    option = struct.pack("@HP", len(_NO_SYN), ctypes.addressof(program))
    for listener in listeners:
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
    time.sleep(HANDSHAKE_SECONDS)
