"""Nodes on separate hosts; their lines to Redis are cut both ways and one way."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from support.hosts import ClientAt, Host, hosts, process_at
from support.tally import ROOT, Tally, prepared
from support.waiting import eventually
from tally.actors.redis_binaries import bundled
from tally.store.ids import SPAN

PORT = 6379


class Node:
    """A node on a host, and the changes that it has accepted."""

    def __init__(self, host: Host, directory: Path, number: int) -> None:
        self.host = host
        self.tally: Tally = prepared(directory, redis_url=f"redis://{host.of_middle}:{PORT}/0")
        self.tally.settings["node"] = {"number": number}
        self.customers = ClientAt(host.name, self.tally.settings["customers"]["port"])
        self.accounts = ClientAt(host.name, self.tally.settings["accounts"]["port"])
        self.customer = ""
        self._running = ExitStack()

    def start(self) -> None:
        """Start the node, also after it has ended, and wait until all is ready."""
        command: list[str | Path] = [
            sys.executable,
            ROOT / "supervisor.py",
            "run",
            "--config",
            self.tally.written(),
        ]
        output = self.tally.directory / "output.txt"
        process = self._running.enter_context(process_at(self.host.name, command, output))
        eventually(lambda: process.poll() is not None or b"ready after" in output.read_bytes())
        assert process.poll() is None, output.read_text()

    def kill(self) -> None:
        """Kill all its processes."""
        self._running.close()

    def sell(self, cents: int) -> None:
        """Record an invoice of this node's customer."""
        invoice = {"customer_id": self.customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}
        self.customers.post("/invoices", invoice)

    def shows(self) -> dict[str, int]:
        """The revenue of each customer, as this node shows it."""
        every = self.accounts.get("/accounts")
        return {one["customer_id"]: one["total_revenue_cents"] for each in every for one in each["customers"]}

    def has_lost_redis(self) -> bool:
        """Whether the node reports that it can't reach Redis."""
        return self.accounts.get("/status")["redis"]["reachable"] is False

    def is_well(self) -> bool:
        """Whether the node reports no trouble."""
        return all(client.get("/status")["status"] == "ok" for client in (self.customers, self.accounts))


def _shows_its_own(node: Node, spent: dict[str, int]) -> bool:
    return node.shows()[node.customer] == spent[node.customer]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two nodes, and a Redis between them."""
    server = bundled()
    assert server is not None
    with hosts(2) as (middle, around), ExitStack() as stack:
        options = f"--port {PORT} --bind 0.0.0.0 --protected-mode no --save '' --appendonly no".split()
        stack.enter_context(process_at(middle, [server, *options], tmp_path / "redis.txt"))
        found = [Node(host, tmp_path / f"node-{number}", number) for number, host in enumerate(around)]
        for node in found:
            stack.callback(node.kill)
            node.start()
        account = found[0].accounts.post("/accounts", {"name": "one", "owned_by": "user1"})["id"]
        for node in found:
            node.customer = node.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        yield found


@pytest.mark.parametrize(
    ("out", "back"), [(True, True), (True, False), (False, True)], ids=["both ways", "from it", "to it"]
)
def test_a_node_that_is_cut_off_goes_on_and_all_agree_again_once_the_line_is_back(
    nodes: list[Node], out: bool, back: bool
) -> None:
    first, second = nodes
    spent = dict.fromkeys((first.customer, second.customer), 0)
    assert int(second.customer) > SPAN

    def record(cents: int) -> None:
        for node in nodes:
            node.sell(cents)
            spent[node.customer] += cents

    def agree() -> bool:
        return all(node.shows() == spent for node in nodes)

    record(1)
    eventually(agree)
    for number, cut in enumerate(nodes, 1):
        cut.host.cut(out=out, back=back)
        record(10**number)
        eventually(cut.has_lost_redis)
        record(10**number)
        (other,) = {*nodes} - {cut}
        eventually(partial(_shows_its_own, other, spent))
        if cut is second:
            cut.kill()  # with the events that it has not published
            cut.host.mend()
            cut.start()
        cut.host.mend()
        eventually(agree)
        eventually(lambda: all(node.is_well() for node in nodes))
