"""How a listening socket stops: connected clients are served, later ones are refused, none is cut off."""

import socket
import threading
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import pytest

from support.engines import free_port
from tally.actors.listening import PortTaken, bind, let_in_no_more

HAMMERS = 4  # clients in each of the two processes
STOPS = 40


def test_who_has_connected_is_accepted_and_who_has_not_hears_nothing_until_it_is_refused() -> None:
    listener = bind("127.0.0.1", 0, "test.port")
    address = listener.getsockname()
    with socket.create_connection(address), socket.socket() as late:
        let_in_no_more([listener])
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect(address)
        listener.setblocking(False)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()
    with socket.socket() as later, pytest.raises(ConnectionRefusedError):
        later.connect(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_client_that_had_connected_is_cut_off_however_many_try(host: str) -> None:
    context = get_context("fork")
    over, lost = context.Value("i", 0), context.Value("i", 0)
    address = host, free_port()
    clients = [context.Process(target=_hammer, args=(address, over, lost)) for _ in range(2)]
    for client in clients:
        client.start()
    for _ in range(STOPS):
        listener = bind(*address, "test.port")
        _serve(listener, 20)
        let_in_no_more([listener])
        listener.setblocking(False)
        while _serve(listener, 1):
            pass
        listener.close()
    over.value = 1
    for client in clients:
        client.join()
    assert lost.value == 0


def _serve(listener: socket.socket, count: int) -> bool:
    """Answer `count` clients; False if fewer come."""
    for _ in range(count):
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, TimeoutError):
            return False
        with connection:
            connection.setblocking(True)
            if connection.recv(1):
                connection.sendall(b"!")
    return True


def _hammer(address: Any, over: "Synchronized[int]", lost: "Synchronized[int]") -> None:
    """Connect, ask and wait for the answer, in a loop. Count the clients that get no answer."""

    def work() -> None:
        while not over.value:
            with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as client:
                try:
                    client.settimeout(0.05)  # the kernel would wait a second before the next try
                    client.connect(address)
                except OSError:
                    continue
                client.settimeout(None)
                try:
                    client.sendall(b"?")
                    answered = client.recv(1) == b"!"
                except OSError:
                    answered = False
                if not answered:
                    with lost.get_lock():
                        lost.value += 1

    threads = [threading.Thread(target=work) for _ in range(HAMMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_port_that_is_taken_is_told_with_the_setting() -> None:
    with bind("127.0.0.1", 0, "test.port") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}.*set test\.port"):
            bind("127.0.0.1", port, "test.port")
