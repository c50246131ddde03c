"""Attempts to sign in: when the next one must wait, and for how long."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tally.store import accounts
from tally.store.database import Database
from tally.store.login_attempts import BY_ADDRESS, BY_SITE, BY_USER, FORGOTTEN_SECONDS, LoginAttempts

HERE = "192.0.2.1"


class Attempts:
    """Attempts with a clock that the test sets."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = 1_000_000.0
        self._attempts = LoginAttempts(database, lambda: self.now)

    def wait(self, username: str = "alice", address: str = HERE) -> float:
        """Begin an attempt; return the required wait."""
        with self.database.transaction():
            return self._attempts.begin(username, address)

    def succeed(self, username: str = "alice", address: str = HERE) -> None:
        """Let the attempt that was begun succeed."""
        with self.database.transaction():
            self._attempts.succeeded(username, address)

    def fail(self, times: int) -> None:
        """Fail `times` times, each as soon as the wait allows."""
        for _ in range(times):
            while wait := self.wait():
                self.now += wait

    def count(self) -> int:
        """The number of users and addresses remembered."""
        return int(self.database.value("SELECT count(*) FROM login_attempt"))


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    database = accounts.open_database(tmp_path)
    yield Attempts(database)
    database.close()


def test_the_first_failures_of_a_user_cost_no_wait(attempts: Attempts) -> None:
    assert [attempts.wait() for _ in range(BY_USER.free)] == [0] * BY_USER.free
    assert attempts.wait() == 1


def test_each_further_failure_doubles_the_wait_up_to_the_longest(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free)
    waits = []
    for _ in range(8):
        waits.append(attempts.wait())
        attempts.now += waits[-1]
        assert attempts.wait() == 0
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_attempt_that_must_wait_does_not_lengthen_the_wait(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free)
    attempts.now += 0.25
    assert [attempts.wait() for _ in range(100)] == [0.75] * 100


def test_a_user_waits_wherever_the_failures_came_from(attempts: Attempts) -> None:
    for number in range(BY_USER.free):
        assert attempts.wait(address=f"192.0.2.{number}") == 0
    assert attempts.wait(address="198.51.100.1") == 1


def test_another_user_at_another_address_does_not_wait(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free + 3)
    assert attempts.wait("bob", "198.51.100.1") == 0


def test_an_address_waits_whoever_it_tries_to_be(attempts: Attempts) -> None:
    for number in range(BY_ADDRESS.free):
        assert attempts.wait(f"user{number}") == 0
    assert attempts.wait("one more") == 1
    assert attempts.wait("one more", "198.51.100.1") == 0


def test_the_addresses_of_an_ipv6_network_count_as_one(attempts: Attempts) -> None:
    for number in range(BY_ADDRESS.free):
        assert attempts.wait(f"user{number}", f"2001:db8::{number:x}:1") == 0
    assert attempts.wait("one more", "2001:db8::ffff:2") == 1
    assert attempts.wait("one more", "2001:db8:0:1::1") == 0


def test_the_networks_of_an_ipv6_site_count_together(attempts: Attempts) -> None:
    """Someone who used another network of a /48 for each guess never had to wait."""
    for number in range(BY_SITE.free):
        assert attempts.wait(f"user{number}", f"2001:db8:0:{number:x}::1") == 0
    assert attempts.wait("one more", "2001:db8:0:ffff::1") == 1
    assert attempts.wait("one more", "2001:db8:1::1") == 0


def test_addresses_of_ipv4_that_are_written_as_ipv6_count_for_themselves(attempts: Attempts) -> None:
    """All of them are in ::/64."""
    for number in range(BY_SITE.free):
        assert attempts.wait(f"user{number}", f"::ffff:192.0.2.{number}") == 0


@pytest.mark.parametrize(
    ("address", "with_port"),
    [
        ("192.0.2.1", "192.0.2.1:{}"),
        ("2001:db8::1", "[2001:db8::1]:{}"),
        ("192.0.2.1", "[::ffff:192.0.2.1]:{}"),
        ("somewhere", "somewhere"),
    ],
)
def test_a_port_makes_no_address_of_its_own(attempts: Attempts, address: str, with_port: str) -> None:
    for number in range(BY_ADDRESS.free):
        assert attempts.wait(f"user{number}", with_port.format(4000 + number)) == 0
    assert attempts.wait("one more", address) == 1


def test_a_success_forgets_the_user_s_failures(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free - 1)
    assert attempts.wait() == 0
    attempts.succeed()
    assert [attempts.wait() for _ in range(BY_USER.free)] == [0] * BY_USER.free


def test_a_success_with_one_s_own_password_does_not_forget_the_address_s_failures(attempts: Attempts) -> None:
    for number in range(BY_ADDRESS.free):
        assert attempts.wait("mallory") == 0
        attempts.succeed("mallory")
        assert attempts.wait(f"victim{number}") == 0
    assert attempts.wait("mallory") == 1


def test_successes_alone_never_make_anybody_wait(attempts: Attempts) -> None:
    for _ in range(3 * BY_ADDRESS.free):
        assert attempts.wait() == 0
        attempts.succeed()


def test_failures_are_forgotten_after_a_while_and_so_are_their_rows(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free + 3)
    attempts.now += FORGOTTEN_SECONDS + 1
    assert attempts.wait("bob", "198.51.100.1") == 0
    assert attempts.count() == 2
    assert [attempts.wait() for _ in range(BY_USER.free)] == [0] * BY_USER.free


def test_a_clock_that_is_set_back_locks_nobody_out(attempts: Attempts) -> None:
    attempts.fail(BY_USER.free + 3)
    attempts.now -= 3600
    assert attempts.wait() == 0


def test_attempts_at_the_same_moment_can_not_outrun_the_count(attempts: Attempts, tmp_path: Path) -> None:
    def guess(_: int) -> int:
        with closing(accounts.open_database(tmp_path)) as database:
            other = Attempts(database)
            return sum(other.wait() == 0 for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(guess, range(8))) == BY_USER.free


def test_attempts_are_counted_over_several_processes_connections(attempts: Attempts, tmp_path: Path) -> None:
    other = Attempts(accounts.open_database(tmp_path))
    for _ in range(BY_USER.free):
        assert other.wait() == 0
    assert attempts.wait() == 1
    other.database.close()
