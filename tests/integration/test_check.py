"""`check` finds what `run` would refuse, and changes nothing."""

from pathlib import Path

import pytest
from integration.test_nodes import node

from support.cli import command, settings
from support.disks import removed
from support.engines import free_port
from support.tally import Tally, prepared, running
from support.waiting import eventually


def _bad(file: Path) -> str:
    """What `check` finds bad."""
    done = command("check", "--config", file)
    bad = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    assert (done.returncode, bool(bad)) in [(0, False), (1, True)], done
    return "\n".join(bad)


def test_a_lost_customers_db_is_found_without_redis_as_far_as_accounts_db_knows(tmp_path: Path) -> None:
    with running(tmp_path) as tally:
        account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "u"})["id"]
        tally.customers.post("/customers", {"name": "c", "account_id": account})
        eventually(tally.settled)
    file, data = tmp_path / "tally.toml", tmp_path / "data"
    assert _bad(file) == ""
    removed(data / "customers.db")
    assert "`recover customers`" in _bad(file)
    assert not (data / "customers.db").exists()

    removed(data / "accounts.db")
    done = command("check", "--config", file)
    assert (done.returncode, "Redis, which may know of one, could not" in done.stdout) == (
        0,
        True,
    ), done
    assert "`run --only redis`" in done.stdout
    tally = prepared(tmp_path, "--only", "redis")
    tally.start()
    try:
        assert "`recover customers`" in _bad(file)
    finally:
        tally.end()


def test_one_port_for_two_that_can_not_have_it_together_is_found(tmp_path: Path) -> None:
    """An address and a name of it, which only the kernel knows to be the same."""
    port = free_port()
    at = {"customers": {"host": "127.0.0.1", "port": port}, "accounts": {"host": "localhost", "port": port}}
    bad = _bad(settings(tmp_path, **at))
    assert "accounts port: can't listen on localhost" in bad
    assert "or set accounts.port" in bad


def test_a_standby_without_its_databases_is_found(tmp_path: Path) -> None:
    assert _bad(settings(tmp_path, node={"standby": True})).count("begin with `join`") == 2


def test_a_node_without_the_key_of_all_nodes_is_found(tmp_path: Path) -> None:
    file = settings(tmp_path, node={"number": 1}, auth={"mode": "jwt"})
    assert "takes the tokens of node 0" in _bad(file)
    assert not (tmp_path / "data" / "signing.key").exists()


@pytest.mark.whole
def test_a_database_that_has_given_another_node_s_ids_is_found(tmp_path: Path, redis_url: str) -> None:
    with node(tmp_path, redis_url, 1) as tally:
        tally.customers.post("/customers", {"name": "c", "account_id": "1"})
        tally.stop()
        assert _bad(tally.directory / "tally.toml") == ""
        tally.settings["node"]["number"] = 2
        tally.written()
        assert "set node.number = 1" in _bad(tally.directory / "tally.toml")


@pytest.mark.whole
@pytest.mark.parametrize("kept", ["customers.db", "accounts.db"])
def test_a_number_that_another_has_is_found(tmp_path: Path, redis_url: str, kept: str) -> None:
    with running(tmp_path / "own") as tally:  # on a Redis of its own at first
        account = tally.accounts.post("/accounts", {"name": "A", "owned_by": "u"})["id"]
        tally.customers.post("/customers", {"name": "c", "account_id": account})
        eventually(tally.settled)
    for name in {"customers.db", "accounts.db"} - {kept}:
        removed(tmp_path / "own" / "data" / name)
    with node(tmp_path, redis_url, 0) as other:
        file = _moved(tally, redis_url)
        roles = ["--only", kept.removesuffix(".db")]
        assert "node.number" in _bad(file)
        assert "node.number" in command("run", *roles, "--config", file).stderr
        assert _bad(other.written()) == ""


@pytest.mark.whole
def test_a_number_of_its_own_that_run_will_assign_is_good(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path / "own") as tally:
        eventually(tally.settled)
    with node(tmp_path, redis_url, 0):
        assert _bad(_moved(tally, redis_url, number=1)) == ""


def _moved(tally: Tally, redis_url: str, number: int = 0) -> Path:
    """Its settings, with that Redis and number."""
    tally.settings["redis"] = {"url": redis_url, "embedded": "never"}
    tally.settings["node"] = {"number": number}
    return tally.written()
