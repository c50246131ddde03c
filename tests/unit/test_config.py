"""Settings: the file, the environment, and the messages about wrong settings."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tally.config import DEFAULT_FILE, SECTIONS, InvalidSettings, Settings, load
from tally.redis_url import is_loopback

SECRET = "hunter2"


def _written(directory: Path, text: str) -> Path:
    file = directory / "tally.toml"
    file.write_text(text, encoding="utf-8")
    return file


def _faults(
    file: Path | None, environment: Mapping[str, str] | None = None, package: Path = DEFAULT_FILE.parent
) -> list[str]:
    """The faults found. Each of them must be one line."""
    with pytest.raises(InvalidSettings) as caught:
        load(file, environment or {}, package)
    faults = caught.value.faults
    assert str(caught.value).splitlines() == faults
    return faults


def _says(line: str, *parts: str) -> None:
    assert [part for part in parts if part not in line] == [], line


def _assigned(line: str) -> re.Match[str] | None:
    return re.fullmatch(r"(\w+) = (.+?)\s+# (\S.*)", line)


# config.toml


def test_config_toml_holds_every_section_and_no_other() -> None:
    assert list(tomllib.loads(DEFAULT_FILE.read_text())) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_config_toml_holds_every_key_of_a_section_with_its_default(section: str) -> None:
    shown = tomllib.loads(DEFAULT_FILE.read_text())[section]
    defaults = msgspec.structs.asdict(SECTIONS[section]())
    assert [*shown.items()] == [*defaults.items()]
    assert [type(value) for value in shown.values()] == [type(value) for value in defaults.values()]


def test_every_line_of_config_toml_that_sets_a_key_has_a_comment() -> None:
    lines = [line for line in DEFAULT_FILE.read_text().splitlines() if line and line[0] not in "#["]
    assert [line for line in lines if not _assigned(line)] == []
    assert len(lines) == sum(len(cls.__struct_fields__) for cls in SECTIONS.values())


def test_the_ranges_that_the_comments_name_are_the_ones_that_hold(tmp_path: Path) -> None:
    section, ranges = "", 0
    for line in DEFAULT_FILE.read_text().splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        if (given := _assigned(line)) and (limits := re.search(r"(\d+) to (\d+)", given[3])):
            low, high = int(limits[1]), int(limits[2])
            for value in (low, high):
                load(_written(tmp_path, f"[{section}]\n{given[1]} = {value}"), {})
            for value in (low - 1, high + 1):
                _says(_faults(_written(tmp_path, f"[{section}]\n{given[1]} = {value}"))[0], str(value))
            ranges += 1
    assert ranges > 10


def test_a_comment_names_every_word_that_a_key_may_be(tmp_path: Path) -> None:
    comments = {
        match[1]: match[3] for match in map(_assigned, DEFAULT_FILE.read_text().splitlines()) if match
    }
    for cls in SECTIONS.values():
        for field in msgspec.structs.fields(cls):
            for word in msgspec.json.schema(field.type).get("enum", ()):
                assert re.search(rf"\b{word}\b", comments[field.name]), (field.name, word)


def test_without_a_file_the_defaults_hold_and_the_data_is_kept_beside_config_toml() -> None:
    assert load(environment={}) == Settings(directory=DEFAULT_FILE.parent / "data")


# The data directory when no file sets it: in a checkout, and in an installed package


def _package(folder: Path, *beside: str) -> Path:
    """A package as the settings see it: a folder with config.toml and the files `beside` it."""
    package = folder / "site-packages" / "tally"
    package.mkdir(parents=True)
    shutil.copy(DEFAULT_FILE, package)
    for name in beside:
        (package / name).touch()
    return package


def _databases(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "customers.db").touch()
    return folder


def test_a_checkout_keeps_its_data_beside_config_toml_whatever_the_environment(tmp_path: Path) -> None:
    package = _package(tmp_path, "pyproject.toml")
    environment = {"HOME": "/home/ann", "XDG_STATE_HOME": "/state"}
    assert load(None, environment, package).directory == package / "data"


def test_a_relative_directory_in_the_environment_of_a_checkout_is_beside_config_toml(tmp_path: Path) -> None:
    package = _package(tmp_path, "pyproject.toml")
    assert load(None, {"TALLY_DATA_DIRECTORY": "other"}, package).directory == package / "other"


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/tally"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": ""}, "/home/ann/.local/state/tally"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "state"}, "/home/ann/.local/state/tally"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "/state"}, "/state/tally"),
        ({"XDG_STATE_HOME": "/state"}, "/state/tally"),
        ({"HOME": "/home/ann", "TALLY_DATA_DIRECTORY": "/srv/tally"}, "/srv/tally"),
    ],
    ids=["a home", "an empty XDG_STATE_HOME", "a relative one", "an absolute one", "no home", "set"],
)
def test_an_installed_tally_keeps_its_data_where_the_user_keeps_state(
    tmp_path: Path, environment: dict[str, str], directory: str
) -> None:
    assert load(None, environment, _package(tmp_path)).directory == Path(directory)


@pytest.mark.parametrize("value", ["here", "data"])
def test_a_relative_directory_in_the_environment_of_an_installed_tally_is_in_the_current_folder(
    tmp_path: Path, value: str
) -> None:
    package = _package(tmp_path)
    with contextlib.chdir(tmp_path):
        assert load(None, {"TALLY_DATA_DIRECTORY": value}, package).directory == Path.cwd() / value


def test_an_installed_tally_with_a_file_keeps_its_data_beside_that(tmp_path: Path) -> None:
    file, package = _written(tmp_path, ""), _package(tmp_path)
    _databases(package / "data")
    assert load(file, {"XDG_STATE_HOME": "/state"}, package).directory == tmp_path / "data"
    assert load(file, {"TALLY_DATA_DIRECTORY": "other"}, package).directory == tmp_path / "other"


@pytest.mark.parametrize("written", ["/srv/tally", "sub/data"])
def test_a_directory_that_was_written_into_the_installed_config_toml_stays_as_it_was(
    tmp_path: Path, written: str
) -> None:
    package = _package(tmp_path)
    (package / "config.toml").write_text(f'[data]\ndirectory = "{written}"')
    assert load(None, {"XDG_STATE_HOME": "/state"}, package).directory == package / written


def test_without_home_in_the_environment_it_is_the_one_that_the_system_knows(tmp_path: Path) -> None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert load(None, {}, _package(tmp_path)).directory == home / ".local" / "state" / "tally"


def test_a_home_that_is_no_path_is_one_fault_that_names_what_can_be_set(tmp_path: Path) -> None:
    (line,) = _faults(None, {"HOME": "ann"}, _package(tmp_path))
    _says(line, "data.directory", "found no home", "expected ", "XDG_STATE_HOME", "TALLY_DATA_DIRECTORY")


def test_a_user_that_the_system_does_not_know_is_told_to_set_a_directory(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    code = (
        "import os, pathlib, sys, tally.config\n"
        "os.setresuid(54321, 0, 0)\n"
        "tally.config.load(None, {}, pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, _package(tmp_path)], capture_output=True, text=True, timeout=20
    )
    _says(done.stderr.splitlines()[-1], "InvalidSettings", "data.directory", "found no home")


def test_data_in_the_package_as_release_0_1_0_kept_it_is_one_fault_that_tells_how_to_move_it(
    tmp_path: Path,
) -> None:
    package, state = _package(tmp_path), tmp_path / "a home" / "state"
    old, new = _databases(package / "data"), state / "tally"
    (line,) = _faults(None, {"XDG_STATE_HOME": str(state)}, package)
    _says(line, "data.directory", str(old), str(new), "expected ")
    subprocess.run(["sh", "-c", line.rpartition("then: ")[2]], check=True)
    assert load(None, {"XDG_STATE_HOME": str(state)}, package).directory == new
    assert (new / "customers.db").exists()
    assert not old.exists()


def test_data_in_the_package_is_left_there_once_there_is_some_at_its_new_place(tmp_path: Path) -> None:
    package = _package(tmp_path)
    _databases(package / "data")
    new = _databases(tmp_path / "state" / "tally")
    assert load(None, {"XDG_STATE_HOME": str(tmp_path / "state")}, package).directory == new


def test_data_in_the_package_can_be_kept_there_by_saying_so(tmp_path: Path) -> None:
    package = _package(tmp_path)
    old = _databases(package / "data")
    assert load(None, {"TALLY_DATA_DIRECTORY": str(old)}, package).directory == old


# The user's own file


def test_an_empty_file_changes_nothing_but_where_the_data_is(tmp_path: Path) -> None:
    assert load(_written(tmp_path, ""), {}) == Settings(directory=tmp_path / "data")


def test_a_file_may_hold_only_what_differs(tmp_path: Path) -> None:
    settings = load(_written(tmp_path, '[accounts]\nport = 9999\n[redis]\nembedded = "never"\n'), {})
    expected = Settings(directory=tmp_path / "data")
    expected = msgspec.structs.replace(
        expected,
        accounts=msgspec.structs.replace(expected.accounts, port=9999),
        redis=msgspec.structs.replace(expected.redis, embedded="never"),
    )
    assert settings == expected


def test_a_whole_number_will_do_where_a_fraction_is_possible(tmp_path: Path) -> None:
    file = _written(
        tmp_path, "[supervisor]\nheartbeat_timeout = 3\nstop_timeout = 2.5\n[data]\nretention_days = 1.5"
    )
    settings = load(file, {})
    assert (settings.supervisor.heartbeat_timeout, settings.supervisor.stop_timeout) == (3, 2.5)
    assert settings.data.retention_days == 1.5


def test_a_relative_data_directory_is_beside_the_file_wherever_one_is(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    file = _written(tmp_path / "etc", '[data]\ndirectory = "state/tally"')
    assert load(file, {}).directory == tmp_path / "etc" / "state" / "tally"
    with contextlib.chdir(tmp_path / "elsewhere"):
        assert load(file, {}).directory == tmp_path / "etc" / "state" / "tally"


def test_the_data_directory_is_absolute_when_the_file_is_named_relatively(tmp_path: Path) -> None:
    _written(tmp_path, '[data]\ndirectory = "state"')
    with contextlib.chdir(tmp_path):
        assert load(Path("tally.toml"), {}).directory == Path.cwd() / "state"


def test_an_absolute_data_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert load(_written(tmp_path, '[data]\ndirectory = "/srv/tally"'), {}).directory == Path("/srv/tally")


def test_a_relative_data_directory_from_the_environment_is_beside_the_file_too(tmp_path: Path) -> None:
    file = _written(tmp_path, '[data]\ndirectory = "state"')
    assert load(file, {"TALLY_DATA_DIRECTORY": "other"}).directory == tmp_path / "other"


# The environment


@pytest.mark.parametrize(
    ("name", "raw", "section", "key", "value"),
    [
        ("TALLY_CUSTOMERS_PORT", "8123", "customers", "port", 8123),
        ("TALLY_CONSUMERS_CLAIM_IDLE_MS", "250", "consumers", "claim_idle_ms", 250),
        ("TALLY_SUPERVISOR_STOP_TIMEOUT", "3", "supervisor", "stop_timeout", 3.0),
        ("TALLY_DATA_RETENTION_DAYS", "1.5", "data", "retention_days", 1.5),
        ("TALLY_CUSTOMERS_REQUIRE_ACCOUNT", "false", "customers", "require_account", False),
        ("TALLY_REDIS_URL", "redis://redis.internal:6380/2", "redis", "url", "redis://redis.internal:6380/2"),
        ("TALLY_REDIS_EMBEDDED", "always", "redis", "embedded", "always"),
        ("TALLY_DATA_DIRECTORY", "123", "data", "directory", "123"),
    ],
)
def test_the_environment_wins_over_the_file(
    tmp_path: Path, name: str, raw: str, section: str, key: str, value: object
) -> None:
    file = _written(
        tmp_path,
        "[customers]\nport = 7000\nrequire_account = true\n[consumers]\nclaim_idle_ms = 7000\n"
        '[supervisor]\nstop_timeout = 7\n[data]\ndirectory = "seven"\nretention_days = 70\n'
        '[redis]\nurl = "redis://127.0.0.1:6380/0"\nembedded = "never"\n',
    )
    seen = getattr(getattr(load(file, {name: raw}), section), key)
    assert (type(seen), seen) == (type(value), value)
    assert getattr(getattr(load(file, {}), section), key) != value


def test_a_mark_of_utf_8_before_the_settings_is_passed_over(tmp_path: Path) -> None:
    file = _written(tmp_path, "\ufeff[customers]\nport = 8123")
    assert load(file, {}).customers.port == 8123


@pytest.mark.parametrize(("raw", "value"), [("true", True), ("True", True), ("false", False)])
def test_a_truth_value_can_be_set_in_the_environment(tmp_path: Path, raw: str, value: bool) -> None:
    environment = {"TALLY_CUSTOMERS_REQUIRE_ACCOUNT": raw}
    assert load(_written(tmp_path, ""), environment).customers.require_account is value


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_can_be_set_in_the_environment(tmp_path: Path, section: str) -> None:
    defaults: dict[str, Any] = msgspec.structs.asdict(SECTIONS[section]())
    for key, default in defaults.items():
        raw = str(default).lower() if isinstance(default, bool) else str(default)
        settings = load(_written(tmp_path, ""), {f"TALLY_{section}_{key}".upper(): raw})
        assert getattr(getattr(settings, section), key) == default


@pytest.mark.parametrize(
    "name",
    [
        "TALLY_PORT",  # Kubernetes, for a service `tally`
        "TALLY_PORT_8080_TCP_ADDR",
        "TALLY_SERVICE_HOST",
        "TALLY_WEB_PORT_80_TCP",  # and for `tally-web`
        "TALLY_WEB_SERVICE_PORT_HTTP",
        "TALLY_TOKEN",  # of commands
        "TALLY_TEST_REDIS_IMAGE",  # used by the tests themselves
        "TALLY_TEST_REQUIRE_ENGINES",
        "TALLY",
        "TALLY_",
        "MY_TALLY_REDIS_URL",
        "REDIS_URL",
    ],
)
def test_names_outside_the_sections_are_left_alone(tmp_path: Path, name: str) -> None:
    assert load(_written(tmp_path, ""), {name: "anything"}) == Settings(directory=tmp_path / "data")


# Faults: one line each, with the file or variable, the key, the found value and the expected value


@pytest.mark.parametrize(
    ("text", "key", "found", "expected"),
    [
        ('[customers]\nport = "8080"', "customers.port", "'8080'", "whole number from 1 to 65535"),
        ("[customers]\nport = true", "customers.port", "True", "whole number from 1 to 65535"),
        ("[customers]\nport = 8080.5", "customers.port", "8080.5", "whole number from 1 to 65535"),
        ("[customers]\nport = 2026-01-01", "customers.port", "", "whole number from 1 to 65535"),
        ("[customers]\nrequire_account = 1", "customers.require_account", "1", "true or false"),
        ('[customers]\nrequire_account = "true"', "customers.require_account", "'true'", "true or false"),
        ("[customers]\nhost = 127", "customers.host", "127", "text"),
        ("[data]\ndirectory = [1]", "data.directory", "[1]", "text"),
        ('[data]\ndirectory = ""', "data.directory", "''", "text"),
        ('[data]\nretention_days = "7"', "data.retention_days", "'7'", "a number"),
        ("[data]\nretention_days = 0", "data.retention_days", "0", "3650"),
        ("[data]\nretention_days = nan", "data.retention_days", "nan", "3650"),
        ("[data]\nretention_days = 3651", "data.retention_days", "3651", "3650"),
        ("[supervisor]\nstop_timeout = 0.5", "supervisor.stop_timeout", "0.5", "from 1 to 3600"),
        ("[supervisor]\nstop_timeout = inf", "supervisor.stop_timeout", "inf", "from 1 to 3600"),
        ("[accounts]\nport = 0", "accounts.port", "0", "from 1 to 65535"),
        ("[accounts]\nport = 65536", "accounts.port", "65536", "from 1 to 65535"),
        ("[accounts]\nprocesses = 0", "accounts.processes", "0", "from 1 to 64"),
        ("[accounts]\nthreads = -1", "accounts.threads", "-1", "from 1 to 256"),
        ("[consumers]\naccounts = 65", "consumers.accounts", "65", "from 1 to 64"),
        ("[consumers]\nbatch = 10001", "consumers.batch", "10001", "from 1 to 10000"),
        ("[consumers]\nclaim_idle_ms = 99", "consumers.claim_idle_ms", "99", "from 100 to 3600000"),
        ("[consumers]\nmax_deliveries = 101", "consumers.max_deliveries", "101", "from 1 to 100"),
        ('[redis]\nurl = "127.0.0.1:6379"', "redis.url", "", "redis"),
        ('[redis]\nurl = "http://127.0.0.1"', "redis.url", "", "redis"),
        ('[redis]\nstream = ""', "redis.stream", "''", "text"),
        ('[redis]\nstream = "a{b}"', "redis.stream", "'a{b}'", "text"),
        ('[redis]\nembedded = "sometimes"', "redis.embedded", "'sometimes'", "one of always, auto, never"),
        ("[redis]\nembedded = true", "redis.embedded", "True", "one of always, auto, never"),
        ('[log]\nlevel = "loud"', "log.level", "'loud'", "one of debug, error, info, warning"),
        ('[log]\nformat = "xml"', "log.format", "'xml'", "one of auto, json, text"),
        ('[auth]\nmode = "maybe"', "auth.mode", "'maybe'", "one of"),
        ("[redis]\nfoo = 1", "redis.foo", "an unknown key", "one of url, stream, embedded"),
        ("[radish]\nurl = 1", "radish", "unknown section", "redis"),
        ("port = 8080", "port", "unknown section", "customers"),
        ("redis = 5", "redis", "5", "[redis]"),
        ("[[redis]]\nembedded = 'auto'", "redis", "", "[redis]"),
    ],
    ids=lambda part: " ".join(part.split()),
)
def test_a_fault_in_the_file_is_a_line_that_says_what_was_found_and_expected(
    tmp_path: Path, text: str, key: str, found: str, expected: str
) -> None:
    file = _written(tmp_path, text)
    (line,) = _faults(file)
    _says(line, str(file), key, f"found {found}", "expected ", expected)


@pytest.mark.parametrize(
    ("name", "raw", "key", "expected"),
    [
        ("TALLY_CUSTOMERS_PORT", "eighty", "customers.port", "whole number from 1 to 65535"),
        ("TALLY_CUSTOMERS_PORT", "", "customers.port", "whole number from 1 to 65535"),
        ("TALLY_CUSTOMERS_PORT", "70000", "customers.port", "whole number from 1 to 65535"),
        ("TALLY_CUSTOMERS_REQUIRE_ACCOUNT", "maybe", "customers.require_account", "true or false"),
        ("TALLY_SUPERVISOR_STOP_TIMEOUT", "nan", "supervisor.stop_timeout", "from 1 to 3600"),
        ("TALLY_DATA_DIRECTORY", "", "data.directory", "text"),
        ("TALLY_REDIS_EMBEDDED", "sometimes", "redis.embedded", "one of always, auto, never"),
    ],
)
def test_a_fault_in_the_environment_is_a_line_that_names_the_variable(
    tmp_path: Path, name: str, raw: str, key: str, expected: str
) -> None:
    (line,) = _faults(_written(tmp_path, ""), {name: raw})
    _says(line, name, key, f"found {raw!r}", "expected ", expected)


@pytest.mark.parametrize(
    "name", ["TALLY_DATA_DIRECTORY", "TALLY_REDIS_URL", "TALLY_REDIS_STREAM", "TALLY_ACCOUNTS_HOST"]
)
def test_bytes_that_are_no_text_are_a_fault(tmp_path: Path, name: str) -> None:
    """SQLite, Redis and JSON take UTF-8 alone: `run` ended with a stack."""
    (fault,) = _faults(_written(tmp_path, ""), {name: os.fsdecode(b"/data/\xff")})
    _says(fault, name, "UTF-8")


def test_settings_in_a_folder_whose_name_is_no_text_need_a_data_directory_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (fault,) = _faults(_written(folder, ""))
    _says(fault, "data.directory", "UTF-8")
    assert load(_written(folder, f'[data]\ndirectory = "{tmp_path}"'), {}).directory == tmp_path


def test_an_unknown_key_in_the_environment_is_a_fault(tmp_path: Path) -> None:
    (line,) = _faults(_written(tmp_path, ""), {"TALLY_REDIS_FOO": "1"})
    _says(line, "TALLY_REDIS_FOO", "redis.foo", "unknown key", "expected one of url, stream, embedded")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TALLY_CUSTOMER_PORT", "customers"),
        ("TALLY_ACCOUNT_PORT", "accounts"),
        ("TALLY_CONSUMER_BATCH", "consumers"),
        ("TALLY_LOGS_LEVEL", "log"),
    ],
)
def test_a_mistyped_section_in_the_environment_is_a_fault(tmp_path: Path, name: str, meant: str) -> None:
    (line,) = _faults(_written(tmp_path, ""), {name: "8123"})
    _says(line, name, "found an unknown section", f"expected {meant}")


def test_all_faults_of_the_file_and_the_environment_are_reported_at_once(tmp_path: Path) -> None:
    file = _written(
        tmp_path,
        '[radish]\n[redis]\nfoo = 1\nembedded = "sometimes"\n[accounts]\nport = "x"\nthreads = 1000\n',
    )
    environment = {"TALLY_LOG_LEVEL": "loud", "TALLY_LOG_COLOUR": "red", "TALLY_PORT": "tcp://10.0.0.1:80"}
    faults = _faults(file, environment)
    assert len(faults) == 7
    for part in ("radish", "redis.foo", "redis.embedded", "accounts.port", "accounts.threads"):
        assert [str(file) in line for line in faults if part in line] == [True], part
    for name in environment.keys() - {"TALLY_PORT"}:
        assert len([line for line in faults if name in line]) == 1, name


def test_a_value_that_the_environment_overrides_must_hold_all_the_same(tmp_path: Path) -> None:
    file = _written(tmp_path, "[accounts]\nport = 0")
    (line,) = _faults(file, {"TALLY_ACCOUNTS_PORT": "8091"})
    _says(line, str(file), "accounts.port")


def test_a_fault_is_one_line_whatever_the_names_and_values_hold(tmp_path: Path) -> None:
    file = _written(
        tmp_path, '["a\\nb"]\n[redis]\n"c\\nd" = 1\nembedded = "e\\nf"\n[log]\nlevel = """g\nh"""'
    )
    assert len(_faults(file)) == 4


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    (line,) = _faults(_written(tmp_path, f'[log]\nlevel = "{"x" * 100_000}"'))
    assert len(line) < 1000


# Files that can't be read


@pytest.mark.parametrize(
    "content",
    [
        b"[redis",
        b"[redis]\nurl =\n",
        b"[redis]\nurl = 'a'\nurl = 'b'\n",
        b"[redis]\n[redis]\n",
        b"\xff\xfe[redis]",
        b"PK\x03\x04\x00",
        b"x = " + b"[" * 5000,
    ],
    ids=["torn", "no value", "key twice", "section twice", "not UTF-8", "binary", "deeply nested"],
)
def test_a_file_that_is_no_toml_is_one_fault_that_names_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tally.toml"
    file.write_bytes(content)
    (line,) = _faults(file)
    _says(line, str(file), "found ", "expected TOML")


def test_a_file_that_is_not_there_is_one_fault_that_names_it(tmp_path: Path) -> None:
    (line,) = _faults(tmp_path / "missing.toml")
    _says(line, str(tmp_path / "missing.toml"), "found No such file or directory", "expected a readable")


def test_a_directory_in_place_of_the_file_is_one_fault_that_names_it(tmp_path: Path) -> None:
    (line,) = _faults(tmp_path)
    _says(line, str(tmp_path), "found Is a directory", "expected a readable")


def test_faults_of_the_environment_are_reported_beside_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    faults = _faults(_written(tmp_path, "[redis"), {"TALLY_LOG_LEVEL": "loud", "TALLY_REDIS_FOO": "1"})
    assert len(faults) == 3


# Faults that need more than one key


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "128.0.0.1", " 127.0.0.1"])
@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_a_host_that_others_can_reach_is_refused_while_auth_is_off(
    tmp_path: Path, service: str, host: str
) -> None:
    (line,) = _faults(_written(tmp_path, f'[{service}]\nhost = "{host}"'))
    _says(line, f"{service}.host", f"found {host!r}", "expected ", "auth")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_a_host_that_others_can_reach_is_accepted_with_tokens(tmp_path: Path, host: str) -> None:
    file = _written(tmp_path, f'[customers]\nhost = "{host}"\n[auth]\nmode = "jwt"')
    assert load(file, {}).customers.host == host


def test_the_signing_key_comes_from_the_environment(tmp_path: Path) -> None:
    file = _written(tmp_path, "")
    assert load(file, {"TALLY_AUTH_SIGNING_KEY": "k" * 32}).signing_key == b"k" * 32
    assert load(file, {}).signing_key is None


@pytest.mark.parametrize("key", ["", SECRET, "k" * 31])
def test_a_signing_key_that_is_too_short_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    (line,) = _faults(_written(tmp_path, ""), {"TALLY_AUTH_SIGNING_KEY": key})
    _says(line, "TALLY_AUTH_SIGNING_KEY", f"found {len(key)} bytes", "expected at least 32")
    assert not key or key not in line


def test_a_signing_key_in_the_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = _written(tmp_path, f'[auth]\nsigning_key = "{SECRET * 9}"')
    (line,) = _faults(file)
    _says(line, str(file), "auth.signing_key", "expected it in the environment", "TALLY_AUTH_SIGNING_KEY")
    assert SECRET not in line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_a_loopback_host_is_accepted_while_auth_is_off(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert load(_written(tmp_path, f'[customers]\nhost = "{host}"'), {}).customers.host == host


def test_both_services_on_one_port_are_refused(tmp_path: Path) -> None:
    (line,) = _faults(_written(tmp_path, "[customers]\nport = 8090"))
    _says(line, "accounts.port", "found 8090", "expected ", "customers")


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_redis_on_the_port_of_a_service_is_refused(tmp_path: Path, service: str) -> None:
    written = f'[{service}]\nport = 6379\n[redis]\nurl = "redis://:secret@127.0.0.1"'
    (line,) = _faults(_written(tmp_path, written))
    _says(line, "redis.url", f"found 6379, the port of the {service} service", "expected another")
    assert "secret" not in line


@pytest.mark.parametrize("port", ["x", "99999", "-1"])
def test_a_redis_url_without_a_possible_port_is_refused(tmp_path: Path, port: str) -> None:
    (line,) = _faults(_written(tmp_path, f'[redis]\nurl = "redis://127.0.0.1:{port}/0"'))
    _says(line, "redis.url", "found ", "expected redis://host:port")


def test_both_services_may_have_one_port_on_two_hosts(tmp_path: Path) -> None:
    settings = load(_written(tmp_path, '[customers]\nport = 8090\nhost = "127.0.0.2"'), {})
    assert settings.customers.port == settings.accounts.port


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("customers", "host", "0.0.0.0"),
        ("accounts", "port", 8080),
        ("redis", "url", "redis://127.0.0.1:x/0"),
    ],
)
def test_a_contradiction_names_the_file_or_the_variable_that_it_comes_from(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    file = _written(tmp_path, f"[{section}]\n{key} = {value!r}")
    (line,) = _faults(file)
    _says(line, str(file), f"{section}.{key}")
    name = f"TALLY_{section}_{key}".upper()
    (line,) = _faults(_written(tmp_path, ""), {name: str(value)})
    _says(line, name, f"{section}.{key}")


def test_contradictions_are_reported_together_with_all_other_faults(tmp_path: Path) -> None:
    file = _written(
        tmp_path,
        '[customers]\nhost = "0.0.0.0"\nport = 8090\n[accounts]\nhost = "0.0.0.0"\n'
        '[redis]\nurl = "redis://127.0.0.1:x/0"\n[log]\nlevel = "loud"\n',
    )
    faults = _faults(file, {"TALLY_REDIS_FOO": "1"})
    for part in ("customers.host", "accounts.host", "accounts.port", "redis.url", "log.level", "redis.foo"):
        assert len([line for line in faults if part in line]) == 1, (part, faults)


# The password


@pytest.mark.parametrize(
    "text",
    [
        f'[redis]\nurl = "redis://:{SECRET}@127.0.0.1:x/0"',
        f'[redis]\nurl = "redis://user:{SECRET}@127.0.0.1:99999/0"',
        f'[redis]\nurl = "http://:{SECRET}@127.0.0.1:6379/0"',
        f'[redis]\nurl = "redis:/:{SECRET}@127.0.0.1:6379/0"',
        f'[redis]\nurl = ":{SECRET}@127.0.0.1:6379"',
        f'[redis]\nurl = "redis://:{SECRET}/more@127.0.0.1:6379/0"',
        f'[redis]\nurl = "redis://:more#{SECRET}@127.0.0.1:x/0"',
        f'[redis]\nurl = "redis://:{SECRET}@[::1:6379/0"',
        f'[redis]\nurl = "redis://127.0.0.1:x/0?password={SECRET}"',
        f'[redis]\nurl = ["redis://:{SECRET}@127.0.0.1:6379/0"]',
        f'[redis]\nurl = {{ password = "{SECRET}" }}',
        f'redis = "redis://:{SECRET}@127.0.0.1:6379/0"',
        f'redis_url = "redis://:{SECRET}@127.0.0.1:6379/0"',
        f'[redis]\nuri = "redis://:{SECRET}@127.0.0.1:6379/0"',
        f'[redis]\nurl = "redis://:{SECRET}@127.0.0.1:6379/0',
    ],
    ids=[
        "port no number",
        "port too high",
        "other scheme",
        "one slash",
        "no scheme",
        "slash in it",
        "hash in it",
        "bracket",
        "in the query",
        "in a list",
        "in a table",
        "for a section",
        "for an unknown section",
        "for an unknown key",
        "torn file",
    ],
)
def test_the_password_in_the_redis_url_is_not_shown(tmp_path: Path, text: str) -> None:
    assert SECRET not in "\n".join(_faults(_written(tmp_path, text)))


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@127.0.0.1:x/0", f"http://:{SECRET}@127.0.0.1", f":{SECRET}@127.0.0.1"]
)
def test_the_password_in_the_environments_redis_url_is_not_shown(tmp_path: Path, url: str) -> None:
    faults = _faults(_written(tmp_path, ""), {"TALLY_REDIS_URL": url})
    assert SECRET not in "\n".join(faults)
    _says(faults[0], "TALLY_REDIS_URL", "redis.url")


# Files for TLS


def test_files_for_tls_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    file = _written(tmp_path, '[redis]\nurl = "rediss+sentinel://a,b/main"\nca_file = "ca.crt"')
    address = load(file, {}).redis.address
    assert address.files == {"ssl_ca_certs": str(tmp_path / "ca.crt")}


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ('url = "redis://h"\nca_file = "ca.crt"', "redis.ca_file", "a file for TLS"),
        ('url = "rediss://h"\nca_file = "none.crt"', "redis.ca_file", "none.crt"),
        ('url = "rediss://h"\ncert_file = "ca.crt"', "redis.key_file", "no file"),
        ('url = "rediss://h"\nkey_file = "ca.crt"', "redis.cert_file", "no file"),
        ('url = "redis+sentinel://h"', "redis.url", "not shown"),
    ],
)
def test_files_for_tls_that_do_not_fit_are_told(tmp_path: Path, text: str, name: str, found: str) -> None:
    (tmp_path / "ca.crt").touch()
    (line,) = _faults(_written(tmp_path, f"[redis]\n{text}"))
    _says(line, name, found)
