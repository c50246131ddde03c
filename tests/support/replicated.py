"""Redis servers that replace each other: sentinels with a primary and replicas, and a cluster."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from support.engines import answers, free_port
from support.redis_process import RedisProcess
from support.waiting import eventually
from tally.actors.redis_binaries import bundled

NAME = "main"  # of the primary, to the sentinels
SLOTS = 16384
KEY = "event-stream"
SECONDS = 90  # a delayed sentinel does nothing for 30 s (TILT)


class Sentinels:
    """Three sentinels that watch a primary and its two replicas, for one test only."""

    def __init__(self, servers: Sequence[RedisProcess], ports: Sequence[int]) -> None:
        self.servers = servers
        self.ports = ports
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{NAME}"

    def primary(self) -> RedisProcess:
        """The server that all sentinels call the primary."""
        named = {self._named_by(port) for port in self.ports}
        assert len(named) == 1, named
        return next(server for server in self.servers if server.port in named)

    def fails_over(self, former: RedisProcess) -> None:
        """Wait until another server has taken the place of `former`."""
        eventually(lambda: self.primary() is not former, SECONDS)

    def is_whole(self) -> bool:
        """Whether the sentinels know each other and all replicas, and the replicas are in step."""
        for port in self.ports:
            with _client(port) as sentinel:
                state = dict(sentinel.sentinel_master(NAME))
                assert (state["num-slaves"], state["num-other-sentinels"]) == (2, 2), state
                assert state["flags"] == "master", state
        replication: Any = self.primary().client.info("replication")
        states = [each["state"] for name, each in replication.items() if name in ("slave0", "slave1")]
        assert states == ["online"] * 2, replication
        return True

    def _named_by(self, port: int) -> int:
        with _client(port) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(NAME)[1])


@contextmanager
def sentinels(directory: Path, down_after_ms: int = 500, *options: str) -> Iterator[Sentinels]:
    """Three sentinels, a primary and two replicas, which agree; `options` are for the servers."""
    servers = [RedisProcess(directory / f"server-{n}") for n in range(3)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            role = [] if server is servers[0] else ["--replicaof", f"127.0.0.1 {servers[0].port}"]
            server.start(*role, *options)
        ports = [free_port() for _ in range(3)]
        for port in ports:
            home = directory / f"sentinel-{port}"
            stack.callback(_end, _sentinel(home, port, servers[0].port, down_after_ms))
            eventually(partial(answers, f"redis://127.0.0.1:{port}"))
        found = Sentinels(servers, ports)
        eventually(found.is_whole, SECONDS)
        yield found


def _sentinel(directory: Path, port: int, primary: int, down_after_ms: int) -> "subprocess.Popen[bytes]":
    directory.mkdir(parents=True)
    file = directory / "sentinel.conf"  # the sentinel rewrites this file
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\nlogfile sentinel.log\n"
        f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
        f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
        f"sentinel failover-timeout {NAME} 2000\n"
    )
    server = bundled()
    assert server is not None
    return subprocess.Popen([str(server), str(file), "--sentinel"])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


class Cluster:
    """A cluster of three primaries with a replica each, for one test only."""

    def __init__(self, servers: Sequence[RedisProcess]) -> None:
        self.servers = servers
        # By default 10,000 above the server's port, in the kernel's range for outgoing connections.
        self._buses = {server.port: free_port() for server in servers}
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in servers)}"

    def start(self, server: RedisProcess) -> None:
        """Start a node, or start it again."""
        options = (
            f"--cluster-enabled yes --cluster-node-timeout 1000 --cluster-port {self._buses[server.port]}"
        )
        server.start(*options.split())

    def introduce(self, server: RedisProcess, to: RedisProcess) -> None:
        """Have a node meet another."""
        client: Any = server.client
        client.execute_command("CLUSTER MEET", "127.0.0.1", to.port, self._buses[to.port])

    def owner(self) -> RedisProcess:
        """The primary of the stream's slot, on which all running servers agree."""
        said = {self._owner_says(server) for server in self.servers if answers(server.url)}
        assert len(said) == 1, said
        return next(server for server in self.servers if server.port in said)

    def fails_over(self, former: RedisProcess) -> None:
        """Wait until another server has taken the place of `former`."""
        eventually(lambda: self.owner() is not former, SECONDS)

    def move_slot(self, to: RedisProcess) -> None:
        """Move the stream's slot with all its keys to another primary, as redis-cli's resharding does."""
        owner = self.owner()
        slot = owner.client.cluster("keyslot", KEY)
        ours, theirs = (server.client.cluster("myid").decode() for server in (owner, to))
        to.client.cluster("setslot", slot, "importing", ours)
        owner.client.cluster("setslot", slot, "migrating", theirs)
        while keys := owner.client.cluster("getkeysinslot", slot, 10):
            owner.client.migrate("127.0.0.1", to.port, keys, 0, 5000)
        for server in (to, owner):
            server.client.cluster("setslot", slot, "node", theirs)
        eventually(lambda: self.owner() is to, SECONDS)

    def is_whole(self) -> bool:
        """Whether all nodes know each other and serve."""
        for server in self.servers:
            info = dict(server.client.cluster("info"))
            assert (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "6"), info
            if server.client.info("replication")["role"] == "slave":
                assert server.client.info("replication")["master_link_status"] == "up"
        return True

    def _owner_says(self, server: RedisProcess) -> int:
        slot = server.client.cluster("keyslot", KEY)
        ranges: Any = server.client.cluster("slots")
        for first, last, (_, port, *_more), *_replicas in ranges:
            if first <= slot <= last:
                return int(port)
        raise AssertionError("nobody has the slot")


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster of three primaries with a replica each, which serves."""
    servers = [RedisProcess(directory / f"node-{n}") for n in range(6)]
    found = Cluster(servers)
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            found.start(server)
        first, *others = servers
        share = SLOTS // 3
        for n, server in enumerate(servers[:3]):
            last = SLOTS - 1 if n == 2 else (n + 1) * share - 1
            client: Any = server.client
            client.execute_command("CLUSTER ADDSLOTSRANGE", n * share, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for server in others:
            found.introduce(server, first)
        for replica, primary in zip(servers[3:], servers[:3], strict=True):
            id = primary.client.cluster("myid").decode()
            eventually(partial(_replicates, replica, id))
        eventually(found.is_whole, SECONDS)
        yield found


def _replicates(replica: RedisProcess, id: str) -> bool:
    try:
        replica.client.cluster("replicate", id)
    except redis.ResponseError as error:  # the replica doesn't know that node yet
        raise AssertionError(str(error)) from error
    return True


def _client(port: int) -> Any:
    return redis.Redis(port=port, protocol=2, socket_timeout=5)
