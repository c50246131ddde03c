"""Reverse proxies before a service, as in production: nginx and HAProxy, from the system's packages."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.clients import connect
from support.disks import unavailable
from support.engines import free_port
from support.waiting import eventually

NAMES = ("nginx", "haproxy")


def _nginx(directory: Path, port: int, upstream: int) -> list[str]:
    """Keeps its connections to the service, and uses each for any client."""
    return _nginx_with(
        directory,
        f"""
            upstream tally {{ server 127.0.0.1:{upstream}; keepalive 1; }}
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://tally;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Host $http_host;
                    proxy_request_buffering off;
                }}
            }}
        """,
    )


def _nginx_with(directory: Path, servers: str) -> list[str]:
    (directory / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
        events {{ }}
        http {{
            log_format line "$request_method $request_uri"; access_log {directory}/access.log line;
            client_body_timeout 2s; client_header_timeout 2s; keepalive_timeout 2s;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            {servers}
        }}
    """)
    return ["-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")]


def _haproxy(directory: Path, port: int, upstream: int) -> list[str]:
    (directory / "haproxy.cfg").write_text(f"""
defaults
    mode http
    timeout connect 5s
    timeout client 2s
    timeout http-request 2s
    timeout server 20s
    log stdout format raw local0
    log-format "%HM %HU"
frontend front
    bind 127.0.0.1:{port}
    default_backend tally
backend tally
    http-reuse always
    server one 127.0.0.1:{upstream} pool-max-conn 1
""")
    return ["-db", "-f", str(directory / "haproxy.cfg")]


_ARGUMENTS: dict[str, Callable[[Path, int, int], list[str]]] = {"nginx": _nginx, "haproxy": _haproxy}


class ReverseProxy(NamedTuple):
    """A running proxy: its port, and the file where it logs requests."""

    port: int
    log: Path

    def requests(self) -> set[str]:
        """Method and target of all requests that it has forwarded or answered so far."""
        return set(self.log.read_text(errors="replace").splitlines())


@contextmanager
def reverse_proxy(name: str, directory: Path, upstream: int) -> Iterator[ReverseProxy]:
    """Run the named proxy before a service's port; without the program, the test is skipped by name.

    It keeps one connection to the service, and sends any client's request over it.
    """
    port, log = free_port(), directory / "access.log"
    with _running(name, _ARGUMENTS[name](directory, port, upstream), log, port):
        yield ReverseProxy(port, log)


@contextmanager
def front_door(directory: Path, servers: str, port: int) -> Iterator[None]:
    """nginx with these `server` blocks, one of which listens at the port; see above."""
    with _running("nginx", _nginx_with(directory, servers), directory / "output.log", port):
        yield


@contextmanager
def _running(name: str, arguments: list[str], output: Path, port: int) -> Iterator[None]:
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        unavailable(name, f"it is not installed; Debian's package is called {name}")
    with output.open("w") as told:
        process = subprocess.Popen([program, *arguments], stdout=told)
    try:
        eventually(lambda: connect(port)).close()
        yield
    finally:
        process.terminate()
        process.wait()
