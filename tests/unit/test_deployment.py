"""The settings for systemd and Docker fit Tally."""

import re
import tomllib
from configparser import ConfigParser

import msgspec
import pytest

from support.tally import ROOT
from tally.actors.supervision import Stage
from tally.config import SECTIONS, AccountsSettings, CustomersSettings, SupervisorSettings

UNIT = (ROOT / "docs" / "operations" / "tally.service").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


@pytest.mark.parametrize(("file", "key"), [(UNIT, "TimeoutStopSec="), (COMPOSE, "stop_grace_period: ")])
def test_nobody_is_killed_before_every_stage_had_its_time_to_stop(file: str, key: str) -> None:
    (seconds,) = re.findall(rf"{key}(\d+)", file)
    assert int(seconds) > len(Stage) * SupervisorSettings().stop_timeout


@pytest.mark.parametrize("file", [DOCKERFILE, COMPOSE], ids=["Dockerfile", "compose.yaml"])
def test_containers_are_given_settings_that_there_are(file: str) -> None:
    known = {
        f"TALLY_{section}_{field.name}".upper()
        for section, kind in SECTIONS.items()
        for field in msgspec.structs.fields(kind)
    }
    given = set(re.findall(r"\bTALLY_\w+", file))
    assert given
    assert given <= known


@pytest.mark.parametrize("port", [CustomersSettings().port, AccountsSettings().port])
def test_containers_publish_and_are_asked_at_the_ports_where_they_listen(port: int) -> None:
    assert f"- 127.0.0.1:{port}:{port}\n" in COMPOSE
    assert re.search(rf"^EXPOSE .*\b{port}\b", DOCKERFILE, re.MULTILINE)
    assert re.search(rf"for port in \(.*\b{port}\b", DOCKERFILE)


def test_the_image_has_the_newest_python_that_is_supported_in_both_its_stages() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    newest = re.findall(r"Programming Language :: Python :: (3\.\d+)", setup)[-1]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == [f"python:{newest}-slim"] * 2


def test_the_lock_holds_what_builds_tally_without_the_isolation_that_would_fetch_it() -> None:
    assert "--no-build-isolation" in DOCKERFILE
    (builder,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    name = re.split(r"[^\w-]", builder)[0]
    assert re.search(rf"^{name}==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


def test_the_image_is_built_from_all_that_is_installed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {package.split(".")[1] for package in setup["options"]["packages"].split() if "." in package}
    files = {
        *setup["options.package_data"]["tally"].split(),
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "*.py",
    }
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert folders | files | {"requirements.lock"} == let_in
