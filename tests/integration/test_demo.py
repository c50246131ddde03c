"""`demo` fills an empty Tally, once; the commands of the page "Break it yourself" lose nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3
from integration.conftest import problem

from support import users
from support.cli import command
from support.engines import free_port
from support.program import SUPERVISOR
from support.tally import ROOT, Client, Tally, running
from support.waiting import eventually
from tally.commands import demo
from tally.commands.service_client import ServiceClient, Unavailable
from tally.config import AccountsSettings, CustomersSettings, load
from tally.events import now
from tally.store.demo_data import ACCOUNTS, CREDITS, CUSTOMERS, INVOICES, Demo, made_on

T = TypeVar("T")
PAGE = ROOT / "docs" / "break-it-yourself.md"


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    with running(tmp_path) as tally:
        yield tally


def _demo(tally: Tally, *options: str) -> "subprocess.CompletedProcess[str]":
    return command("demo", "--config", tally.directory / "tally.toml", *options, seconds=60)


def _lists(tally: Tally) -> list[bytes]:
    """All lists of both services."""
    paths = (tally.accounts, "/accounts"), (tally.customers, "/invoices"), (tally.customers, "/credits")
    return [
        client.request("GET", path, headers={"Accept": "text/csv"}).data
        for client, path in (*paths, (tally.customers, "/customers"))
    ]


def _last_day(tally: Tally) -> date:
    """The day on which the demo's accounts were opened."""
    told: str = tally.accounts.get("/accounts")[0]["account"]["description"]
    return date.fromisoformat(told.rpartition(" ")[2])


def _total_cents(demo: Demo) -> int:
    """The revenue: invoices less credits."""
    invoiced = sum(each.purchase_price_cents for each in demo.invoices)
    return invoiced - sum(each.cents for each in demo.credits)


def _assert_is_whole(tally: Tally) -> None:
    accounts = tally.accounts.get("/accounts")
    assert [each["account"]["name"] for each in accounts] == [each.name for each in ACCOUNTS]
    whole = made_on(_last_day(tally))
    assert sum(each["total_revenue_cents"] for each in accounts) == _total_cents(whole)
    _, invoices, credits, customers = [each.count(b"\r\n") - 1 for each in _lists(tally)]
    assert (customers, invoices, credits) == (CUSTOMERS, INVOICES, CREDITS)


def test_what_is_sent_is_shown_and_a_second_demo_is_refused_and_changes_nothing(tally: Tally) -> None:
    done = _demo(tally)
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 accounts, 120 customers, 3,000 invoices and 24 credits" in done.stdout
    whole = made_on(_last_day(tally))
    assert f" from {whole.invoices[0].purchase_date} to {whole.invoices[-1].purchase_date}: " in done.stdout
    assert f": {_total_cents(whole) / 100:,.2f} in all\n" in done.stdout
    assert f"http://127.0.0.1:{tally.accounts.port}/" in done.stdout
    _assert_is_whole(tally)

    before = _lists(tally)
    again = _demo(tally)
    (line,) = again.stderr.splitlines()
    assert (again.returncode, again.stdout) == (1, "")
    assert line.startswith("tally: this Tally has accounts already, and demo is for an empty one")
    assert _lists(tally) == before


class _Losing(ServiceClient):
    """Loses the first answer to a change: `error` comes in its place, once the change is recorded."""

    def __init__(
        self, name: str, settings: AccountsSettings | CustomersSettings, error: BaseException
    ) -> None:
        super().__init__(name, settings, None)
        self._errors = [error]

    def post(self, path: str, content: Any, idempotency_key: str) -> list[str]:
        made = super().post(path, content, idempotency_key)
        if self._errors:
            raise self._errors.pop()
        return made


def _fill(tally: Tally, *losing: str, error: BaseException) -> None:
    settings = load(tally.directory / "tally.toml", {})
    accounts, customers = (
        _Losing(name, of_it, error) if name in losing else ServiceClient(name, of_it, None)
        for name, of_it in (("accounts", settings.accounts), ("customers", settings.customers))
    )
    with closing(accounts), closing(customers):
        demo.fill(accounts, customers)


def test_a_demo_that_was_interrupted_is_finished_by_another_also_on_another_day(tally: Tally) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fill(tally, "accounts", error=KeyboardInterrupt())
    opened = [each["account"]["id"] for each in tally.accounts.get("/accounts")]
    for id in opened:
        told = {"description": "Made by the demo on 2020-02-29"}
        assert tally.accounts.request("PATCH", f"/accounts/{id}", told).status == 200
    assert tally.customers.get("/customers")["customers"] == []

    done = _demo(tally)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["account"]["id"] for each in tally.accounts.get("/accounts")] == opened
    _assert_is_whole(tally)


def test_a_demo_that_was_interrupted_at_its_end_is_whole(tally: Tally) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fill(tally, "customers", error=KeyboardInterrupt())
    eventually(tally.settled)
    _assert_is_whole(tally)
    assert "this Tally has accounts already" in _demo(tally).stderr


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_there_twice(
    tally: Tally,
) -> None:
    _fill(tally, "accounts", "customers", error=Unavailable("lost", may_be_done=True))
    _assert_is_whole(tally)


def test_the_demo_whose_accounts_a_page_has_opened_is_finished(tally: Tally) -> None:
    ids = _load(tally.accounts).json()["ids"]
    assert _demo(tally).returncode == 0
    assert [each["account"]["id"] for each in tally.accounts.get("/accounts")] == ids
    _assert_is_whole(tally)


