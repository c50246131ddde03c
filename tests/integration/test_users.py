"""The commands `users …` and the signing key, on a machine where Tally runs, and where it doesn't."""

import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from integration.conftest import problem

from support.cli import command, settings
from support.program import SUPERVISOR
from support.tally import Client, Tally, running
from support.users import PASSWORD, sign_in, with_token
from support.waiting import eventually
from tally.supervisor import main

KEY = "an-operator-s-own-signing-key-of-enough-bytes"


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("users"), auth={"mode": "jwt", "token_minutes": 5}) as tally:
        yield tally


def _users(directory: Path, name: str, *arguments: str, given: bytes = PASSWORD.encode()) -> Result:
    """Run the command in this process, to save the second of starting one."""
    config = directory / "tally.toml"
    return CliRunner().invoke(main, ["users", name, "--config", str(config), *arguments], input=given)


def _done(directory: Path, *arguments: str, given: bytes = PASSWORD.encode()) -> str:
    """The output of the command."""
    done = _users(directory, *arguments, given=given)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def _failed(directory: Path, status: int, *arguments: str, given: bytes = PASSWORD.encode()) -> str:
    """The command's standard error. It must have printed nothing else."""
    done = _users(directory, *arguments, given=given)
    assert (done.exit_code, done.stdout) == (status, ""), done.output
    assert isinstance(done.exception, SystemExit)
    return str(done.stderr)


