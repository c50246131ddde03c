"""The pinned packages: all that setup.cfg asks for, in the versions that it asks for, each with hashes."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-test.lock"]


def _pinned(lock: str) -> dict[str, tuple[str, int]]:
    """Each package of a lock with its version, and how many hashes it has."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = {}
    for entry in entries:
        match = re.match(r"([a-z0-9-]+)==([^ ;]+)", entry)
        assert match, entry
        pins[match[1]] = (match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
    return pins


def _asked(test: bool) -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = setup["options"]["install_requires"]
    if test:
        text += setup["options.extras_require"]["test"]
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_setup_cfg_asks_for(lock: str) -> None:
    pins = _pinned(lock)
    missing = [
        str(asked)
        for asked in _asked(test=lock == "requirements-test.lock")
        if (name := canonicalize_name(asked.name)) not in pins or not asked.specifier.contains(pins[name][0])
    ]
    assert missing == [], "run .ci/lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pinned_package_has_hashes_and_none_comes_from_a_named_place(lock: str) -> None:
    assert [name for name, (_, hashes) in _pinned(lock).items() if not hashes] == []
    assert not re.search(r"://|^-|@ ", (ROOT / lock).read_text(), re.MULTILINE)


def test_ci_tests_with_the_versions_that_tally_is_to_run_with() -> None:
    tested = _pinned("requirements-test.lock")
    runs = _pinned("requirements.lock")
    assert {name: tested.get(name) for name in runs} == runs