def test_a_customer_that_is_there_is_enough_to_refuse(tally: Tally) -> None:
    tally.customers.post("/customers", {"name": "Ada", "account_id": "1"})
    assert "has customers already" in _demo(tally).stderr
    assert tally.accounts.get("/accounts") == []


def test_with_users_an_admin_s_token_makes_it(tmp_path: Path) -> None:
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        users.add(tally, "maria")
        assert "give a token with --token or TALLY_TOKEN" in _demo(tally).stderr
        refused = _demo(tally, "--token", users.sign_in(tally, "maria").token)
        assert "demo wants an admin's token" in refused.stderr
        assert _demo(tally, "--token", users.sign_in(tally, "root").token).returncode == 0


# The pages load the demo


def _load(client: Client, accounts: list[str] | None = None) -> urllib3.BaseHTTPResponse:
    return client.request("POST", "/demo", None if accounts is None else {"accounts": accounts})


def test_the_pages_load_the_demo_in_two_parts_and_each_once(tally: Tally) -> None:
    assert tally.accounts.get("/accounts/summary")["may_load_demo"]
    with ThreadPoolExecutor(4) as clicks:
        opened = [*clicks.map(lambda _: _load(Client(tally.accounts.port)), range(4))]
    assert sorted(each.status for each in opened) == [201, 409, 409, 409]
    (first,) = [each for each in opened if each.status == 201]
    ids = first.json()["ids"]
    assert not tally.accounts.get("/accounts/summary")["may_load_demo"]
    known = {"Tally-After": first.headers["Tally-Event-Id"], "Prefer": "wait=10"}
    assert tally.customers.request("GET", "/customers", headers=known).status == 200
    with ThreadPoolExecutor(4) as clicks:
        recorded = [*clicks.map(lambda _: _load(Client(tally.customers.port), ids), range(4))]
    assert sorted(each.status for each in recorded) == [201, 409, 409, 409]
    eventually(tally.settled)
    _assert_is_whole(tally)

    before = _lists(tally)
    assert "There are accounts or customers already" in problem(_load(tally.accounts), 409)["detail"]
    assert "There are customers already" in problem(_load(tally.customers, ids), 409)["detail"]
    assert "has accounts already" in _demo(tally).stderr
    assert _lists(tally) == before


def test_where_anything_is_recorded_the_pages_load_no_demo(tally: Tally) -> None:
    tally.customers.post("/customers", {"name": "Ada", "account_id": "1"})
    eventually(tally.settled)
    assert not tally.accounts.get("/accounts/summary")["may_load_demo"]
    problem(_load(tally.accounts), 409)
    assert tally.accounts.get("/accounts") == []
    for _ in ACCOUNTS:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "ana"})
    eventually(tally.settled)
    problem(_load(tally.customers, ["1", "2", "3", "4", "5", "6"]), 409)


def test_the_customers_of_the_demo_wait_for_its_accounts(tally: Tally) -> None:
    ids = [str(number) for number in range(101, 101 + len(ACCOUNTS))]
    refused = problem(_load(tally.customers, ids), 503)
    assert refused["detail"] == "The accounts are not known here yet: try again soon."
    problem(_load(tally.customers, ids[1:]), 422, "accounts")
    assert tally.customers.get("/customers")["customers"] == []


def test_the_demo_is_the_same_each_time_and_ends_today() -> None:
    today = now().date()
    whole = made_on(today)
    assert whole == made_on(today)
    assert len({each.name for each in whole.customers}) == CUSTOMERS
    days = [each.purchase_date for each in whole.invoices] + [each.day for each in whole.credits]
    assert max(days) <= today
    assert all(each.cents <= whole.invoices[each.invoice].purchase_price_cents for each in whole.credits)


def test_the_files_that_the_readme_imports_are_there_and_can_be_imported(tally: Tally) -> None:
    tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    imports = re.findall(r"^tally import (\S+) (.+?) *#", readme, re.MULTILINE)
    assert len(imports) == 2
    for file, options in imports:
        done = command(
            "import", "--config", tally.directory / "tally.toml", ROOT / file, *options.split(), seconds=60
        )
        assert done.returncode == 0, done


def test_the_commands_of_break_it_yourself_lose_nothing(tmp_path: Path) -> None:
    (called := tmp_path / "tally").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SUPERVISOR}" "$@"\n')
    called.chmod(0o755)
    blocks = re.findall(r"^```sh\n(.+?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "TALLY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "TALLY_CUSTOMERS_PORT": str(free_port()),
        "TALLY_ACCOUNTS_PORT": str(free_port()),
    }
    begun = now().date()
    script = "trap 'kill $running 2> /dev/null' EXIT\n" + "\n".join(blocks)
    with subprocess.Popen(
        ["bash", "-c", script], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            said, wrong = process.communicate(timeout=500)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    assert process.returncode == 0, said + wrong
    counts = [line for line in said.splitlines() if line.endswith("in customers.db")]
    assert len(counts) == len(re.findall(r"^count$", "".join(blocks), re.MULTILINE)) == 5
    assert len(set(counts)) == 1, said
    days = (begun, now().date())  # midnight may have passed
    totals = {f"{_total_cents(made_on(day)) / 100:.2f}" for day in days}
    assert counts[0] in {f"{total} from 3000 invoices, 3000 in customers.db" for total in totals}
