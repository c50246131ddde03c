"""Several Tallys on one stream: each with a number and a data directory of its own."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from support import users
from support.cli import command
from support.loading import Machine
from support.redis_process import RedisProcess
from support.tally import Client, Tally, prepared
from support.waiting import eventually
from tally.recovery.joining import CannotJoin, join
from tally.store import accounts, customers
from tally.store.ids import SPAN, node_of
from tally.store.membership import Membership, read_nodes
from tally.store.nodes import WrongNumber
from tally.store.outbox import OutboxRow
from tally.store.stream import EventStream, Publishing

ACCOUNT = {"name": "one", "owned_by": "user1"}


@contextmanager
def node(directory: Path, redis_url: str, number: int, *arguments: str, **sections: Any) -> Iterator[Tally]:
    """A running node that tells others its URLs."""
    tally = a_node(directory, redis_url, number, *arguments, **sections)
    try:
        tally.start()
        yield tally
    finally:
        tally.end()


def a_node(directory: Path, redis_url: str, number: int, *arguments: str, **sections: Any) -> Tally:
    """Such a node, not started yet."""
    tally = prepared(directory / f"node-{number}", *arguments, redis_url=redis_url, **sections)
    tally.settings["node"] = {
        "number": number,
        "url_customers": f"http://127.0.0.1:{tally.customers.port}",
        "url_accounts": f"http://127.0.0.1:{tally.accounts.port}",
    }
    return tally


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis for this test alone, not started yet."""
    server = RedisProcess(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def both(tmp_path: Path, redis_url: str) -> Iterator[tuple[Tally, Tally]]:
    """Two nodes, 0 and 1."""
    with node(tmp_path, redis_url, 0) as first, node(tmp_path, redis_url, 1) as second:
        yield first, second


def shown(tally: Machine) -> dict[str, dict[str, int]]:
    """The revenue of each account there, by customer."""
    return {
        each["account"]["id"]: {one["customer_id"]: one["total_revenue_cents"] for one in each["customers"]}
        for each in tally.accounts.get("/accounts")
    }


def sell(customers: Client, customer: str, cents: int) -> str:
    """Record an invoice and return its id."""
    invoice = {"customer_id": customer, "purchase_date": "2019-01-06", "purchase_price_cents": cents}
    return str(customers.post("/invoices", invoice)["id"])


def misdirected(response: Any, to: Tally) -> dict[str, Any]:
    """The problem in an answer that names the other node."""
    assert response.status == 421, (response.status, response.data)
    told: dict[str, Any] = response.json()
    number = to.settings["node"]["number"]
    assert told["node"]["number"] == number
    assert str(told["node"]["url"]) in told["detail"]
    return told


@pytest.mark.whole
def test_each_shows_what_all_have_recorded_under_ids_of_their_own(both: tuple[Tally, Tally]) -> None:
    first, second = both
    ours, theirs = (tally.accounts.post("/accounts", ACCOUNT)["id"] for tally in both)
    assert (ours, theirs) == ("1", str(SPAN + 1))
    expected: dict[str, dict[str, int]] = {ours: {}, theirs: {}}
    for tally, base in ((first, 0), (second, SPAN)):
        for account in (ours, theirs):
            customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
            invoice = sell(tally.customers, customer, 100)
            assert node_of(int(customer)) == node_of(int(invoice)) == base // SPAN
            expected[account][customer] = 100
    for tally in both:
        eventually(partial(_shows, tally, expected))
        assert tally.accounts.get("/status")["status"] == "ok"
    assert second.accounts.post("/accounts", ACCOUNT)["id"] == str(SPAN + 2)
    assert first.accounts.post("/accounts", ACCOUNT)["id"] == "2", "others' numbers don't count"


def _shows(tally: Tally, expected: dict[str, dict[str, int]]) -> bool:
    return shown(tally) == expected


def _history(tally: Tally, account: str) -> list[Any]:
    found: list[Any] = tally.accounts.get(f"/accounts/{account}/history")["history"]
    return found


@pytest.mark.whole
def test_what_another_has_is_changed_there_alone(both: tuple[Tally, Tally]) -> None:
    first, second = both
    account = first.accounts.post("/accounts", ACCOUNT)["id"]
    eventually(lambda: shown(second) == {account: {}})
    for change in ({"method": "PATCH", "content": {"name": "two"}}, {"method": "DELETE"}):
        response = second.accounts.request(path=f"/accounts/{account}", **change)
        assert misdirected(response, first)["node"]["url"].endswith(str(first.accounts.port))
    assert first.accounts.request("PATCH", f"/accounts/{account}", {"name": "three"}).status == 200
    eventually(lambda: _history(second, account) == _history(first, account))
    assert [each["event"] for each in _history(second, account)] == ["AccountCreated", "AccountUpdated"]
    own = first.customers.post("/customers", {"name": "ours", "account_id": account})["id"]
    customer = second.customers.post("/customers", {"name": "theirs", "account_id": account})["id"]
    invoice = sell(second.customers, customer, 100)
    paths = (f"/customers/{customer}", f"/invoices/{invoice}", f"/invoices/{invoice}/history")
    eventually(lambda: first.customers.request("GET", paths[0]).status == 421)  # once it has heard of node 1
    for path in (*paths, f"/credits/{SPAN + 1}"):
        told = misdirected(first.customers.request("GET", path), second)
        assert told["node"]["url"].endswith(str(second.customers.port))
    misdirected(first.customers.request("PATCH", paths[0], {"name": "x"}), second)
    misdirected(first.customers.request("DELETE", paths[1]), second)
    new = [
        {"customer_id": each, "purchase_date": "2019-01-06", "purchase_price_cents": 1}
        for each in (own, customer)
    ]
    misdirected(first.customers.request("POST", "/invoices", new[1]), second)
    told = misdirected(first.customers.request("POST", "/invoices/batch", new), second)
    assert [each["field"] for each in told["errors"]] == ["[1].customer_id"]
    credit = {"customer_id": customer, "credit_date": "2019-01-06", "credited_cents": 1}
    misdirected(first.customers.request("POST", "/credits", credit), second)
    assert first.customers.request("GET", f"/customers/{2 * SPAN + 1}").status == 404, "there is no node 2"
    sought = first.customers.get(f"/customers/search?search={customer}")
    assert sought["customers"] == [], "a number of the other node may be a word of a name here"
    eventually(lambda: shown(first) == {account: {own: 0, customer: 100}})


@pytest.mark.whole
def test_lists_say_whose_they_are(both: tuple[Tally, Tally]) -> None:
    for number, tally in enumerate(both):
        for path in ("/customers", "/invoices", "/credits"):
            for kind in ("application/json", "text/csv"):
                response = tally.customers.request("GET", path, headers={"Accept": kind})
                assert response.headers["Tally-Node"] == str(number)


@pytest.mark.whole
def test_a_deleted_account_takes_the_customers_of_all_nodes_along(both: tuple[Tally, Tally]) -> None:
    first, _ = both
    account = first.accounts.post("/accounts", ACCOUNT)["id"]
    made = [tally.customers.post("/customers", {"name": "c", "account_id": account})["id"] for tally in both]
    eventually(lambda: shown(first) == {account: dict.fromkeys(made, 0)})
    first.accounts.delete(f"/accounts/{account}?cascade=true")
    for tally in both:
        eventually(partial(_has_nobody, tally))


def _has_nobody(tally: Tally) -> bool:
    return tally.customers.get("/customers")["customers"] == [] and shown(tally) == {}


def _knows_both(tally: Tally) -> bool:
    return len(tally.accounts.get("/status")["nodes"]) == 2


@pytest.mark.whole
def test_status_and_nodes_list_tell_of_all_of_them(both: tuple[Tally, Tally]) -> None:
    first, second = both
    for tally, here in ((first, 0), (second, 1)):
        eventually(partial(_knows_both, tally))
        for client in (tally.customers, tally.accounts):
            nodes = client.get("/status")["nodes"]
            assert [node["number"] for node in nodes] == [0, 1]
            assert [node["here"] for node in nodes] == [here == 0, here == 1]
            for node, its in zip(nodes, both, strict=True):
                assert node["url_customers"] == its.settings["node"]["url_customers"]
                assert node["accounts"] == f"accounts@{its.accounts.get('/status')['identity']}"
                assert (node["lag"], node["idle_seconds"] < 30) == (0, True)
    second.stop()
    account = first.accounts.post("/accounts", ACCOUNT)["id"]
    second.start()
    eventually(lambda: shown(second) == {account: {}})
    shows = command("status", "--config", str(first.directory / "tally.toml")).stdout
    assert "0 (here)" in shows
    assert second.settings["node"]["url_accounts"] in shows
    listed = command("nodes", "list", "--json", "--config", str(second.directory / "tally.toml")).stdout
    assert [json.loads(line)["node"] for line in listed.splitlines()] == [0, 0, 1, 1]


@pytest.mark.whole
def test_a_number_that_another_has_is_refused_with_a_line_that_says_what_to_set(
    tmp_path: Path, redis_url: str
) -> None:
    with node(tmp_path, redis_url, 0) as first:
        for number, roles in ((0, ()), (0, ("--only", "accounts"))):
            second = a_node(tmp_path / "other", redis_url, number, *roles)
            second.launch()
            assert second.process.wait(30) == 1
            assert "set node.number to one of its own" in second.said()
            if roles:
                assert "such as 1" in second.said()
        second.settings["node"]["number"] = 1  # as the message says
        second.start()
        second.stop()
        assert first.accounts.get("/status")["status"] == "ok"


@pytest.mark.whole
def test_a_database_that_has_given_ids_stays_the_nodes(tmp_path: Path, redis_url: str) -> None:
    with node(tmp_path, redis_url, 1) as tally:
        tally.customers.post("/customers", {"name": "c", "account_id": "1"})
        tally.stop()
        tally.settings["node"]["number"] = 2
        tally.launch()
        assert tally.process.wait(30) == 1
        assert "set node.number = 1" in tally.said()


@pytest.mark.whole
def test_a_killed_node_takes_its_number_up_again_at_once(tmp_path: Path, redis_url: str) -> None:
    with node(tmp_path, redis_url, 1) as tally, redis.Redis.from_url(redis_url) as client:
        first = tally.customers.post("/customers", {"name": "c", "account_id": "1"})["id"]
        tally.end()
        client.hset("{event-stream}:nodes", "since", str(10**13 * 9))  # ms: it counts as made just now
        tally.start()
        assert "is new here" not in tally.said()
        assert tally.customers.post("/customers", {"name": "d", "account_id": "1"})["id"] == str(
            int(first) + 1
        )


@pytest.mark.whole
def test_a_new_number_waits_until_others_could_tell_theirs(tmp_path: Path, redis_url: str) -> None:
    with node(tmp_path, redis_url, 1) as first, redis.Redis.from_url(redis_url) as client:
        first.stop()
        client.flushall()
        second = a_node(tmp_path / "other", redis_url, 1)
        second.settings["redis"]["embedded"] = "auto"  # with "never", the helper would spare it the wait
        try:
            second.launch()
            eventually(lambda: "node 1 is new here" in second.said())
            assert "ready after" not in second.said()
            first.start()  # it tells its number in time
            assert second.process.wait(30) == 1
            assert "set node.number to one of its own" in second.said()
        finally:
            second.end()
        assert first.customers.get("/status")["status"] == "ok"


@pytest.mark.whole
def test_what_redis_loses_of_the_nodes_comes_back_from_whoever_knows(
    both: tuple[Tally, Tally], tmp_path: Path, client: redis.Redis
) -> None:
    first, second = both
    before = client.hgetall("{event-stream}:nodes")
    assert len(before) == 5, "four databases, and since when they are known"
    eventually(lambda: len(first.accounts.get("/status")["nodes"]) == 2)
    second.stop()
    client.delete("{event-stream}:nodes")
    eventually(lambda: {*client.hgetall("{event-stream}:nodes")} == {*before})
    second.start()
    sell(second.customers, second.customers.post("/customers", {"name": "c", "account_id": "1"})["id"], 5)
    eventually(lambda: first.settled() and second.settled())


@pytest.mark.whole
def test_a_database_takes_its_number_up_again_where_redis_has_another(
    both: tuple[Tally, Tally], client: redis.Redis
) -> None:
    first, _ = both
    identity = f"customers@{first.customers.get('/status')['identity']}"
    client.hset("{event-stream}:nodes", identity, "7:9")
    first.customers.post("/customers", {"name": "c", "account_id": "1"})
    eventually(lambda: client.hget("{event-stream}:nodes", identity) != b"7:9")  # it takes its own again
    eventually(first.settled)


@pytest.mark.whole
def test_a_node_that_is_gone_is_removed_and_its_number_is_free(
    both: tuple[Tally, Tally], tmp_path: Path, client: redis.Redis
) -> None:
    first, second = both
    settings = str(first.directory / "tally.toml")
    customer = second.customers.post("/customers", {"name": "c", "account_id": "1"})["id"]
    sell(second.customers, customer, 100)
    eventually(lambda: first.settled() and second.settled())
    refused = command("nodes", "remove", "1", "--yes", "--config", settings)
    assert refused.returncode == 1
    assert "node 1 is at work" in refused.stderr
    assert command("nodes", "remove", "3", "--yes", "--config", settings).returncode == 1
    second.end()
    gone = [name.encode() for name in _databases(second)]
    stream = EventStream(client, "event-stream")
    groups = {group["name"] for group in client.xinfo_groups("event-stream")}
    assert {*gone} <= groups
    _is_long_ago(client)
    removed = command("nodes", "remove", "1", "--yes", "--config", settings)
    assert (removed.returncode, removed.stdout) == (0, "removed node 1\n")
    assert not {*gone} & {group["name"] for group in client.xinfo_groups("event-stream")}
    assert [each["number"] for each in first.accounts.get("/status")["nodes"]] == [0]
    eventually(lambda: first.customers.request("GET", f"/customers/{customer}").status == 404)
    assert stream.published_by_source()
    third = a_node(tmp_path / "third", client_url(first), 1)
    try:
        third.launch()
        assert third.process.wait(30) == 1, "its ids would be given again"
        assert "recover customers" in third.said()
        made = command("recover", "customers", "--empty", "--config", str(third.directory / "tally.toml"))
        assert made.returncode == 0, made.stderr
        third.start()
        again = third.customers.post("/customers", {"name": "d", "account_id": "1"})["id"]
        assert int(again) - SPAN > 10**9, "from a block that nobody had"
    finally:
        third.end()


def _is_long_ago(client: redis.Redis) -> None:
    """Make killed nodes count as no longer at work."""
    client.delete("{event-stream}:leases")


def client_url(tally: Tally) -> str:
    """The URL of that Tally's Redis."""
    return str(tally.settings["redis"]["url"])


def _databases(tally: Tally) -> list[str]:
    directory, found = tally.directory / "data", []
    for module in (customers, accounts):
        database = module.open_database(directory, make=False)
        found.append(database.source)
        database.close()
    return found


@pytest.mark.whole
def test_a_reader_begins_from_a_copy_where_the_stream_no_longer_has_everything(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    with node(tmp_path, redis_url, 0) as first:
        account = first.accounts.post("/accounts", ACCOUNT)["id"]
        customer = first.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        sell(first.customers, customer, 100)
        eventually(first.settled)
        backup = tmp_path / "backup"
        assert command("backup", str(backup), "--config", str(first.directory / "tally.toml")).returncode == 0
        sell(first.customers, customer, 20)
        eventually(first.settled)
        assert client.xlen("event-stream") == 4
        client.xtrim("event-stream", maxlen=1, approximate=False)
        reader = a_node(tmp_path, redis_url, 1, "--only", "accounts")
        settings = str(reader.written())
        joined = command("join", str(backup), "--config", settings)
        assert joined.returncode == 0, joined.stderr
        assert "is not taken" in joined.stdout
        again = command("join", str(backup), "--config", settings)
        assert (again.returncode, "is there" in again.stderr) == (1, True)
        reader.start()
        try:
            eventually(lambda: shown(reader) == {account: {customer: 120}})
            assert reader.accounts.get("/status")["status"] == "ok"
            theirs = reader.accounts.post("/accounts", ACCOUNT)["id"]
            assert theirs == str(SPAN + 1)
            eventually(lambda: shown(first).keys() == {account, theirs})
            misdirected(reader.accounts.request("PATCH", f"/accounts/{account}", {"name": "x"}), first)
        finally:
            reader.end()


@pytest.mark.whole
def test_the_users_of_node_0_hold_everywhere(tmp_path: Path, redis_url: str) -> None:
    auth = {"auth": {"mode": "jwt"}}
    second = a_node(tmp_path, redis_url, 1, **auth)
    with node(tmp_path, redis_url, 0, **auth) as first:
        try:
            second.launch()
            assert second.process.wait(30) == 1
            assert "TALLY_AUTH_SIGNING_KEY" in second.said()
            shutil.copy(first.directory / "data" / "signing.key", second.directory / "data" / "signing.key")
            second.start()
            for name in ("admin", "user1", "user2"):
                users.add(first, name, admin=name == "admin")
            admin, user1, user2 = (users.sign_in(first, name) for name in ("admin", "user1", "user2"))
            there = {
                each.name: users.with_token(second, each.name, each.token) for each in (admin, user1, user2)
            }
            mine = admin.accounts.post("/accounts", ACCOUNT)["id"]
            eventually(lambda: there["user1"].accounts.get(f"/accounts/{mine}"))
            assert there["user2"].accounts.request("GET", f"/accounts/{mine}").status == 404
            customer = {"name": "c", "account_id": mine}
            eventually(lambda: there["user1"].customers.request("POST", "/customers", customer).status == 201)
            assert there["user2"].customers.request("POST", "/customers", customer).status == 422
            login = {"username": "user1", "password": users.PASSWORD}
            misdirected(second.accounts.request("POST", "/auth/login", login), first)
            refused = command("users", "list", "--config", str(second.directory / "tally.toml"))
            assert (refused.returncode, "node 0's" in refused.stderr) == (1, True)
            users.remove(first, "user1")
            removed = there["user1"]
            eventually(lambda: removed.customers.request("GET", "/customers").status == 401, 20)
            eventually(lambda: removed.accounts.request("GET", "/accounts").status == 401, 20)
            assert there["user2"].accounts.get("/accounts") == []
        finally:
            second.end()


@pytest.mark.whole
def test_a_lost_accounts_db_is_made_again_where_it_was(tmp_path: Path, redis_url: str) -> None:
    with node(tmp_path, redis_url, 1) as tally:
        account = tally.accounts.post("/accounts", ACCOUNT)["id"]
        customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        sell(tally.customers, customer, 100)
        eventually(tally.settled)
        tally.stop()
        for file in (tally.directory / "data").glob("accounts.db*"):
            file.unlink()
        tally.start()
        eventually(lambda: shown(tally) == {account: {customer: 100}})
        nodes = tally.accounts.get("/status")["nodes"]
        assert [each["accounts"] for each in nodes] == [
            f"accounts@{tally.accounts.get('/status')['identity']}"
        ]
        again = tally.accounts.post("/accounts", ACCOUNT)["id"]
        assert SPAN < int(again) <= 2 * SPAN
        assert again != account


@pytest.mark.whole
def test_accounts_built_again_from_a_trimmed_stream_keep_what_other_nodes_have_told(
    both: tuple[Tally, Tally], client: redis.Redis
) -> None:
    first, second = both
    account = first.accounts.post("/accounts", ACCOUNT)["id"]
    ours, theirs = (
        tally.customers.post("/customers", {"name": "c", "account_id": account})["id"] for tally in both
    )
    sell(first.customers, ours, 100)
    sell(second.customers, theirs, 20)
    eventually(lambda: shown(first) == {account: {ours: 100, theirs: 20}})
    eventually(lambda: first.settled() and second.settled())
    client.xtrim("event-stream", maxlen=0, approximate=False)
    built = command("rebuild", "accounts", "--yes", "--config", str(first.directory / "tally.toml"))
    assert built.returncode == 0, built.stderr
    assert shown(first) == {account: {ours: 100, theirs: 20}}
    sell(second.customers, theirs, 3)
    eventually(lambda: shown(first) == {account: {ours: 100, theirs: 23}})
    eventually(lambda: first.settled() and second.settled())


def test_redis_adds_nothing_for_a_database_that_has_another_number_or_none(client: redis.Redis) -> None:
    stream, row = EventStream(client, "event-stream"), OutboxRow(1, "AccountDeleted", b"{}", None)
    stream.published("")  # gives Redis the script
    for held, refused in (
        (None, True),
        ("2:0", True),
        ("1:3 removed", True),
        ("1:4 http://a", False),
        ("1:0", False),
    ):
        if held:
            client.hset(stream.beside("nodes"), "accounts@00000001", held)
        publishing = Publishing(stream, holder="accounts@00000001 1")
        publishing.send("accounts@00000001", 0, [row])
        if refused:
            with pytest.raises(redis.ResponseError, match="NOTHELD"):
                publishing.answer()
            publishing.abandon()
            assert not client.exists("event-stream"), held
        else:
            assert publishing.answer().last == 1
    assert client.xlen("event-stream") == 1


@pytest.mark.whole
def test_a_copy_of_a_data_directory_is_not_let_start_beside_the_original(
    tmp_path: Path, redis_url: str
) -> None:
    with node(tmp_path, redis_url, 0) as first:
        first.customers.post("/customers", {"name": "c", "account_id": "1"})
        backup = tmp_path / "backup"
        assert command("backup", str(backup), "--config", str(first.written())).returncode == 0
        copy = prepared(tmp_path / "copy", redis_url=redis_url)
        copy.settings["data"]["directory"] = str(backup)
        copy.launch()
        assert copy.process.wait(30) == 1
        assert "is at work elsewhere" in copy.said()
        assert first.stop() == 0
        copy.start()  # it was copied at work, so it waits for the lease to lapse
        try:
            assert copy.customers.post("/customers", {"name": "d", "account_id": "1"})["id"] == "2"
            first.launch()
            assert first.process.wait(30) == 1
        finally:
            copy.end()
        first.start()  # after the lease of the killed copy has lapsed
        assert [each["name"] for each in first.customers.get("/customers")["customers"]] == ["c", "d"]
        assert first.customers.get("/status")["status"] == "ok"


@pytest.mark.whole
def test_a_node_whose_number_another_has_meanwhile_takes_nothing_and_says_so(
    both: tuple[Tally, Tally], client: redis.Redis
) -> None:
    _, second = both
    own = f"customers@{second.customers.get('/status')['identity']}"
    second.customers.post("/customers", {"name": "c", "account_id": "1"})
    client.hset("{event-stream}:nodes", "customers@0000beef", "1:0")
    client.hset("{event-stream}:nodes", own, "1:9 removed")
    new = {"name": "d", "account_id": "1"}
    eventually(lambda: second.customers.request("POST", "/customers", new).status == 503)
    eventually(lambda: second.customers.get("/status")["status"] == "degraded")
    eventually(lambda: "customers@0000beef has that" in str(second.customers.get("/status")["reasons"]))
    client.hset("{event-stream}:nodes", "customers@0000beef", "1:1 removed")
    eventually(lambda: second.customers.request("POST", "/customers", new).status == 201)
    eventually(second.settled)


@pytest.mark.whole
def test_who_begins_with_an_empty_one_takes_nobodys_place_who_is_at_work(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    with node(tmp_path, redis_url, 0) as first:
        first.customers.post("/customers", {"name": "c", "account_id": "1"})
        other = a_node(tmp_path / "other", redis_url, 0, "--only", "customers")
        assert command("recover", "customers", "--empty", "--config", str(other.written())).returncode == 0
        other.launch()
        assert other.process.wait(40) == 1
        assert "stop that, or give this a node.number of its own" in other.said()
        assert first.customers.get("/status")["status"] == "ok"
        first.end()
        _is_long_ago(client)
        try:
            other.start()
            assert int(other.customers.post("/customers", {"name": "d", "account_id": "1"})["id"]) > 10**9
        finally:
            other.end()


@pytest.mark.whole
def test_a_node_whose_disk_was_lost_is_made_again_in_its_place(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    with node(tmp_path, redis_url, 1) as tally:
        account = tally.accounts.post("/accounts", ACCOUNT)["id"]
        customer = tally.customers.post("/customers", {"name": "c", "account_id": account})["id"]
        eventually(tally.settled)
        settings, backup = str(tally.written()), tmp_path / "backup"
        assert command("backup", str(backup), "--config", settings).returncode == 0
        sell(tally.customers, customer, 100)
        eventually(tally.settled)
        tally.end()
        _is_long_ago(client)
        shutil.rmtree(tally.directory / "data")
        assert command("recover", "customers", "--config", settings).returncode == 0
        tally.start()
        eventually(lambda: shown(tally) == {account: {customer: 100}})
        tally.stop()
        assert command("restore", str(backup), "--yes", "--config", settings).returncode == 0
        tally.start()  # its accounts.db was replaced since the backup
        eventually(lambda: shown(tally) == {account: {customer: 100}})
        assert tally.accounts.get("/status")["status"] == "ok"


@pytest.mark.whole
def test_what_is_made_again_of_a_removed_node_gives_numbers_that_it_did_not(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    with node(tmp_path, redis_url, 0) as first, node(tmp_path, redis_url, 1) as second:
        customer = second.customers.post("/customers", {"name": "c", "account_id": "1"})["id"]
        eventually(lambda: first.settled() and second.settled())
        second.end()  # perhaps it is only cut off, and has more rows
        _is_long_ago(client)
        removed = command("nodes", "remove", "1", "--yes", "--config", str(first.written()))
        assert removed.returncode == 0, removed.stderr
        again = a_node(tmp_path / "again", redis_url, 1)
        assert command("recover", "customers", "--config", str(again.written())).returncode == 0
        try:
            again.start()
            invoice = sell(again.customers, customer, 1)
            assert int(invoice) - SPAN > 10**9
            second.launch()
            assert second.process.wait(40) == 1, "it is at work elsewhere now"
        finally:
            again.end()


@pytest.mark.whole
def test_a_copy_that_meets_a_redis_without_memory_first_does_not_take_the_original_s_place(
    tmp_path: Path, server: RedisProcess
) -> None:
    """Redis had lost the lease. The copy took it, and published other events under the same numbers."""
    server.start()
    with node(tmp_path, server.url, 0) as first:
        first.customers.post("/customers", {"name": "c", "account_id": "1"})
        eventually(first.settled)
        backup = tmp_path / "backup"
        assert command("backup", str(backup), "--config", str(first.written())).returncode == 0
        server.kill()
        copy = prepared(tmp_path / "copy", redis_url=server.url)
        copy.settings["data"]["directory"] = str(backup)
        copy.start()
        try:
            relays = [first.kill(f"{service}-relay", signal.SIGSTOP) for service in ("customers", "accounts")]
            shutil.rmtree(server.directory)
            server.start()
            eventually(lambda: "was at work in another directory before" in copy.said())
            for relay in relays:
                os.kill(relay, signal.SIGCONT)
            refused = re.compile(r"customers\.db is \S+ which is at work elsewhere")
            eventually(lambda: refused.search(copy.said()))
            assert (
                copy.customers.request("POST", "/customers", {"name": "x", "account_id": "1"}).status == 503
            )
            assert first.customers.post("/customers", {"name": "d", "account_id": "1"})["id"] == "2"
        finally:
            copy.end()
        eventually(lambda: first.accounts.get("/status")["status"] == "ok")


@pytest.mark.whole
def test_a_new_accounts_node_answers_nothing_before_redis_has_told_that_nobody_has_its_number(
    tmp_path: Path, server: RedisProcess
) -> None:
    tally = a_node(tmp_path, server.url, 3, "--only", "accounts")
    try:
        tally.launch()
        eventually(lambda: "a new node begins once Redis has told" in tally.said())
        assert "ready after" not in tally.said()
        server.start()
        tally.gets_ready()
        assert tally.accounts.post("/accounts", ACCOUNT)["id"] == str(3 * SPAN + 1)
    finally:
        tally.end()


@pytest.mark.whole
def test_what_nobody_of_ours_has_written_beside_the_stream_breaks_nothing(
    both: tuple[Tally, Tally], client: redis.Redis
) -> None:
    first, _ = both
    eventually(partial(_knows_both, first))
    for name, value in (("accounts@deadbeef", "garbage"), ("customers@deadbeef", "1:x"), ("x", "")):
        client.hset("{event-stream}:nodes", name, value)
    client.hset("{event-stream}:nodes", "accounts@0badcafe", "99999999999999999999:1 http://x")
    client.hset("{event-stream}:revoked", mapping={"x": "abc", "1 user1": "abc"})
    first.customers.post("/customers", {"name": "c", "account_id": "1"})
    eventually(first.settled)
    assert [each["number"] for each in first.accounts.get("/status")["nodes"]] == [0, 1]
    assert first.accounts.get("/status")["status"] == "ok"


@pytest.mark.whole
def test_a_source_that_people_have_called_gone_is_asked_again_while_it_is_there(
    both: tuple[Tally, Tally], client: redis.Redis
) -> None:
    first, second = both
    source = f"customers@{second.customers.get('/status')['identity']}"
    client.hset("{event-stream}:removed", source, "")
    eventually(lambda: not client.hexists("{event-stream}:removed", source))
    refused = command("groups", "remove", source, "--yes", "--config", str(first.written()))
    assert (refused.returncode, "is at work" in refused.stderr) == (1, True)


def test_a_copy_with_events_that_were_not_published_is_no_beginning(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with closing(accounts.open_database(tmp_path / "copy")) as database, database.transaction():
        accounts.Accounts(database).create_account(accounts.NewAccount("one", "me"))
    with pytest.raises(CannotJoin, match="1 of its events had not been published"):
        join(tmp_path / "data", tmp_path / "copy" / "accounts.db", 1)
    with pytest.raises(CannotJoin, match="is not there"):
        join(tmp_path / "data", tmp_path / "accounts.db", 1)
    assert [*(tmp_path / "data").iterdir()] == []


def test_two_that_had_published_before_there_were_numbers_both_go_on(
    client: redis.Redis, tmp_path: Path
) -> None:
    """Release 0.1.0 let them; `status` still names the other one."""
    stream, databases = EventStream(client, "event-stream"), []
    with ExitStack() as stack:
        for name in ("first", "second", "third"):
            (tmp_path / name).mkdir()
            databases.append(stack.enter_context(closing(accounts.open_database(tmp_path / name))))
        members = [Membership(each, stream, wait_seconds=0) for each in databases]
        first, second, third = members
        for database in databases[:2]:
            client.hset(stream.beside("published"), database.source, 5)
        for each in (first, second, first):  # at the end, the first has heard of the second
            each.take()
        with pytest.raises(WrongNumber, match="such as 1"):
            third.take()
        client.delete(stream.beside("nodes"))
        for each in (second, first):
            each.take()
        assert {*read_nodes(stream)} == {each.source for each in databases[:2]}
