"""The file of a secret: created once, readable by its owner only."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tally.store.key_file import SIGNING_KEY, UnusableKey

load = SIGNING_KEY.load


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    key = load(tmp_path)
    assert len(key) >= 32
    assert load(tmp_path) == key
    (file,) = tmp_path.iterdir()
    assert file.name == SIGNING_KEY.name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_umask_opens_the_key_to_nobody(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / SIGNING_KEY.name).stat().st_mode) == 0o600


def test_no_two_keys_are_the_same(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in "ab"]
    for directory in directories:
        directory.mkdir()
    assert load(directories[0]) != load(directories[1])


def test_those_who_come_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(load, [tmp_path] * 64))
    assert len(keys) == 1
    assert [file.name for file in tmp_path.iterdir()] == [SIGNING_KEY.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610, 0o644])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    key = load(tmp_path)
    file = tmp_path / SIGNING_KEY.name
    file.chmod(mode)
    with pytest.raises(UnusableKey, match=f"{SIGNING_KEY.name}.*{mode:04o}.*delete it"):
        load(tmp_path)
    assert file.read_bytes().strip() == key


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"x" * 31 + b"\n"])
def test_a_key_that_is_too_short_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / SIGNING_KEY.name
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(UnusableKey, match="delete it"):
        load(tmp_path)


def test_a_key_that_an_operator_put_there_is_taken(tmp_path: Path) -> None:
    file = tmp_path / SIGNING_KEY.name
    file.touch(0o600)
    file.write_bytes(b"x" * 32 + b"\n")
    assert load(tmp_path) == b"x" * 32


def test_a_directory_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")
