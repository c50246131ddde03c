"""Fixtures for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from support import engines
from support.tally import Tally, running

# A shell has what it runs in the background ignore Ctrl-C, and all that is started there inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# An example that takes long on a busy machine is no fault.
hypothesis.settings.register_profile("tally", deadline=None)
hypothesis.settings.load_profile("tally")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the file that takes longest begin before the many that are short, not at the end, alone."""
    items.sort(key=lambda item: (_RANK.get(item.path.parent.name, 0), item.path.stem != "test_schemathesis"))


_WHOLE = {"tally", "on_engine", "shared", "recording"}  # fixtures that are a whole Tally on an engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of parts runs on every engine, one of a whole Tally on the bundled, oldest and newest one."""
    if "engine" in metafunc.fixturenames:
        names = engines.ENDS if _WHOLE & {*metafunc.fixturenames} else engines.NAMES
        metafunc.parametrize("engine", names, indirect=True, scope="session")


_RANK = {"integration": 1, "unit": 2}  # browsers and faults first, as it is in the order of the names


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis; the tests that use it run once for each engine."""
    with engines.started(request.param, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(engine: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(engine) as client:
        client.flushall()
    return engine


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of an empty Redis, to look with."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def tally(tmp_path: Path, redis_url: str) -> Iterator[Tally]:
    """A running Tally of its own, on an empty Redis."""
    with running(tmp_path, redis_url=redis_url) as tally:
        yield tally
