"""Notifies systemd, for a service of Type=notify; see sd_notify(3)."""

import os
import socket
from contextlib import suppress


def tell(state: str) -> None:
    """Tell systemd a state, if it started this process and waits for it. Never blocks; may be repeated."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # a socket without a file
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        # Perhaps nobody listens; systemd always does, and would report that the start took too long.
        with suppress(OSError):
            sender.sendto(state.encode(), address)
