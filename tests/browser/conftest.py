"""One Chromium and one Tally for all tests of the pages; each test has a window of its own."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.browser import OpenWindow, Person, chromium
from support.shop import Shop
from support.tally import Tally, running


# For the package, not the session: while Playwright runs, asyncio reports a running loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")  # no file of tests meets what another has recorded
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with running(tmp_path_factory.mktemp("pages")) as tally:
        # Account 1, for customers to which a test gives no account of their own.
        assert tally.accounts.post("/accounts", {"name": "everyone", "owned_by": "all"})["id"] == "1"
        yield tally


@pytest.fixture
def window(browser: Browser) -> Iterator[OpenWindow]:
    """Opens windows, with Playwright's options for a context, and collects their complaints."""
    people: list[Person] = []

    def open_window(**options: Any) -> Person:
        people.append(Person(browser, **options))
        return people[-1]

    yield open_window
    for person in people:
        person.leave()


@pytest.fixture
def person(window: OpenWindow) -> Person:
    return window()


@pytest.fixture
def shop(tally: Tally) -> Shop:
    return Shop(tally)
