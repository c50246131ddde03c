"""The programs in docs/reading-the-stream.md run unchanged on the stream of a running Tally."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from integration.conftest import invoice, new_customer, new_invoice

from support.disks import unavailable
from support.engines import bundled_process, free_port
from support.tally import ROOT, Tally, running
from support.waiting import eventually

PAGE = ROOT / "docs" / "reading-the-stream.md"
GROUP = "revenue-report"
DEBIAN_MODULES = "/usr/share/nodejs"  # the folder of the Debian package node-redis


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("stream")) as tally:
        yield tally


@pytest.fixture(scope="module")
def client(alone: Tally) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(alone.settings["redis"]["url"], protocol=2) as client:
        yield client


@pytest.fixture(scope="module")
def service(alone: Tally, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Service"]:
    """The page's service, not running yet, with a Redis of its own."""
    with bundled_process(tmp_path_factory.mktemp("own"), free_port()) as own:
        yield _service(alone.settings["redis"]["url"], own, tmp_path_factory.mktemp("service"))


def _service(url: str, own: str, directory: Path) -> "Service":
    """The page's service for the stream at `url`, with a Redis of its own at `own`."""
    node = shutil.which("node")
    if node is None:
        unavailable("Node.js", "no program `node` (Debian: nodejs)")
    environment = os.environ | {
        "REDIS_URL": url,
        "OWN_REDIS_URL": own,
        "NODE_PATH": os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), DEBIAN_MODULES])),
    }
    tried = subprocess.run([node, "-e", 'require("redis")'], env=environment, capture_output=True, text=True)
    if tried.returncode:
        unavailable("Node.js's package redis", "it can't be loaded (Debian: node-redis)")
    (code,) = re.findall(r"```js\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = directory / "revenue-report.js"
    script.write_text(code)
    return Service([node, str(script)], environment, directory / "output")


class Service:
    """A program that prints lines."""

    def __init__(self, command: list[str], environment: dict[str, str], output: Path) -> None:
        self._command = command
        self._environment = environment
        self._output = output

    @contextmanager
    def running(self) -> Iterator[Callable[[], list[str]]]:
        """Run it, and yield its output so far. It is killed at the end."""
        with self._output.open("w") as output:
            process = subprocess.Popen(self._command, env=self._environment, stdout=output, stderr=output)
        try:
            yield lambda: self._output.read_text().splitlines()
        finally:
            process.kill()
            process.wait()


def _done(client: redis.Redis) -> bool:
    """Whether the service has acknowledged every entry."""
    last: Any = client.xinfo_stream("event-stream")
    groups: Any = client.xinfo_groups("event-stream")
    return any(
        group["name"] == GROUP.encode()  # created by the service when it starts
        and group["pending"] == 0
        and group["last-delivered-id"] == last["last-generated-id"]
        for group in groups
    )


def test_it_prints_what_each_customer_has_bought(alone: Tally, client: redis.Redis, service: Service) -> None:
    customer, other = new_customer(alone.customers), new_customer(alone.customers)
    alone.customers.post("/invoices/batch", [invoice(customer, 100), invoice(customer, 20)])
    with service.running() as lines:
        eventually(lambda: f"customer {customer}: 120" in lines())
        mistaken = new_invoice(alone.customers, other, 7)
        new_invoice(alone.customers, other, 1)
        eventually(lambda: f"customer {other}: 8" in lines())
        alone.customers.delete(f"/invoices/{mistaken}")
        eventually(lambda: lines()[-1:] == [f"customer {other}: 1"])
        eventually(lambda: _done(client))


def test_what_comes_twice_counts_once(alone: Tally, client: redis.Redis, service: Service) -> None:
    customer = new_customer(alone.customers)
    new_invoice(alone.customers, customer, 300)
    with service.running() as lines:
        eventually(lambda: lines() == [f"customer {customer}: 300"])
        newest: Any = client.xrevrange("event-stream", count=1)
        client.xadd("event-stream", newest[0][1])
        eventually(lambda: lines() == [f"customer {customer}: 300"] * 2)
        eventually(lambda: _done(client))


def test_what_it_was_killed_over_it_does_when_it_starts_again(
    alone: Tally, client: redis.Redis, service: Service
) -> None:
    customer = new_customer(alone.customers)
    with service.running():
        eventually(lambda: _done(client))
    new_invoice(alone.customers, customer, 50)
    given = eventually(lambda: client.xreadgroup(GROUP, "worker-1", {"event-stream": ">"}))
    assert given, "what a killed service was given and has not acknowledged"
    with service.running() as lines:
        eventually(lambda: lines() == [f"customer {customer}: 50"])
        eventually(lambda: _done(client))


def test_when_redis_has_lost_everything_it_goes_on(tmp_path: Path) -> None:
    with (
        bundled_process(tmp_path / "redis", free_port()) as url,
        bundled_process(tmp_path / "own", free_port()) as own,
        running(tmp_path, redis_url=url) as tally,
        _service(url, own, tmp_path).running() as lines,
    ):
        customer = new_customer(tally.customers)
        new_invoice(tally.customers, customer, 70)
        eventually(lambda: f"customer {customer}: 70" in lines())
        redis.Redis.from_url(url).flushall()
        new_invoice(tally.customers, customer, 5)
        eventually(lambda: f"customer {customer}: 75" in lines()[-1:])


def test_what_another_program_publishes_counts_once(tmp_path: Path) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "a", "owned_by": "u"})["id"]
        customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        assert customer == "1", "the page's"
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        port = tally.settings["redis"]["url"].rpartition(":")[2].partition("/")[0]
        for _ in range(2):
            told = command.replace("redis-cli", f"redis-cli -p {port}")
            subprocess.run(["sh", "-euc", told], env=environment, check=True, capture_output=True)
        eventually(tally.settled)
        assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == 2933
        assert tally.customers.get("/invoices")["invoices"] == []
