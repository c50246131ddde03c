"""An empty Tally's pages load the demo: its accounts on one page, its customers on the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from support import users
from support.browser import OpenWindow, Person, look_over
from support.tally import Client, Tally, running
from support.waiting import eventually
from tally.store.demo_data import CUSTOMERS

WINDOWS: list[dict[str, Any]] = [
    {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    for width, height in ((1440, 900), (390, 844))
    for scheme in ("light", "dark")
]


# A test must request this before `window`: the pages poll the Tally, and must be closed first.
@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Tally]:
    with running(tmp_path) as tally:
        yield tally


def _see(page: Page, service: Client) -> None:
    page.goto(f"http://127.0.0.1:{service.port}/")


def test_the_demo_is_loaded_by_two_buttons_and_once_however_often_one_clicks(
    empty: Tally, window: OpenWindow
) -> None:
    people = [window(reduced_motion="reduce", **options) for options in WINDOWS]
    for each in people:
        _see(each.page, empty.accounts)
        expect(each.page.get_by_role("button", name="Load the demo")).to_be_visible()
        look_over(each.page)
    page = people[0].page
    page.get_by_role("button", name="Load the demo").dblclick()
    load = page.get_by_role("button", name="Load the demo's customers")
    expect(load).to_be_visible()
    assert page.url.startswith(f"http://127.0.0.1:{empty.customers.port}/")
    for each in people[1:]:
        expect(each.page.get_by_role("link", name="Harbour Coffee")).to_be_visible()
        expect(each.page.get_by_role("button", name="Load the demo")).to_be_hidden()
        _see(each.page, empty.customers)
        expect(each.page.get_by_role("button", name="Load the demo's customers")).to_be_visible()
        look_over(each.page)
    look_over(page)
    load.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Customers").locator("tbody tr")).to_have_count(25)
    expect(load).to_be_hidden()
    expect(page.get_by_role("heading", name="Customers", level=2)).to_be_focused()
    eventually(empty.settled)
    accounts = empty.accounts.get("/accounts")
    assert sum(len(each["customers"]) for each in accounts) == CUSTOMERS
    _see(page, empty.accounts)
    expect(page.get_by_role("link", name="Harbour Coffee")).to_be_visible()
    look_over(page)


def test_what_somebody_else_has_recorded_meanwhile_is_said_and_nothing_is_loaded(
    empty: Tally, person: Person
) -> None:
    _see(person.page, empty.accounts)
    load = person.page.get_by_role("button", name="Load the demo")
    expect(load).to_be_visible()
    with person.page.expect_event("requestfailed"):  # after that, the page polls no more
        person.page.route("**/accounts/summary?*", lambda route: route.abort())
    empty.accounts.post("/accounts", {"name": "The first", "owned_by": "ana"})
    load.click()
    expect(person.page.locator("#demo-trouble")).to_contain_text("There are accounts or customers already")
    person.page.unroute_all()
    expect(person.page.get_by_role("link", name="The first")).to_be_visible()
    _see(person.page, empty.customers)
    expect(person.page.get_by_text("There is no customer yet.")).to_be_visible()
    expect(person.page.get_by_role("button", name="Load the demo's customers")).to_be_hidden()
    assert len(empty.accounts.get("/accounts")) == 1
    person.expects("409")
    person.expects("ERR_FAILED")


def test_without_the_customers_service_no_account_is_opened(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, "--only", "accounts", "--only", "redis") as tally:
        person = Person(browser)
        _see(person.page, tally.accounts)
        person.page.get_by_role("button", name="Load the demo").click()
        expect(person.page.locator("#demo-trouble")).to_have_text("The customers service does not answer.")
        assert tally.accounts.get("/accounts") == []
        person.expects("ERR_CONNECTION_REFUSED")
        person.leave()


def test_only_admins_are_offered_the_demo(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        users.add(tally, "ana")
        for name in ("ana", "root"):
            person = Person(browser)
            page = person.page
            page.goto(f"http://localhost:{tally.accounts.port}/")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill(users.PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("#begin")).to_contain_text("There is no account yet.")
            expect(page.get_by_role("button", name="Load the demo")).to_be_visible(visible=name == "root")
            person.expects("401")
            person.leave()
