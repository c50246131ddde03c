"""A Redis with TLS, client certificates, and a user with only the rights that Tally needs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from support import servers
from support.cli import command, settings
from support.engines import free_port
from support.load import Load
from support.tally import running
from support.waiting import eventually
from tally.actors.redis_fitness import RIGHTS

PASSWORD = "between us"
FILES = {"ca_file": "tls/ca.crt", "cert_file": "tls/client.crt", "key_file": "tls/client.key"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `tls/` has a CA, and certificates signed by it for a server and a client."""
    home = tmp_path_factory.mktemp("home")
    tls = home / "tls"
    tls.mkdir()
    _openssl(tls, "req", "-x509", "-nodes", *_new("ca"), "-days", "2", "-out", "ca.crt")
    signed = [
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-copy_extensions",
        "copy",
    ]
    named = ["-addext", "subjectAltName=IP:127.0.0.1"]
    for name in ("server", "client"):
        _openssl(tls, "req", "-nodes", *_new(name), "-out", f"{name}.csr", *named)
        _openssl(tls, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")
    return home


@pytest.fixture(scope="module")
def port(home: Path) -> Iterator[int]:
    """The port of a server that accepts only TLS, and only clients with a certificate."""
    port, tls = free_port(), home / "tls"
    options = {
        "port": 0,
        "tls-port": port,
        "bind": "127.0.0.1",
        "dir": home,
        "appendonly": "yes",
        "tls-cert-file": tls / "server.crt",
        "tls-key-file": tls / "server.key",
        "tls-ca-cert-file": tls / "ca.crt",
        "tls-auth-clients": "yes",
        "logfile": "redis.log",
    }
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    with subprocess.Popen([servers.program("redis-7.0"), *arguments]) as process:
        try:
            client: Any = redis.Redis(
                host="127.0.0.1",
                port=port,
                ssl=True,
                ssl_ca_certs=str(tls / "ca.crt"),
                ssl_certfile=str(tls / "client.crt"),
                ssl_keyfile=str(tls / "client.key"),
            )
            eventually(lambda: _answers(client))
            rights = ("~event-stream", "~{event-stream}:*", *RIGHTS.split())
            client.execute_command("ACL", "SETUSER", "tally", "on", f">{PASSWORD}", *rights)
            client.execute_command("ACL", "SETUSER", "default", "off")
            yield port
        finally:
            process.kill()


def test_tally_runs_over_tls_with_the_least_rights(home: Path, port: int) -> None:
    url = f"rediss://tally:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/0"
    with running(home, redis={"url": url, "embedded": "never", **FILES}) as tally:
        load = Load(tally, clients=1, spread=3)
        with load:
            load.goes_on(20)
        eventually(load.counted)
        eventually(tally.settled)
        found = command("check", "--config", home / "tally.toml")
        assert (found.returncode, PASSWORD in found.stdout) == (0, False), found
        listed = command("groups", "list", "--config", home / "tally.toml")
        assert listed.stdout.count("@") >= 2, listed


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "TLS fails: CERTIFICATE_VERIFY_FAILED. See redis.ca_file"),
        ({"ca_file": FILES["ca_file"]}, "TLS fails: TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    ],
)
def test_what_tls_lacks_is_told(home: Path, port: int, files: dict[str, str], told: str) -> None:
    url = f"rediss://127.0.0.1:{port}/0"
    file = settings(home, redis={"url": url, "embedded": "never", **files})
    for name in ("check", "run"):
        done = command(name, "--config", file)
        assert done.returncode == 1
        assert told in done.stdout + done.stderr


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _new(name: str) -> list[str]:
    return ["-newkey", "rsa:2048", "-keyout", f"{name}.key", "-subj", f"/CN={name}"]


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
