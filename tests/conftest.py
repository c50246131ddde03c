"""Fixtures for all tests."""

import gc
import signal
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
import structlog

from support import engines
from support.tally import Tally, running
from tally.commands.command_line import OBJECTS

# A shell makes its background processes ignore Ctrl-C, and all their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


gc.set_threshold(OBJECTS)  # as Tally does

# Where parts log in this process, a stack with all variables and colours would take a second of a processor.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# A slow example on a busy machine is no fault.
hypothesis.settings.register_profile("tally", deadline=None)
hypothesis.settings.load_profile("tally")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the tests of a whole Tally over the engines. The slowest file comes first, unit tests last.

    All others are mixed: a file that keeps processors busy runs beside one that waits.
    """
    dealt = {*_dealt(items)}
    config.hook.pytest_deselected(items=[item for item in items if item not in dealt])
    items[:] = sorted(
        (item for item in items if item in dealt),
        key=lambda item: (
            item.path.parent.name == "unit",
            item.path.stem != "test_schemathesis",
            item.path.stem,
            str(item.path),
        ),
    )


_WHOLE = {"tally", "on_engine", "shared", "recording"}  # fixtures that are a whole Tally on an engine


def _dealt(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """A test of parts runs on every engine. Each case of a whole Tally's test runs on one, in turn.

    A test with a single case runs on two. The file's name decides on which.
    """
    cases: defaultdict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if _is_of_a_whole_tally(item):
            function, _, _ = item.nodeid.partition("[")
            cases[function][_case(item)].append(item)
        else:
            yield item
    for function, by_case in cases.items():
        start = zlib.crc32(function.partition("::")[0].encode())
        for number, on_engines in enumerate(by_case.values(), start):
            yield on_engines[number % len(on_engines)]
            if len(by_case) == 1 and len(on_engines) > 1:
                yield on_engines[(number + 1) % len(on_engines)]


def _is_of_a_whole_tally(item: pytest.Item) -> bool:
    names = {*getattr(item, "fixturenames", ())}
    return "engine" in names and bool(_WHOLE & names or item.get_closest_marker("whole"))


def _case(item: pytest.Item) -> str:
    """The test's parameters without the engine: they tell it from its function's other tests."""
    parameters = {**item.callspec.params} if isinstance(item, pytest.Function) else {}
    parameters.pop("engine", None)
    return repr(parameters)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs an engine once for each engine."""
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", engines.NAMES, indirect=True, scope="session")


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
