"""`import`: a file of purchases into a running Tally, exactly once, whatever happens in between."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import apsw
import psutil
import pytest

from support import cdnow
from support.cli import command, server_of_another_kind, settings
from support.program import SUPERVISOR
from support.tally import Tally, running
from support.terminal import on_terminal
from support.waiting import eventually
from tally.events import now, rfc3339

HEADER = "customer,purchase_date,amount\n"
CDNOW = (cdnow.CUSTOMERS, cdnow.INVOICES, cdnow.CENTS)


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """One Tally for all tests here; each imports into an account of its own."""
    with running(tmp_path_factory.mktemp("import"), redis={"embedded": "always"}) as tally:
        yield tally


@pytest.fixture
def account(tally: Tally) -> str:
    return str(tally.accounts.post("/accounts", {"name": "an account", "owned_by": "user1"})["id"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CDNOW sample as a CSV file."""
    rows = [f"{each.customer},{each.date},{each.cents / 100:.2f}\n" for each in cdnow.purchases()]
    file = tmp_path_factory.mktemp("file") / "cdnow.csv"
    file.write_text(HEADER + "".join(rows))
    return file


def _arguments(tally: Tally, account: str, file: str | Path, *options: str) -> list[str | Path]:
    return ["import", "--config", tally.directory / "tally.toml", "--account", account, *options, file]


