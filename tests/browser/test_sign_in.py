"""Signing in, against stand-ins for services with authentication on."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from support.browser import Person
from support.guarded import Guarded, guarded


@pytest.fixture(scope="module")
def services() -> Iterator[Guarded]:
    with guarded() as services:
        yield services


def _sign_in(page: Page, password: str = "correct horse") -> None:
    page.get_by_label("User name").fill("ana")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize(
    ("service", "secret"), [("accounts", "A secret account"), ("customers", "A secret customer")]
)
def test_who_has_no_token_is_asked_once_and_sees_everything_then(
    person: Person, services: Guarded, service: str, secret: str
) -> None:
    page = person.page
    page.goto(f"http://localhost:{getattr(services.ports, service)}/")
    dialog = page.get_by_role("dialog", name="Sign in to Tally")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("User name")).to_be_focused()
    expect(page.get_by_text(secret)).to_have_count(0)
    _sign_in(page, "wrong")
    expect(dialog.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    _sign_in(page)
    expect(page.locator("tbody").get_by_text(secret)).to_be_visible()
    expect(page.locator("#strip")).to_contain_text("All is well")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()
    expect(page.locator("tbody").get_by_text(secret)).to_be_visible()
    person.expects("401")


def test_who_signs_out_leaves_nothing_to_see(person: Person, services: Guarded) -> None:
    page = person.page
    page.goto(f"http://localhost:{services.ports.accounts}/")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    _sign_in(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    expect(page.get_by_text("A secret account")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    person.expects("401")


def test_when_the_token_ends_one_is_asked_again_and_goes_on(person: Person, services: Guarded) -> None:
    page = person.page
    page.goto(f"http://localhost:{services.ports.accounts}/")
    _sign_in(page)
    expect(page.locator("tbody").get_by_text("A secret account")).to_be_visible()
    services.revoked.set()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    _sign_in(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("tbody").get_by_text("A secret account")).to_be_visible()
    person.expects("401")
