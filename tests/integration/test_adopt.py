"""`adopt` moves from the original to Tally: rows keep their ids, and the events stay on the stream."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import command
from support.engines import bundled_process, free_port
from support.tally import Tally, prepared
from support.waiting import eventually

ACCOUNTS = (
    "id,name,description,owned_by,created_date\n"
    "7,Seven,,user1,0001-01-01T00:00:00Z\n"
    "9,Nine,x,user2,2019-03-23 05:24:50.326+00\n"
)
CUSTOMERS = (
    "id,account_id,name,created_date\n"
    "3,7,Martin North,0001-01-01 00:00:00\n"
    '8,7,"Adams, John",2019-03-23 05:24:50.326+00\n'
    "12,9,Zoé,\n"
)
INVOICES = (
    "id,customer_id,purchase_price_cents,purchase_date,created_date\n"
    "5,3,10000,2019-01-06,0001-01-01 00:00:00+00\n"
    "6,3,-2500,2019-01-07,\n"
    "40,8,300,2019-01-08 00:00:00,2019-03-23T05:24:50Z\n"
)


def _published(url: str) -> None:
    """The original's own entries: no EventId, zero dates."""
    client = redis.Redis.from_url(url)
    zero = "0001-01-01T00:00:00Z"
    for id, account, name in (("3", "7", "Martin North"), ("8", "7", "Adams, John"), ("12", "9", "Zoé")):
        payload = json.dumps({"id": id, "account_id": account, "name": name, "created_date": zero})
        client.xadd("event-stream", {"Payload": payload, "EventTypeName": "CustomerCreated"})
    for id, customer, cents, day in (
        ("5", "3", 10000, "06"),
        ("6", "3", -2500, "07"),
        ("40", "8", 300, "08"),
    ):
        row = {"id": id, "customer_id": customer, "purchase_price_cents": cents, "created_date": zero}
        payload = json.dumps({**row, "purchase_date": f"2019-01-{day}"})
        client.xadd("event-stream", {"Payload": payload, "EventTypeName": "InvoiceCreated"})


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes the files, and returns the options that name them."""

    def written(accounts: str = ACCOUNTS, customers: str = CUSTOMERS, invoices: str = INVOICES) -> list[str]:
        options = []
        for name, content in (("accounts", accounts), ("customers", customers), ("invoices", invoices)):
            path = tmp_path / f"{name}.csv"
            path.write_text(content)
            options += [f"--{name}", str(path)]
        return options

    return written


def _adopt(tally: Tally, options: list[str], status: int = 0) -> "subprocess.CompletedProcess[str]":
    done = command("adopt", "--config", tally.directory / "tally.toml", *options)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


def _shown(tally: Tally) -> dict[str, tuple[int, dict[str, int]]]:
    """Each account's total, and its customers' totals by name."""
    return {
        each["account"]["name"]: (
            each["total_revenue_cents"],
            {customer["name"]: customer["total_revenue_cents"] for customer in each["customers"]},
        )
        for each in tally.accounts.get("/accounts")
    }


EXPECTED = {
    "Seven": (7800, {"Martin North": 7500, "Adams, John": 300}),
    "Nine": (0, {"Zoé": 0}),
}


def test_the_original_s_rows_are_taken_over_and_its_stream_counts_once(
    tmp_path: Path, files: Callable[..., list[str]]
) -> None:
    with bundled_process(tmp_path / "redis", free_port()) as url:
        _published(url)
        tally = prepared(tmp_path / "tally", redis_url=url)
        (tally.directory / "tally.toml").write_text(_toml(tally))
        told = _adopt(tally, files()).stdout
        assert told.splitlines() == [
            "3 customers, and 0 that were there",
            "2 invoices, and 0 that were there",
            "1 credits, of negative amounts, and 0 that were there",
            "2 accounts, and 0 that were there",
        ]
        assert "0 customers, and 3 that were there" in _adopt(tally, files()).stdout  # adds nothing
        try:
            tally.start()
            eventually(lambda: _shown(tally) == EXPECTED)
            eventually(lambda: tally.accounts.get("/status")["redis"]["dead_letters"] == 1)

            customer = tally.customers.get("/customers/8")
            assert (customer["name"], customer["created_date"]) == (
                "Adams, John",
                "2019-03-23T05:24:50.326000Z",
            )
            assert tally.customers.get("/customers/3")["created_date"].startswith("0001-01-01T00:00:00")
            assert tally.customers.get("/invoices/40")["purchase_date"] == "2019-01-08"
            (credit,) = tally.customers.get("/credits")["credits"]
            assert (credit["customer_id"], credit["credited_cents"], credit["reference"]) == (
                "3",
                2500,
                "invoice 6",
            )
            assert tally.customers.post("/customers", {"name": "new", "account_id": "7"}) == {"id": "13"}
            invoice = {"customer_id": "8", "purchase_date": "2020-01-01", "purchase_price_cents": 50}
            assert tally.customers.post("/invoices", invoice) == {"id": "41"}
            assert tally.accounts.post("/accounts", {"name": "new", "owned_by": "user1"}) == {"id": "10"}
            changed = tally.customers.request("PATCH", "/invoices/5", {"purchase_price_cents": 11000})
            assert changed.status == 200
            expected: Any = {
                "Seven": (8850, {"Martin North": 8500, "Adams, John": 350, "new": 0}),
                "Nine": EXPECTED["Nine"],
                "new": (0, {}),
            }
            eventually(lambda: _shown(tally) == expected)

            for _ in ("from the stream", "from customers.db"):
                done = command("rebuild", "accounts", "--config", tally.directory / "tally.toml", "--yes")
                assert done.returncode == 0, done
                eventually(tally.settled)
                assert _shown(tally) == expected, done
                client: Any = redis.Redis.from_url(url)
                client.xtrim("event-stream", maxlen=client.xlen("event-stream") - 1, approximate=False)
                client.set("{event-stream}:trimmed", "1-0")  # as if trimmed for their age
            assert "built again from customers@" in done.stdout
        finally:
            tally.end()


def _toml(tally: Tally) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in tally.settings.items()
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"customers": CUSTOMERS.replace("Zoé", "")}, "line 4: name: Expected 1 to 200 characters, got 0"),
        ({"customers": CUSTOMERS.replace("12,9", "12,x")}, "line 4: account_id: "),
        ({"invoices": INVOICES.replace("2019-01-06", "soon")}, "line 2: purchase_date: "),
        ({"invoices": INVOICES.replace(",10000,", ",1.5,")}, "line 2: purchase_price_cents: "),
        (
            {"invoices": INVOICES.replace("40,8,", "40,99,")},
            "The invoice 40 is of customer 99, who isn't there",
        ),
        ({"invoices": INVOICES + "5,3,1,2019-01-06,\n"}, "There is another invoice 5 already"),
        ({"customers": CUSTOMERS.replace("account_id", "account")}, "there is no column 'account_id'"),
        ({"customers": '"a'}, "can't be read"),
        ({"customers": ""}, "there is no column 'id'"),
        ({"invoices": "5,3,10000,2019-01-06,\n"}, "there is no column 'id'"),
        ({"customers": CUSTOMERS.replace("name", "name,name")}, "there is twice the column 'name'"),
        (
            {"customers": CUSTOMERS.replace("Martin North,", "North, Martin,")},
            "line 2: Expected 4 columns, got 5",
        ),
        ({"invoices": INVOICES.replace("01-07,", "01-07")}, "line 3: Expected 5 columns, got 4"),
        ({"invoices": INVOICES.replace("10000", "10_000")}, "line 2: purchase_price_cents: Expected a whole"),
        ({"accounts": ACCOUNTS.replace("user2", "")}, "line 3: owned_by: Expected 1 to 200 characters"),
    ],
)
def test_what_can_t_be_taken_over_is_told_and_nothing_is(
    tmp_path: Path, files: Callable[..., list[str]], changed: dict[str, str], told: str
) -> None:
    tally = prepared(tmp_path / "tally")
    (tally.directory / "tally.toml").write_text(_toml(tally))
    assert told in _adopt(tally, files(**changed), status=1).stderr
    assert "3 customers, and 0 that were there" in _adopt(tally, files()).stdout


def test_another_row_under_an_id_is_refused(tmp_path: Path, files: Callable[..., list[str]]) -> None:
    tally = prepared(tmp_path / "tally")
    (tally.directory / "tally.toml").write_text(_toml(tally))
    _adopt(tally, files())
    for changed in (
        {"accounts": ACCOUNTS.replace("Nine", "Ten")},
        {"customers": CUSTOMERS.replace("North", "South")},
        {"invoices": INVOICES.replace("10000", "10001")},
        {"invoices": INVOICES.replace("-2500", "-2501")},
    ):
        assert "another" in _adopt(tally, files(**changed), status=1).stderr
    assert "0 invoices" not in _adopt(tally, files(invoices=INVOICES + "41,3,1,2019-01-06,\n")).stdout


def test_an_emptied_customers_db_is_not_begun_anew(tmp_path: Path, files: Callable[..., list[str]]) -> None:
    tally = prepared(tmp_path / "tally")
    (tally.directory / "tally.toml").write_text(_toml(tally))
    file = tally.directory / "data" / "customers.db"
    file.parent.mkdir()
    file.touch()
    assert "is an empty file" in _adopt(tally, files(), status=1).stderr
    assert file.stat().st_size == 0


def test_without_a_file_it_says_so_and_makes_nothing(tmp_path: Path) -> None:
    tally = prepared(tmp_path / "tally")
    (tally.directory / "tally.toml").write_text(_toml(tally))
    assert "--accounts, --customers and --invoices" in _adopt(tally, [], status=2).stderr
    assert not (tally.directory / "data").exists()


def test_it_is_refused_while_tally_runs(tmp_path: Path, files: Callable[..., list[str]]) -> None:
    tally = prepared(tmp_path / "tally")
    tally.start()
    try:
        assert "is in use by another supervisor" in _adopt(tally, files(), status=1).stderr
    finally:
        tally.end()