def _import(
    tally: Tally, account: str, file: str | Path, *options: str, status: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = command(*_arguments(tally, account, file, *options), seconds=60)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def _importing(tally: Tally, account: str, file: Path) -> Iterator["subprocess.Popen[str]"]:
    """A running import. It is killed at the end if it still runs."""
    arguments = [sys.executable, str(SUPERVISOR), *map(str, _arguments(tally, account, file))]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _rows(tally: Tally, sql: str, *bindings: str) -> list[Any]:
    """The rows that a statement returns from customers.db."""
    connection = apsw.Connection(str(tally.directory / "data" / "customers.db"))
    connection.set_busy_timeout(5000)
    try:
        return list(connection.execute(sql, bindings))
    finally:
        connection.close()


def _customers(tally: Tally, account: str) -> dict[str, int]:
    """The account's customers, by name."""
    rows = _rows(tally, "SELECT name, id FROM customer WHERE account_id = ?", account)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def _invoices(tally: Tally, account: str) -> list[tuple[int, str, int]]:
    """All invoices of the account's customers: customer, date and cents of each."""
    return _rows(
        tally,
        "SELECT customer_id, purchase_date, purchase_price_cents FROM invoice"
        " WHERE customer_id IN (SELECT id FROM customer WHERE account_id = ?) ORDER BY id",
        account,
    )


def _held(tally: Tally, account: str) -> tuple[int, int, int]:
    """Customers, invoices and cents that the customers service holds for the account."""
    invoices = _invoices(tally, account)
    return len(_customers(tally, account)), len(invoices), sum(cents for *_, cents in invoices)


def _notes(tally: Tally) -> set[Path]:
    return set((tally.directory / "data" / "imports").glob("*"))


class Killed(NamedTuple):
    """An import that was killed while a batch was being sent, and its note."""

    account: str
    note: Path


@pytest.fixture
def killed(tally: Tally, account: str, file: Path) -> Killed:
    """Killed while invoices were being sent, before the answer could come."""
    before, server = _notes(tally), tally.pids()["customers-http-1"]  # looked up now, as the import ends soon
    with _importing(tally, account, file) as process:
        eventually(lambda: _invoices(tally, account))
        os.kill(server, signal.SIGSTOP)
        try:
            (note,) = _notes(tally) - before
            eventually(lambda: "sending" in note.read_text().splitlines()[-1])
            process.kill()
            process.wait()
        finally:
            tally.kill("customers-http-1", signal.SIGCONT)
    eventually(lambda: not _hung_up(tally))
    return Killed(account, note)


def _hung_up(tally: Tally) -> list[Any]:
    """The connections that the client has left and the service has not closed yet."""
    connections = psutil.Process(tally.pids()["customers-http-1"]).net_connections("tcp")
    return [each for each in connections if each.status == psutil.CONN_CLOSE_WAIT]


def _forget_keys(tally: Tally) -> None:
    """Make the customers service forget every key, as it does after a day."""
    _rows(tally, "DELETE FROM idempotency")


# The result of a good file


def test_a_file_becomes_customers_and_invoices_and_running_it_again_adds_nothing(
    tally: Tally, account: str, file: Path
) -> None:
    done = _import(tally, account, file)
    assert done.stdout.splitlines() == [
        "Imported.",
        "rows       6,919, 0 bad",
        "customers  2,357 new, 0 known",
        f"invoices   6,919 ({cdnow.CENTS / 100:.2f}) new, 0 known",
        f"together   {cdnow.CENTS / 100:.2f}, from 1997-01-01 to 1998-06-30",
    ]
    assert done.stderr == ""
    assert _held(tally, account) == CDNOW
    eventually(tally.settled)
    assert tally.accounts.get(f"/accounts/{account}")["total_revenue_cents"] == cdnow.CENTS

    again = _import(tally, account, file)
    assert again.stdout.startswith("Nothing new: all of it was there before.\n")
    assert "customers  0 new, 2,357 known" in again.stdout
    _forget_keys(tally)
    _import(tally, account, file)
    assert _held(tally, account) == CDNOW


def test_each_row_is_an_invoice_of_its_customer(tally: Tally, account: str, tmp_path: Path) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text(f"{HEADER}Ann,2019-01-06,29.33\nBob,2020-02-29,0\nAnn,2019-01-06,29.33\n")
    _import(tally, account, file)
    ids = _customers(tally, account)
    ann, bob = ids["Ann"], ids["Bob"]
    assert _invoices(tally, account) == [
        (ann, "2019-01-06", 2933),
        (bob, "2020-02-29", 0),
        (ann, "2019-01-06", 2933),
    ]


def test_columns_may_have_other_names_and_another_delimiter(
    tally: Tally, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text("who|when|sum\nAnn|2019-01-06|29.33\n")
    names = ("--customer-column", "who", "--date-column", "when", "--amount-column", "sum")
    _import(tally, account, file, *names, "--delimiter", "|")
    assert _held(tally, account) == (1, 1, 2933)


def test_a_dash_reads_standard_input_and_is_the_same_import_as_the_file(
    tally: Tally, account: str, file: Path
) -> None:
    arguments = [sys.executable, str(SUPERVISOR), *map(str, _arguments(tally, account, "-"))]
    subprocess.run(arguments, input=file.read_bytes(), check=True, timeout=60)
    assert _held(tally, account) == CDNOW
    assert _import(tally, account, file).stdout.startswith("Nothing new")
    assert _held(tally, account) == CDNOW


def test_another_account_is_another_import(tally: Tally, account: str, tmp_path: Path) -> None:
    other = str(tally.accounts.post("/accounts", {"name": "another", "owned_by": "user1"})["id"])
    file = tmp_path / "purchases.csv"
    file.write_text(f"{HEADER}Ann,2019-01-06,29.33\n")
    for each in (account, other):
        _import(tally, each, file)
        assert _held(tally, each) == (1, 1, 2933)


def test_a_file_without_rows_adds_nothing_and_is_no_success(
    tally: Tally, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text(HEADER)
    refused = _import(tally, account, file, status=1)
    assert "nothing was imported: there is no row in the file" in refused.stderr
    assert _held(tally, account) == (0, 0, 0)


# Bad rows, and other reasons to import nothing


def test_with_a_bad_row_nothing_is_imported_and_with_skip_bad_the_others_are(
    tally: Tally, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    bad = "Bob,2019-02-29,1\n,2019-01-06,1e3\n" + "Bob,2019-01-06,-1\n" * 30
    file.write_text(f"{HEADER}Ann,2019-01-06,29.33\n{bad}Cid,2019-01-06,1.50\n")

    refused = _import(tally, account, file, status=1)
    assert refused.stdout == ""
    told = refused.stderr.splitlines()
    assert told[0] == "line 3: purchase_date: Expected a date, YYYY-MM-DD, got '2019-02-29'"
    assert told[1].startswith(
        "line 4: customer: Expected 1 to 200 characters, got 0, got ''; amount: Expected"
    )
    assert told[20] == "and 12 bad rows more"
    assert told[21].startswith("tally: nothing was imported, as there are bad rows (32)")
    assert len(told) == 22
    assert _held(tally, account) == (0, 0, 0)

    assert "--skip-bad" not in told[21], "nearly all rows are bad"
    for _ in range(2):
        skipped = _import(tally, account, file, "--skip-bad")
        assert skipped.stderr.splitlines() == told[:21]
        assert _held(tally, account) == (2, 2, 3083)
    assert "bad        30: amount: An amount can't be negative." in skipped.stdout
    assert _customers(tally, account).keys() == {"Ann", "Cid"}


def test_an_account_that_does_not_exist_is_told_before_anything_is_sent(tally: Tally, file: Path) -> None:
    refused = _import(tally, "999999", file, status=1)
    assert refused.stderr == "tally: there is no account 999999; GET /accounts lists them\n"
    assert _customers(tally, "999999") == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.csv", "--account", "1"],
        [str(SUPERVISOR)],
        [str(SUPERVISOR), "--account", "x"],
        [str(SUPERVISOR), "--account", "1", "--delimiter", "ab"],
        [str(SUPERVISOR), "--account", "1", "--token", "a\nb"],
    ],
    ids=["no file", "no account", "no id", "no delimiter", "no token"],
)
def test_wrong_usage_has_status_2(arguments: list[str]) -> None:
    done = command("import", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_a_file_that_is_none_is_told_in_one_line(tally: Tally, account: str) -> None:
    refused = _import(tally, account, SUPERVISOR, status=1)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("tally: line 1: the column 'customer' is not there; found: ")


def test_a_tally_that_does_not_run_is_told_in_one_line(tmp_path: Path, file: Path) -> None:
    done = command("import", "--config", settings(tmp_path), "--account", "1", file)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.endswith("is Tally running?")) == (1, True), line


def test_a_token_is_sent_and_one_that_is_refused_is_told_with_what_to_do(tmp_path: Path, file: Path) -> None:
    heard: list[bytes] = []

    def refuse(received: BinaryIO, said: BinaryIO) -> None:
        while line := received.readline().strip():
            heard.append(line)
        said.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 21\r\n\r\n" + b'{"detail": "Expired"}')

    with server_of_another_kind(refuse) as port:
        config, environment = settings(tmp_path, accounts={"port": port}), {"TALLY_TOKEN": "a.b.c"}
        done = command("import", "--config", config, "--account", "1", file, environment=environment)
    assert b"Authorization: Bearer a.b.c" in heard
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "401: Expired; give a token with --token or TALLY_TOKEN" in line) == (1, True)


# Interruptions


def test_killed_in_the_middle_and_run_again_it_adds_nothing_twice(
    tally: Tally, killed: Killed, file: Path
) -> None:
    customers, invoices, _ = _held(tally, killed.account)
    assert customers == cdnow.CUSTOMERS
    assert 0 < invoices < cdnow.INVOICES
    _import(tally, killed.account, file)
    assert _held(tally, killed.account) == CDNOW
    eventually(tally.settled)
    assert tally.accounts.get(f"/accounts/{killed.account}")["total_revenue_cents"] == cdnow.CENTS


def test_killed_while_its_customers_are_sent_it_goes_on_as_well(
    tally: Tally, account: str, file: Path
) -> None:
    with _importing(tally, account, file) as process:
        eventually(lambda: _customers(tally, account))
        process.kill()
    _import(tally, account, file)
    assert _held(tally, account) == CDNOW


def test_a_note_that_was_torn_by_a_crash_is_gone_on_with(tally: Tally, killed: Killed, file: Path) -> None:
    with killed.note.open("a") as note:
        note.write('{"invoices":10')
    _import(tally, killed.account, file)
    assert _held(tally, killed.account) == CDNOW


def test_ctrl_c_ends_it_between_two_batches_and_it_goes_on_even_when_no_key_is_remembered(
    tally: Tally, account: str, file: Path
) -> None:
    with _importing(tally, account, file) as process:
        eventually(lambda: _invoices(tally, account))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    _, invoices, _ = _held(tally, account)
    assert told == (
        f"tally: interrupted: 2,357 of 2,357 customers and {invoices:,} of 6,919 invoices were added to "
        f"account {account}; run the same command again to go on\n"
    )
    _forget_keys(tally)
    _import(tally, account, file)
    assert _held(tally, account) == CDNOW


def test_what_was_in_doubt_for_over_a_day_is_sent_again_only_when_told_so(
    tally: Tally, killed: Killed, file: Path
) -> None:
    *steps, last = killed.note.read_text().splitlines()
    sending = json.loads(last)
    assert sending["kind"] == "invoices"
    sending["sending"] = rfc3339(now() - timedelta(hours=25))
    killed.note.write_text("\n".join([*steps, json.dumps(sending)]) + "\n")
    before = eventually(lambda: _held(tally, killed.account))

    refused = _import(tally, killed.account, file, status=1)
    (line,) = refused.stderr.splitlines()
    assert "invoices from one of customer" in line
    assert "--resend" in line
    assert _held(tally, killed.account) == before

    _import(tally, killed.account, file, "--resend")
    assert _held(tally, killed.account) == CDNOW


def test_a_service_that_is_restarted_meanwhile_is_waited_for(tally: Tally, account: str, file: Path) -> None:
    with _importing(tally, account, file) as process:
        eventually(lambda: _customers(tally, account))
        assert tally.stop() == 0
        assert process.stderr is not None
        told = [process.stderr.readline()]
        while "trying again for up to 60 s" not in told[-1]:
            told.append(process.stderr.readline())
        tally.start()
        _, rest = process.communicate(timeout=60)
    told += rest.splitlines()
    assert all("does not answer" in line for line in told), told
    assert process.returncode == 0
    assert _held(tally, account) == CDNOW


def test_what_could_not_be_sent_at_all_is_not_in_doubt(
    tally: Tally, account: str, file: Path, tmp_path: Path
) -> None:
    data, port = str(tally.directory / "data"), tally.accounts.port
    settings(tmp_path, data={"directory": data}, accounts={"port": port})  # the customers service isn't here
    before = _notes(tally)
    elsewhere = Tally(tmp_path, tally.settings)
    with _importing(elsewhere, account, file) as process:
        assert process.stderr is not None
        assert "Connection refused" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    assert told.startswith("tally: interrupted: 0 of 2,357 customers and 0 of 6,919 invoices were added")
    (note,) = _notes(tally) - before
    assert "sending" not in note.read_text()


def test_a_batch_that_is_refused_is_told_with_how_far_it_got(
    tally: Tally, killed: Killed, file: Path
) -> None:
    key = f"import-{killed.note.stem}-invoices-6000"
    _rows(tally, "INSERT INTO idempotency VALUES (?, x'00', NULL, x'00', unixepoch(), NULL)", key)
    refused = _import(tally, killed.account, file, status=1)
    (line,) = refused.stderr.splitlines()
    assert "answers 422: The Idempotency-Key was used before, for another request" in line
    assert "6,000 of 6,919 invoices were added" in line
    assert "run the same command again to go on" in line

    _forget_keys(tally)
    _import(tally, killed.account, file)
    assert _held(tally, killed.account) == CDNOW


def test_a_database_that_takes_no_writes_for_a_while_is_waited_for(
    tally: Tally, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text(f"{HEADER}Ann,2019-01-06,29.33\n")
    connection = apsw.Connection(str(tally.directory / "data" / "customers.db"))
    connection.set_busy_timeout(5000)
    connection.execute("BEGIN IMMEDIATE")
    with _importing(tally, account, file) as process:
        assert process.stderr is not None
        waiting = process.stderr.readline()
        connection.execute("ROLLBACK")
        connection.close()
        _, rest = process.communicate(timeout=60)
    assert re.search(r"answers 503: .+; trying again for up to 60 s$", waiting.strip())
    assert (process.returncode, rest) == (0, "")
    assert _held(tally, account) == (1, 1, 2933)


def test_a_second_import_of_the_same_file_at_the_same_time_is_refused(
    tally: Tally, account: str, file: Path
) -> None:
    with _importing(tally, account, file) as process:
        eventually(lambda: _customers(tally, account))
        process.send_signal(signal.SIGSTOP)
        refused = _import(tally, account, file, status=1)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
    assert refused.stderr == "tally: Another process is at this import already.\n"
    assert _held(tally, account) == CDNOW


def test_a_database_that_lost_what_was_imported_is_noticed(
    tally: Tally, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    file.write_text(f"{HEADER}Ann,2019-01-06,29.33\n")
    before = _notes(tally)
    _import(tally, account, file)
    (note,) = _notes(tally) - before
    tally.customers.delete(f"/customers/{_customers(tally, account)['Ann']}")

    refused = _import(tally, account, file, status=1)
    assert "no longer there" in refused.stderr
    assert str(note) in refused.stderr
    note.unlink()
    _forget_keys(tally)
    _import(tally, account, file)
    assert _held(tally, account) == (1, 1, 2933)


# On a terminal


def test_a_terminal_shows_progress_with_rate_and_time_left(tally: Tally, account: str, file: Path) -> None:
    status, shown = on_terminal(*_arguments(tally, account, file), seconds=60)
    assert status == 0, shown
    assert "6919/6919" in shown
    assert "/s" in shown
    assert "0:00:00" in shown
    assert "invoices   6,919 (" in shown
    assert _held(tally, account) == CDNOW
