"""The three machines of docs/operations/several-machines.md, with the files and commands of that page."""

import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from faults.test_failover import are_counted_once, recorded_all, shows
from integration.test_nodes import ACCOUNT, sell
from integration.test_standby import is_primary

from support.disks import unavailable
from support.hosts import ClientAt, Host, TallyAt, at, begun_at, hosts
from support.loading import IS_SOAK, Working
from support.tally import ROOT, Client, Tally
from support.users import PASSWORD
from support.waiting import eventually
from tally.actors.redis_binaries import bundled
from tally.config import AccountsSettings, CustomersSettings

SECTION = re.search(
    r"^## Three machines, step by step\n(.*?)^## ",
    (ROOT / "docs" / "operations" / "several-machines.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
assert SECTION
PORTS = {"customers": CustomersSettings().port, "accounts": AccountsSettings().port}
FILES = {  # by name and machines, as the line before each block says
    (name, machines): text
    for name, machines, text in re.findall(
        r"^`/etc/\w+/([\w.]+)` on machines? (\d(?: and \d)?)[^\n]*\n\n```\w*\n(.*?)^```$",
        SECTION[1],
        re.MULTILINE | re.DOTALL,
    )
}
COMMANDS = re.findall(  # each with its machine's number, in the page's order
    r"^\*\*\d\. [^\n]*\*\*, on machine (\d).*?^```sh\n(.*?)^```$", SECTION[1], re.MULTILINE | re.DOTALL
)


class TallyOfPage(TallyAt):
    """A Tally with a file of the page."""

    def __init__(self, host: Host, directory: Path, text: str) -> None:
        directory.mkdir()
        self.file = directory / "config.toml"
        self.file.write_text(text)
        settings = tomllib.loads(text)
        for name, port in PORTS.items():
            settings[name].setdefault("port", port)
        super().__init__(host, directory, settings)

    def written(self) -> Path:
        """The file as on the page, except for addresses and directories."""
        return self.file


class Machine:
    """One of the three machines, and all its processes."""

    def __init__(self, number: int, around: list[Host], directory: Path) -> None:
        self.number, self.host, self.directory = number, around[number - 1], directory
        self._around = around
        directory.mkdir()
        (directory / "redis").mkdir()
        own = self._text("redis.conf", "1").replace(around[0].address, self.host.address)
        more = "" if number == 1 else self._text("redis.conf", "2 and 3")
        (directory / "redis.conf").write_text(own + more)
        bind = f"bind {around[0].address}"
        sentinel = self._text("sentinel.conf", "1").replace(bind, f"bind {self.host.address}")
        (directory / "sentinel.conf").write_text(sentinel)
        self._running: list[subprocess.Popen[bytes]] = []
        self.tally: TallyOfPage | None = None
        if ("config.toml", str(number)) in FILES:
            settings = self._text("config.toml", str(number))
            self.tally = TallyOfPage(self.host, directory / "tally", settings)

    def _text(self, name: str, machines: str) -> str:
        """A file of the page, with this machine's directories and everybody's addresses."""
        return self.here(FILES[name, machines])

    def here(self, text: str) -> str:
        """The page's text, with this machine's directories and everybody's addresses."""
        for number, host in enumerate(self._around, 1):
            text = text.replace(f"10.0.0.{number}", host.address)
        for directory in ("redis", "tally"):
            text = text.replace(f"/var/lib/{directory}", str(self.directory / directory))
        return text.replace("/etc/tally", str(self.directory / "tally"))

    def starts_redis(self) -> None:
        """Start its Redis and its sentinel, as systemd does."""
        server = bundled()
        assert server is not None
        for name, *how in (("redis",), ("sentinel", "--sentinel")):
            self.runs(name, [server, self.directory / f"{name}.conf", *how])

    def starts_proxy(self) -> None:
        """Start HAProxy with the page's file."""
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            unavailable("haproxy", "it is not installed; Debian's package is called haproxy")
        file = self.directory / "haproxy.cfg"
        file.write_text(self._text("haproxy.cfg", str(self.number)))
        self.runs("haproxy", [program, "-db", "-f", file])

    def runs(self, name: str, command: list[str | Path]) -> None:
        """Start a process on the machine."""
        self._running.append(begun_at(self.host.name, command, self.directory / f"{name}.txt"))

    def does(self, line: str) -> str:
        """Run a line of the page that begins with `tally`, and return its output."""
        line, _, _ = self.here(line).partition("#")
        piped = ["--password-stdin"] if " users add " in line else []
        command = [sys.executable, ROOT / "supervisor.py", *line.split()[1:], *piped]
        done = subprocess.run(
            ["ip", "netns", "exec", self.host.name, *map(str, command)],
            input=PASSWORD,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def dies(self) -> None:
        """Kill all its processes. May be repeated."""
        if self.tally and hasattr(self.tally, "process"):
            self.tally.end()
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()

    def comes_back(self) -> None:
        """Start everything again, as at boot."""
        self.starts_redis()
        if self.tally:
            self.tally.start()


class Front(NamedTuple):
    """The addresses on machine 3 that clients use."""

    customers: Client
    accounts: Client


class Three(NamedTuple):
    """The machines, and a client with a token."""

    machines: list[Machine]
    front: Front

    @property
    def tallies(self) -> list[TallyAt]:
        """The Tallys of machines 1 and 2."""
        return [machine.tally for machine in self.machines if machine.tally]

    def agree(self, work: Working) -> None:
        """All answered invoices are there once: through the proxy, and at both machines."""
        first, second = self.tallies
        eventually(lambda: recorded_all(first) == recorded_all(second))
        for tally in self.tallies:
            eventually(tally.settled)
        there = recorded_all(self.front)
        assert there == recorded_all(first)
        are_counted_once(work, there, first)
        for machine in (self.front, first, second):
            eventually(partial(shows, machine, sum(there.values())))


@contextmanager
def _three_hosts(directory: Path) -> Iterator[list[Machine]]:
    with hosts(3) as (_, around), ExitStack() as stack:
        machines = [Machine(number, around, directory / f"machine-{number}") for number in (1, 2, 3)]
        for machine in machines:
            stack.callback(machine.dies)
        yield machines


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    """The three machines, after all steps of the page."""
    with _three_hosts(tmp_path) as machines:
        first, second, third = machines
        third.starts_proxy()  # first, as the test may have to be skipped
        for machine in machines:
            machine.starts_redis()
        eventually(partial(_has_quorum, third))
        for number, lines in COMMANDS:
            machine = machines[int(number) - 1]
            if machine is second:
                _take_over_copy(first, second)
            for line in lines.splitlines():
                if line.startswith("tally "):
                    last = partial(machine.does, line)
                    last()
                elif line.startswith("systemctl enable --now tally"):
                    assert machine.tally
                    machine.tally.start()
        eventually(lambda: "0, standby (here)" in last())  # once the standby has told Redis of itself
        address = third.host.address
        front = (ClientAt(third.host.name, port, address=address) for port in PORTS.values())
        _, accounts = front
        login = {"username": "root", "password": PASSWORD}
        answer = eventually(lambda: accounts.request("POST", "/auth/login", login).json())
        token = answer["token"]
        for machine in (first, second):
            assert machine.tally
            machine.tally.sign_in(token)
        clients = [ClientAt(third.host.name, port, token, address) for port in PORTS.values()]
        yield Three(machines, Front(*clients))


def _has_quorum(machine: Machine) -> bool:
    """Whether the page's `redis-cli … sentinel ckquorum main` reports a quorum."""
    address = machine.host.address
    with at(machine.host.name), redis.Redis(address, 26379, protocol=2, socket_timeout=5) as sentinel:
        try:
            return b"OK 3 usable Sentinels" in bytes(sentinel.execute_command("SENTINEL CKQUORUM main"))
        except redis.RedisError as error:
            raise AssertionError(str(error)) from error


def _take_over_copy(first: Machine, second: Machine) -> None:
    """Do the same as scp, install, mv and chown."""
    ours, theirs = first.directory / "tally", second.directory / "tally"
    shutil.copytree(ours / "copy", theirs / "copy")
    shutil.copy(ours / "signing.key", theirs / "signing.key")
    (theirs / "signing.key").chmod(0o600)


def _are_primary(tally: Tally) -> bool:
    return is_primary(tally.customers) and is_primary(tally.accounts)


def _go_on(work: Working) -> None:
    """Wait until some more invoices are answered."""
    answered = len(work.answered)
    eventually(lambda: len(work.answered) > answered + 20, 90)


def test_the_page_has_all_files_and_commands() -> None:
    assert FILES.keys() == {
        ("redis.conf", "1"),
        ("redis.conf", "2 and 3"),
        ("sentinel.conf", "1"),
        ("config.toml", "1"),
        ("config.toml", "2"),
        ("haproxy.cfg", "3"),
    }
    assert [number for number, _ in COMMANDS] == ["1", "2"]


def test_recording_goes_on_through_the_proxy_when_the_primary_s_machine_dies(three: Three) -> None:
    front, one = three.front, three.machines[0]
    first, second = three.tallies
    customer = _first_customer(front)
    with Working([front], customer, random.randrange(2**32)) as work:
        _go_on(work)
        one.dies()
        eventually(partial(_are_primary, second), 90)
        _go_on(work)
        one.comes_back()
        eventually(partial(_is_standby, first))
        _go_on(work)
    assert _are_primary(second)
    three.agree(work)


def _first_customer(front: Front) -> str:
    """Record a customer with an invoice in a new account."""
    account = front.accounts.post("/accounts", ACCOUNT)["id"]
    new = {"name": "c", "account_id": account}
    customer: str = eventually(lambda: front.customers.post("/customers", new))["id"]  # waits for the account
    assert sell(front.customers, customer, 100) == "1"
    return customer


def _is_standby(tally: Tally) -> bool:
    return all(report["standby"] for report in tally.reports())


if IS_SOAK:

    def test_recording_goes_on_through_the_proxy_when_the_primary_s_machine_is_cut_off(three: Three) -> None:
        front, one = three.front, three.machines[0]
        first, second = three.tallies
        customer = _first_customer(front)
        with Working([front], customer, random.randrange(2**32)) as work:
            _go_on(work)
            one.host.cut()  # it continues with its own Redis, for a while
            eventually(partial(_are_primary, second), 90)
            _go_on(work)
            eventually(lambda: not (is_primary(first.customers) or is_primary(first.accounts)))
            one.host.mend()
            eventually(partial(_is_standby, first))
            _go_on(work)
        assert _are_primary(second)
        three.agree(work)

    def test_of_two_that_are_dead_the_first_to_return_goes_on(three: Three) -> None:
        front, (one, two, _) = three.front, three.machines
        first, second = three.tallies
        customer = _first_customer(front)
        with Working([front], customer, random.randrange(2**32)) as work:
            _go_on(work)
            for machine in (one, two):
                machine.dies()
            two.comes_back()
            eventually(partial(_are_primary, second), 90)
            _go_on(work)
            one.comes_back()
            eventually(partial(_is_standby, first))
        three.agree(work)
