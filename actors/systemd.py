"""What systemd wants to hear from a service of Type=notify; see sd_notify(3)."""

import os
import socket


def tell(state: str) -> None:
    """Tell systemd, if it started this process and waits to hear. Never blocks; may be repeated."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # a socket without a file
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(state.encode(), address)
        except OSError:
            return  # nobody listens; systemd, which always does, would say that the start took too long