def test_users_are_added_listed_and_removed_while_tally_runs(tally: Tally) -> None:
    assert "no user is an admin" in tally.said()
    file = tally.directory / "tally.toml"
    added = subprocess.run(
        [sys.executable, SUPERVISOR, "users", "add", "root", "--admin", "--password-stdin", "--config", file],
        input=PASSWORD, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (added.returncode, added.stdout) == (0, "root may sign in, as an admin\n"), added
    _done(tally.directory, "add", " alice ", "--password-stdin", given=f"{PASSWORD}\n".encode())
    lines = _done(tally.directory, "list").splitlines()
    assert [line.split()[:-1] for line in lines[1:]] == [["alice"], ["root", "admin"]]
    alice, root = sign_in(tally, "alice"), sign_in(tally, "root")
    alice.accounts.post("/accounts", {"name": "Hers", "owned_by": "alice"})
    assert "good no more" in _done(tally.directory, "remove", "alice")
    problem(alice.accounts.request("GET", "/accounts"), 401)
    problem(alice.customers.request("GET", "/customers"), 401)
    assert root.accounts.get("/accounts")[0]["account"]["owned_by"] == "alice"


def test_a_token_for_a_program_is_good_for_days_for_the_status_alone_and_for_no_admin(tally: Tally) -> None:
    _done(tally.directory, "add", "prometheus", "--password-stdin")
    _done(tally.directory, "add", "boss", "--admin", "--password-stdin")
    token = _done(tally.directory, "token", "prometheus", "--days", "90").strip()
    program = with_token(tally, "prometheus", token)
    assert program.accounts.get("/status")["service"] == "accounts"
    assert program.customers.get("/status")["service"] == "customers"
    assert program.accounts.request("GET", "/metrics").status == 200
    for client, path in ((program.accounts, "/accounts"), (program.customers, "/customers")):
        problem(client.request("GET", path), 403)
    problem(program.customers.request("POST", "/customers", {"name": "c", "account_id": "1"}), 403)
    token = _done(tally.directory, "token", "prometheus", "--days", "1", "--all-calls").strip()
    assert with_token(tally, "prometheus", token).accounts.get("/accounts") == []
    assert "admin" in _failed(tally.directory, 1, "token", "boss", "--days", "1")
    assert "no user nobody" in _failed(tally.directory, 1, "token", "nobody", "--days", "1")
    assert "--days" in _failed(tally.directory, 2, "token", "prometheus", "--days", "366")


def test_tokens_are_revoked_on_both_services_and_the_user_may_sign_in_again(tally: Tally) -> None:
    _done(tally.directory, "add", "frank", "--password-stdin")
    token = _done(tally.directory, "token", "frank", "--days", "365", "--all-calls").strip()
    program, signed_in = with_token(tally, "frank", token), sign_in(tally, "frank")
    assert program.customers.get("/customers")["customers"] == []
    assert "good no more" in _done(tally.directory, "revoke", "frank")
    for each in (program, signed_in):
        problem(each.customers.request("GET", "/customers"), 401)
        problem(each.accounts.request("GET", "/accounts"), 401)
    eventually(lambda: sign_in(tally, "frank").customers.get("/customers"))
    assert "no user nobody" in _failed(tally.directory, 1, "revoke", "nobody")


def test_another_password_ends_the_tokens_and_the_password_before(tally: Tally) -> None:
    _done(tally.directory, "add", "henry", "--password-stdin")
    before = sign_in(tally, "henry")
    assert "no user nobody" in _failed(tally.directory, 1, "passwd", "nobody", "--password-stdin")
    assert "password" in _failed(tally.directory, 2, "passwd", "henry", "--password-stdin", given=b"short")
    assert before.accounts.get("/accounts") == []
    told = _done(tally.directory, "passwd", "henry", "--password-stdin", given=b"another password")
    assert told == "henry has another password; its tokens are good no more\n"
    problem(before.accounts.request("GET", "/accounts"), 401)
    login = {"username": "henry", "password": PASSWORD}
    problem(tally.accounts.request("POST", "/auth/login", login), 401)
    login["password"] = "another password"
    assert tally.accounts.request("POST", "/auth/login", login).status == 200


def test_a_list_of_revoked_tokens_that_can_not_be_read_lets_nobody_in(tally: Tally) -> None:
    _done(tally.directory, "add", "grace", "--password-stdin")
    signed_in = sign_in(tally, "grace")
    revoked = tally.directory / "data" / "revoked.json"
    _done(tally.directory, "revoke", "grace")
    kept = revoked.read_bytes()
    revoked.write_bytes(b"[")
    problem(signed_in.customers.request("GET", "/customers"), 503)
    assert "revoked.json" in _failed(tally.directory, 1, "revoke", "grace")
    revoked.write_bytes(kept)
    problem(signed_in.customers.request("GET", "/customers"), 401)


def test_a_new_signing_key_ends_every_token_without_a_restart(tally: Tally) -> None:
    _done(tally.directory, "add", "eve", "--password-stdin")
    before = sign_in(tally, "eve")
    (tally.directory / "data" / "signing.key").unlink()
    tally.process.send_signal(signal.SIGHUP)
    for client, path in ((before.customers, "/customers"), (before.accounts, "/accounts")):
        eventually(lambda client=client, path=path: client.request("GET", path).status == 401)  # type: ignore[misc]
    after = eventually(lambda: sign_in(tally, "eve"))
    eventually(lambda: after.customers.request("GET", "/customers").status == 200)
    assert after.accounts.get("/accounts") == []


# Without a running Tally


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with settings and one user in it."""
    directory = tmp_path_factory.mktemp("stopped")
    settings(directory, auth={"mode": "jwt"})
    _done(directory, "add", "known", "--admin", "--password-stdin")
    return directory


def test_the_first_user_makes_the_data_directory_for_its_owner_alone(stopped: Path) -> None:
    assert stat.S_IMODE((stopped / "data").stat().st_mode) == 0o700
    assert "known" in _done(stopped, "list")


def test_only_adding_a_user_makes_a_database(tmp_path: Path) -> None:
    """The others would leave an empty one in a mistaken folder, and say nothing."""
    settings(tmp_path, auth={"mode": "jwt"})
    expected = f"tally: there is no accounts.db in {tmp_path / 'data'}; `run` or `users add` makes it\n"
    for words in ("list", "remove a", "revoke a", "passwd a", "token a --days 1"):
        assert _failed(tmp_path, 1, *words.split()) == expected
    assert not (tmp_path / "data").exists()
    _done(tmp_path, "add", "a", "--password-stdin")
    _done(tmp_path, "remove", "a")
    assert _done(tmp_path, "list") == "nobody may sign in yet\n"


def test_a_name_that_is_taken_is_told_and_nothing_is_changed(stopped: Path) -> None:
    before = _done(stopped, "list")
    said = _failed(stopped, 1, "add", " known ", "--password-stdin")
    assert "already a user known" in said
    assert _done(stopped, "list") == before


def test_a_user_who_is_not_there_can_not_be_removed(stopped: Path) -> None:
    assert "no user nobody" in _failed(stopped, 1, "remove", "nobody")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
def test_what_can_be_no_owner_can_be_no_user(stopped: Path, name: str) -> None:
    assert "NAME" in _failed(stopped, 2, "add", name, "--password-stdin")


@pytest.mark.parametrize("given", [b"", b"short\n", b"1234567", b"x" * 1025, b"\xff" * 10])
def test_a_password_that_will_not_do_is_told_and_not_shown(stopped: Path, given: bytes) -> None:
    said = _failed(stopped, 2, "add", "somebody", "--password-stdin", given=given)
    assert "password" in said
    assert not given.strip() or given.decode(errors="replace").strip() not in said
    assert "somebody" not in _done(stopped, "list")


def test_without_a_terminal_the_password_must_be_announced(stopped: Path) -> None:
    assert "--password-stdin" in _failed(stopped, 2, "add", "somebody")


def test_the_removal_of_the_last_admin_is_no_secret(stopped: Path) -> None:
    _done(stopped, "add", "last", "--password-stdin")
    _done(stopped, "remove", "known")
    done = _users(stopped, "remove", "last")
    assert done.exit_code == 0
    assert "no user is an admin" in done.stderr
    _done(stopped, "add", "known", "--admin", "--password-stdin")
    assert _done(stopped, "list").count("\n") == 2


def _at_a_terminal(directory: Path, *typed: str) -> tuple[int, str]:
    """Add the user `typist` at a terminal and type these lines; return the exit status and the screen."""
    controller, terminal = pty.openpty()
    arguments = [sys.executable, str(SUPERVISOR), "users", "add", "typist"]
    with subprocess.Popen(
        [*arguments, "--config", str(directory / "tally.toml")],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = ""
        for line in typed:
            before = shown.count(":")
            while shown.count(":") == before:
                shown += os.read(controller, 1000).decode()
            os.write(controller, f"{line}\n".encode())
        try:
            while more := os.read(controller, 1000).decode():
                shown += more
        except OSError:
            pass  # this is how Linux tells that the other side has closed
        os.close(controller)
        return process.wait(20), shown


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(stopped: Path) -> None:
    status, shown = _at_a_terminal(stopped, PASSWORD, PASSWORD)
    assert status == 0, shown
    assert "typist may sign in" in shown
    assert PASSWORD not in shown


def test_a_user_may_be_added_before_auth_is_on_and_is_told_so(tmp_path: Path) -> None:
    settings(tmp_path)
    done = _users(tmp_path, "add", "early", "--password-stdin")
    assert done.exit_code == 0
    assert 'auth.mode is "off"' in done.stderr
    assert not (tmp_path / "data" / "signing.key").exists()
    assert 'auth.mode is "off"' in _failed(tmp_path, 1, "token", "early", "--days", "1")


# The signing key


def test_a_key_that_others_may_read_is_told_by_check_and_run(tmp_path: Path) -> None:
    file = settings(tmp_path, auth={"mode": "jwt"})
    _done(tmp_path, "add", "somebody", "--password-stdin")
    assert command("check", "--config", file).stdout.count("signing") == 0  # it will be created
    _done(tmp_path, "token", "somebody", "--days", "1")
    key = tmp_path / "data" / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o640)
    checked = command("check", "--config", file)
    assert (checked.returncode, "BAD   signing key" in checked.stdout) == (1, True), checked
    done = command("run", "--config", file)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(key) in line
    assert "0640" in line


def test_a_key_from_the_environment_is_the_one_that_counts_and_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLY_AUTH_SIGNING_KEY", KEY)
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        _done(tmp_path, "add", "alice", "--password-stdin")
        token = _done(tmp_path, "token", "alice", "--days", "1", "--all-calls").strip()
        assert Client(tally.customers.port, token).get("/customers")["customers"] == []
        assert sign_in(tally, "alice").customers.get("/customers")["customers"] == []
        assert not (tmp_path / "data" / "signing.key").exists()
        assert KEY not in tally.said()
