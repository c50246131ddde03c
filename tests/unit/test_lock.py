"""The pinned packages: every required package, in a version that was asked for, each with hashes.

A pin with a marker applies to some machines only, so the tests look up pins for one machine at a time.
`.ci/wheels` asks the index whether each pin can really be installed there.
"""

import configparser
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-test.lock"]

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
DEBIAN_12 = "3.11.2"
PYTHONS = [DEBIAN_12, *re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)]
PROCESSORS = ["x86_64", "aarch64"]


class Pin(NamedTuple):
    """An entry of a lock: a package in one version, perhaps for some machines only."""

    package: Requirement
    hashes: frozenset[str]

    @property
    def version(self) -> str:
        """The only version that fits."""
        (specifier,) = self.package.specifier
        assert specifier.operator == "=="
        return specifier.version


def _pins(lock: str) -> list[Pin]:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    entries = [
        line.split("--hash=sha256:") for line in text.splitlines() if line and not line.startswith("#")
    ]
    return [Pin(Requirement(package), frozenset(map(str.strip, hashes))) for package, *hashes in entries]


def _machine(python: str, processor: str) -> dict[str, str]:
    """The values of environment markers on a Linux machine with that Python and processor."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": processor,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": python if python.count(".") == 2 else f"{python}.9",
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def _applies(package: Requirement, machine: dict[str, str]) -> bool:
    return package.marker is None or package.marker.evaluate(machine)


def _pinned(lock: str, machine: dict[str, str]) -> dict[NormalizedName, Pin]:
    """The pin of each package that is installed from a lock on that machine."""
    pins = [pin for pin in _pins(lock) if _applies(pin.package, machine)]
    by_name = {canonicalize_name(pin.package.name): pin for pin in pins}
    assert len(by_name) == len(pins), "a package is pinned twice for one machine"
    return by_name


def _asked(lock: str, machine: dict[str, str]) -> list[Requirement]:
    """The requirements of Tally and its build there. The lock of the tests adds those of its extras."""
    texts = [SETUP["options"]["install_requires"]]
    if lock == "requirements-test.lock":
        texts += SETUP["options.extras_require"].values()
    lines = [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    lines += tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return [package for package in map(Requirement, lines) if _applies(package, machine)]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_is_asked_for_on_each_machine(lock: str, python: str, processor: str) -> None:
    machine = _machine(python, processor)
    pins = _pinned(lock, machine)
    missing = [
        str(asked)
        for asked in _asked(lock, machine)
        if (name := canonicalize_name(asked.name)) not in pins
        or not asked.specifier.contains(pins[name].version)
    ]
    assert missing == [], "run .ci/lock"


def test_every_supported_python_is_looked_at() -> None:
    assert PYTHONS == [DEBIAN_12, "3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("lock", LOCKS)
def test_debian_12_gets_what_newer_pythons_do_without(lock: str) -> None:
    """redis-py needs async-timeout before 3.11.3."""
    assert "async-timeout" in _pinned(lock, _machine(DEBIAN_12, "x86_64"))
    assert "async-timeout" not in _pinned(lock, _machine("3.11.3", "x86_64"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pinned_package_has_hashes_and_none_comes_from_a_named_place(lock: str) -> None:
    assert [str(pin.package) for pin in _pins(lock) if not pin.hashes] == []
    assert all(re.fullmatch("[0-9a-f]{64}", hash) for pin in _pins(lock) for hash in pin.hashes)
    assert not re.search(r"://|^-|@ ", (ROOT / lock).read_text(), re.MULTILINE)


def test_ci_tests_with_the_versions_that_tally_is_to_run_with() -> None:
    tested = {str(pin.package): pin.hashes for pin in _pins("requirements-test.lock")}
    runs = {str(pin.package): pin.hashes for pin in _pins("requirements.lock")}
    assert {package: tested.get(package) for package in runs} == runs
